/**
 * smbds whose clients open folders, most of them sharing all, some excluding the others, and what our VFS module does
 * there: asks first, goes by the slice where the page says so, and moves what it has there when it is told to
 * (samba-module/hooks: open.c, fileid.c, folder.c).
 */
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import { keyOf } from '../../src/base/ids.js';
import { sliceOf, sliceServer } from '../../src/wire/folder-ids.js';
import { OPEN_FLAG, READY, RING_OP } from '../../src/wire/ring-ops.js';
import { encodeRecalled } from '../support/ring-messages.js';
import type { FolderChecker } from './folder-checker.js';
import type { FolderModule, SimulatedSmbd, Steps } from './smbd.js';
import { locked, nextVersion } from './shared.js';
import type { Shared } from './shared.js';

const FOLDERS = 2;
const HANDLES_MAX = 3;
/** An open of a new folder is not asked for; those of the simulator exist. */
const FOLDER = OPEN_FLAG.directory;

/** As a folder's record in locking.tdb has it, and its slices'. */
interface Entry {
  smbd: string;
  handle: number;
  excludes: boolean;
}

interface OpenFolder extends Entry {
  folder: RecordKey;
  /** The record that its entry is in. */
  key: RecordKey;
}

export class FolderWorld {
  /** Those that live, by name. */
  readonly smbds = new Set<string>();

  constructor(
    readonly checker: FolderChecker,
    /** A planted bug: modules say that they have moved their entries, and then move them. */
    readonly answersEarly: boolean,
  ) {}

  died(smbd: string): void {
    this.smbds.delete(smbd);
    this.checker.died(smbd);
  }
}

/** For the core, whose smbds these are: what a record of locking.tdb says. */
export function simulatedExcluder(data: Uint8Array): boolean {
  return entriesOf(Buffer.from(data).toString('latin1')).some(({ excludes }) => excludes);
}

export class FolderSmbd implements FolderModule {
  private readonly handles = new Set<OpenFolder>();
  private readonly recalls: { folder: RecordKey; number: bigint }[] = [];
  private nextHandle = 1;
  private locking: DatabaseId | null = null;

  constructor(
    private readonly shared: Shared,
    private readonly world: FolderWorld,
    private readonly smbd: SimulatedSmbd,
  ) {
    world.smbds.add(smbd.name);
    smbd.folderModule = this;
  }

  *start(): Steps<void> {
    this.locking = yield* this.smbd.attach('locking.tdb');
    yield* this.smbd.attach('brlock.tdb');
    yield* this.smbd.attach('leases.tdb');
    this.smbd.loadModule();
  }

  *act(): Steps<void> {
    const { prng } = this.shared;
    const handle = this.handles.size === 0 ? undefined : prng.pick([...this.handles]);
    yield* this.pause(this.shared.settings.thinkMicrosMax + 100);
    yield* this.heed();
    // who excludes does so for a moment
    const closes = handle !== undefined && (handle.excludes || this.handles.size === HANDLES_MAX || prng.chance(0.7));
    if (handle !== undefined && closes && this.handles.has(handle)) yield* this.close(handle);
    else yield* this.open(folderOf(prng.below(FOLDERS)), prng.chance(this.shared.settings.excludeProbability));
  }

  *closeAll(): Steps<void> {
    for (const handle of [...this.handles]) yield* this.close(handle);
  }

  // --- the module

  recall(folder: RecordKey, number: bigint): void {
    this.recalls.push({ folder, number });
  }

  ringLost(): void {
    this.recalls.length = 0;
  }

  attend(): Steps<void> | null {
    return this.recalls.length === 0 ? null : this.heed();
  }

  /** What it was told while it was in the middle of something. */
  private *heed(): Steps<void> {
    for (let recall = this.recalls.shift(); recall !== undefined; recall = this.recalls.shift()) {
      const { folder, number } = recall;
      if (this.world.answersEarly) this.answer(number, 0);
      const moved = yield* this.moveAll(folder);
      if (!this.world.answersEarly) this.answer(number, moved);
    }
  }

  private answer(number: bigint, moved: number): void {
    this.world.checker.totals.moved += moved;
    this.smbd.say(`has moved ${moved} entries, for recall ${number}`);
    this.smbd.sendRing(RING_OP.recalled, encodeRecalled(number, moved));
  }

