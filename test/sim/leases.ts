/**
 * Clients that cache files under leases, and their smbds: opens, reads, writes, breaks and closes as Samba does them
 * (source3/smbd: open.c, smb2_oplock.c, smb2_aio.c; source3/locking: share_mode_lock.c, leases_db.c), with the three
 * things that our VFS module adds: a second look at the file after the grant, telling the readers once more after the
 * write, and breaking a lease itself when the break may have been lost with a handle. The content of a file is a
 * version number; the file system is one, so every server sees it at once.
 */
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import { keyOf } from '../../src/base/ids.js';
import { OPEN_FLAG, RING_OP } from '../../src/wire/ring-ops.js';
import {
  LEASE_OPLOCK, encodeBreaksSent, encodeClose, encodeLeaseChange, encodeOpenEnd,
} from '../support/ring-messages.js';
import type { LeaseWorld } from './lease-world.js';
import type { LeaseModule, Locked, SimulatedSmbd, Steps } from './smbd.js';
import { locked, nextVersion } from './shared.js';
import type { Shared } from './shared.js';

/** Where breaks go: to the process of that number, as MSG_SMB_BREAK_REQUEST does. */
const breakSrvid = (smbd: SimulatedSmbd): bigint => 1_000_000n + BigInt(smbd.pid);

/** A client that does not let go is left waiting after so many tries. */
const OPEN_TRIES_MAX = 40;
const FILES = 2;
/** Longer than a daemon is stuck, or a server cut off. */
const REST_LOOKS = 40;
const REST_LOOK_MICROS = 100_000;

/** The lease of one client on one file, as leases.tdb has it. */
type Lease = '' | 'R' | 'RW';
/** Sent to one of the handles that are open under the lease. */
type Break = { file: RecordKey; handle: number; to: 'R' | 'none' };

/** One smbd's handles of a file in its share modes. */
interface Holder {
  name: string;
  handles: number[];
}

/** A file's record in locking.tdb. */
interface ShareModes {
  /** SHARE_MODE_LEASE_READ: somebody may hold a read lease. */
  read: boolean;
  holders: Holder[];
}

/** When a handle was granted the lease. */
interface Granted {
  version: number;
  epoch: number;
}

/** A handle as the daemon knows it. */
interface Reported {
  /** Its number in the module. */
  id: bigint;
  lease: Lease;
  /** The module tells what becomes of its lease. */
  isWatched: boolean;
}

/** A file that a smbd's client has open, under one lease. */
interface OpenFile {
  file: RecordKey;
  handles: Map<number, Granted>;
  /** As smbd has it in its memory. */
  lease: Lease;
  /** Of the handles, those that the daemon was told of; none in runs in which servers are not drained. */
  reported: Map<number, Reported>;
  /** Counts the changes of the lease. */
  epoch: number;
  /** What smbd last read of the share modes, good while the database's number stands still. */
  flags: { sequence: number; read: boolean } | null;
}

interface LeaseDatabases {
  locking: DatabaseId;
  leases: DatabaseId;
}

const LEASE_STATE: Record<Lease, number> = { '': 0, R: 1, RW: 5 };

/** One smbd at this work. */
export class CachingSmbd implements LeaseModule {
  private readonly files = new Map<RecordKey, OpenFile>();
  private nextHandle = 1;
  private readonly world: LeaseWorld;
  /** Numbers of break-alls that it has not done yet. */
  private readonly breakAlls: number[] = [];

  constructor(
    private readonly shared: Shared,
    private readonly smbd: SimulatedSmbd,
    private readonly databases: LeaseDatabases,
  ) {
    if (shared.leases === null) throw new Error('this run has no leases');
    this.world = shared.leases;
    this.world.smbds.set(smbd.name, smbd);
    if (shared.drains !== null) smbd.leaseModule = this;
  }

  /** Asks for the breaks that others send. */
  *start(): Steps<void> {
    yield* this.smbd.register(breakSrvid(this.smbd));
  }

  /** One thing that a client does, and what others want of it meanwhile. */
  *act(): Steps<void> {
    const { prng } = this.shared;
    yield* this.handleBreaks();
    const file = `f${prng.below(FILES)}`.padEnd(24, '.') as RecordKey;
    const open = this.files.get(file);
    if (open === undefined) return yield* this.open(file);
    const what = prng.below(10);
    if (what < 5) yield* this.write(open);
    else if (what < 8) yield* this.close(open);
    // with the same lease key, as clients do: the lease may come back
    else yield* this.open(file);
  }

