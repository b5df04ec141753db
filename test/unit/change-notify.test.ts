/**
 * Whom a smbd waits for that begins to watch a folder: the other servers' notifyds, but not for ever, and not each time
 * for one that hangs.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { ClientId, Epoch, Incarnation } from '../../src/base/ids.js';
import { nodeId } from '../../src/base/ids.js';
import type { CoreContext } from '../../src/core/context.js';
import { ChangeNotify, NOTIFY_WAIT_MICROS_MAX } from '../../src/core/gate/change-notify.js';
import type { Client } from '../../src/core/gate/clients.js';
import type { Messages } from '../../src/core/gate/messages.js';
import { Timers } from '../../src/core/timers.js';
import { DESTINATION, SRVID } from '../../src/wire/ctdb.js';
import type { ServerId } from '../../src/wire/samba-messages.js';
import { SAMBA_MESSAGE, decodeSambaMessage, encodeSambaMessage } from '../../src/wire/samba-messages.js';

const [HERE, THERE] = [nodeId(0), nodeId(1)];
const OURS: ServerId = { pid: 100n, task: 0, vnn: HERE, unique: 1n };
const THEIRS: ServerId = { pid: 200n, task: 0, vnn: THERE, unique: 2n };
const SMBD = { pid: 300, id: { pid: 300n, task: 0, vnn: HERE, unique: 3n } };
const NOTIFYD = { id: 1 as ClientId, pid: Number(OURS.pid) } as Client;

/** Server 0, whose notifyd is there from the beginning; what is sent to server 1 waits until the test answers it. */
class Bench {
  readonly changeNotify: ChangeNotify;
  readonly counts = new Map<string, number>();
  private readonly pings: Uint8Array[] = [];
  private readonly ownPings: Uint8Array[] = [];
  private readonly timers = new Timers();
  private time = 0;
  private lastWatch = 0n;

  constructor() {
    const context: CoreContext = {
      self: HERE,
      epoch: 1 as Epoch,
      servers: [HERE, THERE],
      fileServers: [HERE, THERE],
      members: [HERE, THERE],
      timers: this.timers,
      now: () => this.time,
      emit: () => undefined,
      send: () => true,
      isUp: () => true,
      speaks: (protocol) => protocol === 1,
      isFenced: () => false,
      log: () => undefined,
      count: (name, by = 1) => void this.counts.set(name, (this.counts.get(name) ?? 0) + by),
    };
    const messages = {
      deliver: (_srvid: bigint, data: Uint8Array) => this.ownPings.push(data),
      forward: (_peer: number, _srvid: bigint, data: Uint8Array) => {
        if (decodeSambaMessage(data).type === SAMBA_MESSAGE.ping) this.pings.push(data);
      },
    };
    this.changeNotify = new ChangeNotify(context, messages as unknown as Messages);
  }

  start(): void {
    this.changeNotify.registered(NOTIFYD, SRVID.sambaNotifyProxy);
  }

  /** Our notifyd says who it is. */
  learn(): void {
    for (const ping of this.ownPings.splice(0)) {
      const { source, payload } = decodeSambaMessage(ping);
      const pong = encodeSambaMessage({ type: SAMBA_MESSAGE.pong, destination: source, source: OURS, payload });
      assert.ok(this.changeNotify.fromLocal(source.vnn, source.pid, pong));
    }
  }

  /** Server 1 is there, and its notifyd got the database of ours. */
  meet(incarnation: number): void {
    this.changeNotify.peerUp(THERE, incarnation as Incarnation);
    this.changeNotify.onAnnounced(THERE, THEIRS);
    const payload = new Uint8Array(16);
    const database = { type: SAMBA_MESSAGE.notifyDb, destination: THEIRS, source: OURS, payload };
    assert.ok(this.changeNotify.fromLocal(THERE, THEIRS.pid, encodeSambaMessage(database)));
  }

  /** Of whom our notifyd was sent a database too short to be one, which makes it forget them. */
  forgotten(): ServerId[] {
    const messages = this.ownPings.splice(0).map((data) => decodeSambaMessage(data));
    const isNone = ({ type, payload }: { type: number; payload: Uint8Array }): boolean =>
      type === SAMBA_MESSAGE.notifyDb && payload.length < 8;
    return messages.filter(isNone).map(({ source }) => source);
  }

  /** Answers what server 1 was asked so far. */
  answer(): void {
    for (const ping of this.pings.splice(0)) {
      const { source, payload } = decodeSambaMessage(ping);
      const pong = encodeSambaMessage({ type: SAMBA_MESSAGE.pong, destination: source, source: THEIRS, payload });
      assert.ok(this.changeNotify.fromPeer(THERE, source.pid, pong));
    }
  }

  /** What a smbd hears that begins to watch; undefined while it waits. */
  watch(): { everywhere?: boolean } {
    const heard: { everywhere?: boolean } = {};
    const folder = new Uint8Array(Buffer.from('/srv/a'));
    const change = { since: new Uint8Array(16), filter: 1, subdirFilter: 0, handle: 1n, folder };
    this.changeNotify.begin(SMBD, ++this.lastWatch, change, (everywhere) => (heard.everywhere = everywhere));
    return heard;
  }

