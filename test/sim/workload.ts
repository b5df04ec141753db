/**
 * What simulated smbds do all day: opens of shared files (locked writes and deletions), byte-range locks (one record
 * locked under another), reads with and without a cache, opens of their own under random keys, reconnects to opens
 * made elsewhere.
 */
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import { keyOf } from '../../src/base/ids.js';
import type { Micros } from '../../src/core/effects.js';
import { CachingSmbd } from './leases.js';
import { locked, nextVersion } from './shared.js';
import type { Shared } from './shared.js';
import type { SimulatedSmbd, Steps } from './smbd.js';

export interface Databases {
  locking: DatabaseId;
  brlock: DatabaseId;
  opens: DatabaseId;
  sessions: DatabaseId;
}

const NAMES = { locking: 'locking.tdb', brlock: 'brlock.tdb', opens: 'smbXsrv_open_global.tdb' } as const;

/** Attaches to all databases, as a starting smbd does. */
export function* attachAll(smbd: SimulatedSmbd): Steps<Databases> {
  const locking = yield* smbd.attach(NAMES.locking);
  const brlock = yield* smbd.attach(NAMES.brlock);
  const opens = yield* smbd.attach(NAMES.opens);
  const sessions = yield* smbd.attach('smbXsrv_session_global.tdb');
  return { locking, brlock, opens, sessions };
}

function sharedKey({ settings, prng }: Shared): RecordKey {
  const name = `k${prng.below(settings.keys)}`;
  // modules name files, whose records have 24 bytes of key
  return (settings.modules ? name.padEnd(24, '.') : name) as RecordKey;
}

function* work(shared: Shared): Steps<void> {
  const { prng, settings } = shared;
  const micros = prng.chance(settings.slowHoldProbability) ? prng.below(8_000) : 1 + prng.below(25);
  yield { for: 'time', micros };
}

function nextText(shared: Shared, smbd: SimulatedSmbd): string {
  const padding = shared.prng.chance(0.02) ? '.'.repeat(shared.prng.below(4_000)) : '';
  return `${nextVersion(shared, smbd)}${padding}`;
}

function* write(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const record = yield* locked(shared, smbd, databases.locking, sharedKey(shared));
  yield* work(shared);
  smbd.store(record, nextText(shared, smbd));
  if (shared.prng.chance(0.3)) {
    yield* work(shared);
    smbd.store(record, nextText(shared, smbd));
  }
  smbd.unlock(record);
}

function* remove(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const database = shared.prng.chance(0.5) ? databases.locking : databases.brlock;
  const record = yield* locked(shared, smbd, database, sharedKey(shared));
  yield* work(shared);
  smbd.delete(record);
  smbd.unlock(record);
}

/** A byte-range lock: the brlock record is fetched while the locking record's chain is held. */
function* nested(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const key = sharedKey(shared);
  const outer = yield* locked(shared, smbd, databases.locking, key);
  const inner = yield* locked(shared, smbd, databases.brlock, key);
  yield* work(shared);
  smbd.store(inner, nextText(shared, smbd));
  smbd.unlock(inner);
  if (shared.prng.chance(0.5)) smbd.store(outer, nextText(shared, smbd));
  smbd.unlock(outer);
}

function* read(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const database = shared.prng.chance(0.5) ? databases.locking : databases.brlock;
  const key = sharedKey(shared);
  shared.used.set(`${database}/${key}`, { database, key });
  yield* smbd.parse(database, key, database === databases.locking);
}

/** A process attaches a database that may be new, perhaps while others do, and uses it. */
function* attachLate(shared: Shared, smbd: SimulatedSmbd): Steps<void> {
  const name = `late${shared.prng.below(LATE_DATABASES)}.tdb`;
  shared.late.add(name);
  const database = yield* smbd.attach(name);
  const record = yield* locked(shared, smbd, database, sharedKey(shared));
  smbd.store(record, nextText(shared, smbd));
  smbd.unlock(record);
}

function* list(_shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  yield* smbd.traverse(databases.locking);
}

/**
 * Reads and writes of a file look at its byte-range locks each time: anew with the module, in smbd's cache without it
 * (which is wrong when the smbd was stopped in between; so without the module it is taken for better than it is).
 */
