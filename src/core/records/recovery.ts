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
import { AwaitedClaims, KeysSince } from './first-claims.js';
import { Slices, UNHURRIED } from './slices.js';

/** Looking whether a record has another home costs so much less than telling of it. */
const LOOKS_PER_CLAIM = 8;
/** Since this protocol single keys are claimed ahead of the others. */
const CLAIM_NOW_PROTOCOL = 2;

export interface RecoveryHomes {
  homeOf(database: DatabaseId, key: RecordKey): NodeId;
  /** Since which view the key's home has been its home. */
  since(database: DatabaseId, key: RecordKey): Epoch;
  /** A random key that nobody knows any more. */
  isEnded(database: DatabaseId, key: RecordKey): boolean;
}

export interface RecoveryEvents {
  /** Nothing given on orders of former views is under way any more. */
  settled(): void;
  /** We have told all homes what we have; the view's epoch. */
  recovered(epoch: Epoch): void;
  /** Messages were posted, perhaps to ourselves, and perhaps by a timer. */
  posted(): void;
  /** All claims of this key of ours are in. */
  keyClaimed(database: DatabaseId, key: RecordKey): void;
}

/** A home waits for what we have of this key. */
interface FirstClaim {
  home: NodeId;
  database: DatabaseId;
  key: RecordKey;
}

export class Recovery {
  /** The view that we installed last; 0 before the first. */
  private installed = toEpoch(0);
  /** The view whose claims we sent last. */
  private claimed = toEpoch(0);
  /** Which view each member has said that it installed, and for which it has sent its claims. */
  private readonly seen = new Map<NodeId, Epoch>();
  private readonly claims = new Map<NodeId, Epoch>();
  /** The view in which each member said last that it does not know all random keys. */
  private readonly keysUnknown = new Map<NodeId, Epoch>();
  private members: readonly Member[] = [];
  /** What new homes may still have to be told of; null: nothing. Not of what came after all were settled. */
  private untold: Iterator<Holding, void> | null = null;
  private youngest = 0;
  private readonly slices: Slices;
  /** Of these keys we have told their homes, ahead of the others. */
  private readonly told = new KeysSince();
  /** Of these keys of ours we have been told all. */
  private readonly known = new KeysSince();
  private readonly awaitedClaims = new AwaitedClaims();
  /** Asked of us before we could answer, once for each key that somebody waits for; null: we can. */
  private firsts: FirstClaim[] | null = [];

  constructor(
    private readonly context: CoreContext,
    private readonly holdings: Holdings,
    private readonly databases: () => Iterable<DatabaseId>,
    private readonly homes: RecoveryHomes,
    private readonly post: (to: NodeId, message: RecordMessage) => void,
    private readonly events: RecoveryEvents,
    /** Our run continues another one: it has what that one had. */
    private readonly resumes: boolean,
    sliceSize: number,
  ) {
    this.slices = new Slices(context, sliceSize, UNHURRIED, (pieces) => {
      const isMore = this.tellNews(pieces);
      events.posted();
      return isMore;
    });
  }

  /** The members of the view whose word is not here yet: `settled` waits for them. */
  awaited(): NodeId[] {
    return this.context.members.filter((member) => !this.hasSeen(member, this.installed));
  }

