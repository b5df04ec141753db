/**
 * smbpoold as a process, alone in its pool, over UDP on the loopback interface: command line, readiness, the sockets,
 * one daemon per directory, clean stop, a higher incarnation each time. Needs the addon, no rights and no network.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import test, { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { writeKey } from '../../src/cli/keygen.js';
import type { StatusReport } from '../../src/ports/status.js';
import { version } from '../../src/ports/version.js';
import { PROTOCOL } from '../../src/wire/protocol-version.js';

const MAIN = fileURLToPath(new URL('../../src/daemon/main.js', import.meta.url));
const WAIT_MS_MAX = 20_000;

const folder = mkdtempSync(join(tmpdir(), 'smbpoold-'));
const running = new Set<ChildProcess>();
after(() => {
  for (const child of running) child.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});

const keyFile = join(folder, 'pool.key');
writeKey(keyFile);

interface Options {
  name: string;
  port: number;
  /** Of the databases; `name` when absent. */
  databases?: string;
  more?: string;
}

/** Writes a configuration of one server and answers its path and those in it. */
function configure({ name, port, databases = name, more = '' }: Options) {
  const paths = {
    config: join(folder, `${name}.yaml`),
    socket: join(folder, `${name}.socket`),
    admin: join(folder, `${name}.admin`),
    log: join(folder, `${name}.log`),
  };
  writeFileSync(
    paths.config,
    `pool: { name: test, keyFile: ${keyFile} }
server: only
servers: [{ id: 0, name: only, address: 127.0.0.1 }]
directories: { volatile: ${join(folder, databases, 'v')}, persistent: ${join(folder, databases, 'p')} }
socket: ${paths.socket}
adminSocket: ${paths.admin}
transport: { kind: udp, port: ${port} }
log: { level: info, file: ${paths.log} }
${more}`,
  );
  return paths;
}

interface Daemon {
  child: ChildProcess;
  ended: Promise<{ status: number | null; out: string; err: string }>;
}

function smbpoold(options: readonly string[], environment: NodeJS.ProcessEnv = {}): Daemon {
  const env = { ...process.env, NOTIFY_SOCKET: '', ...environment };
  const child = spawn(process.execPath, [MAIN, ...options], { stdio: ['ignore', 'pipe', 'pipe'], env });
  running.add(child);
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const ended = new Promise<{ status: number | null; out: string; err: string }>((resolve) => {
    child.on('close', (status) => {
      running.delete(child);
      resolve({ status, out, err });
    });
  });
  return { child, ended };
}

/** Waits for `condition`; fails with what the daemon said when it ended instead. */
async function until(condition: () => boolean, daemon: Daemon, what: string): Promise<void> {
  for (const deadline = Date.now() + WAIT_MS_MAX; Date.now() < deadline; await sleep(20)) {
    if (condition()) return;
    if (daemon.child.exitCode !== null) assert.fail(`no ${what}: ${JSON.stringify(await daemon.ended)}`);
  }
  assert.fail(`no ${what} in ${WAIT_MS_MAX} ms`);
}

function status(path: string): Promise<StatusReport> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: path, path: '/status' }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => resolve(JSON.parse(text) as StatusReport));
    });
    call.on('error', reject).end();
  });
}

const linesOf = (file: string) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { level: string; msg: string });

test('--check-config says that a configuration is good, or every problem, and starts nothing', async () => {
  const { config, socket } = configure({ name: 'check', port: 24_455 });
  assert.deepEqual(await smbpoold(['--config', config, '--check-config']).ended, {
    status: 0,
    out: `${config}: good. This is server only (id 0), one of 1 of pool test.\n`,
    err: '',
  });
  assert.equal(existsSync(socket), false);
  const bad = configure({ name: 'bad', port: 24_455, more: 'sockett: /x\nfaults: { lossPercent: many }\n' });
  assert.deepEqual(await smbpoold(['--config', bad.config, '--check-config']).ended, {
    status: 1,
    out: '',
    err:
      `smbpoold: ${bad.config}:10: faults.lossPercent is "many": it must be a number from 0 to 50; ` +
      `write for example "lossPercent: 2"\n` +
      `smbpoold: ${bad.config}:9: sockett is not a known key: did you mean "socket"?\n`,
  });
});

