/**
 * Several servers' rooms of public addresses without the rest of the node: views and leases come from an oracle that
 * keeps the rules of docs/decisions/membership.md, messages and netlink calls take a random time, servers stand still
 * and crash. After each event all interfaces are looked at: of servers with a valid lease one at most has an address.
 */
import assert from 'node:assert/strict';
import type { ClientId, Epoch, NodeId } from '../../src/base/ids.js';
import { epoch as toEpoch, nodeId } from '../../src/base/ids.js';
import type { Prng } from '../../src/base/prng.js';
import { Addresses } from '../../src/core/addresses/addresses.js';
import type { CoreContext } from '../../src/core/context.js';
import type { AddressPlace, Effect, Micros } from '../../src/core/effects.js';
import { Timers } from '../../src/core/timers.js';
import type { Connection } from '../../src/wire/address-messages.js';
import { EPOCHS_PER_TERM, termOf } from '../../src/wire/membership-messages.js';

export const LEASE: Micros = 300_000;
const HEARTBEAT: Micros = 40_000;
const MESSAGE_MICROS_MAX = 30_000;
/** A link that repairs losses; what follows waits behind it. */
const STUCK_MICROS_MAX = 1_500_000;
const KERNEL_MICROS_MAX = 20_000;
/** A take that is under way, and a release behind it. */
const LET_GO_MICROS_MAX = 2 * KERNEL_MICROS_MAX + 10;
const INSTALL_MICROS_MAX = 60_000;

interface View {
  epoch: Epoch;
  leader: NodeId;
  runs: Map<NodeId, number>;
}

export class AddressServer {
  readonly timers = new Timers();
  readonly interface = new Set<string>();
  readonly taken: { address: string; tickled: number }[] = [];
  readonly released: string[] = [];
  view: View | null = null;
  leaseUntil: Micros = 0;
  isFenced = true;
  isPaused = false;
  wentOnAt: Micros = 0;
  isDead = false;
  /** As the room was told: a smbd serves, the checks pass, a person drains it. */
  able = true;
  fit = true;
  draining = false;
  /** Takes of these fail. */
  readonly broken = new Set<string>();
  room: Addresses;
  private readonly waiting: (() => void)[] = [];

  constructor(
    private readonly pool: AddressPool,
    readonly id: NodeId,
    readonly run: number,
    places: readonly AddressPlace[],
  ) {
    this.room = new Addresses(this.context(), places, { released: (address) => this.released.push(address) });
  }

  get members(): NodeId[] {
    return [...(this.view?.runs.keys() ?? [])].sort((a, b) => a - b);
  }

  /** As PoolNode.step: the lease first, then timers, then what came. */
  step(work: () => void): void {
    if (this.isDead) return;
    if (this.isPaused) return void this.waiting.push(work);
    this.judge();
    this.timers.run(this.pool.now);
    work();
    this.pool.at(this.timers.deadline(), () => this.timers.deadline() <= this.pool.now && this.step(() => undefined));
  }

  setAble(able: boolean): void {
    this.able = able;
    this.step(() => this.room.setAble(able));
  }

  setFitness(fit: boolean, draining: boolean): void {
    this.fit = fit;
    this.draining = draining;
    this.step(() => this.room.setFitness(fit, draining));
  }

  /** How good it is for it to have an address; 0: nobody serves there. */
  get standing(): number {
    if (this.isDead || !this.able) return 0;
    return this.draining ? 1 : this.fit ? 3 : 2;
  }

  goOn(): void {
    this.isPaused = false;
    this.wentOnAt = this.pool.now;
    for (const work of this.waiting.splice(0)) this.step(work);
  }

  lease(until: Micros): void {
    this.leaseUntil = until;
    this.judge();
    this.room.lease(until);
  }

  install(view: View): void {
    if (this.view !== null && view.epoch <= this.view.epoch) return;
    const before = this.view;
    if (view.runs.get(this.id) !== this.run) {
      this.pool.crash(this.id);
      return;
    }
    this.view = view;
    const missing = (from: View | null, runs: Iterable<[NodeId, number]>): NodeId[] =>
      [...runs].filter(([node, run]) => from?.runs.get(node) !== run).map(([node]) => node);
    const joined = missing(before, view.runs);
    const isNew = before === null || termOf(before.epoch) !== termOf(view.epoch);
    this.room.install(view, isNew, missing(view, before?.runs ?? []), joined);
    for (const peer of joined) if (peer !== this.id) this.room.peerUp(peer);
  }

  private judge(): void {
    const isFenced = this.pool.now >= this.leaseUntil;
    if (isFenced === this.isFenced) return;
    this.isFenced = isFenced;
    this.room.judge();
  }

  private context(): CoreContext {
    const current = { epoch: () => this.view?.epoch ?? toEpoch(0), members: () => this.members };
    return {
      self: this.id,
      servers: this.pool.ids,
      fileServers: this.pool.ids,
      get epoch() {
        return current.epoch();
      },
      get members() {
        return current.members();
      },
      timers: this.timers,
      now: () => this.pool.now,
      emit: (effect) => this.perform(effect),
      send: (peer, message) => this.pool.send(this, peer, message),
      isUp: () => true,
      speaks: (protocol) => protocol === 1,
      isFenced: () => this.isFenced,
      log: () => undefined,
      count: () => undefined,
    };
  }

