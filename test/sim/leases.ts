/**
 * Clients that cache files under leases, and their smbds: opens, reads, writes, breaks and closes as Samba does them
 * (source3/smbd: open.c, smb2_oplock.c, smb2_aio.c; source3/locking: share_mode_lock.c, leases_db.c), with the two
 * things that our VFS module adds: a second look at the file after the grant, and telling the readers once more after
 * the write. The content of a file is a version number; the file system is one, so every server sees it at once.
 */
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import { keyOf } from '../../src/base/ids.js';
import type { LeaseWorld } from './lease-world.js';
import type { Locked, SimulatedSmbd, Steps } from './smbd.js';
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
type Break = { file: RecordKey; to: 'R' | 'none' };

/** A file's record in locking.tdb. */
interface ShareModes {
  /** SHARE_MODE_LEASE_READ: somebody may hold a read lease. */
  read: boolean;
  /** Names of the smbds that have it open. */
  holders: string[];
}

/** One open handle of a smbd. */
interface Handle {
  file: RecordKey;
  /** What smbd last read of the share modes, good while the database's number stands still. */
  flags: { sequence: number; read: boolean } | null;
}

interface LeaseDatabases {
  locking: DatabaseId;
  leases: DatabaseId;
}

/** One smbd at this work. */
export class CachingSmbd {
  private readonly handles = new Map<RecordKey, Handle>();
  private readonly world: LeaseWorld;

  constructor(
    private readonly shared: Shared,
    private readonly smbd: SimulatedSmbd,
    private readonly databases: LeaseDatabases,
  ) {
    if (shared.leases === null) throw new Error('this run has no leases');
    this.world = shared.leases;
    this.world.smbds.set(smbd.name, smbd);
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
    const handle = this.handles.get(file);
    if (handle === undefined) return yield* this.open(file);
    const what = prng.below(10);
    if (what < 5) yield* this.write(handle);
    else if (what < 7) yield* this.close(handle);
    // with the same lease key, as clients do: the lease may come back
    else yield* this.open(file);
  }

  /** Nobody writes any more: what was sent before arrives within this time. */
  *hearTheRest(): Steps<void> {
    for (let i = 0; i < REST_LOOKS; i++) {
      this.smbd.doing = 'hearing the rest';
      yield { for: 'time', micros: REST_LOOK_MICROS };
      yield* this.handleBreaks();
    }
  }

  /** Hears what was sent so far. */
  *handleBreaks(): Steps<void> {
    for (let data = this.smbd.nextMessage(); data !== null; data = this.smbd.nextMessage()) {
      yield* this.handleBreak(JSON.parse(Buffer.from(data).toString()) as Break);
    }
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

  private *storeLease(file: RecordKey, lease: Lease): Steps<void> {
    const record = yield* this.lock(this.databases.leases, leaseKey(file, this.smbd.name));
    this.store(record, lease);
    this.smbd.unlock(record);
  }

  /** The others that have the file open and live, with their leases; under the share mode lock. */
  private *others(file: RecordKey, share: ShareModes): Steps<{ holder: string; lease: Lease }[]> {
    const found: { holder: string; lease: Lease }[] = [];
    for (const holder of share.holders) {
      if (holder === this.smbd.name || !this.world.smbds.has(holder)) continue;
      const text = yield* this.smbd.parse(this.databases.leases, leaseKey(file, holder));
      found.push({ holder, lease: leaseOf(text) });
    }
    return found;
  }

  private sendBreak(holder: string, what: Break): void {
    const to = this.world.smbds.get(holder);
    if (to === undefined) return;
    this.smbd.say(`asks ${holder} to go down to ${what.to}`);
    this.smbd.sendMessage(to.server.self, breakSrvid(to), Buffer.from(JSON.stringify(what)));
    if (what.to === 'none') this.world.checker.told(holder, what.file);
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
      const granted = yield* this.grant(file);
      if (granted) yield* this.answerOpen(file, seen);
      if (operation !== null) smbd.endOpen(operation, file);
      if (granted) return;
      yield* this.pause(2_000);
      yield* this.handleBreaks();
    }
  }