  /** From our slice to the one record: added there first. */
  private *moveAll(folder: RecordKey): Steps<number> {
    const { smbd } = this;
    const slice = sliceOf(folder, smbd.server.self);
    const mine = [...this.handles].filter(({ key }) => key === slice);
    if (mine.length === 0) return 0;
    smbd.doing = 'moving entries out of a slice';
    const one = yield* locked(this.shared, smbd, this.locking!, folder);
    this.write(one, [...entriesOf(one.text), ...mine]);
    smbd.unlock(one);
    const from = yield* locked(this.shared, smbd, this.locking!, slice);
    this.write(from, entriesOf(from.text).filter(({ smbd: name }) => name !== smbd.name));
    smbd.unlock(from);
    for (const handle of mine) handle.key = folder;
    return mine.length;
  }

  // --- opens and closes

  private *open(folder: RecordKey, excludes: boolean): Steps<void> {
    const { smbd, world } = this;
    smbd.doing = `opening a folder, ${excludes ? 'excluding others' : 'sharing all'}`;
    const asks = excludes || (smbd.isAttached && !smbd.isDelegated(folder));
    const number = asks ? smbd.beginFolderOpen(folder, FOLDER | (excludes ? OPEN_FLAG.excludes : 0)) : null;
    const result = number === null ? READY.home : yield* this.ready(number);
    if (excludes && (number === null || (result !== READY.home && result !== READY.gaveUp))) {
      world.checker.totals.refused++;
      return number === null ? undefined : smbd.endFolderOpen(number, folder);
    }
    // the create runs from the top
    const key = !excludes && smbd.isDelegated(folder) ? sliceOf(folder, smbd.server.self) : folder;
    yield* this.pause(50);
    yield* this.enter(folder, key, excludes);
    if (number !== null) smbd.endFolderOpen(number, key);
  }

  /** The create is parked; smbd does other things meanwhile. */
  private *ready(number: bigint): Steps<number> {
    for (;;) {
      const result = this.smbd.readyResult(number);
      if (result !== null) return result;
      yield { for: 'news' };
      yield* this.heed();
    }
  }

  private *enter(folder: RecordKey, key: RecordKey, excludes: boolean): Steps<void> {
    const { smbd, world } = this;
    const record = yield* locked(this.shared, smbd, this.locking!, key);
    const entries = entriesOf(record.text).filter((entry) => world.smbds.has(entry.smbd));
    if (entries.some((entry) => entry.excludes || excludes)) {
      world.checker.totals.refused++;
      return smbd.unlock(record);
    }
    const handle = { smbd: smbd.name, handle: this.nextHandle++, excludes, folder, key };
    this.handles.add(handle);
    this.write(record, [...entries, handle]);
    world.checker.opened(handle, sliceServer(key) !== null);
    smbd.unlock(record);
  }

  private *close(handle: OpenFolder): Steps<void> {
    const { smbd } = this;
    smbd.doing = 'closing a folder';
    const record = yield* locked(this.shared, smbd, this.locking!, handle.key);
    this.handles.delete(handle);
    this.world.checker.closed(handle);
    this.write(record, entriesOf(record.text).filter((one) => one.smbd !== smbd.name || one.handle !== handle.handle));
    smbd.unlock(record);
  }

  private write(record: Parameters<SimulatedSmbd['store']>[0], entries: readonly Entry[]): void {
    if (entries.length === 0) return this.smbd.delete(record);
    const kept = entries.map(({ smbd, handle, excludes }) => ({ smbd, handle, excludes }));
    this.smbd.store(record, `${nextVersion(this.shared, this.smbd)} ${JSON.stringify(kept)}`);
  }

  private *pause(most: number): Steps<void> {
    yield { for: 'time', micros: 1 + this.shared.prng.below(most) };
  }
}

function folderOf(number: number): RecordKey {
  const key = Buffer.alloc(24);
  key.writeUInt32LE(0xf01d, 0);
  key.writeUInt32LE(number, 8);
  return keyOf(key);
}

/** The first two words of a text tell versions apart; the rest is the content. */
function entriesOf(text: string): Entry[] {
  const at = text.indexOf(' ', text.indexOf(' ') + 1);
  return at === -1 ? [] : (JSON.parse(text.slice(at + 1)) as Entry[]);
}

/** The life of a smbd whose client opens folders. */
export function* openFolders(shared: Shared, smbd: SimulatedSmbd, stop: () => boolean): Steps<void> {
  const client = new FolderSmbd(shared, shared.folders!, smbd);
  yield* client.start();
  while (!stop()) {
    yield* client.act();
    smbd.totals.operations++;
  }
  yield* client.closeAll();
}
