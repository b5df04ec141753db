/**
 * From an smbd's end of the ring to the pool and back: messages as C lays them out are understood, an open's records
 * come home, and the pool knows who holds what. Whole hosts, real rings, no smbd.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { TestContext } from 'node:test';
import { keyOf } from '../../src/base/ids.js';
import type { TraceEvent } from '../../src/wire/locks.js';
import { decodeRingMessage, RING_OP } from '../../src/wire/ring-ops.js';
import { GateClient } from '../support/gate-client.js';
import { startPool, udp } from '../support/host-pool.js';
import type { Pool } from '../support/host-pool.js';
import { eventually } from '../support/native-helpers.js';
import { RingProbe, ringSamples } from '../support/ring-probe.js';

function fileId(volume: bigint, inode: bigint, snapshot: bigint): Buffer {
  const bytes = Buffer.alloc(24);
  [volume, inode, snapshot].forEach((word, index) => bytes.writeBigUInt64LE(word, 8 * index));
  return bytes;
}

const FILE = fileId(11n, 0x1122_3344_5566_7788n, 13n);
const file = keyOf(FILE);
const terms = {
  accessMask: 0x12_0089, shareAccess: 3, disposition: 1, oplock: 0x100, leaseState: 7, leaseKey: 'k'.repeat(16),
};
const open = {
  tree: 5n, file, shareFileId: 32n, persistentId: 33n, sinceMicros: 34n, flags: 16, status: 0, createAction: 2,
  tookMicros: 35, path: 'd/a.txt', ...terms,
};
const lock = { file, shareFileId: 32n, persistentId: 33n, start: 52n, size: 53n, blocker: 54n, type: 1, status: 55 };

const MEANT: Record<string, object> = {
  hello: {
    server: { pid: 4711n, task: 1, vnn: 2, unique: 3n },
    clientGuid: 'g'.repeat(16),
    address: '10.0.0.7:49152',
    name: 'pc',
  },
  'tree-connect': { tree: 5n, volume: 6n, rootInode: 7n, flags: 1, share: 'work', user: 'D\\bob', path: '/srv/w' },
  'tree-disconnect': { tree: 5n },
  'open-begin': {
    operation: 41n, tree: 5n, file, base: keyOf(fileId(21n, 22n, 23n)), flags: 1, deadlineMillis: 42, path: 'd/a.txt',
    ...terms,
  },
  'open-cancel': { operation: 41n },
  'open-end': { operation: 41n, ...open },
  close: { file, shareFileId: 32n, persistentId: 33n, flags: 2, status: 51 },
  lock,
  unlock: lock,
  'lease-change': {
    file, shareFileId: 32n, change: 2, oplockBefore: 61, oplockAfter: 62, leaseBefore: 63, leaseAfter: 64,
  },
  claim: { tree: 5n, file },
  'resync-begin': { operationsFrom: 71n },
  'replay-open': { operation: 0n, ...open },
  'replay-lock': lock,
  'resync-end': {},
  'notify-begin': {
    number: 81n,
    flags: 1,
    change: {
      since: new Uint8Array(new BigUint64Array([90n, 91n]).buffer),
      filter: 92,
      subdirFilter: 93,
      handle: 0x8283_8485_8687_8889n,
      folder: new Uint8Array(Buffer.from('/srv/w')),
    },
  },
  'notify-end': { number: 81n },
  'breaks-sent': { number: 101, breaks: 102 },
};

test('every message of the module is read as C wrote it', async () => {
  const samples = await ringSamples();
  assert.deepEqual([...samples.keys()].sort(), Object.keys(MEANT).sort());
  for (const [name, { op, hex }] of samples) {
    const bytes = new Uint8Array(Buffer.from(hex, 'hex'));
    assert.deepEqual(decodeRingMessage(op, bytes), { kind: name, ...MEANT[name] }, name);
  }
});

interface Smbd {
  probe: RingProbe;
  say(name: string): Promise<void>;
}

async function attachSmbd(t: TestContext, pool: Pool, server: number): Promise<Smbd> {
  const samples = await ringSamples();
  const { socketPath, ringSocketPath } = pool.options[server]!;
  const gate = new GateClient(t, socketPath);
  for (const name of ['locking.tdb', 'brlock.tdb', 'leases.tdb']) await gate.attach(name);
  const probe = await RingProbe.attached(t, ringSocketPath!);
  const say = async (name: string): Promise<void> => {
    const { op, hex } = samples.get(name)!;
    await probe.asks(`send ${op} ${hex}`, /^sent$/);
  };
  await say('hello');
  await say('tree-connect');
  // tree 5, result 0
  await probe.says(new RegExp(`^reply ${RING_OP.treeReady} 0500000000000000` + '00000000'));
  return { probe, say };
}

const READY = new RegExp(`^reply ${RING_OP.openReady} 2900000000000000` + '00000000');

test('an open gets its records from another server, and the pool knows who holds it', async (t) => {
  const pool = await startPool(t, await udp(2), {}, 'with rings');
  const events: TraceEvent[] = [];
  const leave = pool.hosts[1]!.trace({}, (event) => events.push(event));
  const first = await attachSmbd(t, pool, 0);
  await first.say('open-begin');
  await first.probe.says(READY);
  await first.probe.asks(`home 1 ${FILE.toString('hex')}`, /^home 1$/);
  await first.say('open-end');
  await eventually('the event is seen at the other server', () => events.some(({ kind }) => kind === 'granted'));
  const { opens, waits, missing } = await pool.hosts[1]!.locks({ path: 'd' });
  assert.deepEqual([opens.length, waits.length, missing.length], [1, 0, 0]);
  const { server, user, client, clientName, share, path } = opens[0]!;
  assert.deepEqual(
    { server, user, client, clientName, share, path },
    { server: 0, user: 'D\\bob', client: '10.0.0.7:49152', clientName: 'pc', share: 'work', path: 'd/a.txt' },
  );

  const second = await attachSmbd(t, pool, 1);
  await second.say('open-begin');
  await second.probe.says(READY);
  await first.probe.asks(`home 1 ${FILE.toString('hex')}`, /^home 0$/);
  await second.probe.asks(`home 1 ${FILE.toString('hex')}`, /^home 1$/);
  await second.say('open-end');
  await eventually('both opens are known', () => pool.hosts[1]!.status().witness.opens === 1);
  assert.equal((await pool.hosts[0]!.locks({})).opens.length, 2);

  leave();
  first.probe.kill();
  await eventually('its opens are forgotten', () => pool.hosts[0]!.status().witness.opens === 0);
  assert.equal((await pool.hosts[1]!.locks({})).opens.length, 1);
});

test('a message that makes no sense ends the attachment of its smbd, and only that', async (t) => {
  const pool = await startPool(t, await udp(1), {}, 'with rings');
  const host = pool.hosts[0]!;
  const refused = (): number => {
    const counters = Object.entries(host.status().counters);
    return counters.filter(([name]) => name.startsWith('witness.message.refused')).reduce((sum, [, n]) => sum + n, 0);
  };
  const other = await attachSmbd(t, pool, 0);
  await other.say('open-begin');
  await other.probe.says(READY);
  await other.say('open-end');
  const lines = ['send 9999 00', 'send 4 00ff', 'send 8', `send 6 ${'ff'.repeat(120)}`];
  for (const [index, line] of lines.entries()) {
    const smbd = await attachSmbd(t, pool, 0);
    await smbd.say('open-begin');
    await smbd.probe.says(READY);
    // what follows in the same batch is not looked at
    smbd.probe.tell(line.replace('send', 'post'));
    smbd.probe.tell(line);
    await smbd.probe.says(/^down/);
    assert.equal(refused(), index + 1);
    await eventually('its operation is over', () => host.status().operations === 0);
    // whoever attaches again is welcome
    const again = await attachSmbd(t, pool, 0);
    await again.say('open-begin');
    await again.probe.says(READY);
    again.probe.kill();
    await eventually('it has left', () => host.status().witness.attachments === 1);
  }
  assert.equal(host.status().witness.opens, 1, 'the other one is not touched');
  assert.equal(host.status().counters['ring.bad-rings'], 0);
});
