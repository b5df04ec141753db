/**
 * Which server is the home of a key, and since which view it has been without a break. Homes are chosen by rendezvous
 * hashing over the members of the view; only a server's slice of a folder is at home there. Views that somebody may not
 * have seen are remembered, because a home that was another for a while has to be told anew what there is. Used by
 * core/records.
 */
import type { DatabaseId, Epoch, Incarnation, NodeId, RecordKey } from '../../base/ids.js';
import { assert } from '../../base/assert.js';
import { sliceServer } from '../../wire/folder-ids.js';
import type { FormerView, View } from '../views.js';
import { isRenewed, runOf } from '../views.js';
import { hashKey, rendezvousHomeOf } from './rendezvous.js';

interface RememberedView {
  epoch: Epoch;
  /** Ascending; the very array of the view before if that had the same. */
  nodes: readonly NodeId[];
  runs: ReadonlyMap<NodeId, Incarnation>;
  /** A run took the place of the one that it continues: what homes knew of that one is old. */
  isRenewed: boolean;
}

/** What says which server is the home of a key: its hash, or the server whose slice it is. */
interface Place {
  database: DatabaseId;
  key: RecordKey;
  hash: number;
  owner: NodeId | null;
  home: NodeId;
}

export class Homes {
  /** Agreed views, oldest first; the last is the one that we installed. */
  private views: RememberedView[] = [];
  /** The last key that was asked for: it is asked for several times in the course of a move. */
  private last: Place | null = null;

  /**
   * Whether servers did nothing but leave since that view, which we installed: then keys whose home we were are still
   * ours.
   */
  onlyLeftSince(epoch: Epoch): boolean {
    const { views } = this;
    for (let i = views.length - 1; i >= 0; i--) {
      if (views[i]!.epoch <= epoch) return views[i]!.epoch === epoch;
      const before = views[i - 1]?.runs;
      if (before === undefined || views[i]!.isRenewed) return false;
      for (const [node, run] of views[i]!.runs) if (before.get(node) !== run) return false;
    }
    return false;
  }

  /** A later view than those before. */
  install(view: View): void {
    const known = this.views.at(-1)?.epoch ?? -1;
    // those we know ourselves may be more than the view still names: we may wait for claims longer than anybody
    for (const former of view.former) if (former.epoch > known) this.remember(former);
    this.remember(view);
    this.last = null;
  }

  private remember(view: FormerView | View): void {
    const { epoch, members } = view;
    const before = this.views.at(-1)?.nodes;
    const sorted = members.map(({ node }) => node).sort((a, b) => a - b);
    const nodes = before !== undefined && before.join() === sorted.join() ? before : sorted;
    const renewed = 'leader' in view ? isRenewed(view) : view.isRenewed === true;
    this.views.push({
      epoch, nodes, runs: new Map(nodes.map((node) => [node, runOf(members, node)!])), isRenewed: renewed,
    });
  }

  /** Nobody needs to know of views before this one any more. */
  forgetBefore(epoch: Epoch): void {
    const from = this.views.findIndex((view) => view.epoch >= epoch);
    if (from > 0) this.views = this.views.slice(from);
  }

  get isInstalled(): boolean {
    return this.views.length > 0;
  }

  /** Of the view that we installed; there must be one. */
  get epoch(): Epoch {
    return this.current.epoch;
  }

  private get current(): RememberedView {
    const view = this.views.at(-1);
    assert(view !== undefined, 'no view is installed');
    return view;
  }

  /** The run of a member; undefined for a server that is none. */
  runOf(node: NodeId): Incarnation | undefined {
    return this.views.at(-1)?.runs.get(node);
  }

  homeOf(database: DatabaseId, key: RecordKey): NodeId {
    return this.lookUp(database, key).home;
  }

  private lookUp(database: DatabaseId, key: RecordKey): Place {
    const { last } = this;
    if (last !== null && last.key === key && last.database === database) return last;
    const hash = hashKey(database, key);
    const owner = sliceServer(key);
    const home = homeAmong(this.current.nodes, hash, owner);
    const found = { database, key, hash, owner, home };
    this.last = found;
    return found;
  }

  /**
   * The epoch of the view since which the key's home has been the run that it is now; of the oldest view remembered if
   * it was in all of them. With a run that continues another one all homes begin anew: what that one did last, and what
   * was under way to it, is told by what all have (docs/decisions/resuming.md).
   */
  since(database: DatabaseId, key: RecordKey): Epoch {
    const { views, current } = this;
    if (views.length === 1) return current.epoch;
    const { home, hash, owner } = this.lookUp(database, key);
    const run = current.runs.get(home);
    let since = current.epoch;
    for (let i = views.length - 2; i >= 0 && !views[i + 1]!.isRenewed; i--) {
      const { nodes, runs, epoch } = views[i]!;
      if (runs.get(home) !== run) break;
      if (nodes !== views[i + 1]!.nodes && homeAmong(nodes, hash, owner) !== home) break;
      since = epoch;
    }
    return since;
  }

  /** The newest remembered view in which a run took the place of another one; null: there is none. */
  get renewedSince(): Epoch | null {
    return this.views.findLast(({ isRenewed: renewed }) => renewed)?.epoch ?? null;
  }

  /** The first remembered view of which this run of a server was no member, after one of which it was. */
  goneSince(node: NodeId, incarnation: Incarnation): Epoch {
    let gone = this.current.epoch;
    for (let i = this.views.length - 1; i >= 0; i--) {
      if (this.views[i]!.runs.get(node) === incarnation) break;
      gone = this.views[i]!.epoch;
    }
    return gone;
  }
}

function homeAmong(nodes: readonly NodeId[], hash: number, owner: NodeId | null): NodeId {
  return owner !== null && nodes.includes(owner) ? owner : rendezvousHomeOf(hash, nodes);
}
