/**
 * The CTDB codecs against packets recorded from a stock ctdbd 4.17.12 and its clients: hexadecimal against value, round
 * trips over a range of seeds, input cut at every byte.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import { databaseId } from '../../src/base/ids.js';
import { databaseIdOf, lookup3 } from '../../src/base/jenkins.js';
import { Prng } from '../../src/base/prng.js';
import { DESTINATION, decodeCtdbPacket, encodeCtdbPacket, nameBytes, peekHeader, textOf } from '../../src/wire/ctdb.js';
import type { CtdbBody, CtdbPacket } from '../../src/wire/ctdb.js';
import {
  CONTROL,
  controlName,
  decodeCheckPidSrvid,
  decodeDatabaseMap,
  decodeName,
  decodeNodeMap,
  decodeTraverseStart,
  encodeCheckPidSrvid,
  encodeDatabaseMap,
  encodeNodeMap,
  encodeTraverseStart,
  encodeU32,
  encodeVnnMap,
} from '../../src/wire/ctdb-controls.js';
import {
  decodeMarshalled,
  decodeRow,
  decodeScheduleForDeletion,
  encodeMarshalled,
  encodeRow,
  encodeScheduleForDeletion,
  endOfRows,
} from '../../src/wire/ctdb-records.js';
import { decodeGateMessage, encodeGateMessage } from '../../src/wire/gate-messages.js';
import type { GateMessage } from '../../src/wire/gate-messages.js';
import { decodePersistentMessage, encodePersistentMessage } from '../../src/wire/persistent-messages.js';
import type { PersistentMessage } from '../../src/wire/persistent-messages.js';

const EMPTY = new Uint8Array(0);
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const unhex = (text: string): Uint8Array => Buffer.from(text.replace(/\s/g, ''), 'hex');
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_key, each: unknown) => {
      if (typeof each === 'bigint') return each.toString();
      if (each instanceof Uint8Array) return hex(each);
      if (typeof each === 'object' && each !== null && 'type' in each && each.type === 'Buffer') {
        return hex(Uint8Array.from((each as unknown as { data: number[] }).data));
      }
      return each;
    }),
  );

/** Every prefix is refused by DecodeError and nothing else. */
function assertCutsRefused(bytes: Uint8Array, decode: (bytes: Uint8Array) => unknown): void {
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => decode(bytes.subarray(0, length)), DecodeError, `cut at ${length} of ${bytes.length}`);
  }
}

interface Recorded {
  what: string;
  hex: string;
  /** Whether it came from the daemon, which pads. */
  padded: boolean;
  packet: CtdbPacket;
}

const FROM_CLIENT = { generation: 1, destination: DESTINATION.current, source: 0 };
const FROM_DAEMON = { generation: 0x76b9ae21, destination: 0, source: 0 };