  /**
   * Nobody writes any more: what was sent before arrives within this time. Some close one of their handles just then.
   */
  *hearTheRest(): Steps<void> {
    for (const open of [...this.files.values()]) {
      if (open.handles.size > 1 && this.shared.prng.chance(0.8)) yield* this.close(open);
    }
    for (let i = 0; i < REST_LOOKS; i++) {
      this.smbd.doing = 'hearing the rest';
      yield { for: 'time', micros: REST_LOOK_MICROS };
      yield* this.handleBreaks();
    }
  }

  /** Hears what was sent so far. */
  *handleBreaks(): Steps<void> {
    for (;;) {
      const all = this.breakAlls.shift();
      if (all !== undefined) {
        yield* this.breakAllNow(all);
        continue;
      }
      const data = this.smbd.nextMessage();
      if (data === null) return;
      yield* this.handleBreak(JSON.parse(Buffer.from(data).toString()) as Break);
    }
  }

  // --- the module of a server that is drained (samba-module/hooks: drain.c, lease.c, attach.c)

  breakAll(number: number): void {
    this.breakAlls.push(number);
  }

  ringLost(): void {
    this.breakAlls.length = 0;
  }

  attend(): Steps<void> | null {
    return this.breakAlls.length === 0 && !this.smbd.hasMessages ? null : this.handleBreaks();
  }

  watch(file: RecordKey): void {
    const open = this.files.get(file);
    if (open === undefined) return;
    for (const one of open.reported.values()) one.isWatched = true;
    this.tellChanges(open);
  }

  replay(): void {
    for (const { file, lease, reported } of this.files.values()) {
      for (const one of reported.values()) {
        one.lease = lease;
        this.smbd.sendRing(RING_OP.replayOpen, encodeOpenEnd(0n, file, 1, this.leaseTerms(one)));
      }
    }
  }

  /** What smbd sends itself is the next thing that it does. */
  private *breakAllNow(number: number): Steps<void> {
    const opens = [...this.files.values()];
    if (this.shared.drains?.looksAtAll === true) for (const open of opens) this.tellChanges(open, true);
    const caching = opens.filter(({ lease }) => lease === 'RW');
    for (const { file } of caching) this.watch(file);
    this.smbd.say(`has asked for ${caching.length} breaks, for number ${number}`);
    this.smbd.sendRing(RING_OP.breaksSent, encodeBreaksSent(number, caching.length));
    for (const { file, handles } of caching) {
      const [handle] = handles.keys();
      if (handle !== undefined) yield* this.handleBreak({ file, handle, to: 'R' });
    }
  }

  /** Of a create that is over; `handle` null: it waits for a break. A lease with W that came all the same is broken. */
  private *report(operation: bigint, file: RecordKey, handle: number | null): Steps<void> {
    const { smbd } = this;
    const open = this.files.get(file);
    if (handle === null || open === undefined) {
      smbd.sendRing(RING_OP.openEnd, encodeOpenEnd(operation, file, 1, { flags: OPEN_FLAG.deferred }));
      return;
    }
    const one: Reported = { id: operation, lease: open.lease, isWatched: false };
    open.reported.set(handle, one);
    smbd.sendRing(RING_OP.openEnd, encodeOpenEnd(operation, file, 1, this.leaseTerms(one)));
    if (!smbd.isServerDrained() || open.lease !== 'RW') return;
    one.isWatched = true;
    yield* this.handleBreak({ file, handle, to: 'R' });
  }

  private leaseTerms({ id, lease }: Reported): { oplock: number; state: number; shareFileId: bigint; key: string } {
    // one client, one lease on a file
    return { oplock: LEASE_OPLOCK, state: LEASE_STATE[lease], shareFileId: id, key: this.smbd.name.padEnd(16, '.') };
  }

  private tellChanges({ file, lease, reported }: OpenFile, all = false): void {
    for (const one of reported.values()) {
      if ((!one.isWatched && !all) || one.lease === lease) continue;
      const change = encodeLeaseChange(file, one.id, LEASE_STATE[one.lease], LEASE_STATE[lease]);
      one.lease = lease;
      this.smbd.sendRing(RING_OP.leaseChange, change);
    }
  }

