/**
 * The leader's side: the table of who has which address, made from what the members report. It gives an address only
 * when no other member may have it (docs/decisions/public-addresses.md, "Never two"). Used by addresses.ts, which
 * carries tables and reports.
 */
import type { Epoch, NodeId } from '../../base/ids.js';
import { epoch as toEpoch } from '../../base/ids.js';
import type { Report, TableEntry } from '../../wire/address-messages.js';
import type { CoreContext } from '../context.js';
import type { Timer } from '../timers.js';
import type { Candidates } from './assignment.js';
import { assign, balance } from './assignment.js';
import { BALANCE_AFTER_MICROS } from './limits.js';

/** When a table gave an address to a member. */
interface Grant {
  epoch: Epoch;
  version: number;
}

export class Leading {
  private leads = false;
  private epoch = toEpoch(0);
  private version = 0;
  private readonly reports = new Map<NodeId, Report>();
  /** Members of which it is not known what they have: none of theirs, nor anything that they may have, is given. */
  private readonly unknown = new Set<NodeId>();
  /** Who should have what; the table lags behind it while somebody lets go. */
  private target = new Map<string, NodeId>();
  /** The newest grant of each address to each member. */
  private readonly grants = new Map<string, Map<NodeId, Grant>>();
  /** As sent last in this view. */
  private sent = '';
  private balanceTimer: Timer | null = null;
  private isJudging = false;
  private isStale = false;

  constructor(
    private readonly context: CoreContext,
    private readonly addresses: readonly string[],
    /** To every member, ourselves included. */
    private readonly send: (epoch: Epoch, version: number, entries: TableEntry[]) => void,
  ) {}

  /** We lead no more. */
  stop(): void {
    this.leads = false;
    this.balanceTimer?.cancel();
    this.balanceTimer = null;
  }

  /** We lead this view; `isNew`: another led the one that we installed before. */
  install(epoch: Epoch, isNew: boolean, left: readonly NodeId[], joined: readonly NodeId[]): void {
    const knowsNothing = isNew || !this.leads;
    if (knowsNothing) {
      this.reports.clear();
      this.grants.clear();
      this.target.clear();
      for (const member of this.context.members) this.unknown.add(member);
    }
    this.leads = true;
    this.epoch = epoch;
    this.sent = '';
    for (const node of [...left, ...joined]) {
      // a run that was never in a view has nothing, and one that is out has no lease
      this.reports.delete(node);
      if (!knowsNothing) this.unknown.delete(node);
      for (const grants of this.grants.values()) grants.delete(node);
    }
    for (const node of this.unknown) if (!this.context.members.includes(node)) this.unknown.delete(node);
    if (knowsNothing || joined.length > 0) this.balanceLater();
    this.judge();
  }

  onReport(from: NodeId, report: Report): void {
    if (!this.leads || report.epoch !== this.epoch || !this.context.members.includes(from)) {
      return this.context.count('address.report.stale');
    }
    const before = this.reports.get(from);
    this.reports.set(from, report);
    this.unknown.delete(from);
    if (report.standing > (before?.standing ?? 0)) this.balanceLater();
    this.judge();
  }

  private balanceLater(): void {
    this.balanceTimer?.cancel();
    this.balanceTimer = this.context.timers.at(this.context.now() + BALANCE_AFTER_MICROS, () => {
      this.balanceTimer = null;
      if (this.unknown.size > 0) return this.balanceLater();
      this.target = balance(this.addresses, this.assigned(), this.candidates());
      this.judge();
    });
  }

  /** Makes a new table when something changed. Sending one to ourselves leads to a report, and so here again. */
  private judge(): void {
    this.isStale = true;
    if (this.isJudging) return;
    this.isJudging = true;
    while (this.isStale) {
      this.isStale = false;
      if (this.leads && this.unknown.size === 0) this.tell();
    }
    this.isJudging = false;
  }

  private tell(): void {
    this.target = this.assigned();
    const entries = this.addresses.map((address): TableEntry => {
      const to = this.target.get(address);
      if (to === undefined) return { address, holder: null };
      const isFree = this.context.members.every((node) => node === to || !this.mayHave(node, address));
      return { address, holder: isFree ? to : null };
    });
    const text = JSON.stringify(entries);
    if (text === this.sent) return;
    this.sent = text;
    this.version += 1;
    for (const { address, holder } of entries) if (holder !== null) this.grant(address, holder);
    this.context.count('address.table.sent');
    this.send(this.epoch, this.version, entries);
  }

  private grant(address: string, holder: NodeId): void {
    const grants = this.grants.get(address) ?? new Map<NodeId, Grant>();
    this.grants.set(address, grants.set(holder, { epoch: this.epoch, version: this.version }));
  }

  /** What a table gave after the report was made counts, unless the member has left that view: it takes it no more. */
  private mayHave(node: NodeId, address: string): boolean {
    const report = this.reports.get(node);
    const grant = this.grants.get(address)?.get(node);
    if (report === undefined) return grant !== undefined;
    if (report.has.includes(address)) return true;
    if (grant === undefined || grant.epoch < report.epoch) return false;
    return grant.epoch > report.epoch || grant.version > report.version;
  }

  private assigned(): Map<string, NodeId> {
    const { members } = this.context;
    const holders = new Map<string, NodeId>();
    for (const address of this.addresses) {
      const wanted = this.target.get(address);
      const holder =
        wanted !== undefined && members.includes(wanted)
          ? wanted
          : members.find((node) => this.reports.get(node)?.has.includes(address) === true);
      if (holder !== undefined) holders.set(address, holder);
    }
    return assign(this.addresses, holders, this.candidates());
  }

  private candidates(): Candidates {
    const standings = new Map<NodeId, number>();
    for (const node of this.context.members) {
      const standing = this.reports.get(node)?.standing ?? 0;
      if (standing > 0) standings.set(node, standing);
    }
    return { standings, refuses: (node, address) => this.reports.get(node)?.refused.includes(address) === true };
  }
}
