/** A queue that is filled and emptied in any order keeps its order, and not what was taken. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fifo } from '../../src/base/fifo.js';
import { Prng } from '../../src/base/prng.js';

test('what is put in comes out once, in its order, whatever comes between', () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  console.log(`seed ${seed}`);
  const prng = new Prng(seed);
  const queue = new Fifo<number>();
  let [put, taken] = [0, 0];
  for (let round = 0; round < 200; round++) {
    for (let left = prng.below(100); left > 0; left--) queue.put(put++);
    for (let left = prng.below(110); left > 0 && !queue.isEmpty; left--) assert.equal(queue.take(), taken++);
    assert.equal(queue.isEmpty, taken === put);
  }
  while (!queue.isEmpty) assert.equal(queue.take(), taken++);
  assert.deepEqual([taken, queue.take()], [put, undefined]);
});

test('what was taken is not kept, also when the queue is never empty', () => {
  const queue = new Fifo<number>();
  for (let number = 0; number < 100; number++) queue.put(number);
  for (let number = 100; number < 100_000; number++) {
    queue.put(number);
    queue.take();
  }
  const { items } = queue as unknown as { items: number[] };
  assert.ok(items.length < 5_000, `${items.length} are kept of 100`);
});
