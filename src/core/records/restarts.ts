/**
 * What a survivor does when another server started anew and lost its memory: it waits until nothing that was given on
 * the old run's orders can still be under way, tells the new run what it has of its keys, and asks it again for what it
 * had asked of the old one. Never waits for a chain, whose holder may wait for the new run. Used by core/records.
 */
import type { DatabaseId, Incarnation, NodeId, RecordKey, Turn } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import type { Holding } from './holding.js';
import type { Holdings } from './holdings.js';
import type { Claim, RecordMessage } from '../../wire/record-messages.js';
import { KEYS_PER_MESSAGE_MAX } from '../../wire/record-messages.js';

export class Restarts {
  /** Restarts whose claims we have not sent yet. */
  private readonly pending = new Map<NodeId, Incarnation>();
  /** Who else has seen the last restart of each server. */
  private readonly seen = new Map<NodeId, { incarnation: Incarnation; by: Set<NodeId> }>();
  /** The runs that we are in contact with. */
  private readonly met = new Map<NodeId, Incarnation>();

  constructor(
    private readonly context: CoreContext,
    private readonly holdings: Holdings,
    private readonly databases: () => Iterable<DatabaseId>,
    private readonly homeOf: (database: DatabaseId, key: RecordKey) => NodeId,
    /** The announced home of a random key. */
    private readonly makerOf: (database: DatabaseId, key: RecordKey) => NodeId | undefined,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
  ) {}

  /** We are in contact with this run: the others hear it, and it hears whom else we have met. */
  tell(peer: NodeId, incarnation: Incarnation): void {
    this.met.set(peer, incarnation);
    for (const [other, run] of this.met) {
      if (other === peer) continue;
      this.post(other, { kind: 'reset-seen', server: peer, incarnation });
      // it may have met an earlier run of the other's, and what we said then went to an earlier run of its own
      this.post(peer, { kind: 'reset-seen', server: other, incarnation: run });
    }
  }

  /** What a silent server made may not be known everywhere; it may be dead. */
  isSilent(server: NodeId): void {
    for (const peer of this.context.members) {
      if (peer !== server && peer !== this.context.self) this.tellHeld(peer, server);
    }
  }

  /**
   * Tells a peer which random keys we hold that others made, or that `maker` made: whoever made them may be gone, or
   * have started anew, before the peer heard of them, and it must not take them for keys that nobody has.
   */
  tellHeld(peer: NodeId, maker?: NodeId): void {
    for (const database of this.databases()) {
      const held = new Map<NodeId, RecordKey[]>();
      for (const { key, state, arrived } of this.holdings.all(database)) {
        const server = this.makerOf(database, key);
        if (server === undefined || server === peer || server === this.context.self) continue;
        if ((maker !== undefined && server !== maker) || (state === 'none' && arrived === null)) continue;
        const keys = held.get(server);
        if (keys === undefined) held.set(server, [key]);
        else keys.push(key);
      }
      for (const [server, keys] of held) {
        for (let i = 0; i < keys.length; i += KEYS_PER_MESSAGE_MAX) {
          this.post(peer, { kind: 'exists-at', server, database, keys: keys.slice(i, i + KEYS_PER_MESSAGE_MAX) });
        }
      }
    }
  }

  /** A server came back as a new run; its old orders are void already. */
  began(server: NodeId, incarnation: Incarnation): void {
    this.pending.set(server, incarnation);
  }

  /** A server was met: claims that waited for it may go out. */
  advance(): void {
    for (const server of [...this.pending.keys()]) this.claimWhenSafe(server);
  }

  /** Tells a home what we own of its keys, what we keep as backup, and what we have just erased. */
  sendClaims(peer: NodeId): void {
    for (const database of this.databases()) {
      for (const holding of this.holdings.all(database)) {
        if (this.homeOf(database, holding.key) === peer) this.claim(peer, holding);
      }
    }
    for (const { database, key, turn } of this.holdings.erasures.all()) {
      if (this.homeOf(database, key) === peer) this.post(peer, { kind: 'claim', database, key, turn, what: 'gone' });
    }
    this.post(peer, { kind: 'claims-done' });
  }

  /** What has arrived and is not stored yet counts as stored: only a chain is in its way. */
  private claim(home: NodeId, { database, key, state, turn, arrived, isBackupToo }: Holding): void {
    const post = (what: Claim, of: Turn): void => this.post(home, { kind: 'claim', database, key, turn: of, what });
    const isKept = state === 'backup' || isBackupToo;
    if (arrived !== null && arrived.what !== 'copy') post('owner', arrived.turn);
    else if (state === 'owned') post('owner', turn);
    else {
      if (isKept) post('backup', turn);
      if (arrived !== null) post('reader', arrived.turn);
      else if (state === 'copy') post('reader', turn);
    }
  }

  /** Another server has seen this restart: all it gave before that is here. */
  seenBy(from: NodeId, server: NodeId, incarnation: Incarnation): void {
    let seen = this.seen.get(server);
    if (seen === undefined || seen.incarnation < incarnation) {
      this.seen.set(server, (seen = { incarnation, by: new Set() }));
    }
    if (seen.incarnation === incarnation) seen.by.add(from);
    this.claimWhenSafe(server);
  }

  /**
   * Once all others saw the restart too, no record given on the old run's orders is under way: we can say what we own.
   */
  private claimWhenSafe(server: NodeId): void {
    const incarnation = this.pending.get(server);
    if (incarnation === undefined) return;
    const seen = this.seen.get(server);
    const missing = this.context.members.some(
      (member) =>
        member !== this.context.self &&
        member !== server &&
        !(seen?.incarnation === incarnation && seen.by.has(member)),
    );
    if (missing) return;
    this.pending.delete(server);
    this.sendClaims(server);
    for (const database of this.databases()) {
      for (const holding of [...this.holdings.all(database)]) {
        this.holdings.askAgain(holding, server);
      }
    }
  }
}
