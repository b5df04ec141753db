/**
 * Watches the membership of a simulated pool from outside, by true time: disks, frames, and what each server is told.
 * It believes nothing that an engine says of itself but its lease and, on etcd, its authority, which are what others
 * rely on.
 */
import type { NodeId } from '../../../src/base/ids.js';
import type { Micros } from '../../../src/core/effects.js';
import type { Run, View } from '../../../src/core/membership/composition.js';
import { names } from '../../../src/core/membership/composition.js';
import { isSameRun } from '../../../src/core/views.js';
import { termOf } from '../../../src/wire/membership-messages.js';
import { ServersChecker } from './servers-checker.js';
import { VersionChecker } from './version-checker.js';
import type { SavedMembership } from '../../../src/wire/membership-state.js';

export interface Violation {
  at: Micros;
  rule: string;
  text: string;
}

interface Lease extends Run {
  /** True time. */
  until: Micros;
}

export class MembershipChecker {
  readonly violations: Violation[] = [];
  readonly servers: ServersChecker;
  /** The newest view that a majority has on disk. */
  newest: View | null = null;
  agreements = 0;
  readonly versions: VersionChecker;
  private readonly contents = new Map<number, string>();
  private readonly acceptedBy = new Map<number, Set<NodeId>>();
  private readonly agreedEpochs = new Set<number>();
  private readonly agreed: View[] = [];
  private readonly votes = new Map<string, NodeId>();
  private readonly onDisk = new Map<NodeId, number>();
  private readonly installedBy = new Map<string, number>();
  /** Of all runs, also crashed ones: their smbds may go on until then. */
  private readonly leases = new Map<string, Lease>();
  private readonly authorities = new Map<string, { node: NodeId; term: number; until: Micros }>();
  /** Runs by what they recovered, for what views may leave out. */
  private readonly recovered = new Map<string, number>();

  constructor(
    private readonly now: () => Micros,
    nodes: readonly NodeId[],
    private readonly onAgreed: (view: View) => void,
  ) {
    this.servers = new ServersChecker(nodes, (rule, text) => this.fail(rule, text));
    this.versions = new VersionChecker(now, nodes, (rule, text) => this.fail(rule, text));
  }

  fail(rule: string, text: string): void {
    this.violations.push({ at: this.now(), rule, text });
  }

  /** A state is on a server's disk. */
  saved(node: NodeId, { term, votedFor, accepted }: SavedMembership): void {
    if (votedFor !== null) this.voted(node, term, votedFor, 'on disk');
    if (accepted === null || accepted.epoch === this.onDisk.get(node)) return;
    if (accepted.epoch < (this.onDisk.get(node) ?? 0)) this.fail('accepted-ascends', `server ${node}`);
    this.onDisk.set(node, accepted.epoch);
    this.content(accepted);
    // taken over from a voter under a later term: that is known, but its leader never counts it
    if (term !== termOf(accepted.epoch)) return;
    const by = this.acceptedBy.get(accepted.epoch) ?? new Set<NodeId>();
    this.acceptedBy.set(accepted.epoch, by.add(node));
    if (this.servers.isMajority(accepted, by)) this.agree(accepted);
  }

  /** A view is in the register of the engine etcd. */
  committed(view: View): void {
    this.content(view);
    if (this.agreedEpochs.has(view.epoch)) return;
    if (view.epoch <= (this.newest?.epoch ?? 0)) this.fail('epochs-ascend', `${view.epoch}`);
    // where nobody votes the register is the majority
    this.agree(view);
  }

  private content(view: View): void {
    const text = JSON.stringify(view);
    const known = this.contents.get(view.epoch);
    if (known === undefined) this.contents.set(view.epoch, text);
    else if (known !== text) this.fail('one-view-an-epoch', `${view.epoch}: ${known} and ${text}`);
  }