function* readLocks(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const key = sharedKey(shared);
  const { modules, sabotage } = shared.settings;
  shared.used.set(`${databases.brlock}/${key}`, { database: databases.brlock, key });
  for (let i = 1 + shared.prng.below(6); i > 0; i--) {
    if (sabotage === 'keep-locks') yield* smbd.readCached(databases.brlock, key, shared.prng.below(3_000));
    else if (modules) yield* smbd.parse(databases.brlock, key);
    else yield* smbd.readCached(databases.brlock, key);
    yield { for: 'time', micros: shared.prng.below(300) };
  }
}

/** An open: a record of its own under a random key. */
function* open(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const key = keyOf(shared.prng.bytes(4));
  const record = yield* locked(shared, smbd, databases.opens, key);
  smbd.store(record, nextText(shared, smbd));
  smbd.unlock(record);
  shared.opens.push({ key, of: smbd });
}

function* close(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const mine = shared.opens.filter((candidate) => candidate.of === smbd);
  if (mine.length === 0) return;
  const chosen = shared.prng.pick(mine);
  shared.opens.splice(shared.opens.indexOf(chosen), 1);
  const record = yield* locked(shared, smbd, databases.opens, chosen.key);
  yield* work(shared);
  smbd.delete(record);
  smbd.unlock(record);
}

/** A client comes back on another server: a logon first, then the open that was made elsewhere. */
function* reconnect(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  if (shared.opens.length === 0) return;
  const chosen = shared.prng.pick(shared.opens);
  shared.opens.splice(shared.opens.indexOf(chosen), 1);
  const session = yield* locked(shared, smbd, databases.sessions, keyOf(shared.prng.bytes(4)));
  smbd.store(session, nextText(shared, smbd));
  smbd.unlock(session);
  // the logon waited for nobody who seemed dead, and what that one made last may not be known here
  if (chosen.of.server.stuckLately() || chosen.of.server.killedLately()) shared.opens.push(chosen);
  else {
    const record = yield* locked(shared, smbd, databases.opens, chosen.key);
    yield* work(shared);
    smbd.store(record, nextText(shared, smbd));
    smbd.unlock(record);
    shared.opens.push({ key: chosen.key, of: smbd });
  }
  const gone = yield* locked(shared, smbd, databases.sessions, session.key);
  smbd.delete(gone);
  smbd.unlock(gone);
}

/** An open by way of the module: its records come in one batch, then smbd locks each of them some times. */
function* moduleOpen(shared: Shared, smbd: SimulatedSmbd, databases: Databases): Steps<void> {
  const { prng } = shared;
  const file = sharedKey(shared);
  const other = sharedKey(shared);
  const base = other !== file && prng.chance(0.5) ? other : null;
  const waits = prng.chance(0.85);
  const operation = smbd.beginOpen(file, base, waits);
  if (prng.chance(0.03)) return smbd.cancelOpen(operation);
  if (waits) yield { for: 'ready', operation };
  for (const key of base === null ? [file] : [file, base, file]) {
    const record = yield* locked(shared, smbd, databases.locking, key);
    yield* work(shared);
    smbd.store(record, nextText(shared, smbd));
    smbd.unlock(record);
    if (prng.chance(0.5)) continue;
    const ranges = yield* locked(shared, smbd, databases.brlock, key);
    if (prng.chance(0.5)) smbd.store(ranges, nextText(shared, smbd));
    smbd.unlock(ranges);
  }
  // an end that is lost must not keep the records
  if (prng.chance(0.97)) smbd.endOpen(operation, file);
}

type Operation = (shared: Shared, smbd: SimulatedSmbd, databases: Databases) => Steps<void>;

const OPERATIONS: readonly { name: string; weight: number; run: Operation }[] = [
  { name: 'write', weight: 6, run: write },
  { name: 'delete', weight: 1, run: remove },
  { name: 'nested lock', weight: 3, run: nested },
  { name: 'read', weight: 3, run: read },
  { name: 'reads of locks', weight: 4, run: readLocks },
  { name: 'open', weight: 2, run: open },
  { name: 'close', weight: 2, run: close },
  { name: 'reconnect', weight: 1, run: reconnect },
];
/** While there are listings. */
const LISTING_OPERATIONS = [attachLate, list] as const;
const LISTING_SHARE = 0.05;
const LATE_DATABASES = 3;
/** Of all operations while there are modules. */
const MODULE_OPEN_SHARE = 0.5;
const WEIGHTS = OPERATIONS.reduce((sum, { weight }) => sum + weight, 0);