const RECORDED: Recorded[] = [
  {
    what: 'GET_PNN',
    hex: `3c00000042445443010000000100000007000000010000f00000000001000000
          23000000000000000000000000000000000000000000000000000000`,
    padded: false,
    packet: { ...FROM_CLIENT, requestId: 1, ...control(CONTROL.getPnn) },
  },
  {
    what: 'answer to GET_PNN',
    hex: `30000000424454430100000021aeb97608000000000000000000000001000000 00000000000000000000000000000000`,
    padded: true,
    packet: { ...FROM_DAEMON, requestId: 1, kind: 'reply-control', status: 0, data: EMPTY, error: '' },
  },
  {
    what: 'DB_ATTACH of ctest.tdb',
    hex: `4600000042445443010000000100000007000000010000f00000000003000000
          1200000000000000000000000000000000000000000000000a00000063746573742e74646200`,
    padded: false,
    packet: { ...FROM_CLIENT, requestId: 3, ...control(CONTROL.databaseAttach, nameBytes('ctest.tdb')) },
  },
  {
    what: 'answer to DB_ATTACH',
    hex: `30000000424454430100000021aeb97608000000000000000000000003000000 000000000400000000000000656a286a`,
    padded: true,
    packet: { ...FROM_DAEMON, requestId: 3, ...answer(encodeU32(databaseIdOf('ctest.tdb'))) },
  },
  {
    what: 'answer to GETDBPATH',
    hex: `58000000424454430100000021aeb97608000000000000000000000004000000 000000002700000000000000
          2f746d702f632d637464622f6e302f64622f766f6c6174696c652f63746573742e7464622e3000 0000000000`,
    padded: true,
    packet: { ...FROM_DAEMON, requestId: 4, ...answer(nameBytes('/tmp/c-ctdb/n0/db/volatile/ctest.tdb.0')) },
  },
  {
    what: 'migrating call',
    hex: `3b00000042445443010000000100000000000000010000f0000000001c000000
          01000000656a286a010000ff000000000300000000000000616263`,
    padded: false,
    packet: {
      ...FROM_CLIENT,
      requestId: 28,
      kind: 'request-call',
      flags: 1,
      database: databaseIdOf('ctest.tdb'),
      callId: 0xff000001,
      hopCount: 0,
      key: nameBytes('abc').subarray(0, 3),
      data: EMPTY,
    },
  },
  {
    what: 'message',
    hex: `30000000424454430100000021aeb97605000000000000000000000000000000 34120000000000000300000061626300`,
    padded: true,
    packet: {
      ...FROM_DAEMON,
      requestId: 0,
      kind: 'message',
      srvid: 0x1234n,
      data: nameBytes('abc').subarray(0, 3),
    },
  },
  {
    what: 'SCHEDULE_FOR_DELETION',
    hex: `6300000042445443010000000100000007000000010000f00000000020000000
          80000000000000000000000000000000000000000000000027000000
          656a286a0000000000000000000000000000000000000000000000000000000003000000616263`,
    padded: false,
    packet: {
      ...FROM_CLIENT,
      requestId: 32,
      ...control(
        CONTROL.scheduleForDeletion,
        encodeScheduleForDeletion(databaseIdOf('ctest.tdb'), new Uint8Array(24), nameBytes('abc').subarray(0, 3)),
      ),
    },
  },
  {
    what: 'CHECK_PID_SRVID',
    hex: `4800000042445443010000000100000007000000010000f00000000019000000
          9700000000000000000000000000000000000000000000000c000000 734400003412000000000000`,
    padded: false,
    packet: {
      ...FROM_CLIENT,
      requestId: 25,
      ...control(CONTROL.checkPidSrvid, encodeCheckPidSrvid(17_523, 0x1234n)),
    },
  },
  {
    what: 'TRAVERSE_START_EXT',
    hex: `5400000042445443010000000100000007000000010000f00000000022000000
          83000000000000000000000000000000000000000000000018000000 656a286a0600000034120000000000000100000000000000`,
    padded: false,
    packet: {
      ...FROM_CLIENT,
      requestId: 34,
      ...control(
        CONTROL.traverseStartExtended,
        encodeTraverseStart(
          { database: databaseIdOf('ctest.tdb'), requestId: 6, srvid: 0x1234n, withEmpty: true },
          true,
        ),
      ),
    },
  },
];

function control(opcode: number, data: Uint8Array = EMPTY): CtdbBody {
  return { kind: 'request-control', opcode, srvid: 0n, clientId: 0, flags: 0, data };
}
function answer(data: Uint8Array): CtdbBody {
  return { kind: 'reply-control', status: 0, data, error: '' };
}