  private tellClosed({ file, reported }: OpenFile, handle: number): void {
    const one = reported.get(handle);
    if (one === undefined) return;
    reported.delete(handle);
    this.smbd.sendRing(RING_OP.close, encodeClose(file, one.id));
  }

  // --- records

  private *lock(database: DatabaseId, key: RecordKey): Steps<Locked> {
    return yield* locked(this.shared, this.smbd, database, key);
  }

  private store(record: Locked, content: unknown): void {
    this.smbd.store(record, `${nextVersion(this.shared, this.smbd)} ${JSON.stringify(content)}`);
  }

  private *ownLease(file: RecordKey): Steps<Lease> {
    const text = yield* this.smbd.readCached(this.databases.leases, leaseKey(file, this.smbd.name));
    return leaseOf(text);
  }

  private *storeLease(open: OpenFile, lease: Lease): Steps<void> {
    const record = yield* this.lock(this.databases.leases, leaseKey(open.file, this.smbd.name));
    if (leaseOf(record.text) !== lease) open.epoch += 1;
    this.store(record, lease);
    this.smbd.unlock(record);
    this.noteLease(open, lease);
  }

  private noteLease(open: OpenFile, lease: Lease): void {
    open.lease = lease;
    this.tellChanges(open);
    const { drains } = this.shared;
    if (drains === null || !this.smbd.hasModule) return;
    if (lease === 'RW') drains.checker.caches(this.smbd.name, this.smbd.server, open.file);
    else drains.checker.cachesNoMore(this.smbd.name, open.file);
  }

  /** The others that have the file open and live, with their leases; under the share mode lock. */
  private *others(file: RecordKey, share: ShareModes): Steps<{ holder: Holder; lease: Lease }[]> {
    const found: { holder: Holder; lease: Lease }[] = [];
    for (const holder of share.holders) {
      if (holder.name === this.smbd.name || !this.world.smbds.has(holder.name)) continue;
      const text = yield* this.smbd.parse(this.databases.leases, leaseKey(file, holder.name));
      found.push({ holder, lease: leaseOf(text) });
    }
    return found;
  }

  /** send_break_message: to one handle of the lease, whichever comes first in the share modes. */
  private sendBreak({ name, handles }: Holder, what: Omit<Break, 'handle'>): void {
    const to = this.world.smbds.get(name);
    if (to === undefined) return;
    const handle = this.shared.prng.pick(handles);
    this.smbd.say(`asks handle ${handle} of ${name} to go down to ${what.to}`);
    this.smbd.sendMessage(to.server.self, breakSrvid(to), Buffer.from(JSON.stringify({ ...what, handle })));
    if (what.to === 'none') this.world.checker.told(name, what.file, to.server === this.smbd.server);
  }

  private *pause(micros: number): Steps<void> {
    yield { for: 'time', micros: 1 + this.shared.prng.below(micros) };
  }

  // --- what smbd does

  private *open(file: RecordKey): Steps<void> {
    const { smbd, shared } = this;
    smbd.doing = `opening ${file}`;
    for (let tries = 0; tries < OPEN_TRIES_MAX; tries++) {
      const operation = smbd.hasModule ? smbd.beginOpen(file, null, true) : null;
      if (operation !== null) yield { for: 'ready', operation };
      const seen = this.world.version(file);
      yield* this.pause(shared.prng.pick([3, 30, 500]));
      const handle = yield* this.grant(file, smbd.hasModule && smbd.isServerDrained());
      if (handle !== null) yield* this.answerOpen(file, handle, seen);
      if (operation !== null && shared.drains !== null) yield* this.report(operation, file, handle);
      else if (operation !== null) smbd.endOpen(operation, file);
      if (handle !== null) return;
      yield* this.pause(2_000);
      yield* this.handleBreaks();
    }
  }

