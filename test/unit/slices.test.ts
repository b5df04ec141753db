/** Slices of much work: how long they rest. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Slices } from '../../src/core/records/slices.js';
import { Timers } from '../../src/core/timers.js';

/** Slices whose work takes time; when each began. */
function run(tookMicros: number, pieces: number): { began: number[]; most: number } {
  const timers = new Timers();
  const began: number[] = [];
  let now = 1_000;
  let left = pieces;
  let most = 0;
  const slices = new Slices({ now: () => now, timers }, 10, { min: 500, times: 2 }, (count) => {
    began.push(now);
    most = Math.max(most, count);
    left -= count;
    return left > 0;
  });
  slices.begin();
  // a step sees one time; the next begins when its work is done
  now += tookMicros;
  for (let due = timers.deadline(); due < Infinity; due = timers.deadline()) {
    const before = began.length;
    now = Math.max(now, due);
    timers.run(now);
    if (began.length > before) now += tookMicros;
  }
  return { began, most };
}

const gaps = ({ began }: { began: number[] }): number[] => began.slice(1).map((at, i) => at - began[i]!);

test('slices rest for as many times as long as the one before took, at least a little and never for long', () => {
  assert.deepEqual(gaps(run(1_000, 30)), [3_000, 3_000]);
  assert.deepEqual(gaps(run(10, 30)), [510, 510]);
  assert.deepEqual(gaps(run(50_000, 30)), [60_000, 60_000]);
  assert.equal(run(10, 30).most, 10);
});

test('slices that are begun again while they rest go on, and end when they are cancelled', () => {
  const timers = new Timers();
  let count = 0;
  const slices = new Slices({ now: () => 0, timers }, 1, { min: 5, times: 0 }, () => (count++, true));
  slices.begin();
  slices.begin();
  assert.equal(count, 1);
  slices.cancel();
  timers.run(1_000);
  assert.equal(count, 1);
  slices.begin();
  assert.equal(count, 2);
});
