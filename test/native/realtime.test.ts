/**
 * Real-time priority of the loop and the guard that takes it away: who has it, who has not, and that a loop which does
 * not come round loses it at once. Needs the right to it; without, only the refusal is tested.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const CHILD = fileURLToPath(new URL('./realtime-child.js', import.meta.url));
const ORDINARY = { priority: 0, policy: 0 };
/** sched.h: SCHED_RR. */
const LOOP = { priority: 2, policy: 2 };
const HELPER = { priority: 1, policy: 2 };

interface Scheduling {
  priority: number;
  policy: number;
}

interface Result {
  refused?: string;
  before: Scheduling;
  after: Scheduling;
  others: Scheduling[];
  later?: Scheduling[];
  look: { active: boolean; demotions: number; stuckMicros: number };
}

function child(what: string, wrapper: readonly string[] = []): Result {
  const [command = '', ...args] = [...wrapper, process.execPath, CHILD, what];
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', timeout: 30_000 });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as Result;
}

const { refused } = child('nothing');
const skip = refused === undefined ? false : `real-time priority is refused here (${refused})`;

test('the loop has it, its helpers one step less, threads made later have none', { skip }, () => {
  const { before, others, later, look } = child('threads');
  assert.deepEqual([before, look], [LOOP, { active: true, demotions: 0, stuckMicros: 0 }]);
  assert.ok(others.length >= 8, `only ${others.length} helpers`);
  for (const one of others) assert.deepEqual(one, HELPER);
  assert.ok(later !== undefined && later.length > 0, 'no thread was made');
  for (const one of later) assert.deepEqual(one, ORDINARY);
});

test('a loop that does not come round loses it, with its helpers, and lives', { skip }, () => {
  const { before, after, others, look } = child('run');
  assert.deepEqual([before, after], [LOOP, ORDINARY]);
  for (const one of others) assert.deepEqual(one, ORDINARY);
  assert.deepEqual([look.active, look.demotions], [false, 1]);
  assert.ok(look.stuckMicros >= 400_000 && look.stuckMicros < 1_500_000, `after ${look.stuckMicros} us`);
});

test('it can be given back', { skip }, () => {
  const { after, look } = child('again');
  assert.deepEqual([after, look.active, look.demotions], [LOOP, true, 1]);
});

test('a loop that only has much to do keeps it', { skip }, () => {
  const { after, look } = child('turns');
  assert.deepEqual([after, look.demotions], [LOOP, 0]);
});

test('without the right to it nothing changes, and the error says so', { skip: process.getuid?.() !== 0 }, () => {
  const { refused: code, before, others } = child('nothing', ['setpriv', '--bounding-set', '-sys_nice']);
  assert.deepEqual([code, before], ['EPERM', ORDINARY]);
  for (const one of others) assert.deepEqual(one, ORDINARY);
});

const RAISE = ['prlimit', '--rtprio=2'];
const mayRaise = spawnSync(RAISE[0]!, [...RAISE.slice(1), 'true']).status === 0;

test('LimitRTPRIO is right enough', { skip: mayRaise ? skip : 'needs CAP_SYS_RESOURCE' }, () => {
  const limited = [...RAISE, 'setpriv', '--bounding-set', '-sys_nice'];
  assert.deepEqual(child('run', limited).after, ORDINARY);
  assert.deepEqual(child('again', limited).after, LOOP);
});
