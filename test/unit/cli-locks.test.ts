/**
 * `smbpool who`, `trace` and `waits` against a fake daemon: texts compared with golden files (REWRITE=1 accepts new
 * ones), JSON, trace files written and read, and what is said when something is wrong. `top` is in top.test.ts.
 */
import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { clientWords, processWords } from '../../src/cli/lock-options.js';
import { waitGraph } from '../../src/cli/wait-graph.js';
import { waitsText } from '../../src/cli/waits.js';
import { whoText } from '../../src/cli/who.js';
import { AdminServer } from '../../src/daemon/admin-server.js';
import type { LocksAnswer, TraceEvent, WaitReport } from '../../src/wire/locks.js';
import { smbpool, startSmbpool } from '../support/command-line.js';
import { exampleEvents, exampleLocks, exampleOpens, exampleWaits, FakeWitness } from '../support/example-locks.js';
import { exampleRecord, exampleStatus } from '../support/example-status.js';
import { assertGolden } from '../support/golden.js';

const folder = mkdtempSync(join(tmpdir(), 'smbpool-cli-locks-'));
after(() => rmSync(folder, { recursive: true }));

const witness = new FakeWitness();
const socket = join(folder, 'socket');
const source = { status: exampleStatus, describeRecord: async () => exampleRecord(), witness };
const daemon = await AdminServer.start({ path: socket, source });
after(() => daemon.stop());

const lastAsked = (): unknown => witness.asked.at(-1);

test('smbpool who shows holders with leases and ranges, and waiters with those they wait for', async () => {
  const { status, out, err } = await smbpool('who', '--socket', socket);
  assert.deepEqual({ status, err }, { status: 0, err: '' });
  assertGolden('unit/cli-golden/who.txt', out);
});

test('smbpool who passes its filter on, and --json is the answer', async () => {
  const filter = ['--user', 'anna', '--client', '10.0.0.51', '--share', 'pool'];
  const { out } = await smbpool('who', 'docs/a b', ...filter, '--json', '--socket', socket);
  assert.deepEqual(JSON.parse(out), exampleLocks());
  assert.deepEqual(lastAsked(), { path: 'docs/a b', user: 'anna', client: '10.0.0.51', share: 'pool' });
});

test('smbpool who says when nobody holds it, and when the answer is not whole', () => {
  const nobody: LocksAnswer = { opens: [], waits: [], missing: [], truncated: false };
  assert.equal(whoText(nobody, {}), 'Nobody holds or waits for anything\n');
  const filter = { path: 'a\x1b[2J', user: 'b' };
  const silent = 'Servers 1, 2 did not answer: what is held there is not shown\n';
  const expected = `Nobody holds or waits for anything for path "a\\u001b[2J", user "b"\n${silent}`;
  assert.equal(whoText({ ...nobody, missing: [1, 2] }, filter), expected);
  const cut = { ...exampleLocks(), waits: [], missing: [2], truncated: true };
  assertGolden('unit/cli-golden/who-incomplete.txt', whoText(cut, {}));
});

