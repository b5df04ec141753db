/**
 * `smbpool top`: what its keys do, what it shows, and the screen on a terminal that a test reads. The command itself,
 * where there is no terminal, against a fake daemon.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { PassThrough, Writable } from 'node:stream';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { CommandError } from '../../src/cli/errors.js';
import { TopScreen } from '../../src/cli/top.js';
import type { TopTerminal } from '../../src/cli/top.js';
import { press, shownFiles, topText } from '../../src/cli/top-view.js';
import type { Key, TopSort, TopView } from '../../src/cli/top-view.js';
import { AdminServer } from '../../src/daemon/admin-server.js';
import type { HotAnswer } from '../../src/wire/locks.js';
import { smbpool, startSmbpool } from '../support/command-line.js';
import { exampleHot, FakeWitness } from '../support/example-locks.js';
import { exampleRecord, exampleStatus } from '../support/example-status.js';
import { assertGolden } from '../support/golden.js';

const folder = mkdtempSync(join(tmpdir(), 'smbpool-top-'));
after(() => rmSync(folder, { recursive: true }));

const START: TopView = { sort: 'opens', filter: '', typing: null, quit: false };

function key(name: string): Key {
  const ctrl = name.startsWith('^');
  const isCharacter = [...name].length === 1;
  return { text: isCharacter ? name : '', name: ctrl ? name.slice(1) : name, ctrl };
}

const pressAll = (view: TopView, ...names: string[]): TopView => names.map(key).reduce(press, view);

test('o, m, w and p sort; q, Ctrl-C and Ctrl-D quit; other keys do nothing', () => {
  const sorts: [string, TopSort][] = [['m', 'moves'], ['w', 'waits'], ['p', 'p99'], ['o', 'opens']];
  for (const [name, sort] of sorts) {
    assert.deepEqual(pressAll(START, name), { ...START, sort });
  }
  for (const name of ['q', '^c', '^d']) assert.deepEqual(pressAll(START, name), { ...START, quit: true });
  assert.deepEqual(pressAll(START, 'x', 'up', 'return', '^p', '', 'escape'), START);
  assert.deepEqual(pressAll(START, 'constructor', '__proto__', 'toString'), START);
});

test('f takes a filter until Enter; Escape leaves it as it was', () => {
  const typing = pressAll(START, 'f', 'm', 'q', 'ä', 'backspace', '^p');
  assert.deepEqual(typing, { ...START, typing: 'mq' });
  assert.deepEqual(pressAll(typing, 'return'), { ...START, filter: 'mq' });
  const again = pressAll(typing, 'return', 'f', 'x');
  assert.deepEqual(again, { ...START, filter: 'mq', typing: 'mqx' });
  assert.deepEqual(pressAll(again, 'escape'), { ...START, filter: 'mq' });
  assert.deepEqual(pressAll(again, '^u', 'enter'), START);
  assert.deepEqual(pressAll(again, '^c'), { ...again, quit: true });
  assert.deepEqual(pressAll(START, 'f', 'backspace', '\x1b', '\u202e', 'return'), START, 'nothing invisible');
  const long = pressAll(START, 'f', ...Array.from({ length: 1000 }, () => 'a'));
  assert.equal(long.typing?.length, 200);
});

test('files are sorted by the column, and filtered by a part of the path without case', () => {
  const shown = (sort: TopSort, filter: string): string[] =>
    shownFiles(exampleHot().files, { sort, filter }).map(({ path }) => path);
  assert.deepEqual(shown('opens', ''), ['docs', 'docs/report.odt', 'new.txt']);
  assert.deepEqual(shown('moves', ''), ['docs/report.odt', 'docs', 'new.txt']);
  assert.deepEqual(shown('waits', 'DOC'), ['docs/report.odt', 'docs']);
  assert.deepEqual(shown('p99', ''), ['new.txt', 'docs/report.odt', 'docs']);
});

test('the screen and the table', () => {
  const view: TopView = { ...START, sort: 'waits', filter: 'O', typing: 'Or' };
  assertGolden('unit/cli-golden/top-screen.txt', topText({ ...exampleHot(), missing: [2] }, view, 24, true));
  assertGolden('unit/cli-golden/top-table.txt', topText(exampleHot(), START, 25, false));
  const idle: HotAnswer = { intervalMicros: 2_000_000, files: [], missing: [] };
  assertGolden('unit/cli-golden/top-idle.txt', topText(idle, START, 24, true));
});

test('a file that was moved but not opened is named by its id', () => {
  const [file] = exampleHot().files;
  const files = [{ ...file!, path: '', share: '' }, { ...file!, path: '' }];
  const text = topText({ ...exampleHot(), files }, START, 24, false);
  assert.match(text, / \(file 1:4711:0\)\n.* pool {3}\.\n/);
});

test('never more lines than there is room for', () => {
  const [file] = exampleHot().files;
  const files = Array.from({ length: 500 }, (_, index) => ({ ...file!, path: `file-${index}` }));
  for (let rows = 1; rows < 40; rows++) {
    for (const isLive of [true, false]) {
      const lines = topText({ ...exampleHot(), files, missing: [1] }, START, rows, isLive).trimEnd().split('\n');
      assert.ok(lines.length <= Math.max(rows, 5), `${lines.length} lines in ${rows}`);
    }
  }
  const text = topText({ ...exampleHot(), files }, START, 20, true);
  assert.equal(text.trimEnd().split('\n').length, 20, 'and all the room is used');
});

interface Terminal extends TopTerminal {
  input: TopTerminal['input'] & PassThrough;
  written: () => string;
  raw: boolean[];
}

function terminal(look: TopTerminal['look']): Terminal {
  let written = '';
  const raw: boolean[] = [];
  const sink = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      written += chunk.toString();
      done();
    },
  });
  const stream = new PassThrough();
  const input = Object.assign(stream, { setRawMode: (on: boolean) => (raw.push(on), stream) });
  const output = Object.assign(sink, { rows: 24 });
  return {
    input: input as unknown as Terminal['input'],
    output: output as unknown as Terminal['output'],
    look,
    intervalMs: 20,
    written: () => written,
    raw,
  };
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    assert.ok(tries < 500, 'this did not come true in five seconds');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('the screen follows keys, outlives the daemon, and leaves the terminal as it was', async () => {
  let isThere = true;
  const screen = terminal(async () => {
    if (!isThere) throw new CommandError('there is no smbpoold here');
    return exampleHot();
  });
  const ended = new TopScreen(screen, START).run();
  await until(() => screen.written().includes('most opens first'));
  screen.input.write('p');
  await until(() => screen.written().includes('most p99 first'));
  screen.input.write('fNEW\r');
  await until(() => screen.written().includes('1 file used'));
  isThere = false;
  await until(() => screen.written().includes('\x1b[Hthere is no smbpoold here'));
  isThere = true;
  await until(() => screen.written().split('there is no smbpoold here').at(-1)!.includes('\x1b[H1 file used'));
  screen.input.write('q');
  await ended;
  assert.deepEqual(screen.raw, [true, false]);
  assert.ok(screen.written().startsWith('\x1b[?1049h'));
  assert.ok(screen.written().endsWith('\x1b[?1049l'));
  const listeners = ['keypress', 'end'].map((event) => screen.input.listenerCount(event));
  assert.equal(listeners[0], 0);
});

test('q ends the screen while the daemon is silent', async () => {
  let asked = 0;
  const screen = terminal((signal) => {
    if (asked++ === 0) return Promise.resolve(exampleHot());
    const givenUp = new CommandError('given up');
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(givenUp)));
  });
  const ended = new TopScreen(screen, START).run();
  await until(() => asked === 2);
  screen.input.write('q');
  await ended;
  assert.deepEqual(screen.raw, [true, false]);
});

test('where there is no terminal, top prints a table each interval', async () => {
  const path = join(folder, 'socket');
  const source = { status: exampleStatus, describeRecord: async () => exampleRecord(), witness: new FakeWitness() };
  const daemon = await AdminServer.start({ path, source });
  const once = await smbpool('top', '--once', '--sort', 'opens', '--socket', path);
  assert.deepEqual({ status: once.status, err: once.err }, { status: 0, err: '' });
  assertGolden('unit/cli-golden/top-table.txt', once.out);
  const json = await smbpool('top', '--once', '--json', '--socket', path);
  assert.deepEqual(JSON.parse(json.out), exampleHot());
  const live = startSmbpool('top', '--interval', '0.1', '--socket', path);
  let text = '';
  live.child.stdout!.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await until(() => text.split('most opens first').length > 3);
  live.child.kill('SIGTERM');
  assert.equal((await live.ended).status, 0);
  await daemon.stop();
  const bad = await smbpool('top', '--sort', 'size', '--socket', path);
  assert.match(bad.err, /Allowed choices are opens, moves, waits, p99/);
});