describe('recorded packets', () => {
  for (const { what, hex: text, padded, packet } of RECORDED) {
    test(what, () => {
      const bytes = unhex(text);
      assert.deepEqual(plain(decodeCtdbPacket(bytes)), plain(packet));
      assert.equal(hex(encodeCtdbPacket(packet, padded)), hex(bytes));
    });
  }
  test('answer to GET_NODEMAP', () => {
    const data = unhex('0100000000000000000000000200111b7f0000010000000000000000000000000000000000000000');
    assert.deepEqual(decodeNodeMap(data), [{ node: 0, flags: 0, address: '127.0.0.1', port: 4379 }]);
    assert.equal(hex(encodeNodeMap([{ node: 0, flags: 0, address: '127.0.0.1', port: 4379 }])), hex(data));
  });
  test('a TRANS3_COMMIT of two rows', () => {
    const data = unhex(`c1acbc1d020000002d00000000000000030000001a000000616263020000000000000000000000000000000000000000
      0000007631470000000000000017000000200000005f5f64625f73657175656e63655f6e756d6265725f5f00020000000000000000000000
      0300000000000000000000000200000000000000`);
    const marshalled = decodeMarshalled(data);
    assert.equal(marshalled.database, databaseIdOf('cpers.tdb'));
    assert.deepEqual(marshalled.rows.map((row) => textOf(row.key)), ['abc', '__db_sequence_number__']);
    assert.equal(hex(encodeMarshalled(marshalled)), hex(data));
    assertCutsRefused(data, decodeMarshalled);
  });
  test('a row of a traversal and its end', () => {
    const data = unhex('2b00000006000000030000001800000061626305' + '00'.repeat(23));
    const row = decodeRow(data);
    assert.deepEqual([row.requestId, textOf(row.key), row.value.length], [6, 'abc', 24]);
    assert.equal(hex(encodeRow(row)), hex(data));
    assert.equal(hex(encodeRow(endOfRows(5))), '10000000050000000000000000000000');
    assertCutsRefused(data, decodeRow);
  });
});

test('databases are named by the number that CTDB gives them', () => {
  const known: [string, number][] = [
    ['locking.tdb', 0x7a19d84d],
    ['brlock.tdb', 0x4e66c2b2],
    ['g_lock.tdb', 0x4d2a432b],
    ['secrets.tdb', 0x7132c184],
    ['registry.tdb', 0x6cf2837d],
    ['ctest.tdb', 0x6a286a65],
    ['cpers.tdb', 0x1dbcacc1],
  ];
  for (const [name, id] of known) assert.equal(databaseIdOf(name), id, name);
  assert.equal(lookup3(EMPTY), 0xdeadbeef);
});

function randomBody(prng: Prng): CtdbBody {
  const data = prng.bytes(prng.below(40));
  const srvid = (BigInt(prng.u32()) << 32n) | BigInt(prng.u32());
  const status = prng.u32();
  switch (prng.below(6)) {
    case 0: {
      const [flags, database, callId, hopCount] = [prng.u32(), prng.u32(), prng.u32(), prng.u32()];
      return { kind: 'request-call', flags, database, callId, hopCount, key: prng.bytes(prng.below(30)), data };
    }
    case 1:
      return { kind: 'reply-call', status, data };
    case 2:
      return { kind: 'reply-error', status, message: hex(data) };
    case 3:
      return { kind: 'message', srvid, data };
    case 4:
      return { kind: 'request-control', opcode: prng.u32(), srvid, clientId: prng.u32(), flags: prng.u32(), data };
    default:
      return { kind: 'reply-control', status: status | 0, data, error: hex(prng.bytes(prng.below(9))) };
  }
}

test('packets survive the round trip, padded or not, and every cut is refused', () => {
  for (let seed = 0; seed < 500; seed++) {
    const prng = new Prng(seed);
    const header = { generation: prng.u32(), destination: prng.u32(), source: prng.u32(), requestId: prng.u32() };
    const packet = { ...header, ...randomBody(prng) };
    const padded = prng.chance(0.5);
    const bytes = encodeCtdbPacket(packet, padded);
    if (padded) assert.equal(bytes.length % 8, 0);
    assert.deepEqual(plain(decodeCtdbPacket(bytes)), plain(packet), `seed ${seed}`);
    assert.equal(peekHeader(bytes)?.requestId, packet.requestId);
    assertCutsRefused(bytes, decodeCtdbPacket);
  }
});