  /** What a client hears that connects to a share. */
  connect(): { isConnected: boolean } {
    const heard = { isConnected: false };
    this.changeNotify.whenComplete(() => (heard.isConnected = true));
    return heard;
  }

  pass(micros: number): void {
    this.time += micros;
    this.timers.run(this.time);
  }
}

function ready(): Bench {
  const bench = new Bench();
  bench.start();
  bench.learn();
  bench.meet(1);
  return bench;
}

test('a watch is answered when the other notifyd has it', () => {
  const bench = ready();
  const heard = bench.watch();
  assert.equal(heard.everywhere, undefined);
  bench.answer();
  assert.equal(heard.everywhere, true);
});

test('ours forgets another notifyd at the first word of a run, and not when it has just asked it', () => {
  const bench = new Bench();
  bench.start();
  bench.learn();
  const { changeNotify } = bench;
  const announced = (): ServerId[] => {
    changeNotify.onAnnounced(THERE, THEIRS);
    return bench.forgotten();
  };
  changeNotify.peerUp(THERE, 1 as Incarnation);
  assert.deepEqual([announced(), announced()], [[THEIRS], []]);
  changeNotify.peerResumed(THERE, 2 as Incarnation);
  assert.deepEqual([announced(), announced()], [[THEIRS], []]);
});

test('ours forgets another notifyd also when its daemon says first that it has none, or told of it before ours', () => {
  const told = new Bench();
  told.start();
  told.learn();
  told.changeNotify.peerResumed(THERE, 2 as Incarnation);
  told.changeNotify.onAnnounced(THERE, null);
  assert.deepEqual(told.forgotten(), []);
  told.changeNotify.onAnnounced(THERE, THEIRS);
  assert.deepEqual(told.forgotten(), [THEIRS]);
  const early = new Bench();
  early.start();
  early.changeNotify.peerUp(THERE, 1 as Incarnation);
  early.changeNotify.onAnnounced(THERE, THEIRS);
  early.learn();
  assert.deepEqual(early.forgotten(), [THEIRS]);
});

test('one that hangs is waited for once, until it answers again', () => {
  const bench = ready();
  const first = bench.watch();
  bench.pass(NOTIFY_WAIT_MICROS_MAX);
  assert.equal(first.everywhere, false);
  assert.equal(bench.watch().everywhere, false, 'not waited for');
  assert.equal(bench.counts.get('gate.notify.late'), 2);
  bench.answer();
  const later = bench.watch();
  assert.equal(later.everywhere, undefined);
  bench.answer();
  assert.equal(later.everywhere, true);
});

test('our own notifyd that does not say who it is is not waited for longer', () => {
  const bench = new Bench();
  assert.equal(bench.watch().everywhere, false, 'there is none');
  bench.start();
  const [first, second] = [bench.watch(), bench.watch()];
  bench.pass(NOTIFY_WAIT_MICROS_MAX);
  assert.deepEqual([first.everywhere, second.everywhere], [false, false]);
  const third = bench.watch();
  bench.learn();
  assert.equal(third.everywhere, true, 'there is no other server');
});

test('clients connect when our notifyd is there, or does not come', () => {
  const coming = new Bench();
  const first = coming.connect();
  assert.equal(first.isConnected, false, 'heard before the notifyd that started with it');
  coming.start();
  coming.learn();
  assert.equal(first.isConnected, false, 'it does not know yet who watches elsewhere');
  coming.changeNotify.onAnnounced(THERE, null);
  assert.equal(first.isConnected, true);
  const missing = new Bench();
  const early = missing.connect();
  missing.pass(NOTIFY_WAIT_MICROS_MAX);
  assert.equal(early.isConnected, true);
  assert.equal(missing.connect().isConnected, true, 'nor is it waited for again');
});

test('nobody waits for a server that fell silent, died or lost its notifyd', () => {
  const leaving: ((bench: Bench) => void)[] = [
    (bench) => bench.changeNotify.peerDown(THERE),
    (bench) => bench.changeNotify.peerUp(THERE, 2 as Incarnation),
    (bench) => bench.changeNotify.onAnnounced(THERE, null),
  ];
  for (const leave of leaving) {
    const bench = ready();
    const heard = bench.watch();
    leave(bench);
    assert.equal(heard.everywhere, true);
  }
});

test('the watches of a process end with it', () => {
  const bench = ready();
  bench.watch();
  bench.watch();
  assert.equal(bench.changeNotify.size, 2);
  bench.changeNotify.clientClosed({ id: 9 as ClientId, pid: SMBD.pid } as Client, true);
  assert.equal(bench.changeNotify.size, 0);
});

test('what cannot be read goes its way, and is counted', () => {
  const bench = ready();
  const payload = new Uint8Array([1, 2, 3]);
  const log = { type: SAMBA_MESSAGE.notifyRecChanges, destination: THEIRS, source: OURS, payload };
  const broken = encodeSambaMessage(log);
  assert.equal(bench.changeNotify.fromLocal(DESTINATION.connected, SRVID.sambaNotifyProxy, broken), false);
  assert.equal(bench.counts.get('gate.notify.refused.truncated'), 1);
});
