/**
 * Views for simulated servers from somebody who always knows who lives: an engine of membership that cannot err, but is
 * as rude as one may be: members learn of views late, at different times, and not of all of them. For the simulation of
 * records alone; the real engine has a simulation of its own (test/sim/membership).
 */
import type { Epoch, Incarnation, NodeId } from '../../src/base/ids.js';
import type { Prng } from '../../src/base/prng.js';
import type { FormerView, Member, View } from '../../src/core/views.js';
import { continues, isRenewed } from '../../src/core/views.js';
import { EPOCHS_PER_TERM } from '../../src/wire/membership-messages.js';
import type { SimulatedTime } from '../support/simulated-time.js';
import type { SimulatedServer } from './server.js';

/** From a death or a beginning until a view says so. */
const NOTICED_MICROS_MAX = 30_000;
/** Until all members know of a view. */
const LEARNT_MICROS_MAX = 5_000;

export class ViewOracle {
  private readonly servers = new Map<NodeId, SimulatedServer>();
  private readonly recovered = new Map<Incarnation, Epoch>();
  private view: View | null = null;
  private term = 0;
  private number = 0;
  private changeSet = false;

  constructor(
    private readonly time: SimulatedTime,
    private readonly prng: Prng,
    private readonly configured: number,
    private readonly protocol: number,
    private readonly issued: (view: View) => void = () => undefined,
  ) {}

  started(server: SimulatedServer): void {
    this.servers.set(server.self, server);
    server.onRecovered = (epoch) => void this.recovered.set(server.options.incarnation, epoch);
    // the first view of a pool comes when all are there
    if (this.view !== null || this.servers.size === this.configured) this.changeSoon();
  }

  /** Another run of the server continues the one before. */
  resumed(): void {
    this.changeSoon();
  }

  died(server: SimulatedServer): void {
    if (this.servers.get(server.self) === server) this.servers.delete(server.self);
    this.changeSoon();
  }

  private changeSoon(): void {
    if (this.changeSet) return;
    this.changeSet = true;
    this.time.after(this.view === null ? 0 : this.prng.below(NOTICED_MICROS_MAX), () => {
      this.changeSet = false;
      this.change();
    });
  }

  private change(): void {
    const majority = Math.floor(this.configured / 2) + 1;
    if (this.servers.size < majority) return;
    const before = this.view;
    const stays = before !== null && this.isMember(before, before.leader);
    const leader = stays ? before.leader : [...this.servers.keys()][0]!;
    if (leader !== before?.leader || this.prng.chance(0.1)) {
      this.term++;
      this.number = 0;
    }
    const epoch = (this.term * EPOCHS_PER_TERM + ++this.number) as Epoch;
    const members = [...this.servers.values()].map(({ self, options }): Member => {
      const { incarnation, resumes } = options;
      const known = before?.members.find((member) => member.node === self);
      if (known?.incarnation === incarnation) return known;
      const continues = known !== undefined && resumes !== undefined && known.incarnation >= resumes;
      return { node: self, incarnation, since: epoch, ...(continues ? { resumes } : {}) };
    });
    const behind = Math.min(...members.map((member) => this.recovered.get(member.incarnation) ?? member.since));
    const former: FormerView[] = [...(before?.former ?? [])];
    if (before !== null) {
      const members = before.members.map(({ node, incarnation }) => ({ node, incarnation }));
      former.push({ epoch: before.epoch, members, ...(isRenewed(before) ? { isRenewed: true } : {}) });
    }
    const needed = former.filter((one) => one.epoch >= behind);
    const { protocol } = this;
    const view: View = { epoch, leader, members, protocol, former: needed, holders: [], past: [] };
    this.view = view;
    this.issued(view);
    for (const server of this.servers.values()) {
      this.time.after(this.prng.below(this.prng.chance(0.2) ? 8 * LEARNT_MICROS_MAX : LEARNT_MICROS_MAX), () => {
        // what is newest by then: one may be skipped
        if (server.dead || this.view === null) return;
        // a run waits for the view that puts it in the place of the one that it continues
        const { incarnation, resumes } = server.options;
        const named = this.view.members.find(({ node }) => node === server.self);
        const isNamedYet = named === undefined || !continues(named, { incarnation, resumes: resumes ?? 0 });
        if (isNamedYet) server.input({ kind: 'view', view: this.view });
      });
    }
  }

  private isMember(view: View, node: NodeId): boolean {
    const server = this.servers.get(node);
    return server !== undefined && view.members.some((member) => member.incarnation === server.options.incarnation);
  }
}

/** A view of servers that never change. */
export function fixedView(servers: readonly { self: NodeId; options: { incarnation: Incarnation } }[]): View {
  const epoch = (EPOCHS_PER_TERM + 1) as Epoch;
  const members = servers.map(({ self, options }) => ({ node: self, incarnation: options.incarnation, since: epoch }));
  return { epoch, leader: members[0]!.node, members, protocol: 1, former: [], holders: [], past: [] };
}
