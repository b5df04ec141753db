/** What the smbds of one simulated run share, and the two steps all of their work is made of. */
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import type { Prng } from '../../src/base/prng.js';
import type { DrainWorld } from './drains.js';
import type { FolderWorld } from './folders.js';
import type { Neighbours } from './neighbours.js';
import type { LeaseWorld } from './lease-world.js';
import type { Settings } from './settings.js';
import type { WatchWorld } from './watches.js';
import type { Locked, SimulatedSmbd, Steps } from './smbd.js';

/** What the smbds of a run have in common. */
export interface Shared {
  settings: Settings;
  prng: Prng;
  /** Random keys of opens that exist, whoever made them. */
  opens: { key: RecordKey; of: SimulatedSmbd }[];
  /** All keys ever used, to delete them in the end. */
  used: Map<string, { database: DatabaseId; key: RecordKey }>;
  version: number;
  /** Databases that were attached in the middle of the work. */
  late: Set<string>;
  /** Clients that cache under leases; null in a run without. */
  leases: LeaseWorld | null;
  /** Who knows whom, in runs in which daemons are killed while their smbds go on; null in others. */
  neighbours: Neighbours | null;
  /** Clients that watch folders; null in a run without. */
  watches: WatchWorld | null;
  /** Clients that open folders; null in a run without. */
  folders: FolderWorld | null;
  /** Servers that are drained; null in a run without. */
  drains: DrainWorld | null;
}

/** Locks a record, and remembers that it was used. */
export function* locked(shared: Shared, smbd: SimulatedSmbd, database: DatabaseId, key: RecordKey): Steps<Locked> {
  shared.used.set(`${database}/${key}`, { database, key });
  return yield* smbd.lock(database, key);
}

/** Tells this version of a record from all others. */
export function nextVersion(shared: Shared, smbd: SimulatedSmbd): string {
  return `v${++shared.version} ${smbd.name}`;
}
