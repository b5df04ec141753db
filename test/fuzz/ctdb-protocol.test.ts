/**
 * Garbage, changed and truncated packets against the decoders and against a whole gate: nothing but DecodeError may be
 * thrown, every request that can be answered is, and a well-behaved client beside it notices nothing. FUZZ_SECONDS says
 * for how long (default 3), SEED which run.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import { databaseIdOf } from '../../src/base/jenkins.js';
import { Prng } from '../../src/base/prng.js';
import { OPERATION, decodeCtdbPacket, encodeCtdbPacket, nameBytes } from '../../src/wire/ctdb.js';
import type { CtdbBody } from '../../src/wire/ctdb.js';
import * as controls from '../../src/wire/ctdb-controls.js';
import {
  decodeMarshalled,
  decodeRow,
  decodeScheduleForDeletion,
  encodeMarshalled,
} from '../../src/wire/ctdb-records.js';
import { decodeGateMessage, encodeGateMessage } from '../../src/wire/gate-messages.js';
import { decodePersistentMessage, encodePersistentMessage } from '../../src/wire/persistent-messages.js';
import { sequenceRow } from '../../src/wire/persistent-rows.js';
import { GatePool } from '../support/gate-pool.js';

const SECONDS = Number(process.env['FUZZ_SECONDS'] ?? 3);
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000_000);
const DB = databaseIdOf('locking.tdb');
const PERSISTENT_DB = databaseIdOf('secrets.tdb');
console.log(`seed ${SEED}`);

/** Runs the action with fresh randomness until the budget, in seconds, is spent; a failure names its seed. */
function forSeconds(seconds: number, action: (prng: Prng) => void): void {
  const end = Date.now() + seconds * 1000;
  for (let seed = SEED; Date.now() < end; seed++) {
    for (let i = 0; i < 20; i++, seed++) {
      try {
        action(new Prng(seed));
      } catch (error) {
        throw new Error(`SEED=${seed}: ${String(error)}`, { cause: error });
      }
    }
  }
}

/** A few bytes changed, cut, doubled or put in. */
function spoil(prng: Prng, bytes: Uint8Array): Uint8Array {
  let result = Uint8Array.from(bytes);
  for (let i = 1 + prng.below(3); i > 0; i--) {
    const at = prng.below(result.length + 1);
    const kind = prng.below(4);
    if (kind === 0 && at < result.length) result[at] = prng.pick([0, 1, 0x7f, 0x80, 0xff, prng.below(256)]);
    else if (kind === 1) result = result.slice(0, at);
    else if (kind === 2) result = Uint8Array.from([...result, ...prng.bytes(prng.below(9))]);
    else result = Uint8Array.from([...result.slice(0, at), ...prng.bytes(1 + prng.below(4)), ...result.slice(at)]);
  }
  return result;
}

function randomRequest(prng: Prng): CtdbBody {
  const database = prng.pick([DB, DB, PERSISTENT_DB, prng.u32()]);
  const key = prng.bytes(prng.below(12));
  const srvid = prng.pick([5n, 6n, 0xffff_ffff_ffff_ffffn, BigInt(prng.u32())]);
  if (prng.chance(0.25)) {
    const callId = prng.pick([0xff000001, 0xff000002, 0xff000003, prng.below(5)]);
    return { kind: 'request-call', flags: prng.below(8), database, callId, hopCount: 0, key, data: prng.bytes(3) };
  }
  if (prng.chance(0.2)) return { kind: 'message', srvid, data: prng.bytes(prng.below(60)) };
  const opcode = prng.chance(0.8) ? prng.pick(Object.values(controls.CONTROL)) : prng.below(200);
  const rows = [{ requestId: 0, ...sequenceRow({ term: 0, sequence: prng.below(4) }, 0) }];
  const data = prng.pick([
    new Uint8Array(0),
    controls.encodeU32(database),
    nameBytes(prng.pick(['locking.tdb', 'secrets.tdb', 'x.tdb', '../etc/passwd', 'y'])),
    controls.encodeTraverseStart({ database, requestId: 1, srvid, withEmpty: false }, prng.chance(0.5)),
    controls.encodeCheckPidSrvid(prng.below(5), srvid),
    encodeMarshalled({ database, rows }),
    prng.bytes(prng.below(60)),
  ]);
  return { kind: 'request-control', opcode, srvid, clientId: 0, flags: prng.below(2), data };
}

