/**
 * Garbage for the messages about public addresses: only DecodeError may be thrown, what was decoded encodes to the same
 * value, and a room whose peers talk nonsense neither throws anything else nor takes what is not its own.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import { epoch, nodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import type { AddressMessage, Standing } from '../../src/wire/address-messages.js';
import { decodeAddressMessage, encodeAddressMessage } from '../../src/wire/address-messages.js';
import { AddressPool } from '../support/address-pool.js';
import { SEED, fuzz, spoil } from '../support/fuzzing.js';

console.log(`seed ${SEED}`);

const ADDRESSES = ['10.0.0.100', '10.0.0.101', '10.9.9.9', '::1', '2001:db8::5'];

function randomMessage(prng: Prng): AddressMessage {
  const some = (): string[] => ADDRESSES.filter(() => prng.chance(0.5));
  const epochs = [0, 1, 2 ** 20 + 1, 2 ** 20 + 2, 2 ** 52];
  const head = { epoch: epoch(prng.pick(epochs)), version: prng.pick([0, 1, 5, prng.u32()]) };
  const connections = () =>
    some().map((server) => ({ server, serverPort: 445, client: prng.pick(ADDRESSES), clientPort: prng.below(65_536) }));
  return prng.pick<AddressMessage>([
    { kind: 'report', ...head, standing: prng.pick<Standing>([0, 1, 2, 3]), has: some(), refused: some() },
    {
      kind: 'table', ...head,
      entries: some().map((address) => ({ address, holder: prng.chance(0.3) ? null : nodeId(prng.below(64)) })),
    },
    { kind: 'connections', whole: prng.chance(0.5), added: connections(), removed: connections() },
  ]);
}

function decoded(bytes: Uint8Array): AddressMessage | null {
  try {
    return decodeAddressMessage(bytes);
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

test('messages come back as they were', () => {
  fuzz((prng) => {
    const message = randomMessage(prng);
    assert.deepEqual(decodeAddressMessage(encodeAddressMessage(message)), message);
  }, 1);
});

test('spoiled messages are refused, or are other messages', () => {
  fuzz((prng) => {
    const message = decoded(spoil(prng, encodeAddressMessage(randomMessage(prng))));
    if (message !== null) assert.deepEqual(decodeAddressMessage(encodeAddressMessage(message)), message);
  });
});

test('a room stands what its peers say', () => {
  const pool = new AddressPool(new Prng(SEED), 3, 2);
  pool.runUntil(3_000_000);
  const room = pool.server(0);
  fuzz((prng) => {
    // a report or a table that is believed would be the leader's lie, against which there is no help
    const message = randomMessage(prng);
    if (message.kind === 'table' && message.epoch === pool.view?.epoch) return;
    if (message.kind === 'report' && message.epoch === pool.view?.epoch) return;
    const bytes = encodeAddressMessage(message);
    const from = nodeId(1 + prng.below(2));
    room.step(() => decoded(bytes) !== null && room.room.onMessage(from, bytes));
    pool.runUntil(pool.now + 1000);
  });
  assert.ok(pool.addresses.every((address) => pool.holders(address).length === 1));
});
