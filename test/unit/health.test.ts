/**
 * The checks of a server and the administrator's hooks: what each finds, that one that hangs holds up nothing, and that
 * no outcome counts before it came often enough.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { leasesText, remainingText } from '../../src/cli/drain.js';
import { parseConfig } from '../../src/daemon/config.js';
import { ConfigError } from '../../src/daemon/errors.js';
import { FolderCheck } from '../../src/daemon/health/folder-check.js';
import { Health } from '../../src/daemon/health/health.js';
import { listHooks, runHook } from '../../src/daemon/health/hook-program.js';
import { Hooks } from '../../src/daemon/health/hooks.js';
import { LoopCheck, SpaceCheck } from '../../src/daemon/health/machine-checks.js';
import { SmbdCheck, negotiateRequest } from '../../src/daemon/health/smbd-check.js';
import { Verdict, Watch } from '../../src/daemon/health/watch.js';
import { DrainFile } from '../../src/host/drain-file.js';
import { waitUntil } from '../../src/lab/run.js';
import { exampleStatus } from '../support/example-status.js';

const UID = process.getuid?.() ?? 0;
/** Far longer than anything here takes on a busy machine. */
const WAIT_MS = 20_000;
const TIMES = { intervalMs: 20, timeoutMs: 500, failures: 2, passes: 2 };

function inFolder(work: (folder: string) => Promise<void>): () => Promise<void> {
  return async () => {
    const folder = mkdtempSync(join(tmpdir(), 'smbpool-health-'));
    // checks and hooks keep no process alive, and what they wait for is all there is here
    const alive = setInterval(() => undefined, WAIT_MS);
    try {
      await work(folder);
    } finally {
      clearInterval(alive);
      rmSync(folder, { recursive: true, force: true });
    }
  };
}

function script(path: string, text: string, mode = 0o755): void {
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, mode);
}

test('only outcomes in a row change the verdict, and its reason stays that of the change', () => {
  const verdict = new Verdict({ failures: 3, passes: 2 });
  const after = (...outcomes: (string | null)[]): string | null => {
    for (const outcome of outcomes) verdict.take(outcome);
    return verdict.reason;
  };
  assert.equal(after('a', 'b', null, 'c', 'd'), null);
  assert.ok(verdict.isDoubted);
  assert.equal(after('e'), 'e');
  assert.equal(after('f', null, 'g', null), 'e');
  assert.equal(after(null), null);
  assert.ok(!verdict.isDoubted);
});

test('a check that hangs fails, runs once only, and passes again when it goes on', async () => {
  let runs = 0;
  let abandoned = 0;
  let goOn: (() => void) | undefined;
  let hangs = false;
  const verdicts: (string | null)[] = [];
  const check = {
    name: 'x',
    run: () => {
      runs += 1;
      return hangs ? new Promise<null>((resolve) => (goOn = () => resolve(null))) : Promise.resolve(null);
    },
    late: (seconds: number) => `late after ${seconds} s`,
    abandon: () => void (abandoned += 1),
  };
  const watch = new Watch(check, { ...TIMES, timeoutMs: 30 }, (_name, reason) => void verdicts.push(reason));
  assert.ok(await waitUntil(() => runs > 2, WAIT_MS, 5));
  hangs = true;
  assert.ok(await waitUntil(() => verdicts.length === 1, WAIT_MS, 5));
  assert.deepEqual(verdicts, ['late after 0.03 s']);
  const before = runs;
  const times = abandoned;
  assert.ok(await waitUntil(() => abandoned > times + 2, WAIT_MS, 5));
  assert.equal(runs, before, 'no second run beside the one that hangs');
  hangs = false;
  goOn?.();
  assert.ok(await waitUntil(() => verdicts.length === 2, WAIT_MS, 5));
  watch.stop();
  assert.deepEqual(verdicts, ['late after 0.03 s', null]);
});

