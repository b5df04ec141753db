/** The gate: traversals of the whole pool, and packets that are not what they should be. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { databaseIdOf } from '../../src/base/jenkins.js';
import { keyOf } from '../../src/base/ids.js';
import { CALL_ID, DESTINATION, encodeCtdbPacket, nameBytes, textOf } from '../../src/wire/ctdb.js';
import { CONTROL, decodeU32, encodeTraverseStart } from '../../src/wire/ctdb-controls.js';
import { decodeRow } from '../../src/wire/ctdb-records.js';
import { KEY_BYTES_MAX } from '../../src/wire/record-messages.js';
import { TRAVERSE_IDLE_MICROS_MAX } from '../../src/core/gate/traversals.js';
import { GatePool } from '../support/gate-pool.js';
import type { TestClient } from '../support/gate-pool.js';

const LOCKING = databaseIdOf('locking.tdb');
const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const EMPTY = new Uint8Array(0);

function attach(
  pool: GatePool,
  client: TestClient,
  name = 'locking.tdb',
  opcode: number = CONTROL.databaseAttach,
): void {
  const request = client.control(opcode, nameBytes(name));
  pool.advance(10_000);
  const answer = client.answer(request);
  assert.equal(answer.status, 0, answer.error);
  assert.equal(decodeU32(answer.data), databaseIdOf(name));
}

describe('traversals', () => {
  const start = (client: TestClient, database = LOCKING): void => {
    const data = encodeTraverseStart({ database, requestId: 42, srvid: 5n, withEmpty: false }, false);
    assert.equal(client.answer(client.control(CONTROL.traverseStart, data)).status, 0);
  };
  const rows = (client: TestClient): { keys: string[]; ended: number } => {
    const all = client.messages.map((message) => decodeRow(message.data));
    assert.ok(all.every((row) => row.requestId === 42));
    const found = all.filter((row) => row.key.length > 0);
    assert.ok(found.every((row) => Buffer.from(row.value.subarray(24)).toString() === `of ${textOf(row.key)}`));
    return { keys: found.map((row) => textOf(row.key)).sort(), ended: all.length - found.length };
  };
  const fill = (pool: GatePool, id: number, count: number): string[] => {
    const names = Array.from({ length: count }, (_, i) => `${id}/${i}`);
    for (const name of names) pool.server(id).records.owned.set(keyOf(bytes(name)), bytes(`of ${name}`));
    pool.server(id).records.owned.set(keyOf(bytes(`${id}/empty`)), EMPTY);
    return names;
  };

  const twoServers = (): { pool: GatePool; client: TestClient } => {
    const pool = new GatePool(2);
    const client = pool.server(0).connect(1);
    attach(pool, client);
    return { pool, client };
  };

  test('give every record of every server once, then one end mark', () => {
    const pool = new GatePool(3);
    const client = pool.server(1).connect(1);
    attach(pool, client);
    const expected = [0, 1, 2].flatMap((id) => fill(pool, id, 300 * id + 1)).sort();
    start(client);
    pool.advance(1_000_000);
    assert.deepEqual(rows(client), { keys: expected, ended: 1 });
    assert.equal(client.messages.at(-1)?.data.length, 16);
    for (const id of [0, 1, 2]) assert.equal(pool.server(id).gate.status().traversals, 0);
  });

  test('end without the records of a server that goes away', () => {
    const { pool, client } = twoServers();
    const own = fill(pool, 0, 10).sort();
    fill(pool, 1, 500);
    start(client);
    pool.stop(1);
    pool.advance(1_000_000);
    assert.deepEqual(rows(client), { keys: own, ended: 1 });
  });

  test('go on when the asking server stood still meanwhile and only the others took it for gone', () => {
    const { pool, client } = twoServers();
    const expected = [0, 1].flatMap((id) => fill(pool, id, 300)).sort();
    start(client);
    pool.settle();
    pool.freeze(0);
    pool.heal(0, 1);
    pool.advance(1_000_000);
    assert.deepEqual(rows(client), { keys: expected, ended: 1 });
  });

  test('leave nothing behind when two servers lose each other for a while', () => {
    const { pool, client } = twoServers();
    const own = fill(pool, 0, 10).sort();
    fill(pool, 1, 500);
    start(client);
    pool.settle();
    pool.cut(0, 1);
    pool.advance(1_000_000);
    assert.deepEqual(rows(client), { keys: own, ended: 1 });
    pool.heal(0, 1);
    pool.advance(1_000_000);
    for (const id of [0, 1]) assert.equal(pool.server(id).gate.status().traversals, 0);
  });

  test('end after a bounded wait when a server does not answer', () => {
    const { pool, client } = twoServers();
    const own = fill(pool, 0, 3);
    pool.server(1).records.hold = true;
    fill(pool, 1, 3);
    start(client);
    pool.advance(TRAVERSE_IDLE_MICROS_MAX + 1_000_000);
    assert.deepEqual(rows(client), { keys: own, ended: 1 });
    assert.equal(pool.server(1).gate.status().traversals, 0);
  });

  test('stop when the client goes away', () => {
    const { pool, client } = twoServers();
    fill(pool, 0, 1_000);
    fill(pool, 1, 1_000);
    start(client);
    client.close();
    pool.advance(100_000);
    assert.equal(client.messages.length, 0);
    for (const id of [0, 1]) assert.equal(pool.server(id).gate.status().traversals, 0);
  });

  test('of a persistent database read the local file', () => {
    const pool = new GatePool(2);
    const client = pool.server(0).connect(1);
    attach(pool, client, 'passdb.tdb', CONTROL.databaseAttachPersistent);
    start(client, databaseIdOf('passdb.tdb'));
    pool.advance(100_000);
    const keys = client.messages.map((message) => textOf(decodeRow(message.data).key));
    assert.deepEqual(keys, ['__db_sequence_number__', '']);
  });
});

describe('bad input', () => {
  test('garbage ends the connection, counted; nobody else notices', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    const [bad, good] = [server.connect(1), server.connect(2)];
    bad.raw(Buffer.from('GET / HTTP/1.1\r\n\r\n and some more bytes to be longer than a header'));
    assert.match(bad.closedByGate ?? '', /bad-magic/);
    assert.equal(server.counter('gate.packet.refused.bad-magic'), 1);
    assert.equal(good.answer(good.control(CONTROL.getPnn)).status, 0);
  });

  test('a packet cut inside is answered with an error, so that nobody waits', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(1);
    const header = { generation: 1, destination: DESTINATION.current, source: 0 };
    const data = bytes('abcd');
    const control = { kind: 'request-control', opcode: 4, srvid: 0n, clientId: 0, flags: 0, data } as const;
    const wholeControl = encodeCtdbPacket({ ...header, requestId: 900, ...control }, false);
    const wholeCall = encodeCtdbPacket(
      {
        ...header,
        requestId: 901,
        kind: 'request-call',
        flags: 0,
        database: 1,
        callId: CALL_ID.fetch,
        hopCount: 0,
        key: bytes('key'),
        data: EMPTY,
      },
      false,
    );
    for (const whole of [wholeControl, wholeCall]) {
      for (let length = 32; length < whole.length; length++) {
        const cut = Uint8Array.from(whole.subarray(0, length));
        new DataView(cut.buffer).setUint32(0, length, true);
        client.raw(cut);
      }
    }
    assert.equal(client.closedByGate, null);
    assert.equal(client.packets.length, wholeControl.length - 32 + wholeCall.length - 32);
    assert.ok(client.packets.slice(0, wholeControl.length - 32).every((packet) => packet.kind === 'reply-control'));
  });

  test('a call for a key that no message between servers can carry is refused', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(1);
    attach(pool, client);
    for (const key of ['', 'x'.repeat(KEY_BYTES_MAX + 1)]) {
      const call = { kind: 'request-call', flags: 0, database: LOCKING, callId: CALL_ID.migrate, hopCount: 0 } as const;
      const request = client.send({ ...call, key: bytes(key), data: EMPTY });
      assert.equal(client.reply(request)?.kind, 'reply-error', `${key.length} bytes`);
    }
    assert.equal(pool.server(0).counter('gate.call.refused.key-empty'), 1);
  });

  test('answers sent by a client are refused', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(1);
    const request = client.send({ kind: 'reply-call', status: 0, data: EMPTY });
    assert.equal(client.reply(request)?.kind, 'reply-error');
  });
});