test('--version prints the version', async () => {
  const { status: code, out } = await smbpoold(['--version']).ended;
  assert.deepEqual([code, /^\d+\.\d+\.\d+\n$/.test(out)], [0, true]);
});

test('it starts, tells systemd, serves, opens its log again, refuses a second daemon, and stops', async () => {
  const paths = configure({ name: 'run', port: 24_456 });
  const told = join(folder, 'told');
  writeFileSync(join(folder, 'systemd-notify'), `#!/bin/sh\necho "$@" >> ${told}\n`);
  chmodSync(join(folder, 'systemd-notify'), 0o755);
  const environment = { NOTIFY_SOCKET: '/fake', PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}` };
  const daemon = smbpoold(['--config', paths.config], environment);
  await until(() => existsSync(told) && readFileSync(told).length > 0, daemon, 'readiness');
  assert.equal(readFileSync(told, 'utf8'), '--ready\n');
  assert.ok(existsSync(paths.socket));

  const report = await status(paths.admin);
  assert.equal(report.poolName, 'test');
  assert.equal(report.pid, daemon.child.pid);
  const only = {
    id: 0, name: 'only', address: '127.0.0.1', up: true, role: 'server', silentMicros: null,
    fitness: 'unfit', reasons: ['no smbd runs on this server'], clients: { connections: 0, named: [] },
    release: version(), speaks: PROTOCOL,
  };
  const [{ state, ...itself }] = report.servers as [(typeof report.servers)[0]];
  assert.deepEqual(itself, only);
  assert.ok(['member', 'joining'].includes(state), state);
  assert.deepEqual(report.awaiting, []);

  const second = configure({ name: 'second', databases: 'run', port: 24_457 });
  const refused = await smbpoold(['--config', second.config]).ended;
  assert.equal(refused.status, 1);
  const inUse = new RegExp(`^smbpoold: the databases in .*run/v are in use .*\\(process ${daemon.child.pid}\\)`);
  assert.match(refused.err, inUse);
  assert.equal((await status(paths.admin)).pid, daemon.child.pid, 'the first serves on');

  renameSync(paths.log, `${paths.log}.1`);
  daemon.child.kill('SIGHUP');
  await until(() => existsSync(paths.log) && linesOf(paths.log).length > 0, daemon, 'new log');

  daemon.child.kill('SIGTERM');
  assert.deepEqual(await daemon.ended, { status: 0, out: '', err: '' });
  assert.equal(readFileSync(told, 'utf8'), '--ready\n--stopping\n');
  const before = linesOf(`${paths.log}.1`);
  assert.ok(before.some(({ msg }) => msg === 'serving'));
  const warned = before.some(({ level, msg }) => level === 'warn' && msg.startsWith('Node.js was not told'));
  assert.ok(warned, 'started here without the flags of base/node-flags.ts');
  assert.deepEqual(
    linesOf(paths.log).map(({ msg }) => msg),
    ['log opened again', 'stopping', 'stopped'],
  );
});

test('a later run has a higher incarnation, also after a crash', async () => {
  const paths = configure({ name: 'again', port: 24_458 });
  const first = smbpoold(['--config', paths.config]);
  await until(() => existsSync(paths.admin), first, 'admin socket');
  const { incarnation } = await status(paths.admin);
  first.child.kill('SIGKILL');
  await first.ended;
  rmSync(paths.admin);
  const second = smbpoold(['--config', paths.config]);
  await until(() => existsSync(paths.admin), second, 'admin socket');
  assert.ok((await status(paths.admin)).incarnation > incarnation);
  second.child.kill('SIGINT');
  assert.equal((await second.ended).status, 0);
});

test('what keeps it from starting is one sentence', async () => {
  const paths = configure({ name: 'missing', port: 24_459 });
  writeFileSync(paths.config, readFileSync(paths.config, 'utf8').replaceAll('127.0.0.1', '192.0.2.1'));
  const { status: code, out, err } = await smbpoold(['--config', paths.config]).ended;
  assert.deepEqual([code, out], [1, '']);
  assert.match(err, /^smbpoold: no interface of this machine has the address 192\.0\.2\.1 of server only: .*\n$/);
});
