/**
 * Backups that went with their keepers are made anew (docs/decisions/recovery.md): the home's side. Of a record that
 * only its owner has, the home tells the owner to send a copy to another server, which says whether it keeps it. Used
 * by directory.ts.
 */
import type { NodeId, Turn } from '../../base/ids.js';
import { Fifo } from '../../base/fifo.js';
import type { CoreContext } from '../context.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import type { Entry } from './entry.js';
import { hasBackup } from './entry.js';
import { rendezvousHome } from './rendezvous.js';
import { RESTORES_UNDER_WAY_MAX } from './slices.js';

/** Since this protocol backups that were lost are made anew. */
const MIRROR_PROTOCOL = 2;

export class Mirrors {
  /** Entries of records that perhaps only their owner has; only those that say so themselves count. */
  private readonly bare = new Fifo<Entry>();
  /** Entries with an order that is not answered. */
  private underWay = 0;

  /**
   * @param isGone whether a server's run is out, while entries still name it
   * @param catchUp brings the entry to what it is after all that has happened
   */
  constructor(
    private readonly context: Pick<CoreContext, 'self' | 'members' | 'speaks'>,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
    private readonly isGone: (server: NodeId) => boolean,
    private readonly catchUp: (entry: Entry) => void,
  ) {}

  /** Its owner may be the only one to have it: that is looked into when nothing else is left to do. */
  queueIfBare(entry: Entry): void {
    if (entry.owner === null || hasBackup(entry) || entry.bare !== 'no') return;
    if (!this.context.speaks(MIRROR_PROTOCOL)) return;
    this.queue(entry);
  }

  private queue(entry: Entry): void {
    entry.bare = 'queued';
    this.bare.put(entry);
  }

  /** Its home has nothing more to do with it: what had to wait for that is looked into. */
  idle(entry: Entry): void {
    if (entry.bare === 'busy') this.queue(entry);
  }

  /** Whether `some` has anything to do. */
  get hasBare(): boolean {
    return !this.bare.isEmpty;
  }

  /** Has so many of them kept by another server, too; false: there are no more. Nothing while many are on order. */
  some(count: number): boolean {
    for (let left = count; left > 0 && this.underWay < RESTORES_UNDER_WAY_MAX; left--) {
      const entry = this.bare.take();
      if (entry === undefined) return false;
      if (entry.bare === 'no') continue;
      this.catchUp(entry);
      const isBusy = entry.current !== null && !hasBackup(entry);
      entry.bare = isBusy ? 'busy' : 'no';
      if (!isBusy) this.order(entry);
    }
    return this.hasBare;
  }

  /** The owner is told; it tells the keeper, and the keeper us. Nothing here waits for that. */
  private order(entry: Entry): void {
    const { database, key, owner, ownerTurn: turn, isRebuilt } = entry;
    if (owner === null || hasBackup(entry) || isRebuilt || this.isGone(owner)) return;
    const { self, members } = this.context;
    // who is gone is back as another run at best, to which nothing is said before all have forgotten the former one
    const others = members.filter((member) => member !== owner && !this.isGone(member));
    if (others.length === 0) return;
    const to = owner === self ? rendezvousHome(database, key, others) : self;
    this.set(entry, { to, turn });
    this.post(owner, { kind: 'mirror', database, key, turn, to });
  }

  /** The owner is another one, or ended the record, or the entry ends: what was ordered is void. */
  end(entry: Entry): void {
    this.set(entry, null);
  }

  /** The keeper that was chosen is lost; returns whether there was an order. */
  keeperLost(entry: Entry, keeper: NodeId): boolean {
    if (entry.mirror?.to !== keeper) return false;
    this.end(entry);
    return true;
  }

  /**
   * The keeper has the backup by which the owner owned the record in that turn, or keeper or owner says that nothing
   * comes of it. It is ordered anew if the owner has got a later turn since and there is still no backup.
   */
  answered(entry: Entry, turn: Turn): void {
    const { mirror } = entry;
    if (mirror === null || turn < mirror.turn) return;
    this.end(entry);
    if (entry.ownerTurn > mirror.turn) this.queueIfBare(entry);
  }

  private set(entry: Entry, mirror: Entry['mirror']): void {
    if (entry.mirror !== null) this.underWay--;
    if (mirror !== null) this.underWay++;
    entry.mirror = mirror;
  }
}