  /** Under the share mode lock: the new handle. Null: somebody must be waited for. */
  private *grant(file: RecordKey, isDrained: boolean): Steps<number | null> {
    const { smbd, databases, world, shared } = this;
    const lookedAt = smbd.time.now;
    const record = yield* this.lock(databases.locking, file);
    const share = shareModesOf(record.text);
    const others = yield* this.others(file, share);
    const writers = others.filter(({ lease }) => lease === 'RW');
    for (const { holder } of writers) this.sendBreak(holder, { file, to: 'R' });
    if (writers.length > 0) {
      smbd.unlock(record);
      return null;
    }
    const open: OpenFile = this.files.get(file) ?? {
      file, handles: new Map(), lease: '', reported: new Map(), epoch: 0, flags: null,
    };
    // who has more already keeps it
    const isAlone = others.length === 0;
    const had = open.lease === 'RW';
    const lease = isAlone && (!isDrained || had) ? 'RW' : 'R';
    yield* this.storeLease(open, lease);
    if (smbd.seesPage) {
      const grant = { smbd: smbd.name, server: smbd.server, lookedAt, isAlone, had, has: lease === 'RW' };
      shared.drains?.checker.granted(grant);
    }
    const handle = this.nextHandle++;
    const own = { name: smbd.name, handles: [...open.handles.keys(), handle] };
    this.store(record, { read: true, holders: [...others.map(({ holder }) => holder), own] });
    world.checker.granted(smbd.name, file);
    smbd.unlock(record);
    const version = world.version(file);
    open.handles.set(handle, { version, epoch: open.epoch });
    // nobody else has it open, and nobody wrote before: what is written from here on is the client's own
    for (const granted of lease === 'RW' ? open.handles.values() : []) {
      if (granted.version === version) granted.epoch = open.epoch;
    }
    this.files.set(file, open);
    return handle;
  }

  private *answerOpen(file: RecordKey, handle: number, first: number): Steps<void> {
    const { world } = this;
    yield* this.pause(30);
    const seen = world.stock.looksOnce ? first : world.version(file);
    yield* this.noteVersion(file, handle, first, seen);
    world.checker.saw(this.smbd.name, file, seen);
  }

  /**
   * hooks/break.c: with no break since an older handle's grant, the client may go by what it read through that. And who
   * wrote between the looks may have told this handle only.
   */
  private *noteVersion(file: RecordKey, handle: number, first: number, seen: number): Steps<void> {
    const lease = yield* this.ownLease(file);
    const open = this.files.get(file);
    const granted = open?.handles.get(handle);
    if (open === undefined || granted === undefined) return;
    const older = [...open.handles].find(([id, { epoch }]) => id !== handle && epoch === granted.epoch);
    granted.version = lease === 'RW' ? seen : older === undefined ? first : older[1].version;
  }

  private *write(open: OpenFile): Steps<void> {
    const { smbd, shared, world } = this;
    const { file } = open;
    smbd.doing = `writing ${file}`;
    yield* this.tellReaders(open);
    // in a thread: until it is done, others may open and read
    yield* this.pause(shared.prng.pick([3, 30, 500]));
    const version = world.version(file) + 1;
    world.versions.set(file, version);
    smbd.say(`wrote version ${version} of ${file}`);
    if (!world.stock.tellsOnce) yield* this.tellReaders(open);
    world.checker.wrote(smbd.name, file, version);
  }

  /** contend_level2_oplocks_begin. */
  private *tellReaders(open: OpenFile): Steps<void> {
    const { smbd, databases } = this;
    const { file } = open;
    if ((yield* this.ownLease(file)) === 'RW') return;
    if (!(yield* this.somebodyMayRead(open))) return;
    const record = yield* this.lock(databases.locking, file);
    const share = shareModesOf(record.text);
    const others = yield* this.others(file, share);
    const readers = others.filter(({ lease }) => lease !== '');
    for (const { holder } of readers) this.sendBreak(holder, { file, to: 'none' });
    if (readers.length === 0 && (yield* this.ownLease(file)) === '') this.store(record, { ...share, read: false });
    smbd.unlock(record);
  }

  /** file_has_read_lease: the number is asked for before the record is read. */
  private *somebodyMayRead(open: OpenFile): Steps<boolean> {
    const { smbd, databases } = this;
    const sequence = smbd.server.store.sequence(databases.locking);
    if (open.flags?.sequence === sequence) return open.flags.read;
    const record = yield* this.lock(databases.locking, open.file);
    open.flags = { sequence, read: shareModesOf(record.text).read };
    smbd.unlock(record);
    return open.flags.read;
  }