test('a check that throws has failed, for that reason', async () => {
  const verdicts: (string | null)[] = [];
  const check = { name: 'x', run: () => Promise.reject(new Error('no such thing')), late: () => '' };
  const watch = new Watch(check, TIMES, (_name, reason) => void verdicts.push(reason));
  assert.ok(await waitUntil(() => verdicts.length > 0, WAIT_MS, 5));
  watch.stop();
  assert.deepEqual(verdicts, ['no such thing']);
});

/** What the check says of a port where `serve` answers each connection. */
async function smbdSays(serve: (socket: Socket) => void, hasSmbd = true): Promise<string | null> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on('error', () => undefined));
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const check = new SmbdCheck({ address: '127.0.0.1', port }, () => hasSmbd);
  try {
    const late = sleep(300, 'late' as const, { ref: false });
    const outcome = await Promise.race([check.run(), late]);
    check.abandon();
    const said = outcome === 'late' ? check.late(0.3) : outcome;
    return said === null ? null : said.replace(`${port}`, 'PORT');
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

test('smbd answers when it negotiates, refuses, and never when it is silent, ends or is another program', async () => {
  const answer = Buffer.concat([Buffer.from([0, 0, 0, 64]), Buffer.from('\xfeSMB', 'latin1'), Buffer.alloc(60)]);
  const requests: Buffer[] = [];
  const inPieces = (socket: Socket): void => {
    socket.on('data', (request) => {
      requests.push(request);
      socket.write(answer.subarray(0, 30));
      setTimeout(() => socket.write(answer.subarray(30)), 20);
    });
  };
  assert.equal(await smbdSays(inPieces), null);
  assert.deepEqual(requests, [negotiateRequest()]);
  assert.equal(await smbdSays((socket) => void socket.write('x'.repeat(100))),
    'what listens on 127.0.0.1:PORT does not speak SMB2');
  assert.equal(await smbdSays((socket) => void socket.end()),
    'smbd on 127.0.0.1:PORT ends connections without an answer');
  assert.equal(await smbdSays(() => undefined), 'smbd on 127.0.0.1:PORT does not answer within 0.3 s');
  assert.equal(await smbdSays(() => undefined, false), null, 'the core says itself that there is no smbd');
  const closed = new SmbdCheck({ address: '127.0.0.1', port: 1 }, () => true);
  assert.equal(await closed.run(), 'smbd does not listen on 127.0.0.1:1');
});

test('a folder is looked at and written to by a process of its own', inFolder(async (folder) => {
  const share = join(folder, 'a share');
  mkdirSync(share);
  const check = new FolderCheck(share, '.probe');
  assert.equal(await check.run(), null);
  const { pid } = check;
  assert.equal(await check.run(), null);
  assert.equal(check.pid, pid, 'one process for all probes');
  assert.equal(readFileSync(join(share, '.probe'), 'utf8'), '2\n');
  rmSync(share, { recursive: true });
  assert.equal(await check.run(), `the folder ${share}: it is no folder, or not there`);
  mkdirSync(join(share, '.probe'), { recursive: true });
  assert.match((await check.run())!, /a share: cannot create .*Is a directory/);
  rmSync(join(share, '.probe'), { recursive: true });
  assert.equal(await check.run(), null);
  const look = new FolderCheck(share, '');
  assert.equal(await look.run(), null);
  for (const one of [check, look]) one.abandon();
}));

test('a folder that hangs makes the check late, and it passes when the folder goes on', inFolder(async (folder) => {
  const late = `the file system of ${folder} does not answer within 0.5 s`;
  const verdicts: (string | null)[] = [];
  // whoever opens it for writing waits until somebody reads: as long as a file system whose server is gone
  execFileSync('mkfifo', [join(folder, '.probe')]);
  const check = new FolderCheck(folder, '.probe');
  const watch = new Watch(check, TIMES, (_name, reason) => void verdicts.push(reason));
  assert.ok(await waitUntil(() => verdicts.length === 1, WAIT_MS, 10));
  assert.deepEqual(verdicts, [late]);
  rmSync(join(folder, '.probe'));
  assert.ok(await waitUntil(() => verdicts.length === 2, WAIT_MS, 10));
  // a probe that does not go on is ended, and another takes its place: the folder is well
  const stopped = check.pid!;
  process.kill(stopped, 'SIGSTOP');
  assert.ok(await waitUntil(() => ![stopped, undefined].includes(check.pid), WAIT_MS, 10));
  watch.stop();
  assert.deepEqual(verdicts, [late, null]);
  assert.ok(!existsSync(`/proc/${stopped}`) || readFileSync(`/proc/${stopped}/stat`, 'utf8').includes(') Z '));
}));

test('space and the loop are measured', inFolder(async (folder) => {
  assert.equal(await new SpaceCheck(folder, 0).run(), null);
  assert.match((await new SpaceCheck(folder, 2 ** 40).run())!, /has \d+ MiB left, less than the 1099511627776 MiB/);
  const loop = new LoopCheck(400);
  await sleep(250);
  const until = performance.now() + 900;
  while (performance.now() < until);
  await sleep(250);
  assert.match((await loop.run())!, /loop stood still for \d+ ms, longer than 400 ms/);
  assert.equal(await loop.run(), null, 'what was before counts once');
  loop.stop();
}));

test('hooks that others could change are not run', inFolder(async (folder) => {
  const directory = join(folder, 'hooks.d');
  assert.deepEqual(await listHooks(directory, UID), { hooks: [], refused: [] });
  mkdirSync(directory);
  script(join(directory, 'check-a'), 'true');
  script(join(directory, 'event-mail'), 'true');
  script(join(directory, 'check-open'), 'true', 0o775);
  script(join(directory, 'check-text'), 'true', 0o644);
  script(join(directory, 'check-b~'), 'true');
  script(join(directory, '.hidden'), 'true');
  symlinkSync('check-a', join(directory, 'check-link'));
  const { hooks, refused } = await listHooks(directory, UID);
  assert.deepEqual(hooks.map(({ name, kind }) => `${kind} ${name}`), ['check check-a', 'event event-mail']);
  assert.deepEqual(refused.map(({ path, why }) => `${path.slice(directory.length + 1)}: ${why}`), [
    'check-b~: its name is not that of a hook', 'check-link: it is no file', 'check-open: others can write to it',
    'check-text: it cannot be executed',
  ]);
  chmodSync(directory, 0o777);
  const open = await listHooks(directory, UID);
  assert.deepEqual(open.hooks, []);
  assert.equal(open.refused[0]?.why, 'others can write to it');
}));

test('a hook says in its first line what is wrong; nothing waits for what it leaves running', inFolder(
  async (folder) => {
    const run = (text: string): Promise<string | null> => {
      const path = join(folder, 'hook');
      script(path, text);
      return runHook(path, ['check'], { SMBPOOL_SERVER: 'alpha' }).outcome;
    };
    assert.equal(await run('exit 0'), null);
    assert.equal(await run('echo "$SMBPOOL_SERVER $1: no NFS"; echo more; exit 3'), 'alpha check: no NFS');
    assert.equal(await run('exit 3'), 'it ended with exit status 3');
    assert.equal(await run('kill -TERM $$'), 'it was ended by SIGTERM');
    assert.match((await run('head -c 5000000 /dev/zero | tr "\\0" x; exit 1'))!, /^x{300}$/);
    assert.equal(await run('sleep 30 & echo "started $!" >&2; exit 1').then((said) => said?.slice(0, 7)), 'started');
  },
));

test('check hooks make a server unfit while they fail; one that hangs is ended with what it started', inFolder(
  async (folder) => {
    const directory = join(folder, 'hooks.d');
    mkdirSync(directory);
    const failing = new Map<string, string>();
    const hooks = new Hooks({ directory, times: TIMES, variables: {} }, { log: () => undefined }, (name, reason) => {
      if (reason === null) failing.delete(name);
      else failing.set(name, reason);
    });
    hooks.start();
    const says = (text: string) => waitUntil(() => [...failing.values()].join() === text, WAIT_MS, 10);
    script(join(directory, 'check-site'), `test -e ${folder}/good || { echo 'the ups is empty'; exit 1; }`);
    assert.ok(await says('check-site: the ups is empty'));
    writeFileSync(join(folder, 'good'), '');
    assert.ok(await says(''));
    script(join(directory, 'check-site'), `echo $$ > ${folder}/pid; sleep 1000; true`);
    assert.ok(await says('check-site did not end within 0.5 s'));
    const group = readFileSync(join(folder, 'pid'), 'utf8').trim();
    script(join(directory, 'check-site'), 'true');
    assert.ok(await says(''));
    const isGone = async () => {
      const table = execFileSync('ps', ['-eo', 'pgid=,stat='], { encoding: 'utf8' }).split('\n');
      return !table.some((line) => line.trim().split(/\s+/)[0] === group && !line.includes('Z'));
    };
    assert.ok(await waitUntil(isGone, WAIT_MS, 20), 'the hanging hook lives on');
    script(join(directory, 'check-site'), 'false');
    assert.ok(await says('check-site: it ended with exit status 1'));
    rmSync(join(directory, 'check-site'));
    assert.ok(await says(''), 'a hook that was removed fails no more');
    hooks.stop();
  },
));

test('event hooks are told one event after the other, with its fields', inFolder(async (folder) => {
  const directory = join(folder, 'hooks.d');
  mkdirSync(directory);
  const logged: string[] = [];
  const note = (event: string, fields?: object): void => void logged.push(event + JSON.stringify(fields));
  const log = { log: (_level: string, event: string, fields?: object) => note(event, fields) };
  const options = { directory, times: TIMES, variables: { SMBPOOL_SERVER: 'alpha' } };
  const hooks = new Hooks(options, log, () => undefined);
  const line = '$1 $SMBPOOL_EVENT $SMBPOOL_SERVER $SMBPOOL_ADDRESS';
  script(join(directory, 'event-a'), `sleep 0.05; echo "${line}" >> ${folder}/told`);
  script(join(directory, 'event-b'), 'echo "no mail"; exit 1');
  hooks.tell('address-taken', { address: '10.0.0.100/24' });
  hooks.tell('view', { epoch: '7' });
  const file = join(folder, 'told');
  const told = () => existsSync(file) && readFileSync(file, 'utf8').split('\n').length > 2;
  assert.ok(await waitUntil(told, WAIT_MS, 10));
  assert.ok(await waitUntil(() => logged.length === 2, WAIT_MS, 10));
  assert.equal(readFileSync(join(folder, 'told'), 'utf8'),
    'address-taken address-taken alpha 10.0.0.100/24\nview view alpha \n');
  assert.match(logged[0]!, /hook.failed.*"event-b".*"no mail"/);
  for (let i = 0; i < 200; i++) hooks.tell('fit', {});
  assert.match(logged.at(-1)!, /hook.event-dropped/);
  hooks.stop();
}));

const CONFIG = [
  'pool: { name: office, keyFile: /etc/smbpool/pool.key }',
  'server: alpha',
  'servers: [{ id: 0, name: alpha, interface: eth1, address: 10.0.0.1 }]',
];

test('all checks together: what fails is told, with the others that fail', inFolder(async (folder) => {
  const fast = 'intervalMs: 200, timeoutMs: 5000';
  const config = parseConfig('pool.yaml', [
    ...CONFIG,
    `directories: { volatile: ${folder}, persistent: ${folder}/p }`,
    `health: { folders: { paths: [${folder}/share], ${fast} }, space: { volatileMib: 1048576, ${fast} },`,
    `  smbd: { port: 1, ${fast} } }`,
    `hooks: { directory: ${folder}/hooks }`,
  ].join('\n'));
  mkdirSync(join(folder, 'p'));
  const health = new Health(config, { log: () => undefined });
  let reasons: string[] = [];
  health.start({ hasSmbd: () => true, setHealth: (all) => void (reasons = all) });
  assert.ok(await waitUntil(() => reasons.length === 3, WAIT_MS, 20), reasons.join());
  health.stop();
  assert.deepEqual(reasons.map((one) => one.replace(/has \d+/, 'has N')).sort(), [
    `${folder} has N MiB left, less than the 1048576 MiB it should have`,
    'smbd does not listen on 127.0.0.1:1', `the folder ${folder}/share: it is no folder, or not there`,
  ].sort());
}));

test('the configuration of checks: defaults, and sentences for what is wrong', () => {
  const { health, hooks } = parseConfig('pool.yaml', CONFIG.join('\n'));
  assert.deepEqual(health.smbd, {
    check: true, address: '127.0.0.1', port: 445, intervalMs: 5000, timeoutMs: 5000, failures: 2, passes: 2,
  });
  assert.equal(hooks.directory, '/etc/smbpool/hooks.d');
  const refused = (line: string): string => {
    try {
      parseConfig('pool.yaml', [...CONFIG, line].join('\n'));
      return '';
    } catch (error) {
      assert.ok(error instanceof ConfigError);
      return error.message;
    }
  };
  assert.match(refused('health: { smbd: { port: 0 } }'), /pool.yaml:4: health.smbd.port is 0: it must be a whole/);
  assert.match(refused('health: { folders: { paths: [srv] } }'), /health.folders.paths\[0\] .* an absolute path/);
  assert.match(refused('health: { smbs: {} }'), /health.smbs is not a known key: did you mean "smbd"\?/);
  assert.equal(health.drain.leasesMs, 10_000);
  assert.match(refused('health: { drain: { leasesMs: -1 } }'), /health.drain.leasesMs is -1: it must be a whole/);
  assert.match(refused('hooks: { intervalMs: 1 }'), /hooks.intervalMs is 1: it must be a whole number from 200 to/);
});

test('that a server is drained is kept on disk', inFolder(async (folder) => {
  const file = new DrainFile(folder);
  assert.equal(file.isThere(), false);
  assert.equal(await file.save(true), null);
  assert.equal(await file.save(true), null);
  assert.equal(new DrainFile(folder).isThere(), true);
  assert.deepEqual(await Promise.all([file.save(true), file.save(false)]), [null, null]);
  assert.equal(file.isThere(), false);
  assert.match((await new DrainFile(join(folder, 'nowhere')).save(true))!, /cannot be written: .*; see why the disk/);
}));

test('what remains on a drained server', () => {
  const [, beta, gamma] = exampleStatus().servers;
  const address = {
    address: '10.0.0.100', prefixLength: 24, interface: 'eth0', holder: 1, holderName: 'beta', sinceMicros: 1,
    connections: 1,
  };
  assert.match(remainingText(beta!, [address])!, /^beta still has 10.0.0.100: no other server can have them/);
  assert.match(remainingText(beta!, [{ ...address, holder: 0 }])!, /^beta still has clients: 10.0.0.53; they use/);
  const two = { connections: 3, named: ['10.0.0.53', '10.0.0.54'] };
  assert.match(remainingText({ ...beta!, clients: two }, [])!, /10.0.0.53, 10.0.0.54 \(3 connections\); they/);
  assert.equal(remainingText({ ...beta!, clients: { connections: 0, named: [] } }, []), null);
  assert.match(remainingText({ ...beta!, fitness: 'fit' }, [])!, /has not said yet that it drains/);
  assert.equal(remainingText(gamma!, []), null, 'a server that is out has no clients');
});

test('what people read of leases on a drained server', () => {
  const [, beta] = exampleStatus().servers;
  const named = ['lease RWH on pool/a, of 10.0.0.7:1 (D\\bob)'];
  const breaking = { ...beta!, fitness: 'fit', leases: { breaking: true, left: 2, named } } as const;
  assert.equal(leasesText(beta!), '');
  assert.equal(leasesText(breaking), "beta breaks its clients' leases and oplocks first: 2 left\n");
  assert.match(remainingText(breaking, [])!, /^beta still breaks its clients' leases: 2 left$/);
  const left = { ...beta!, leases: { breaking: false, left: 3, named } };
  assert.equal(leasesText(left), 'beta could not break 3 leases in time; '
    + 'what these clients had not written may be lost:\n  lease RWH on pool/a, of 10.0.0.7:1 (D\\bob)\n  and 2 more\n');
});
