/**
 * What a member does about records when a view is installed (docs/decisions/recovery.md): it says so to the others
 * behind all that it sent before, waits until nothing that was given on orders of before can be under way, repairs what
 * names a lost run, and tells the new homes of keys what it has of them. Never waits for a chain, whose holder may wait
 * for us. Used by core/records.
 */
import type { DatabaseId, Epoch, NodeId, RecordKey, Turn } from '../../base/ids.js';
import { epoch as toEpoch } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import type { Claim, RecordMessage } from '../../wire/record-messages.js';
import type { Holding } from './holding.js';
import type { Holdings } from './holdings.js';
import type { Member, View } from '../views.js';

export interface RecoveryHomes {
  homeOf(database: DatabaseId, key: RecordKey): NodeId;
  /** Since which view the key's home has been its home. */
  since(database: DatabaseId, key: RecordKey): Epoch;
}

export interface RecoveryEvents {
  /** Nothing given on orders of former views is under way any more. */
  settled(): void;
  /** We have told all homes what we have; the view's epoch. */
  recovered(epoch: Epoch): void;
}

export class Recovery {
  /** The view that we installed last; 0 before the first. */
  private installed = toEpoch(0);
  /** The view whose claims we sent last. */
  private claimed = toEpoch(0);
  /** Which view each member has said that it installed, and for which it has sent its claims. */
  private readonly seen = new Map<NodeId, Epoch>();
  private readonly claims = new Map<NodeId, Epoch>();
  private members: readonly Member[] = [];

  constructor(
    private readonly context: CoreContext,
    private readonly holdings: Holdings,
    private readonly databases: () => Iterable<DatabaseId>,
    private readonly homes: RecoveryHomes,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
    private readonly events: RecoveryEvents,
    /** Our run continues another one: it has what that one had. */
    private readonly resumes: boolean,
  ) {}

  /** The members of the view whose word is not here yet: `settled` waits for them. */
  awaited(): NodeId[] {
    return this.context.members.filter((member) => !this.hasSeen(member, this.installed));
  }

  /** Whether a member's orders are from its time as the home: since this view. */
  hasSeen(member: NodeId, since: Epoch): boolean {
    return (this.seen.get(member) ?? -1) >= since;
  }

  /** Whether all have claimed what they had before this view; those that joined with it or later had nothing. */
  areClaimsIn(since: Epoch): boolean {
    for (const member of this.members) {
      if (hadSomething(member, since) && (this.claims.get(member.node) ?? 0) < since) return false;
    }
    return true;
  }

  /** All claims of this view and of those before it are in. */
  claimsAreInUntil(): Epoch {
    let until: number = this.installed;
    for (const member of this.members) {
      const claimed = this.claims.get(member.node) ?? 0;
      if (hadSomething(member, this.installed)) until = Math.min(until, claimed);
    }
    return toEpoch(until);
  }

  /** Whether we have claimed what we had when this view came, or had nothing. */
  hasClaimed(epoch: Epoch): boolean {
    return this.claimed >= epoch && this.awaited().length === 0;
  }

  /** No other member was there before our run took the place of the one before: nobody remembers for us. */
  get remembersAlone(): boolean {
    const own = this.members.find(({ node }) => node === this.context.self);
    return own === undefined || !this.members.some(({ since }) => since < own.since);
  }

  /** Other members that continue former runs and have not said yet what they have: they do not know all keys. */
  successorsToHear({ members }: View): NodeId[] {
    const isNew = ({ node, since, resumes }: Member): boolean =>
      resumes !== undefined && node !== this.context.self && (this.claims.get(node) ?? 0) < since;
    return members.filter(isNew).map(({ node }) => node);
  }

  /** A run is out of the view. */
  runGone(node: NodeId): void {
    this.seen.delete(node);
    this.claims.delete(node);
  }

  /** A view was installed, and everybody else let go; says so. */
  install({ epoch, members }: View): void {
    const isFirst = this.installed === 0;
    this.members = members;
    this.installed = epoch;
    // a run that joins has nothing from before
    if (isFirst && !this.resumes) this.claimed = epoch;
    for (const member of this.context.members) this.post(member, { kind: 'view', epoch });
  }

  /** A member has installed that view: all it gave before that is here. */
  onView(from: NodeId, epoch: Epoch): void {
    const wasAwaited = !this.hasSeen(from, this.installed);
    this.seen.set(from, epoch);
    if (!wasAwaited || this.awaited().length > 0) return;
    this.events.settled();
    this.sendClaims();
  }

  /** A member has claimed all it had when that view came. */
  onClaimsDone(from: NodeId, epoch: Epoch): void {
    this.claims.set(from, epoch);
  }

  /**
   * Tells each home that is new to a key what we own of it, what we keep as backup or read, and what we have just
   * erased.
   */
  private sendClaims(): void {
    const isNews = (database: DatabaseId, key: RecordKey): boolean => this.homes.since(database, key) > this.claimed;
    for (const database of this.databases()) {
      for (const holding of this.holdings.all(database)) {
        if (!isNews(database, holding.key)) continue;
        this.context.count('record.home.new');
        this.claim(this.homes.homeOf(database, holding.key), holding);
      }
    }
    for (const { database, key, turn } of this.holdings.erasures.all()) {
      if (!isNews(database, key)) continue;
      this.postClaim(this.homes.homeOf(database, key), { kind: 'claim', database, key, turn, what: 'gone' });
    }
    const moved: Holding[] = [];
    for (const database of this.databases()) {
      for (const holding of this.holdings.all(database)) {
        const isMoved = isNews(database, holding.key);
        if (isMoved) this.holdings.forgetTurn(holding);
        if (isMoved || this.holdings.isAskLost(holding)) moved.push(holding);
      }
    }
    this.claimed = this.installed;
    for (const member of this.context.members) this.post(member, { kind: 'claims-done', epoch: this.installed });
    for (const holding of moved) this.holdings.askAgain(holding);
    this.events.recovered(this.installed);
  }

  private postClaim(home: NodeId, claim: Extract<RecordMessage, { kind: 'claim' }>): void {
    if (home !== this.context.self) this.context.count('record.claim.sent');
    this.post(home, claim);
  }

  /** What has arrived and is not stored yet counts as stored: only a chain is in its way. */
  private claim(home: NodeId, { database, key, state, turn, arrived, isBackupToo }: Holding): void {
    const post = (what: Claim, of: Turn): void =>
      this.postClaim(home, { kind: 'claim', database, key, turn: of, what });
    const isKept = state === 'backup' || isBackupToo;
    if (arrived !== null && arrived.what !== 'copy') post('owner', arrived.turn);
    else if (state === 'owned') post('owner', turn);
    else {
      if (isKept) post('backup', turn);
      if (arrived !== null) post('reader', arrived.turn);
      else if (state === 'copy') post('reader', turn);
    }
  }
}

/** Whether the member may have something from before this view; who joined with it, or later, began with nothing. */
function hadSomething({ since, resumes }: Member, view: Epoch): boolean {
  return since < view || (since === view && resumes !== undefined);
}