  private agree(view: View): void {
    if (this.agreedEpochs.has(view.epoch)) return;
    this.agreedEpochs.add(view.epoch);
    this.agreements++;
    this.servers.agree(view);
    const before = this.newest;
    this.agreed.push(view);
    this.versions.agree(view);
    if (before !== null && view.epoch < before.epoch) {
      // a slow disk completes the majority of a former leader's view: the next leader must have known of it
      this.checkFormer(before);
      return;
    }
    this.newest = view;
    for (const lease of this.leases.values()) this.checkLease(lease, 'view agreed');
    this.checkFormer(view);
    this.onAgreed(view);
  }

  /** Every agreed view that a member has not behind it is told. */
  private checkFormer(view: View): void {
    const told = new Set(view.former.map(({ epoch }) => epoch));
    for (const run of view.members) {
      const behind = Math.max(run.since, this.recovered.get(key(run)) ?? 0);
      const missing = this.agreed.find(({ epoch }) => epoch >= behind && epoch < view.epoch && !told.has(epoch));
      if (missing === undefined) continue;
      this.fail('former-views-are-told', `view ${view.epoch} leaves out ${missing.epoch}, which ${key(run)} needs`);
      return;
    }
  }

  recover(run: Run, epoch: number): void {
    this.recovered.set(key(run), Math.max(epoch, this.recovered.get(key(run)) ?? 0));
  }

  /** A server's vote, as others see it. */
  voted(node: NodeId, term: number, candidate: NodeId, how: string): void {
    const vote = `${node} in ${term}`;
    const known = this.votes.get(vote);
    if (known === undefined) this.votes.set(vote, candidate);
    else if (known !== candidate) this.fail('one-vote-a-term', `${vote}: ${known} and ${candidate} (${how})`);
  }

  installed(run: Run, view: View): void {
    this.content(view);
    this.versions.installed(run, view);
    if (!this.agreedEpochs.has(view.epoch)) {
      this.fail('installed-is-agreed', `${key(run)} installs ${view.epoch}, which no majority accepted`);
    }
    const isNewer = view.epoch > (this.installedBy.get(key(run)) ?? 0);
    if (!isNewer) this.fail('installed-ascends', `${key(run)} ${view.epoch}`);
    this.installedBy.set(key(run), view.epoch);
    if (!names(view, run)) this.fail('installed-names-us', `${key(run)} ${view.epoch}`);
  }

  removed(run: Run, view: View): void {
    if (names(view, run)) this.fail('removed-is-out', `${key(run)} by ${view.epoch}, which names it`);
  }

  lease(run: Run, until: Micros): void {
    const lease = { ...run, until };
    if (until < (this.leases.get(key(run))?.until ?? 0)) this.fail('lease-ascends', key(run));
    this.leases.set(key(run), lease);
    this.checkLease(lease, 'lease renewed');
  }

  /** The run serves no more, and said so; nor does a server whose run it continues. */
  gaveBack(run: Run): void {
    this.leases.set(key(run), { ...run, until: this.now() });
    for (const lease of this.leases.values()) {
      const isBefore = lease.node === run.node && lease.incarnation < run.incarnation;
      if (isBefore) lease.until = Math.min(lease.until, this.now());
    }
  }

  private checkLease(lease: Lease, when: string): void {
    const { newest } = this;
    if (newest === null || lease.until <= this.now()) return;
    // the server of a run that is continued goes on by that run's lease
    if (newest.members.some((member) => isSameRun(lease, member))) return;
    const over = ((lease.until - this.now()) / 1000).toFixed(3);
    this.fail('no-lease-without-view', `${when}: ${key(lease)} may serve ${over} ms longer, view ${newest.epoch}`);
  }

  /**
   * The authority of a leader on etcd, of a run, which also counts after its crash. (In the embedded engine a new
   * leader may be elected while the one before has some left; leases are what it must respect.)
   */
  authority(run: Run, term: number, until: Micros): void {
    const now = this.now();
    this.authorities.set(key(run), { node: run.node, term, until });
    for (const [other, authority] of this.authorities) {
      if (authority.until <= now) this.authorities.delete(other);
      else if (authority.term !== term && until > now) {
        this.fail('one-authority', `${key(run)} in ${term} and ${other} in ${authority.term}`);
      }
    }
  }
}

function key({ node, incarnation }: Run): string {
  return `${node}/${incarnation}`;
}
