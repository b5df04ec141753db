/**
 * How the daemon deals with its real-time priority: asked for, refused, taken away by the guard and given back, told in
 * the status. The addon is a fake; test/native/realtime.test.ts has the real one.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { LoopPriority } from '../../src/daemon/loop-priority.js';
import type { PrioritySystem } from '../../src/daemon/loop-priority.js';

const HELPERS = [11, 12];
const NO_CAPABILITY = 'CapEff:\t0000000000002000\n';
const ALL_CAPABILITIES = 'CapEff:\t000001ffffffffff\n';

class FakeSystem implements PrioritySystem {
  refusal: string | null = null;
  capabilities = NO_CAPABILITY;
  time = 0;
  starts: (readonly number[])[] = [];
  stops = 0;
  state = { active: true, demotions: 0, stuckMicros: 0 };
  readonly native = {
    realtimeStart: (helpers: readonly number[]): void => {
      if (this.refusal !== null) throw Object.assign(new Error('refused'), { code: this.refusal });
      this.starts.push(helpers);
      this.state.active = true;
    },
    realtimeLook: () => this.state,
    realtimeStop: (): void => void this.stops++,
  };

  helpers = async (): Promise<number[]> => HELPERS;
  processStatus = (): string => this.capabilities;
  now = (): number => this.time;
}

async function started(wanted: boolean, prepare: (system: FakeSystem) => void = () => undefined) {
  const system = new FakeSystem();
  prepare(system);
  const said: string[] = [];
  const log = {
    log: (level: string, event: string, fields: Record<string, unknown> = {}): void =>
      void said.push([level, event, fields['remedy'] ?? ''].map(String).join(': ')),
  };
  const priority = await LoopPriority.start(wanted, system, log);
  return { system, said, priority };
}

test('it is taken for the loop and its helpers, and given back at the end', async () => {
  const { system, said, priority } = await started(true);
  assert.deepEqual([system.starts, said], [[HELPERS], []]);
  assert.deepEqual(priority.status(), { on: true, why: null, lost: 0 });
  priority.stop();
  assert.equal(system.stops, 1);
});

test('who does not want it is not warned', async () => {
  const { system, said, priority } = await started(false);
  assert.deepEqual([system.starts, said], [[], []]);
  assert.equal(priority.status().on, false);
  assert.match(priority.status().why ?? '', /realtime: false/);
  priority.stop();
  assert.equal(system.stops, 0);
});

for (const [refusal, capabilities, remedy] of [
  ['EPERM', NO_CAPABILITY, /LimitRTPRIO=2.*CAP_SYS_NICE/],
  ['EPERM', ALL_CAPABILITIES, /control group/],
  ['ERANGE', ALL_CAPABILITIES, /LimitRTTIME/],
] as const) {
  test(`refused with ${refusal}: one warning that says ${remedy.source}, and it goes on without`, async () => {
    const { said, priority } = await started(true, (system) => Object.assign(system, { refusal, capabilities }));
    assert.equal(said.length, 1);
    assert.match(said[0]!, /^warn: the loop has no real-time priority/);
    assert.match(said[0]!, remedy);
    assert.match(said[0]!, /realtime: false/);
    assert.deepEqual(priority.status(), { on: false, why: 'refused', lost: 0 });
    priority.stop();
  });
}

test('taken away by the guard it is told once and comes back after some quiet', async () => {
  const { system, said, priority } = await started(true);
  system.time = 60_000;
  system.state = { active: false, demotions: 1, stuckMicros: 500_000 };
  priority.look();
  assert.equal(said.length, 1);
  assert.match(said[0]!, /^warn: the loop lost its real-time priority/);
  assert.deepEqual([priority.status().on, priority.status().lost], [false, 1]);
  system.time += 4_000;
  priority.look();
  assert.equal(system.starts.length, 1);
  system.time += 1_000;
  priority.look();
  assert.equal(system.starts.length, 2);
  assert.match(said[1]!, /^info: the loop has real-time priority again/);
  assert.deepEqual(priority.status(), { on: true, why: null, lost: 1 });
  priority.look();
  assert.equal(said.length, 2);
  priority.stop();
});

test('lost again while it waits, it waits anew', async () => {
  const { system, priority } = await started(true);
  system.state = { active: false, demotions: 1, stuckMicros: 1 };
  priority.look();
  system.time = 4_000;
  system.state = { active: false, demotions: 2, stuckMicros: 1 };
  priority.look();
  system.time = 6_000;
  priority.look();
  assert.equal(system.starts.length, 1);
  priority.stop();
});