test('names of clients cannot move the cursor', () => {
  const [open] = exampleOpens();
  const evil = { ...open!, path: 'a\x1b[2Jb\u202e\n', user: '\x07', clientName: '\u009b1m', share: '\r' };
  const text = whoText({ opens: [evil], waits: [], missing: [], truncated: false }, {});
  assert.doesNotMatch(text.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u);
  assert.match(text, /^a\\u\{1b\}\[2Jb\\u\{202e\}\\u\{a\} /m);
});

test('a client that is known by its address only is named once', () => {
  const named = (client: string, clientName: string): string => clientWords({ client, clientName });
  assert.equal(named('ipv4:10.0.0.1:39540', '10.0.0.1'), '10.0.0.1:39540');
  assert.equal(named('10.0.0.1', '10.0.0.1'), '10.0.0.1');
  assert.equal(named('10.0.0.1:39540', '10.0.0'), '10.0.0.1:39540 (10.0.0)');
  assert.equal(named('10.0.0.1:39540', ''), '10.0.0.1:39540');
  assert.equal(processWords({ serverName: 'server 2', pid: 0 }), 'server 2');
  assert.equal(processWords({ serverName: 'gamma', pid: 0 }), 'server gamma');
});

test('smbpool waits shows the tree, the circle, and who is dead or stuck', async () => {
  const { status, out, err } = await smbpool('waits', '--socket', socket);
  assert.deepEqual({ status, err }, { status: 0, err: '' });
  assertGolden('unit/cli-golden/waits.txt', out);
});

test('smbpool waits --longer shows fewer, but the whole chain of those', async () => {
  const { out } = await smbpool('waits', '--longer', '10000', '--socket', socket);
  assertGolden('unit/cli-golden/waits-longer.txt', out);
  const none = await smbpool('waits', '--longer', '60000', '--socket', socket);
  assert.equal(none.out, 'Nobody waits longer than 60 s\n');
  const json = await smbpool('waits', '--longer', '10000', '--json', '--socket', socket);
  const report = JSON.parse(json.out) as { waits: unknown[]; cycles: unknown; holders: { state: string }[] };
  assert.equal(report.waits.length, 1);
  const beta = { server: 1, serverName: 'beta', pid: 2302 };
  const gamma = { server: 2, serverName: 'gamma', pid: 3403 };
  assert.deepEqual(report.cycles, [[beta, gamma]]);
  assert.deepEqual(report.holders.map(({ state }) => state), ['alive', 'dead']);
});

test('a holder whose client leaves a break unanswered is stuck', () => {
  const waits = exampleWaits().slice(0, 1);
  const text = waitsText({ opens: exampleOpens(), waits, missing: [], truncated: false }, 0);
  assertGolden('unit/cli-golden/waits-stuck.txt', text);
  waits[0]!.waitMicros = 4_000_000;
  assert.doesNotMatch(waitsText({ opens: [], waits, missing: [], truncated: false }, 0), /stuck/i);
});

/** A wait of process `from` for the processes `to`, all of them on one server. */
function waitOf(from: number, ...to: number[]): WaitReport {
  const [wait] = exampleWaits();
  const waitsFor = to.map((pid) => ({ server: 0, serverName: 'alpha', pid, what: 'holds it', alive: true }));
  return { ...wait!, server: 0, serverName: 'alpha', pid: from, what: 'range', waitMicros: from * 1_000_000, waitsFor };
}

function cyclesOf(...waits: WaitReport[]): number[][] {
  const { cycles } = waitGraph({ opens: [], waits, missing: [], truncated: false }, 0);
  return cycles.map((nodes) => nodes.map(({ pid }) => pid));
}

test('circles are found wherever they are, and only circles', () => {
  assert.deepEqual(cyclesOf(waitOf(1, 2), waitOf(2, 3), waitOf(4, 3)), []);
  assert.deepEqual(cyclesOf(waitOf(1, 2), waitOf(2, 3), waitOf(3, 2)), [[2, 3]]);
  assert.deepEqual(cyclesOf(waitOf(1, 1)), []);
  assert.deepEqual(cyclesOf(waitOf(1, 1, 2), waitOf(2, 1)), [[1, 2]]);
  assert.deepEqual(cyclesOf(waitOf(1, 2), waitOf(2, 1), waitOf(3, 4, 1), waitOf(4, 5, 3)), [[1, 2], [3, 4]]);
  assert.deepEqual(cyclesOf(waitOf(1, 2), waitOf(1, 3), waitOf(3, 1)), [[1, 3]]);
});

test('a client that waits for its own other handle is no circle', () => {
  const text = waitsText({ opens: [], waits: [waitOf(1, 1)], missing: [], truncated: false }, 0);
  assert.match(text, /^1 waits\n\nHeld up by\n {2}themselves, by another handle\n {4}alpha pid 1, .* waits 1\.0 s /);
});

test('a chain or a crowd of ten thousand is shown in part, at once', () => {
  const answer = (waits: WaitReport[]): LocksAnswer => ({ opens: [], waits, missing: [], truncated: false });
  const count = 10_000;
  const chain = waitsText(answer(Array.from({ length: count }, (_, i) => waitOf(i + 1, i + 2))), 0);
  assert.ok(chain.split('\n').length < 50);
  const crowd = waitsText(answer(Array.from({ length: count }, (_, i) => waitOf(i + 2, 1))), 0);
  assert.match(crowd, /\.\.\. 9501 lines more; --json has all\n$/);
  const circle = cyclesOf(...Array.from({ length: 1000 }, (_, i) => waitOf(i, (i + 1) % 1000)));
  assert.equal(circle[0]?.length, 1000);
});

test('smbpool trace shows events as they pass, until it has as many as wanted', async () => {
  const count = String(exampleEvents().length);
  const { status, out, err } = await smbpool('trace', '--count', count, '--socket', socket);
  assert.deepEqual({ status, err }, { status: 0, err: '' });
  assertGolden('unit/cli-golden/trace.txt', out);
  const three = await smbpool('trace', '--count', '3', '--json', '--socket', socket);
  const events = three.out.trimEnd().split('\n').map((line) => JSON.parse(line) as TraceEvent);
  assert.deepEqual(events, exampleEvents().slice(0, 3));
});

test('smbpool trace passes its filter on, and ends when its time is over', async () => {
  const filter = ['docs', '--client', 'PC-ANNA', '--ops', 'open,lock,open'];
  // counted from its start: on a busy machine it takes a while until it has asked
  const { status } = await smbpool('trace', ...filter, '--seconds', '3', '--socket', socket);
  assert.equal(status, 0);
  assert.deepEqual(lastAsked(), { path: 'docs', client: 'PC-ANNA', kinds: ['open', 'lock'] });
  const { err } = await smbpool('trace', '--ops', 'open,steal', '--socket', socket);
  assert.match(err, /There is no "steal"/);
});

test('smbpool trace ends in order on a signal, and when nobody reads it', async () => {
  const live = startSmbpool('trace', '--socket', socket);
  await new Promise((resolve) => live.child.stdout!.once('data', resolve));
  live.child.kill('SIGINT');
  assert.deepEqual((await live.ended).status, 0);

  const head = startSmbpool('trace', '--socket', socket);
  await new Promise((resolve) => head.child.stdout!.once('data', resolve));
  head.child.stdout!.destroy();
  const again = setInterval(() => {
    for (const put of witness.readers) put(exampleEvents()[0]!);
  }, 20);
  const { status, err } = await head.ended;
  clearInterval(again);
  assert.deepEqual({ status, err }, { status: 0, err: '' });
});

const written = join(folder, 'written.trace');

test('a trace written to a file is shown again as it was, with the same filters', async () => {
  const count = exampleEvents().length;
  const write = await smbpool('trace', '--write', written, '--count', String(count), '--socket', socket);
  assert.deepEqual(write, { status: 0, out: '', err: `${count} events written to ${written}\n` });
  assert.equal(statSync(written).mode & 0o777, 0o600);
  const read = await smbpool('trace', '--read', written);
  assert.deepEqual({ status: read.status, err: read.err }, { status: 0, err: '' });
  assertGolden('unit/cli-golden/trace.txt', read.out);
  const some = await smbpool('trace', '--read', written, 'DOCS', '--ops', 'lock,refused', '--user', 'anna', '--json');
  assert.deepEqual(JSON.parse(some.out), exampleEvents()[9]);
  const first = await smbpool('trace', '--read', written, '--share', 'archive', '--count', '1', '--json');
  assert.deepEqual(JSON.parse(first.out), exampleEvents()[7]);
});

test('how many events were lost is said before the next one shown, or at the end', async () => {
  const unlock = await smbpool('trace', '--read', written, '--ops', 'unlock', '--json');
  assert.deepEqual(JSON.parse(unlock.out), { ...exampleEvents().find(({ kind }) => kind === 'unlock'), dropped: 17 });
  const open = await smbpool('trace', '--read', written, '--ops', 'open');
  assert.deepEqual([open.status, open.err], [0, '17 events lost after the last one shown\n']);
});

test('a trace file is not overwritten, and none is left where there was no trace', async () => {
  const again = await smbpool('trace', '--write', written, '--socket', socket);
  assert.match(again.err, /^smbpool: .*written\.trace cannot be written: it exists already; name another file\n$/);
  const other = join(folder, 'other.trace');
  const absent = await smbpool('trace', '--write', other, '--socket', join(folder, 'absent'));
  assert.match(absent.err, /^smbpool: there is no smbpoold here: /);
  assert.equal(statSync(other, { throwIfNoEntry: false }), undefined);
});

test('what is not a trace is refused; a line cut off at the end is not there yet', async () => {
  const [header, first] = readFileSync(written, 'utf8').split('\n');
  const refused: [content: string, says: RegExp][] = [
    ['', /is not a trace: it has no whole line/],
    ['{}\n', /is not a trace: its first line/],
    ['\x7fELF\n', /is not a trace: its first line/],
    ['x'.repeat(300_000), /a line does not end/],
    [header!.replace('"version":1', '"version":2') + '\n', /trace of version 2; this smbpool reads version 1/],
    [`${header}\n${first}\n\n`, /line 3 of .* is not an event\n/],
    [`${header}\n{"atMicros":1}\n`, /line 2 of .* is not an event: server is missing or wrong/],
    [`${header}\n${first!.replace('"open"', '"steal"')}\n`, /line 2 of .* is not an event: kind is missing or wrong/],
  ];
  const file = join(folder, 'spoilt.trace');
  for (const [content, says] of refused) {
    writeFileSync(file, content);
    const { status, err } = await smbpool('trace', '--read', file);
    assert.equal(status, 1);
    assert.match(err, says);
  }
  writeFileSync(file, `${header}\n${first}\n`);
  appendFileSync(file, first!.slice(0, 50));
  const { status, out } = await smbpool('trace', '--read', file, '--json');
  assert.equal(status, 0);
  assert.deepEqual(JSON.parse(out), exampleEvents()[0]);
  const absent = await smbpool('trace', '--read', join(folder, 'absent'));
  assert.match(absent.err, /absent cannot be read: ENOENT/);
});

test('a daemon that is absent, that watches no locks, or that ends, is told in one sentence', async () => {
  for (const command of ['who', 'waits', 'trace', 'top']) {
    const { status, err } = await smbpool(command, '--socket', join(folder, 'absent'));
    assert.equal(status, 1);
    assert.match(err, /^smbpool: there is no smbpoold here: .*\n$/);
  }
  const path = join(folder, 'ends');
  const blind = await AdminServer.start({ path, source: { ...source, witness: undefined } });
  for (const command of ['who', 'waits', 'trace', 'top']) {
    const { err } = await smbpool(command, '--socket', path);
    assert.match(err, /^smbpool: this smbpoold does not watch locks: .*\n$/);
  }
  await blind.stop();
  const ending = await AdminServer.start({ path, source });
  const trace = startSmbpool('trace', '--socket', path);
  await new Promise((resolve) => trace.child.stdout!.once('data', resolve));
  await ending.stop();
  const { status, err } = await trace.ended;
  assert.deepEqual({ status, err }, { status: 1, err: `smbpool: smbpoold on ${path} has ended; see its log\n` });
});
