/**
 * Public addresses: who gets which, and that two servers never have one. The random runs repeat with SEED=number.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { nodeId } from '../../src/base/ids.js';
import { addressBytes, addressText, canonicalAddress } from '../../src/base/ip-address.js';
import { Prng } from '../../src/base/prng.js';
import { ipText } from '../../src/cli/ip.js';
import { assign, balance } from '../../src/core/addresses/assignment.js';
import type { AddressMessage } from '../../src/wire/address-messages.js';
import { decodeAddressMessage, encodeAddressMessage } from '../../src/wire/address-messages.js';
import { AddressPool } from '../support/address-pool.js';

const SECOND = 1_000_000;
const SEEDS = Number(process.env['ADDRESS_SEEDS'] ?? 40);
const FIRST = Number(process.env['SEED'] ?? 1);
const able = [0, 1, 2].map(nodeId);
const candidates = { able, refuses: () => false };

const shown = (assigned: ReadonlyMap<string, number>): string =>
  [...assigned].sort(([a], [b]) => (a < b ? -1 : 1)).map(([address, node]) => `${address}${node}`).join(' ');

test('an address has one text', () => {
  for (const [text, canonical] of [
    ['10.0.0.1', '10.0.0.1'], ['0:0:0:0:0:0:0:1', '::1'], ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::ffff:10.0.0.1', '10.0.0.1'], ['fe80::', 'fe80::'], ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'], ['::', '::'],
    ['10.0.0.256', null], ['10.0.0', null], ['1::2::3', null], ['1:2:3', null], ['g::', null], ['', null],
  ] as const) {
    assert.equal(canonicalAddress(text), canonical, text);
  }
  const prng = new Prng(1);
  for (let i = 0; i < 2000; i++) {
    const bytes = Array.from({ length: 16 }, () => (prng.chance(0.6) ? 0 : prng.below(256)));
    const text = addressText(bytes);
    if (text.includes(':')) assert.deepEqual(addressBytes(text), bytes, text);
    if (text.includes(':')) assert.equal(new URL(`http://[${text}]/`).hostname, `[${text}]`);
  }
});

test('present holders keep what they have, the rest goes to whoever has fewest', () => {
  const holders = new Map([['a', nodeId(1)], ['b', nodeId(1)], ['c', nodeId(7)]]);
  assert.equal(shown(assign(['a', 'b', 'c', 'd'], holders, candidates)), 'a1 b1 c0 d2');
});

test('balance moves as few as needed', () => {
  const all = ['a', 'b', 'c', 'd', 'e', 'f'];
  const before = new Map(all.map((address, index) => [address, nodeId(index % 2)]));
  const after = balance(all, before, candidates);
  assert.deepEqual(able.map((node) => [...after.values()].filter((one) => one === node).length), [2, 2, 2]);
  assert.equal(all.filter((address) => before.get(address) !== after.get(address)).length, 2);
  assert.equal(shown(balance(all, after, candidates)), shown(after));
});

test('nobody gets what it refuses; with nobody able an address stays', () => {
  const refuses = (node: number, address: string): boolean => node === 0 && address === 'a';
  assert.equal(shown(assign(['a'], new Map([['a', nodeId(0)]]), { able, refuses })), 'a1');
  assert.equal(shown(assign(['a'], new Map([['a', nodeId(2)]]), { able: [], refuses })), 'a2');
  const both = new Map([['a', nodeId(1)], ['b', nodeId(1)]]);
  const spread = balance(['a', 'b'], both, { able: able.slice(0, 2), refuses });
  assert.equal(shown(spread), 'a1 b0');
});

test('messages come back as they were', () => {
  const connection = { server: '10.0.0.100', serverPort: 445, client: 'fe80::1', clientPort: 50_000 };
  const messages: AddressMessage[] = [
    { kind: 'report', epoch: 5 as never, version: 3, able: true, has: ['10.0.0.1'], refused: ['2001:db8::1'] },
    {
      kind: 'table', epoch: 2 ** 40 as never, version: 9,
      entries: [{ address: '10.0.0.1', holder: null }, { address: '::1', holder: nodeId(63) }],
    },
    { kind: 'connections', whole: true, added: [connection], removed: [] },
  ];
  for (const message of messages) assert.deepEqual(decodeAddressMessage(encodeAddressMessage(message)), message);
});

function settled(serverCount = 3, addressCount = 6, seed = 1): AddressPool {
  const pool = new AddressPool(new Prng(seed), serverCount, addressCount);
  pool.runUntil(5 * SECOND);
  return pool;
}

function assertServed(pool: AddressPool, counts: number[], why = ''): void {
  for (const address of pool.addresses) assert.equal(pool.holders(address).length, 1, `${address} ${why}`);
  assert.deepEqual(pool.counts().sort(), counts, why);
}

test('a pool that starts is balanced', () => assertServed(settled(), [2, 2, 2]));

test('after a crash the others have the addresses, and their clients are tickled; after its return it has two', () => {
  const pool = settled();
  const lost = [...pool.server(2).interface];
  const connection = { server: lost[0]!, serverPort: 445, client: '10.0.0.7', clientPort: 1234 };
  pool.connect(2, 1, connection);
  pool.runUntil(6 * SECOND);
  pool.crash(nodeId(2));
  const before = [0, 1].map((id) => [...pool.server(id).interface]);
  pool.runUntil(7 * SECOND);
  assertServed(pool, [0, 3, 3]);
  for (const id of [0, 1]) assert.ok(before[id]!.every((address) => pool.server(id).interface.has(address)));
  pool.runUntil(9 * SECOND);
  const tickled = [0, 1].flatMap((id) => pool.server(id).taken).filter((one) => one.address === lost[0]);
  assert.deepEqual(tickled.slice(-4).map((one) => one.tickled), [1, 1, 1, 1]);
  pool.server(2).interface.clear();
  pool.start(nodeId(2));
  pool.runUntil(14 * SECOND);
  assertServed(pool, [2, 2, 2]);
  for (const id of [0, 1]) {
    const kept = before[id]!.filter((address) => pool.server(id).interface.has(address));
    assert.ok(pool.server(id).interface.size - kept.length <= 1);
  }
});

test('a server that stood still lets go before it does anything else', () => {
  const pool = settled();
  pool.server(1).isPaused = true;
  pool.runUntil(7 * SECOND);
  const others = [0, 2].map((id) => pool.server(id).interface.size);
  assert.deepEqual(others, [3, 3]);
  pool.server(1).goOn();
  assert.ok(pool.server(1).isDead || pool.server(1).isFenced);
});

test('what cannot be taken goes elsewhere, and no smbd means no address', () => {
  const pool = settled(2, 3);
  for (const address of pool.addresses) pool.server(0).broken.add(address);
  pool.server(1).step(() => pool.server(1).room.setAble(false));
  pool.runUntil(7 * SECOND);
  assert.ok(pool.server(0).interface.size < 3, 'what is broken was not taken');
  pool.server(1).step(() => pool.server(1).room.setAble(true));
  pool.server(0).step(() => pool.server(0).room.setAble(false));
  pool.runUntil(10 * SECOND);
  assert.deepEqual([...pool.server(1).interface].sort(), pool.addresses);
});

test('a table of another view, or of somebody who does not lead, is not heeded', () => {
  const pool = settled();
  const { view } = pool;
  const other = pool.ids.find((id) => id !== view!.leader)!;
  const server = pool.ids.find((id) => id !== view!.leader && id !== other)!;
  const entries = pool.addresses.map((address) => ({ address, holder: server }));
  for (const [from, epoch] of [[view!.leader, view!.epoch - 1], [other, view!.epoch]] as const) {
    const table = encodeAddressMessage({ kind: 'table', epoch: epoch as never, version: 1000, entries });
    pool.server(server).step(() => pool.server(server).room.onMessage(from, table));
    pool.runUntil(pool.now + SECOND);
    assertServed(pool, [2, 2, 2]);
  }
});

test('the table for people', () => {
  const one = { prefixLength: 24, interface: 'eth0', sinceMicros: 5_000_000 };
  const text = ipText([
    { ...one, address: '10.0.0.100', holder: 1, holderName: 'beta', connections: 2 },
    { ...one, address: '10.0.0.101', holder: null, holderName: null, connections: 0 },
  ]);
  assert.deepEqual(text.split('\n').map((line) => line.trimEnd().replace(/ +/g, ' ')), [
    ' address holder since connections', ' 10.0.0.100/24 1 (beta) 5.0 s 2', ' 10.0.0.101/24 NOBODY 5.0 s 0', '',
  ]);
});

test('random crashes, pauses and leaders: never two, and served again when it is over', () => {
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    try {
      randomRun(seed);
    } catch (error) {
      throw new Error(`repeat with SEED=${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
});

function randomRun(seed: number): void {
  const prng = new Prng(seed);
  const count = 2 + prng.below(4);
  const pool = new AddressPool(prng, count, 1 + prng.below(7));
  pool.isCalm = false;
  for (let time = 0; time < 10 * SECOND; time += 1 + prng.below(700_000)) {
    pool.runUntil(Math.max(pool.now, time));
    const id = nodeId(prng.below(count));
    const server = pool.server(id);
    switch (prng.below(7)) {
      case 0:
        pool.crash(id);
        break;
      case 1:
        server.isPaused = true;
        break;
      case 2:
        if (server.isPaused) server.goOn();
        break;
      case 3:
        pool.unwanted.add(id);
        break;
      case 4:
        pool.unwanted.delete(id);
        break;
      case 5:
        if (server.isDead) pool.start(id);
        break;
      default:
        server.step(() => server.room.setAble(prng.chance(0.7)));
    }
  }
  pool.runUntil(Math.max(pool.now, 10 * SECOND));
  for (const id of pool.ids) if (pool.server(id).isPaused) pool.server(id).goOn();
  pool.unwanted.clear();
  pool.isCalm = true;
  pool.runUntil(pool.now + 2 * SECOND);
  for (const id of pool.ids) if (pool.server(id).isDead) pool.start(id);
  for (const id of pool.ids) pool.server(id).step(() => pool.server(id).room.setAble(true));
  pool.runUntil(pool.now + 8 * SECOND);
  const sizes = pool.counts();
  for (const address of pool.addresses) assert.equal(pool.holders(address).length, 1, `${address} is served`);
  assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, `balanced: ${sizes.join(' ')}`);
}