function choose({ settings, prng }: Shared): (typeof OPERATIONS)[number] {
  if (settings.modules && prng.chance(MODULE_OPEN_SHARE)) return { name: 'open by module', weight: 0, run: moduleOpen };
  if (settings.listings && prng.chance(LISTING_SHARE)) {
    return { name: 'listing', weight: 0, run: prng.pick(LISTING_OPERATIONS) };
  }
  let at = prng.below(WEIGHTS);
  return OPERATIONS.find(({ weight }) => (at -= weight) < 0)!;
}

/** Of all operations while daemons are killed and their smbds go on. */
const NEIGHBOURS_SHARE = 0.2;
/** Of all operations while clients cache under leases. */
const LEASES_SHARE = 0.8;

/** A client may do nothing for so long that a server that is cut off is called down meanwhile. */
function clientThinks({ settings, prng }: Shared): Micros {
  return settings.longFaults && prng.chance(0.5) ? 2_000_000 : settings.thinkMicrosMax;
}

/** The client that caches, if there are such. */
function* caching(shared: Shared, smbd: SimulatedSmbd, { locking }: Databases): Steps<CachingSmbd | null> {
  if (shared.leases === null) return null;
  const leases = yield* smbd.attach('leases.tdb');
  const client = new CachingSmbd(shared, smbd, { locking, leases });
  yield* client.start();
  return client;
}

/** The life of one smbd: attaches, then works until `stop` says so. */
export function* live(shared: Shared, smbd: SimulatedSmbd, stop: () => boolean): Steps<void> {
  const databases = yield* attachAll(smbd);
  if (shared.settings.modules) smbd.loadModule();
  if (shared.neighbours !== null) yield* shared.neighbours.begin(smbd);
  const client = yield* caching(shared, smbd, databases);
  while (!stop()) {
    if (client !== null && shared.prng.chance(LEASES_SHARE)) {
      yield* client.act();
      smbd.totals.operations++;
      smbd.doing = 'thinking';
      yield { for: 'time', micros: 1 + shared.prng.below(clientThinks(shared) + 1) };
      continue;
    }
    if (shared.neighbours !== null && shared.prng.chance(NEIGHBOURS_SHARE)) {
      smbd.doing = 'meeting others';
      yield* shared.neighbours.meet(shared, smbd);
      yield { for: 'time', micros: 1 + shared.prng.below(shared.settings.thinkMicrosMax + 1) };
      continue;
    }
    const chosen = choose(shared);
    // without a barrier that reaches everybody, another server's random keys may not be known yet
    if (chosen.run === reconnect && shared.settings.partitions > 0) continue;
    smbd.doing = chosen.name;
    yield* chosen.run(shared, smbd, databases);
    smbd.totals.operations++;
    smbd.doing = 'thinking';
    yield { for: 'time', micros: 1 + shared.prng.below(shared.settings.thinkMicrosMax + 1) };
  }
  if (client !== null) yield* client.hearTheRest();
}

/** The life of a connection that only reads: over it smbd looks at share modes for its listings. */
export function* look(shared: Shared, smbd: SimulatedSmbd, stop: () => boolean): Steps<void> {
  const { locking } = yield* attachAll(smbd);
  while (!stop()) {
    smbd.doing = 'looking';
    yield* smbd.parse(locking, sharedKey(shared), true);
    smbd.totals.operations++;
    yield { for: 'time', micros: 1 + shared.prng.below(shared.settings.thinkMicrosMax + 1) };
  }
}

/** Deletes the given records, one after the other. */
export function* deleteAll(
  shared: Shared,
  smbd: SimulatedSmbd,
  records: { database: DatabaseId; key: RecordKey }[],
): Steps<void> {
  yield* attachAll(smbd);
  for (const name of shared.late) yield* smbd.attach(name);
  if (shared.leases !== null) yield* smbd.attach('leases.tdb');
  for (const { database, key } of records) {
    smbd.doing = 'deleting at the end';
    const record = yield* smbd.lock(database, key);
    // also one that is empty already: its deleter may have died before it could say so
    smbd.delete(record);
    smbd.unlock(record);
  }
}
