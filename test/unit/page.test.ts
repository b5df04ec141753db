/**
 * `smbpool page`, and what `smbpool status` shows when nobody answers: the page of a daemon that is alive, hangs, is
 * stopped, dead or gone, and what is no page. That the daemon writes what is read here is tested in native/ring.test.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { Prng } from '../../src/base/prng.js';
import { DecodeError } from '../../src/base/bytes.js';
import { pageJson, pageText, seePage, stateOf } from '../../src/cli/page.js';
import type { PageSeen } from '../../src/cli/page.js';
import { processState } from '../../src/cli/process-state.js';
import { CORE_COUNTER_NAMES, LAYOUT_VERSION, NODE_PAGE_BYTES, decodeNodePage } from '../../src/wire/node-page.js';
import { smbpool } from '../support/command-line.js';
import { assertGolden } from '../support/golden.js';
import { repositoryRoot } from '../support/repository.js';

process.env['TZ'] = 'UTC';
const folder = mkdtempSync(join(tmpdir(), 'smbpool-page-'));
after(() => rmSync(folder, { recursive: true }));

/** 2026-03-29 12:30:15 UTC. */
const WALL_MICROS = 1_774_787_415_000_000;
const NOW_MICROS = 5_000_000_000;
const UPTIME_MICROS = 3_600_000_000;

interface Made {
  heartbeatAgo?: number;
  generation?: number;
  pid?: number;
  startedMicros?: number;
}

function pageBytes({ heartbeatAgo = 200_000, generation = 77, pid = 4242, startedMicros }: Made = {}): Buffer {
  const page = Buffer.alloc(NODE_PAGE_BYTES);
  const u64 = (at: number, value: number): void => void page.writeBigUInt64LE(BigInt(value), at);
  const words = [0x474c4f50, LAYOUT_VERSION, NODE_PAGE_BYTES, generation, 2, 1];
  words.forEach((word, index) => page.writeUInt32LE(word, index * 4));
  u64(24, startedMicros ?? WALL_MICROS - UPTIME_MICROS);
  page.writeUInt32LE(pid, 32);
  u64(384, NOW_MICROS - heartbeatAgo);
  u64(4096, 12);
  u64(4096 + 8 * 64, 90_210);
  u64(4096 + 8 * (64 + 15), 1_234);
  // 98 opens of 256 to 511 us, and two of some 6 ms
  u64(8192 + 8 * 8, 98);
  u64(8192 + 8 * 12, 2);
  u64(12_288, 6_100);
  const error = (index: number, code: number, text: string, count: number): void => {
    const at = 16_384 + index * 256;
    page.writeUInt32LE(code, at + 4);
    u64(at + 8, count);
    u64(at + 16, WALL_MICROS - 60_000_000 * (index + 1));
    u64(at + 24, WALL_MICROS - 1_000_000 * (index + 1));
    page.write(text, at + 32);
  };
  error(0, 2, 'peer-down, peer 1, why silent', 3);
  error(1, 1, 'store-failed, why \u001b[2J', 1);
  for (const at of [65_536, 65_536 + 8 * 9, NODE_PAGE_BYTES - 8]) u64(at, 5);
  return page;
}

function seen(made: Made = {}, process: PageSeen['process'] = 'running'): PageSeen {
  const page = decodeNodePage(pageBytes(made));
  return { path: '/run/smbpool/node.page', page, process, nowMicros: NOW_MICROS, wallClockMicros: WALL_MICROS };
}

test('the page of a daemon that hangs says since when, and all that it counted', () => {
  assertGolden('unit/cli-golden/page-hangs.txt', pageText(seen({ heartbeatAgo: 42_000_000 })));
});

test('one sentence says how the daemon is', () => {
  const first = (one: PageSeen): string => `${stateOf(one)}: ${pageText(one).split('\n')[1] ?? ''}\n`;
  const late = { heartbeatAgo: 42_000_000 };
  const all = [
    seen(),
    seen(late, 'disk'),
    seen(late, 'stopped'),
    seen({}, 'stopped'),
    seen(late, 'gone'),
    seen({ ...late, generation: 0 }),
    seen({ heartbeatAgo: NOW_MICROS }),
  ];
  assertGolden('unit/cli-golden/page-states.txt', all.map(first).join(''));
});

test('smbpool page --json has everything, with ages instead of clocks', () => {
  const answer = JSON.parse(pageJson(seen())) as Record<string, unknown>;
  const { state, heartbeatMicrosAgo, leaseMicrosLeft } = answer;
  assert.deepEqual([state, heartbeatMicrosAgo, leaseMicrosLeft], ['alive', 200_000, null]);
  const [opens] = answer['latencies'] as unknown[];
  assert.deepEqual(opens, { name: 'open: records', count: 100, medianMicros: 511, p99Micros: 6100, maxMicros: 6100 });
  const counters = { 'ring.attached': 12, 'record.arrived.move': 90_210, 'witness.open.ready': 1_234 };
  assert.deepEqual([answer['counters'], answer['keysHome']], [counters, 3]);
});