  /** process_oplock_break_message: of a handle that was closed meanwhile nothing is known. */
  private *handleBreak({ file, handle, to }: Break): Steps<void> {
    const { smbd, databases } = this;
    const open = this.files.get(file);
    if (open?.handles.has(handle) !== true) return;
    smbd.doing = `breaking ${file}`;
    const record = yield* this.lock(databases.locking, file);
    const lease = yield* this.ownLease(file);
    if (to === 'none' && lease !== '') yield* this.storeLease(open, '');
    smbd.unlock(record);
    if (to === 'none') this.world.checker.broken(smbd.name, file);
    else if (lease === 'RW' || this.hasLost(open)) yield* this.acknowledge(open);
  }

  /** The record of its lease is gone with its server; smbd goes by its memory. Told of where it matters to somebody. */
  private hasLost({ lease }: OpenFile): boolean {
    return this.shared.drains !== null && lease === 'RW';
  }

  /** The client writes back what it has, then lets go of the write lease. */
  private *acknowledge(open: OpenFile): Steps<void> {
    const { shared, databases } = this;
    const { file } = open;
    yield* this.pause(300);
    const lateMicros = shared.drains?.lateMicros() ?? 0;
    if (lateMicros > 0) yield { for: 'time', micros: lateMicros };
    if (shared.prng.chance(0.7)) yield* this.write(open);
    const record = yield* this.lock(databases.locking, file);
    if ((yield* this.ownLease(file)) === 'RW' || this.hasLost(open)) yield* this.storeLease(open, 'R');
    this.store(record, shareModesOf(record.text));
    this.smbd.unlock(record);
  }

  /** Closes one handle; the lease ends with the last. */
  private *close(open: OpenFile): Steps<void> {
    const { smbd, databases, world, shared } = this;
    const { file } = open;
    const [handle, granted] = shared.prng.pick([...open.handles]);
    const rest = [...open.handles.keys()].filter((other) => other !== handle);
    smbd.doing = `closing ${file}`;
    const record = yield* this.lock(databases.locking, file);
    if (rest.length === 0) {
      const lease = yield* this.lock(databases.leases, leaseKey(file, smbd.name));
      smbd.delete(lease);
      smbd.unlock(lease);
      shared.drains?.checker.cachesNoMore(smbd.name, file);
    }
    const share = shareModesOf(record.text);
    const holders = share.holders.filter(({ name }) => name !== smbd.name);
    if (rest.length > 0) holders.push({ name: smbd.name, handles: rest });
    if (holders.length === 0) smbd.delete(record);
    else this.store(record, { ...share, holders });
    smbd.unlock(record);
    open.handles.delete(handle);
    this.tellClosed(open, handle);
    if (rest.length > 0) {
      if (!world.stock.losesBreaks) yield* this.breakAgain(open, granted);
      return;
    }
    this.files.delete(file);
    world.checker.closed(smbd.name, file);
  }

  /** hooks/break.c: a break that was sent to the handle that is gone now was lost with it. */
  private *breakAgain(open: OpenFile, granted: Granted): Steps<void> {
    const { file, epoch, handles } = open;
    const lease = yield* this.ownLease(file);
    if (lease === '' || (lease === 'RW' && epoch === granted.epoch)) return;
    if (this.world.version(file) === granted.version) return;
    this.sendBreak({ name: this.smbd.name, handles: [...handles.keys()] }, { file, to: 'none' });
  }
}

/** The key in leases.tdb of the lease of a smbd's client. */
export function leaseKey(file: RecordKey, holder: string): RecordKey {
  return keyOf(Buffer.from(`${file.slice(0, 4)}${holder}`));
}

/** The first two words of a text tell versions apart; the rest is the content. */
function contentOf(text: string): unknown {
  const at = text.indexOf(' ', text.indexOf(' ') + 1);
  return at === -1 ? null : JSON.parse(text.slice(at + 1));
}

function leaseOf(text: string): Lease {
  return (contentOf(text) ?? '') as Lease;
}

function shareModesOf(text: string): ShareModes {
  return (contentOf(text) ?? { read: false, holders: [] }) as ShareModes;
}
