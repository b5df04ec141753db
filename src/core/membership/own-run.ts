/**
 * Our own run as a member, in either engine: what the rest of the daemon says of it, the agreed views that it installs,
 * its lease, and its end.
 */
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import type { MembershipContent } from '../../wire/membership-messages.js';
import type { Micros } from '../effects.js';
import { continues } from '../views.js';
import type { Run, View } from './composition.js';
import { isOver, memberOf, names } from './composition.js';
import type { LeaderNews } from './leading.js';
import type { Grant } from './leases.js';
import { OwnLease } from './leases.js';
import type { MembershipContext, MembershipEvents } from './port.js';
import type { Versions } from './versions.js';

export interface OwnRunOptions {
  self: NodeId;
  incarnation: Incarnation;
  resumes: Incarnation | undefined;
  /** False: a witness, which is never a member. */
  isServer: boolean;
  /** Whatever of the pool's was on our disk in an earlier run is gone. */
  isBlank: boolean;
}

export class OwnRun {
  readonly run: Run;
  readonly lease: OwnLease;
  /** The newest agreed view that we know. */
  installed: View | null = null;
  /** A view says that it was a member and is none any more. */
  over = false;
  willing = true;
  /** It gave its lease back. */
  released = false;
  unheard: ReadonlySet<NodeId> = new Set();
  private recoveredEpoch = 0;
  private allHold = false;

  constructor(
    private readonly context: MembershipContext,
    private readonly options: OwnRunOptions,
    private readonly versions: Versions,
    private readonly events: Pick<MembershipEvents, 'view' | 'lease' | 'removed' | 'isSettled'>,
    /** The run is over, and the rest is not told yet. */
    private readonly ended: () => void,
  ) {
    this.run = { node: options.self, incarnation: options.incarnation };
    this.lease = new OwnLease((until) => events.lease(until));
  }

  get asLeader(): Run & { resumes: number } {
    return { ...this.run, resumes: this.options.resumes ?? 0 };
  }

  recovered(epoch: Epoch): void {
    this.recoveredEpoch = Math.max(this.recoveredEpoch, epoch);
  }

  setAllHold(allHold: boolean): void {
    this.allHold = allHold;
  }

  setUnheard(nodes: Iterable<NodeId>): void {
    this.unheard = new Set([...nodes].filter((node) => node !== this.options.self));
  }

  setWilling(willing: boolean): void {
    this.willing = willing && !this.released;
  }

  release(): void {
    this.released = true;
    this.willing = false;
    this.lease.giveBack();
  }

  /** What a leader knows of itself. */
  news(): LeaderNews {
    const { willing, unheard, recoveredEpoch, allHold, options } = this;
    const isSettled = this.events.isSettled?.() ?? true;
    return { willing, unheard, recovered: recoveredEpoch, allHold, isBlank: options.isBlank, isSettled };
  }

  /** The answer to a heartbeat that was sent at `echo`; 0: to none. */
  answer(echo: Micros, accepted: number): MembershipContent & { kind: 'answer' } {
    return {
      kind: 'answer',
      willing: this.options.isServer && this.willing && !this.over,
      isBlank: this.options.isBlank,
      released: this.released,
      echo,
      // 0 means "none": a clock at its very start is told as 1
      sentAt: Math.max(1, this.context.now()),
      accepted,
      installed: this.installed?.epoch ?? 0,
      recovered: this.recoveredEpoch,
      unheard: [...this.unheard],
    };
  }

  /** A leader's heartbeat came with it. */
  takeLease(grant: Grant): void {
    if (this.over || this.released || !names(this.installed, this.run)) return;
    if (!this.lease.onGrant(grant, this.context.now())) this.context.count('membership.lease.refused');
  }

  /** We lead, with authority until then. */
  extendLease(until: Micros): void {
    if (!this.over && names(this.installed, this.run)) this.lease.extend(until);
  }

  /** The view is agreed. */
  install(view: View): void {
    if (view.epoch <= (this.installed?.epoch ?? 0)) return;
    this.installed = view;
    this.context.count('membership.installed');
    this.lookAtProtocol(view);
    if (this.over || !this.options.isServer) return;
    if (names(view, this.run)) return this.events.view(view);
    if (this.isOverIn(view)) this.end(view);
  }

  /** The view says that our run is over. One that continues another is, too, when what it continues is no member. */
  isOverIn(view: View): boolean {
    if (isOver(view, this.run)) return true;
    const { resumes, incarnation } = this.options;
    if (resumes === undefined || names(view, this.run)) return false;
    const member = memberOf(view, this.run.node);
    return member === undefined || !continues(member, { incarnation, resumes });
  }

  /** It makes us a member of what we cannot speak: whoever proposed it errs. */
  isUnspeakable(view: View): boolean {
    return names(view, this.run) && !this.versions.canJoin(view);
  }

  /** Tells people when we could not be a member after this view. */
  lookAtProtocol(view: View | null): void {
    if (view !== null && this.options.isServer && !this.versions.canJoin(view)) this.versions.cannotJoin(view);
  }

  end(view: View): void {
    this.over = true;
    this.ended();
    this.events.removed(view);
  }
}