test('an error that is being written is left out, and said to be', () => {
  const bytes = pageBytes();
  bytes.writeUInt32LE(1, 16_384);
  const page = decodeNodePage(bytes);
  assert.deepEqual([page.errors.length, page.errorsUnread], [1, 1]);
  assert.match(pageText({ ...seen(), page }), /1 error left out/);
});

test('every counter of the page is one that the core counts', () => {
  const core = join(repositoryRoot(), 'src/core');
  const names = readdirSync(core, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const source = names.map((name) => readFileSync(join(core, name), 'utf8')).join('');
  for (const name of CORE_COUNTER_NAMES) {
    const family = name.slice(0, name.lastIndexOf('.') + 1);
    assert.ok(source.includes(`'${name}'`) || source.includes(`\`${family}\${`), name);
  }
});

test('any bytes are a page or refused with a reason', () => {
  const prng = new Prng(Number(process.env['SEED'] ?? 1));
  for (const length of [0, 3, 4096, NODE_PAGE_BYTES - 1]) {
    assert.throws(() => decodeNodePage(prng.bytes(length)), DecodeError);
  }
  assert.throws(() => decodeNodePage(Buffer.alloc(NODE_PAGE_BYTES)), DecodeError);
  const other = pageBytes();
  other.writeUInt32LE(9, 4);
  assert.throws(() => decodeNodePage(other), /layout 9, this is for layout 4/);
  const wild = Buffer.from(prng.bytes(NODE_PAGE_BYTES));
  pageBytes().copy(wild, 0, 0, 12);
  pageText({ ...seen(), page: decodeNodePage(wild) });
});

test('a process is running, stopped, or gone; another one with its number is not it', async () => {
  const child = spawn('sleep', ['60']);
  const now = Date.now() * 1000;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const pid = child.pid!;
  const until = async (state: string): Promise<void> => {
    for (let tries = 0; processState(pid, now) !== state; tries++) {
      assert.ok(tries < 500, `never ${state}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await until('running');
  assert.equal(processState(pid, now - 3_600_000_000), 'gone', 'it started an hour after');
  child.kill('SIGSTOP');
  await until('stopped');
  child.kill('SIGKILL');
  await ended;
  assert.equal(processState(pid, now), 'gone');
});

test('smbpool page finds the page beside the socket, or where the configuration says', async () => {
  const path = join(folder, 'node.page');
  writeFileSync(path, pageBytes({ pid: process.pid, startedMicros: Date.now() * 1000 }));
  const told = `Node page ${path}: server 2, smbpoold process ${process.pid}\n`;
  const config = join(folder, 'pool.yaml');
  writeFileSync(config, `socket: ${folder}/ctdbd.socket\n`);
  const byPage = join(folder, 'by-page.yaml');
  writeFileSync(byPage, `nodePage: ${path}\nsocket: /nowhere/s\n`);
  const socket = join(folder, 'admin.socket');
  const ways = [['--page', path], ['--socket', socket], ['--config', config], ['--config', byPage]];
  for (const way of ways) {
    const { status, out, err } = await smbpool('page', ...way);
    assert.deepEqual({ status, err }, { status: 0, err: '' });
    assert.ok(out.startsWith(told), out);
  }
});

test('smbpool status shows the page of a daemon that does not answer, and fails all the same', async () => {
  const mute = createServer(() => undefined);
  const socket = join(folder, 'admin.socket');
  await new Promise<void>((resolve) => mute.listen(socket, resolve));
  const { status, out, err } = await smbpool('status', '--socket', socket);
  mute.close();
  assert.equal(status, 1);
  assert.match(out, /^Node page .*\nIt /);
  assert.match(err, /^smbpool: smbpoold took the question .* but did not answer: see its log\n$/);
  const json = await smbpool('status', '--json', '--socket', join(folder, 'nobody.socket'));
  assert.deepEqual([json.status, json.out], [1, '']);
});

test('no page, and what is none, is told in one sentence', async () => {
  const absent = await smbpool('page', '--page', join(folder, 'absent'));
  assert.deepEqual([absent.status, absent.out], [1, '']);
  assert.match(absent.err, /^smbpool: there is no node page here: .* was stopped in order\n$/);
  const file = join(folder, 'text');
  writeFileSync(file, 'text');
  const { err } = await smbpool('page', '--page', file);
  assert.match(err, /^smbpool: .* is no node page that this smbpool can read: .*\n$/);
  assert.throws(() => seePage(folder), /cannot be read: EISDIR/);
  assert.equal(readFileSync(file, 'utf8'), 'text');
});