test('other magic, version, length or operation are refused by name', () => {
  const good = encodeCtdbPacket({ ...FROM_CLIENT, requestId: 1, ...control(CONTROL.ping) }, false);
  const changed = (offset: number): string => {
    const bytes = Uint8Array.from(good);
    bytes[offset] = 0x55;
    try {
      decodeCtdbPacket(bytes);
    } catch (error) {
      if (error instanceof DecodeError) return error.reason;
      throw error;
    }
    return 'accepted';
  };
  assert.deepEqual([0, 4, 8, 16].map(changed), ['wrong-length', 'bad-magic', 'bad-version', 'unknown-operation']);
});

test('control data: round trips and refusals', () => {
  const nodes = [
    { node: 0, flags: 1, address: '10.77.0.10', port: 0 },
    { node: 1, flags: 0, address: 'fd00:0:0:0:0:0:0:1', port: 445 },
  ];
  assert.deepEqual(decodeNodeMap(encodeNodeMap(nodes)), nodes);
  assert.deepEqual(decodeNodeMap(encodeNodeMap([{ ...nodes[1]!, address: 'fd00::1' }])), [nodes[1]]);
  const [named] = decodeNodeMap(encodeNodeMap([{ node: 2, flags: 0, address: 'not an address', port: 0 }]));
  assert.equal(named?.address, '0.0.0.0');
  const databases = [{ database: 7, flags: 3 }];
  assert.deepEqual(decodeDatabaseMap(encodeDatabaseMap(databases)), databases);
  assert.deepEqual(decodeCheckPidSrvid(encodeCheckPidSrvid(-5, 77n)), { pid: -5, srvid: 77n });
  const start = { database: 1, requestId: 2, srvid: 3n, withEmpty: false };
  assert.deepEqual(decodeTraverseStart(encodeTraverseStart(start, false), false), start);
  assert.equal(hex(encodeVnnMap(9, [0, 2])), '09000000020000000000000002000000');
  assertCutsRefused(encodeNodeMap(nodes), decodeNodeMap);
  assertCutsRefused(encodeCheckPidSrvid(1, 2n), decodeCheckPidSrvid);
  assertCutsRefused(encodeScheduleForDeletion(1, new Uint8Array(24), nameBytes('key')), decodeScheduleForDeletion);
  for (const bad of [EMPTY, unhex('00'), unhex('6161'), unhex('610061')]) {
    assert.throws(() => decodeName(bad), DecodeError, hex(bad));
  }
  assert.throws(() => decodeNodeMap(unhex('ffffffff')), DecodeError);
  assert.throws(() => decodeMarshalled(unhex('01000000ffffffff')), DecodeError);
  assert.equal(controlName(CONTROL.getPnn), 'getPnn');
  assert.equal(controlName(4711), 'opcode-4711');
});

function randomGateMessage(prng: Prng): GateMessage {
  const data = prng.bytes(prng.below(30));
  const srvid = (BigInt(prng.u32()) << 32n) | BigInt(prng.u32());
  const number = prng.u32() * 1000;
  const list = <T>(make: () => T): T[] => Array.from({ length: prng.below(4) }, make);
  switch (prng.below(11)) {
    case 0:
      return { kind: 'message', srvid, data };
    case 1: {
      const whats = ['came', 'went', 'holds', 'dropped'] as const;
      const changes = list(() => ({ what: prng.pick(whats), pid: prng.u32() | 0, srvid }));
      return { kind: 'process-changes', changes };
    }
    case 2: {
      const processes = list(() => ({ pid: prng.below(99), srvids: list(() => BigInt(prng.u32())) }));
      return { kind: 'process-list', first: prng.chance(0.5), last: prng.chance(0.5), processes };
    }
    case 3: {
      const type = prng.pick(['volatile', 'persistent', 'replicated'] as const);
      return { kind: 'database', database: databaseId(prng.u32()), type, readonly: prng.chance(0.5), name: hex(data) };
    }
    case 4:
      return { kind: 'control', number, opcode: prng.u32(), srvid, flags: prng.u32(), data };
    case 5:
      return { kind: 'control-answer', number, status: prng.u32() | 0, data, error: hex(prng.bytes(3)) };
    case 6:
      return { kind: 'traverse-start', number, database: databaseId(prng.u32()) };
    case 7: {
      const rows = list(() => ({ key: prng.bytes(prng.below(9)), data: prng.bytes(prng.below(9)) }));
      return { kind: 'traverse-rows', number, last: prng.chance(0.5), rows };
    }
    case 8:
      return { kind: 'traverse-more', number };
    case 9:
      return { kind: 'release', samba: `4.${number % 100}` };
    default:
      return { kind: 'traverse-cancel', number };
  }
}