  /** Under the share mode lock; false: somebody must be waited for. */
  private *grant(file: RecordKey): Steps<boolean> {
    const { smbd, databases, world } = this;
    const record = yield* this.lock(databases.locking, file);
    const share = shareModesOf(record.text);
    const others = yield* this.others(file, share);
    const writers = others.filter(({ lease }) => lease === 'RW');
    for (const { holder } of writers) this.sendBreak(holder, { file, to: 'R' });
    if (writers.length > 0) {
      smbd.unlock(record);
      return false;
    }
    yield* this.storeLease(file, others.length === 0 ? 'RW' : 'R');
    const holders = [...others.map(({ holder }) => holder), smbd.name];
    this.store(record, { read: true, holders });
    world.checker.granted(smbd.name, file);
    smbd.unlock(record);
    if (!this.handles.has(file)) this.handles.set(file, { file, flags: null });
    return true;
  }

  private *answerOpen(file: RecordKey, seen: number): Steps<void> {
    const { world } = this;
    yield* this.pause(30);
    world.checker.saw(this.smbd.name, file, world.stock.looksOnce ? seen : world.version(file));
  }

  private *write(handle: Handle): Steps<void> {
    const { smbd, shared, world } = this;
    const { file } = handle;
    smbd.doing = `writing ${file}`;
    yield* this.tellReaders(handle);
    // in a thread: until it is done, others may open and read
    yield* this.pause(shared.prng.pick([3, 30, 500]));
    const version = world.version(file) + 1;
    world.versions.set(file, version);
    smbd.say(`wrote version ${version} of ${file}`);
    if (!world.stock.tellsOnce) yield* this.tellReaders(handle);
    world.checker.wrote(smbd.name, file, version);
  }

  /** contend_level2_oplocks_begin. */
  private *tellReaders(handle: Handle): Steps<void> {
    const { smbd, databases } = this;
    const { file } = handle;
    if ((yield* this.ownLease(file)) === 'RW') return;
    if (!(yield* this.somebodyMayRead(handle))) return;
    const record = yield* this.lock(databases.locking, file);
    const share = shareModesOf(record.text);
    const others = yield* this.others(file, share);
    const readers = others.filter(({ lease }) => lease !== '');
    for (const { holder } of readers) this.sendBreak(holder, { file, to: 'none' });
    if (readers.length === 0 && (yield* this.ownLease(file)) === '') this.store(record, { ...share, read: false });
    smbd.unlock(record);
  }

  /** file_has_read_lease: the number is asked for before the record is read. */
  private *somebodyMayRead(handle: Handle): Steps<boolean> {
    const { smbd, databases } = this;
    const sequence = smbd.server.store.sequence(databases.locking);
    if (handle.flags?.sequence === sequence) return handle.flags.read;
    const record = yield* this.lock(databases.locking, handle.file);
    handle.flags = { sequence, read: shareModesOf(record.text).read };
    smbd.unlock(record);
    return handle.flags.read;
  }

  private *handleBreak({ file, to }: Break): Steps<void> {
    const { smbd, databases } = this;
    const handle = this.handles.get(file);
    if (handle === undefined) return;
    smbd.doing = `breaking ${file}`;
    const record = yield* this.lock(databases.locking, file);
    const lease = yield* this.ownLease(file);
    if (to === 'none' && lease !== '') yield* this.storeLease(file, '');
    smbd.unlock(record);
    if (to === 'none') this.world.checker.broken(smbd.name, file);
    else if (lease === 'RW') yield* this.acknowledge(handle);
  }

  /** The client writes back what it has, then lets go of the write lease. */
  private *acknowledge(handle: Handle): Steps<void> {
    const { shared, databases } = this;
    const { file } = handle;
    yield* this.pause(300);
    if (shared.prng.chance(0.7)) yield* this.write(handle);
    const record = yield* this.lock(databases.locking, file);
    if ((yield* this.ownLease(file)) === 'RW') yield* this.storeLease(file, 'R');
    this.store(record, shareModesOf(record.text));
    this.smbd.unlock(record);
  }

  private *close({ file }: Handle): Steps<void> {
    const { smbd, databases } = this;
    smbd.doing = `closing ${file}`;
    const record = yield* this.lock(databases.locking, file);
    const lease = yield* this.lock(databases.leases, leaseKey(file, smbd.name));
    smbd.delete(lease);
    smbd.unlock(lease);
    const share = shareModesOf(record.text);
    const holders = share.holders.filter((holder) => holder !== smbd.name);
    if (holders.length === 0) smbd.delete(record);
    else this.store(record, { ...share, holders });
    smbd.unlock(record);
    this.handles.delete(file);
    this.world.checker.closed(smbd.name, file);
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