function randomPacket(prng: Prng, requestId: number): Uint8Array {
  const destination = prng.pick([0xf0000001, 0xf0000001, 0xf0000002, 0xf0000004, 0, 1, 2, 9]);
  return encodeCtdbPacket({ generation: 1, destination, source: 0, requestId, ...randomRequest(prng) }, false);
}

test('decoders throw nothing but DecodeError', () => {
  const decoders: ((bytes: Uint8Array) => unknown)[] = [
    decodeCtdbPacket,
    decodeMarshalled,
    decodeRow,
    decodeScheduleForDeletion,
    decodeGateMessage,
    decodePersistentMessage,
    controls.decodeNodeMap,
    controls.decodeDatabaseMap,
    controls.decodeName,
    controls.decodeNotify,
    controls.decodeCheckPidSrvid,
    (bytes) => controls.decodeTraverseStart(bytes, true),
  ];
  forSeconds(SECONDS / 3, (prng) => {
    const row = { key: prng.bytes(3), data: prng.bytes(5) };
    const rows = [sequenceRow({ term: 1, sequence: 1 }, 0)];
    const bytes = prng.pick([
      randomPacket(prng, 1),
      encodeGateMessage({ kind: 'traverse-rows', number: 1, last: false, rows: [row, row] }),
      encodeGateMessage({ kind: 'process-list', first: true, last: true, processes: [{ pid: 1, srvids: [1n, 2n] }] }),
      encodePersistentMessage({ kind: 'commit', database: DB, number: 1, rows }),
      encodeMarshalled({ database: 1, rows: [{ requestId: 1, key: prng.bytes(3), value: prng.bytes(30) }] }),
      prng.bytes(prng.below(100)),
    ]);
    const spoilt = spoil(prng, bytes);
    for (const decode of decoders) {
      try {
        decode(spoilt);
      } catch (error) {
        if (!(error instanceof DecodeError)) throw error;
      }
    }
  });
});

test('a gate under garbage answers what can be answered and serves its other clients', () => {
  forSeconds((SECONDS * 2) / 3, (prng) => {
    const pool = new GatePool(2);
    const server = pool.server(0);
    const good = server.connect(1);
    for (const [opcode, name] of [
      [controls.CONTROL.databaseAttach, 'locking.tdb'],
      [controls.CONTROL.databaseAttachPersistent, 'secrets.tdb'],
    ] as const) {
      good.control(opcode, nameBytes(name));
    }
    pool.advance(1_000_000);
    let bad = server.connect(2);
    const wanted: [typeof bad, number][] = [];
    for (let requestId = 10; requestId < 60; requestId++) {
      const whole = randomPacket(prng, requestId);
      const intact = prng.chance(0.5);
      const bytes = intact ? whole : spoil(prng, whole);
      if (intact && isAnswered(whole)) wanted.push([bad, requestId]);
      bad.raw(bytes);
      if (bad.closedByGate !== null || prng.chance(0.05)) {
        bad.close();
        bad = server.connect(2);
      }
      if (prng.chance(0.3)) pool.advance(prng.below(3_000_000));
    }
    pool.advance(90_000_000);
    const open = new Set(server.gate.status().clients === 2 ? [bad] : []);
    for (const [client, requestId] of wanted) {
      if (open.has(client)) assert.ok(client.reply(requestId) !== undefined, `request ${requestId} has no answer`);
    }
    assert.equal(good.answer(good.control(controls.CONTROL.getPnn)).status, 0);
    bad.close();
    good.close();
    pool.advance(1_000_000);
    const { calls, controls: forwarded, traversals } = server.gate.status();
    assert.deepEqual([calls, forwarded, traversals], [0, 0, 0]);
  });
});

/** Whether a client that sends this waits for an answer. */
function isAnswered(packet: Uint8Array): boolean {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const operation = view.getUint32(16, true);
  if (operation === OPERATION.requestCall) return true;
  return operation === OPERATION.requestControl && (view.getUint32(52, true) & 1) === 0;
}