  private perform(effect: Effect): void {
    // what hooks are told
    if (effect.kind === 'event') return;
    assert.ok(effect.kind === 'address-take' || effect.kind === 'address-release');
    const { address } = effect;
    this.pool.after(KERNEL_MICROS_MAX, () => this.kernel(() => {
      if (effect.kind === 'address-release') {
        this.interface.delete(address);
        return this.step(() => this.room.onDone(address, 'release', { result: 'done' }));
      }
      if (this.pool.now >= this.leaseUntil) {
        return this.step(() => this.room.onDone(address, 'take', { result: 'late' }));
      }
      if (this.broken.has(address)) {
        return this.step(() => this.room.onDone(address, 'take', { result: 'failed', why: 'broken' }));
      }
      this.interface.add(address);
      if (effect.announce) this.taken.push({ address, tickled: effect.tickle.length });
      return this.step(() => this.room.onDone(address, 'take', { result: 'done' }));
    }));
  }

  /** A stopped process makes no calls either. */
  private kernel(work: () => void): void {
    if (this.isDead) return;
    if (this.isPaused) this.waiting.push(work);
    else work();
  }
}

export class AddressPool {
  now: Micros = 1;
  readonly ids: NodeId[];
  readonly servers = new Map<NodeId, AddressServer>();
  readonly addresses: string[];
  private readonly places: AddressPlace[];
  /** In their order. */
  private readonly events: { at: Micros; work: () => void }[] = [];
  private runs = 0;
  private term = 1;
  private proposals = 0;
  private readonly channels = new Map<string, Micros>();
  /** The latest lease that the oracle gave to each run. */
  private readonly given = new Map<AddressServer, Micros>();
  view: View | null = null;
  /** No message takes long. */
  isCalm = true;
  /** Gets no lease, and is out when its last one is over. */
  readonly unwanted = new Set<NodeId>();

  constructor(
    private readonly prng: Prng,
    serverCount: number,
    addressCount: number,
  ) {
    this.ids = Array.from({ length: serverCount }, (_, i) => nodeId(i));
    // of both kinds
    const isIpv4 = (i: number): boolean => i < addressCount / 2;
    this.addresses = Array.from({ length: addressCount }, (_, i) => `${isIpv4(i) ? '10.0.0.' : 'fd00::'}${100 + i}`);
    this.places = this.addresses.map((address) => ({ address, prefixLength: 24, interface: 'eth0' }));
    for (const id of this.ids) this.start(id);
    this.heartbeat();
  }

  server(id: number): AddressServer {
    return this.servers.get(nodeId(id))!;
  }