  /** Whether not all homes that are new to keys have been told of what we have. */
  get isTelling(): boolean {
    return this.untold !== null;
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

  /** Whether all have told us what they have of a key that has been ours since that view. */
  isClaimed(database: DatabaseId, key: RecordKey, since: Epoch): boolean {
    return this.areClaimsIn(since) || this.known.has(database, key, since);
  }

  /** Somebody waits for a key of ours of which not everybody has told us. */
  claimNow(database: DatabaseId, key: RecordKey): void {
    if (!this.context.speaks(CLAIM_NOW_PROTOCOL)) return;
    const since = this.homes.since(database, key);
    // also ourselves: our word comes when nothing is under way any more
    const isOpen = (member: Member): boolean => (this.claims.get(member.node) ?? 0) < since
      && (hadSomething(member, since) || member.node === this.context.self);
    const silent = this.members.filter(isOpen).map(({ node }) => node);
    for (const node of this.awaitedClaims.begin(database, key, silent)) {
      this.post(node, { kind: 'claim-now', epoch: this.installed, database, key });
    }
  }

  /** The home of a key waits for what we have of it. */
  onClaimNow(home: NodeId, epoch: Epoch, database: DatabaseId, key: RecordKey): void {
    // under a later view it asks anew
    if (epoch !== this.installed) return this.context.count('record.claim-now.stale');
    if (this.firsts === null) this.tellNow({ home, database, key });
    else this.firsts.push({ home, database, key });
  }

  private tellNow({ home, database, key }: FirstClaim): void {
    if (this.homes.homeOf(database, key) !== home) return this.context.count('record.claim-now.stray');
    if (this.isNews(database, key)) {
      const holding = this.holdings.get(database, key);
      if (holding !== undefined) this.tell(holding);
      const turn = this.holdings.erasures.of(database, key);
      if (turn !== null) this.postClaim(home, { kind: 'claim', database, key, turn, what: 'gone' });
      // from here on the home may order it about
      this.told.add(database, key, this.homes.since(database, key));
    }
    this.post(home, { kind: 'claimed-now', epoch: this.installed, database, key });
  }

  /** A member has claimed what it has of a key of ours. */
  onClaimedNow(from: NodeId, epoch: Epoch, database: DatabaseId, key: RecordKey): void {
    if (epoch !== this.installed || !this.awaitedClaims.claimed(from, database, key)) return;
    this.known.add(database, key, this.homes.since(database, key));
    this.events.keyClaimed(database, key);
  }

  /** All claims are in: no key needs to be remembered for itself. */
  allClaimed(): void {
    this.known.clear();
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

  /**
   * No other member that knows all random keys was there before our run took the place of the one before: nobody
   * remembers for us.
   */
  get remembersAlone(): boolean {
    const own = this.members.find(({ node }) => node === this.context.self);
    if (own === undefined) return true;
    return !this.members.some(({ node, since }) => since < own.since && this.keysUnknown.get(node) !== this.installed);
  }

  /** Other members that continue former runs and have not said yet what they have: they do not know all keys. */
  successorsToHear({ members }: View): NodeId[] {
    const isNew = ({ node, since, resumes }: Member): boolean =>
      resumes !== undefined && node !== this.context.self && (this.claims.get(node) ?? 0) < since;
    return members.filter(isNew).map(({ node }) => node);
  }

  /**
   * Whether all members that continue former runs and did not know all keys either have told which ones they have: they
   * do so when they are settled, before their claims are done.
   */
  get areKeysTold(): boolean {
    const isTold = ({ node, resumes }: Member): boolean => resumes === undefined || node === this.context.self
      || this.keysUnknown.get(node) !== this.installed || (this.claims.get(node) ?? 0) >= this.installed;
    return this.members.every(isTold);
  }

  /** A run is out of the view. */
  runGone(node: NodeId): void {
    this.seen.delete(node);
    this.claims.delete(node);
    this.keysUnknown.delete(node);
  }

  /** A view was installed, and everybody else let go; says so. */
  install({ epoch, members }: View): void {
    const isFirst = this.installed === 0;
    // what was not told yet is news under this view as well
    this.slices.cancel();
    this.untold = null;
    this.firsts = [];
    this.awaitedClaims.clear();
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

  /** A member's run has not been told yet which random keys there are. */
  onKeysUnknown(from: NodeId, epoch: Epoch): void {
    this.keysUnknown.set(from, epoch);
  }

  /** A member has claimed all it had when that view came. */
  onClaimsDone(from: NodeId, epoch: Epoch): void {
    this.claims.set(from, epoch);
  }

  /**
   * Tells each home that is new to a key what we own of it, what we keep as backup or read, and what we have just
   * erased. In slices: there may be a hundred thousand. Meanwhile nothing of these keys can be taken from here, since
   * only their new homes could order that, which wait for all claims.
   */
  private sendClaims(): void {
    const asked: Holding[] = [];
    for (const holding of this.holdings.allActive()) {
      const isMoved = this.isNews(holding.database, holding.key);
      if (isMoved) this.holdings.forgetTurn(holding);
      if (holding.asked !== null && (isMoved || this.holdings.isAskLost(holding))) asked.push(holding);
    }
    // the new homes keep the question until they can answer
    for (const holding of asked) this.holdings.askAgain(holding);
    this.youngest = this.holdings.youngest;
    this.untold = this.holdings.everything();
    const firsts = this.firsts ?? [];
    this.firsts = null;
    for (const first of firsts) this.tellNow(first);
    this.slices.begin();
  }

  private isNews(database: DatabaseId, key: RecordKey): boolean {
    const since = this.homes.since(database, key);
    return since > this.claimed && !this.told.has(database, key, since);
  }

  /** False when all is told. */
  private tellNews(pieces: number): boolean {
    for (let left = pieces * LOOKS_PER_CLAIM; this.untold !== null && left > 0; left--) {
      const next = this.untold.next();
      if (next.done === true) {
        this.untold = null;
        this.allTold();
      } else if (next.value.serial <= this.youngest && this.isNews(next.value.database, next.value.key)) {
        left -= LOOKS_PER_CLAIM - 1;
        this.tell(next.value);
      }
    }
    return this.untold !== null;
  }

  private tell(holding: Holding): void {
    const { database, key, state, turn, arrived } = holding;
    this.holdings.forgetTurn(holding);
    if (this.homes.isEnded(database, key) && arrived === null && (state === 'backup' || state === 'copy')) {
      // its home gave the order to drop it in a former view: that came too late
      this.context.count('record.ended.dropped');
      return this.holdings.onDrop(database, key, turn);
    }
    this.context.count('record.home.new');
    this.claim(this.homes.homeOf(database, key), holding);
  }

  private allTold(): void {
    for (const { database, key, turn } of this.holdings.erasures.all()) {
      if (!this.isNews(database, key)) continue;
      this.postClaim(this.homes.homeOf(database, key), { kind: 'claim', database, key, turn, what: 'gone' });
    }
    this.claimed = this.installed;
    this.told.clear();
    for (const member of this.context.members) this.post(member, { kind: 'claims-done', epoch: this.installed });
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