function randomPersistentMessage(prng: Prng): PersistentMessage {
  const database = databaseId(prng.u32());
  const version = { term: prng.u32(), sequence: prng.u32() * 3 };
  const rows = Array.from({ length: prng.below(4) }, () => ({
    key: prng.bytes(prng.below(9)),
    value: prng.bytes(24 + prng.below(9)),
  }));
  const failed = prng.chance(0.5) ? '' : 'why not';
  switch (prng.below(10)) {
    case 0:
      return { kind: 'commit', database, number: prng.u32(), rows };
    case 1:
      return { kind: 'commit-done', database, number: prng.u32(), refusal: failed };
    case 2:
      return { kind: 'query', database };
    case 3:
      return { kind: 'version', database, version, failed };
    case 4:
      return { kind: 'apply', database, previous: { term: 0, sequence: 0 }, version, rows };
    case 5:
      return { kind: 'fetch', database };
    case 6:
      return { kind: 'content', database, rows, failed };
    case 7:
      return { kind: 'replace', database, version, rows };
    case 8:
      return { kind: 'in-sync', database, version };
    default:
      return { kind: 'fragment', transfer: prng.u32(), index: prng.below(5), count: 5, bytes: prng.bytes(20) };
  }
}

describe('messages between servers', () => {
  test('of the gate survive the round trip', () => {
    for (let seed = 0; seed < 500; seed++) {
      const message = randomGateMessage(new Prng(seed));
      assert.deepEqual(plain(decodeGateMessage(encodeGateMessage(message))), plain(message), `seed ${seed}`);
    }
  });
  test('of persistent databases survive the round trip', () => {
    for (let seed = 0; seed < 500; seed++) {
      const message = randomPersistentMessage(new Prng(seed));
      const decoded = decodePersistentMessage(encodePersistentMessage(message));
      assert.deepEqual(plain(decoded), plain(message), `seed ${seed}`);
    }
  });
  test('cut anywhere never give anything but a DecodeError or another message', () => {
    for (let seed = 0; seed < 200; seed++) {
      for (const [bytes, decode] of [
        [encodeGateMessage(randomGateMessage(new Prng(seed))), decodeGateMessage],
        [encodePersistentMessage(randomPersistentMessage(new Prng(seed))), decodePersistentMessage],
      ] as const) {
        for (let length = 0; length < bytes.length; length++) {
          try {
            decode(bytes.subarray(0, length));
          } catch (error) {
            assert.ok(error instanceof DecodeError, String(error));
          }
        }
      }
    }
  });
  test('of unknown types and with trailing bytes are refused', () => {
    assert.throws(() => decodeGateMessage(unhex('3f')), /unknown-type/);
    assert.throws(() => decodePersistentMessage(unhex('5f')), /unknown-type/);
    const more = encodeGateMessage({ kind: 'traverse-more', number: 1 });
    assert.throws(() => decodeGateMessage(Buffer.concat([more, unhex('00')])), /trailing-bytes/);
  });
});