  at(at: Micros, work: () => void): void {
    if (!Number.isFinite(at)) return;
    const event = { at: Math.max(at, this.now), work };
    let [low, high] = [0, this.events.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.events[middle]!.at <= event.at) low = middle + 1;
      else high = middle;
    }
    this.events.splice(low, 0, event);
  }

  after(max: Micros, work: () => void): void {
    this.at(this.now + 1 + this.prng.below(max), work);
  }

  /** A new run: what the former one left on the interface is removed before it takes part. */
  start(id: NodeId): void {
    const server = new AddressServer(this, id, ++this.runs, this.places);
    this.servers.set(id, server);
    this.unwanted.delete(id);
    server.setAble(true);
  }

  /** Its interface keeps what it has, until the next run. */
  crash(id: NodeId): void {
    this.servers.get(id)!.isDead = true;
  }

  send(from: AddressServer, to: NodeId, message: Uint8Array): boolean {
    const run = from.view?.runs.get(to);
    if (run === undefined) return false;
    const channel = `${from.id}/${from.run} ${to}/${run}`;
    const isStuck = !this.isCalm && this.prng.chance(0.03);
    const delay = 1 + this.prng.below(isStuck ? STUCK_MICROS_MAX : MESSAGE_MICROS_MAX);
    const at = Math.max(this.channels.get(channel) ?? 0, this.now + delay);
    this.channels.set(channel, at);
    this.deliver(from, to, run, from.view!.epoch, Uint8Array.from(message), at, channel);
    return true;
  }

  /** Frames of an epoch that is not installed yet are not taken, and come again; runs that are out are not heard. */
  private deliver(
    from: AddressServer, to: NodeId, run: number, epoch: Epoch, message: Uint8Array, at: Micros, channel: string,
  ): void {
    this.at(at, () => {
      const server = this.servers.get(to)!;
      if (server.run !== run || server.isDead) return;
      server.step(() => {
        if (server.view === null || server.view.epoch < epoch) {
          const again = Math.max(this.channels.get(channel) ?? 0, this.now + 1000);
          return this.deliver(from, to, run, epoch, message, again, channel);
        }
        if (server.view.runs.get(from.id) === from.run) server.room.onMessage(from.id, message);
      });
    });
  }

  runUntil(end: Micros): void {
    while (this.events[0] !== undefined && this.events[0].at <= end) {
      const event = this.events.shift()!;
      this.now = event.at;
      event.work();
      this.check();
    }
    this.now = end;
  }

  /** Who has each address and a valid lease. */
  holders(address: string): NodeId[] {
    return [...this.servers.values()]
      .filter((server) => server.interface.has(address) && server.leaseUntil > this.now)
      .map(({ id }) => id);
  }

  counts(): number[] {
    return this.ids.map((id) => (this.server(id).isDead ? 0 : this.server(id).interface.size));
  }

  connect(id: number, client: number, connection: Connection): void {
    this.server(id).step(() => this.server(id).room.connected(client as ClientId, connection));
  }

  /** When all has settled: each address is at one server, none is worse than another; those that are fit share. */
  assertPlaced(why: string): void {
    const best = Math.max(...this.ids.map((id) => this.server(id).standing));
    for (const address of this.addresses) {
      const holders = this.holders(address);
      assert.equal(holders.length, 1, `${address} is at ${holders.join(' and ') || 'nobody'} ${why}`);
      const { standing } = this.server(holders[0]!);
      assert.equal(standing, best, `${address} is at server ${holders[0]} of standing ${standing} ${why}`);
    }
    const fit = this.ids.filter((id) => this.server(id).standing === 3).map((id) => [...this.server(id).interface]);
    for (const kind of ['.', ':', '']) {
      const sizes = fit.map((has) => has.filter((address) => address.includes(kind)).length);
      const isBalanced = sizes.length === 0 || Math.max(...sizes) - Math.min(...sizes) <= 1;
      assert.ok(isBalanced, `not balanced (${kind}): ${sizes.join(' ')} ${why}`);
    }
  }

  private check(): void {
    for (const address of this.addresses) {
      const holders = this.holders(address);
      assert.ok(holders.length <= 1, `at ${this.now} servers ${holders.join(' and ')} have ${address}`);
    }
    for (const { id, isDead, isPaused, leaseUntil, wentOnAt, interface: has } of this.servers.values()) {
      const isLate = this.now > Math.max(leaseUntil, wentOnAt) + LET_GO_MICROS_MAX;
      assert.ok(isDead || isPaused || !isLate || has.size === 0, `server ${id} has addresses without a lease`);
    }
  }

  /** Leases, and views when somebody is out or wants in; a leader that is out is followed when all leases are over. */
  private heartbeat(): void {
    this.at(this.now + HEARTBEAT, () => this.heartbeat());
    const isHeard = ({ isDead, isPaused }: AddressServer): boolean => !isDead && !isPaused;
    const alive = this.ids.filter((id) => isHeard(this.server(id)) && !this.unwanted.has(id));
    if (alive.length === 0) return;
    const { view } = this;
    const isOver = (id: NodeId, run: number): boolean => {
      const gone = [...this.given].filter(([server]) => server.id === id && server.run === run);
      return gone.every(([, until]) => until < this.now);
    };
    if (view === null) return this.propose(alive[0]!, alive);
    const leads = alive.includes(view.leader) && view.runs.get(view.leader) === this.server(view.leader).run;
    const isHere = (id: NodeId): boolean => view.runs.get(id) === this.server(id).run && alive.includes(id);
    if (!leads) {
      const able = alive.filter(isHere);
      if (![...view.runs].every(([id, run]) => isOver(id, run))) return;
      this.term += 1;
      this.proposals = 0;
      return this.propose(this.prng.pick(able.length > 0 ? able : alive), alive);
    }
    const stay = [...view.runs].filter(([id, run]) => isHere(id) || !isOver(id, run)).map(([id]) => id);
    const out = [...view.runs.keys()].filter((id) => !stay.includes(id));
    const joins = alive.filter((id) => !isHere(id) && (!view.runs.has(id) || out.includes(id)));
    if (out.length + joins.length > 0) this.propose(view.leader, [...stay, ...joins]);
    for (const id of alive) if (this.view!.runs.get(id) === this.server(id).run) this.giveLease(this.server(id));
  }

  private giveLease(server: AddressServer): void {
    const until = this.now + LEASE;
    if (this.prng.chance(0.2)) return;
    this.given.set(server, until);
    this.after(MESSAGE_MICROS_MAX, () => server.step(() => server.leaseUntil < until && server.lease(until)));
  }

  private propose(leader: NodeId, members: readonly NodeId[]): void {
    const epoch = toEpoch(this.term * EPOCHS_PER_TERM + ++this.proposals);
    // who is kept only because of its lease is named by its old run
    const runOf = (id: NodeId): number => {
      const before = this.view?.runs.get(id);
      const server = this.server(id);
      const isKept = before !== undefined && before !== server.run && members.includes(id);
      const isOver = [...this.given].every(([one, until]) => one.run !== before || until < this.now);
      return isKept && !isOver ? before : server.run;
    };
    this.view = { epoch, leader, runs: new Map(members.map((id) => [id, runOf(id)])) };
    const view = this.view;
    for (const server of this.servers.values()) {
      this.after(INSTALL_MICROS_MAX, () => server.step(() => server.install(view)));
    }
  }
}
