/**
 * The command line against a fake daemon: texts compared with golden files (REWRITE=1 accepts new ones), JSON, and what
 * it says when the daemon is absent, mute or something else. Runs the compiled command as people do.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { AdminServer } from '../../src/daemon/admin-server.js';
import { parseKey, recordText } from '../../src/cli/record.js';
import { statusJson, statusText } from '../../src/cli/status.js';
import { bytes, duration, table } from '../../src/cli/text.js';
import type { StatusReport } from '../../src/ports/status.js';
import { smbpool } from '../support/command-line.js';
import { exampleRecord, exampleStatus } from '../support/example-status.js';
import { assertGolden } from '../support/golden.js';
import { repositoryRoot } from '../support/repository.js';

const folder = mkdtempSync(join(tmpdir(), 'smbpool-cli-'));
after(() => rmSync(folder, { recursive: true }));
/** A daemon in which each question finds one second gone and 25 more moves. */
async function fakeDaemon(name: string): Promise<{ path: string; server: AdminServer }> {
  let asked = 0;
  const path = join(folder, name);
  const status = (): StatusReport => {
    const report = exampleStatus();
    report.uptimeMicros += asked * 1_000_000;
    report.databases[0]!.moves += asked * 25;
    asked++;
    return report;
  };
  const source = { status, describeRecord: () => Promise.resolve(exampleRecord()) };
  return { path, server: await AdminServer.start({ path, source }) };
}

test('smbpool --version is the version in package.json', async () => {
  const { version } = JSON.parse(readFileSync(join(repositoryRoot(), 'package.json'), 'utf8')) as { version: string };
  assert.deepEqual(await smbpool('--version'), { status: 0, out: `${version}\n`, err: '' });
});

test('smbpool status shows servers, links, databases with rates, and waits', async () => {
  const { path, server } = await fakeDaemon('status');
  const { status, out, err } = await smbpool('status', '--socket', path, '--seconds', '0.05', '--counters');
  await server.stop();
  assert.deepEqual({ status, err }, { status: 0, err: '' });
  assertGolden('unit/cli-golden/status.txt', out);
});

test('smbpool status without watching shows no rates', () => {
  assertGolden('unit/cli-golden/status-once.txt', statusText({ report: exampleStatus() }, false));
});

test('smbpool status of a server that has just started leaves out empty tables', () => {
  const report: StatusReport = { ...exampleStatus(), links: [], databases: [], persistent: [], waits: [] };
  report.servers = report.servers.slice(0, 1);
  assertGolden('unit/cli-golden/status-empty.txt', statusText({ report }, true));
});

test('smbpool status --json is the report with rates', () => {
  const earlier = exampleStatus();
  const report = { ...exampleStatus(), uptimeMicros: earlier.uptimeMicros + 2_000_000 };
  report.databases[0]!.moves += 50;
  const parsed = JSON.parse(statusJson({ report, earlier })) as { databases: { movesPerSecond: number }[] };
  assert.equal(parsed.databases[0]!.movesPerSecond, 25);
  const once = JSON.parse(statusJson({ report })) as { databases: { movesPerSecond: null }[] };
  assert.equal(once.databases[0]!.movesPerSecond, null);
});

test('smbpool record shows where a record is and who had it', async () => {
  const { path, server } = await fakeDaemon('record');
  const config = join(folder, 'smbpool.yaml');
  writeFileSync(config, `adminSocket: ${path}\n`);
  const { status, out, err } = await smbpool('record', 'locking', '00ff', '--config', config);
  const json = await smbpool('record', 'locking', '00ff', '--json', '--socket', path, '--config', '/absent');
  await server.stop();
  assert.deepEqual({ status, err }, { status: 0, err: '' });
  assertGolden('unit/cli-golden/record.txt', out);
  assert.deepEqual(JSON.parse(json.out), exampleRecord());
});

test('smbpool record of a record that does not exist', () => {
  const record = { ...exampleRecord(), owner: null, backup: null, readers: [], waiting: [], history: [] };
  assertGolden('unit/cli-golden/record-absent.txt', recordText(record, new Map()));
});

test('a refusal of the daemon is passed on', async () => {
  const { path, server } = await fakeDaemon('refusal');
  const { status, out, err } = await smbpool('record', 'nothing', '00', '--socket', path);
  await server.stop();
  assert.deepEqual({ status, out }, { status: 1, out: '' });
  assert.match(err, /^smbpool: no database nothing is open here; open are locking\.tdb, brlock\.tdb, secrets\.tdb\n$/);
});

test('a daemon that is not there, or is something else, is told in one sentence', async () => {
  const absent = await smbpool('status', '--socket', join(folder, 'absent'));
  assert.equal(absent.status, 1);
  assert.match(absent.err, /^smbpool: there is no smbpoold here: .*absent does not exist; start it, or name .*\n$/);

  const unreadable = await smbpool('status', '--config', join(folder, 'absent.yaml'));
  assert.match(unreadable.err, /^smbpool: .*absent\.yaml cannot be read: ENOENT.*--socket\n$/);

  const other = createServer((socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi'));
  await new Promise<void>((resolve) => other.listen(join(folder, 'other'), resolve));
  const wrong = await smbpool('status', '--socket', join(folder, 'other'));
  other.close();
  assert.match(wrong.err, /^smbpool: what listens on .*other is not smbpoold: it answered "hi"\n$/);
});

test('the key of a record is hexadecimal, or text with escapes', () => {
  assert.equal(parseKey('00FF'), '00ff');
  assert.equal(parseKey('0x00ff'), '00ff');
  assert.equal(parseKey('text:00ff'), '30306666');
  assert.equal(parseKey('abc'), '616263', 'an odd number of digits is text');
  assert.equal(parseKey('SID\\0\\xff\\\\'), '53494400ff5c');
  assert.throws(() => parseKey(''), /empty/);
  assert.throws(() => parseKey('text:'), /empty/);
});

test('times and sizes are written in the unit that fits', () => {
  const times = [null, 0, 999, 1_000, 15_400, 999_999, 1_000_000, 119e6, 600e6, 7_200e6, 172_800e6];
  assert.deepEqual(times.map(duration), [
    '-', '0 us', '999 us', '1.0 ms', '15 ms', '1000 ms', '1.0 s', '119 s', '10 min', '2 h', '2 d',
  ]);
  assert.deepEqual([0, 1023, 1024, 70_000, 5 << 20].map(bytes), ['0 B', '1023 B', '1.0 KiB', '68 KiB', '5.0 MiB']);
});

test('a table aligns numbers to the right', () => {
  assert.equal(table(['name', 'n'], [['a', 1], ['bcd', 20]]), '  name   n\n  a      1\n  bcd   20');
});
