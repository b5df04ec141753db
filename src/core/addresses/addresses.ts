/**
 * Public addresses: which member has which, agreed through the view's leader, never two at once
 * (docs/decisions/public-addresses.md). The leader's side is leading.ts, a member's holding.ts, what clients are
 * connected connections.ts; here is what brings them together. Used by PoolNode, only where addresses are configured.
 */
import type { ClientId, Epoch, NodeId } from '../../base/ids.js';
import { epoch as toEpoch } from '../../base/ids.js';
import type { Connection, Standing, TableEntry } from '../../wire/address-messages.js';
import { decodeAddressMessage, encodeAddressMessage } from '../../wire/address-messages.js';
import type { CoreContext } from '../context.js';
import type { AddressOutcome, AddressPlace, Micros } from '../effects.js';
import type { Timer } from '../timers.js';
import { Connections } from './connections.js';
import { Holding } from './holding.js';
import { Leading } from './leading.js';
import { FORGET_MICROS } from './limits.js';

export interface AddressStatus extends AddressPlace {
  /** As the newest table says; null: nobody's, it moves, or no table came yet. */
  holder: NodeId | null;
  /** How long this server has known that holder, or that there is none. */
  sinceMicros: Micros;
  /** Of clients, as far as smbds told. */
  connections: number;
}

export interface AddressEvents {
  /** Processes that serve this address must end those connections. */
  released(address: string): void;
}

interface Known {
  holder: NodeId | null;
  since: Micros;
}

export class Addresses {
  private readonly holding: Holding;
  private readonly leading: Leading;
  private readonly connections: Connections;
  private readonly known = new Map<string, Known>();
  private epoch = toEpoch(0);
  private leader: NodeId | null = null;
  /** Of the newest table of this view; 0: none came. */
  private version = 0;
  private able = false;
  private isFit = true;
  private draining = false;
  private reported = '';
  private leaseUntil: Micros = 0;
  private leaseTimer: Timer | null = null;

  constructor(
    private readonly context: CoreContext,
    private readonly places: readonly AddressPlace[],
    events: AddressEvents,
  ) {
    this.holding = new Holding(context, places, {
      changed: () => this.report(),
      taken: () => this.connections.tellWhole(this.others()),
      lost: (address) => this.connections.lost(address),
      released: (address) => {
        this.connections.release(address);
        events.released(address);
      },
    });
    this.connections = new Connections(context, (address) => this.holding.isHere(address));
    this.leading = new Leading(context, places.map(({ address }) => address), (...table) => this.sendTable(...table));
    for (const { address } of places) this.known.set(address, { holder: null, since: 0 });
  }

  /** The run that we continue had put this address on the interface; no lease of its lasts longer than this. */
  kept(address: string, leaseMicros: Micros): void {
    this.holding.kept(address);
    if (this.known.has(address)) this.known.set(address, { holder: this.context.self, since: this.context.now() });
    this.context.timers.at(this.context.now() + leaseMicros, () => this.holding.endKept());
  }

  /** `isNewLeader`: another led the view that was installed before. */
  install(view: { epoch: Epoch; leader: NodeId }, isNewLeader: boolean, left: NodeId[], joined: NodeId[]): void {
    this.epoch = view.epoch;
    this.leader = view.leader;
    this.version = 0;
    this.reported = '';
    if (view.leader !== this.context.self) this.leading.stop();
    else this.leading.install(view.epoch, isNewLeader, left, joined);
    this.report();
  }

  /** The lease ended, or came back. */
  judge(): void {
    this.holding.settle();
  }

  /** Its end must not go unnoticed until something else happens. */
  lease(until: Micros): void {
    this.leaseUntil = until;
    if (this.leaseTimer !== null || !Number.isFinite(until) || until <= this.context.now()) return;
    this.leaseTimer = this.context.timers.at(until, () => {
      // every step judges the lease first
      this.leaseTimer = null;
      this.lease(this.leaseUntil);
    });
  }

  peerUp(peer: NodeId): void {
    this.connections.tellWhole([peer]);
  }

  /** Whether a smbd serves here. */
  setAble(able: boolean): void {
    if (able === this.able) return;
    this.able = able;
    this.report();
  }

  /** Whether the checks of this server pass, and whether a person drains it. */
  setFitness(isFit: boolean, draining: boolean): void {
    this.isFit = isFit;
    this.draining = draining;
    this.report();
  }

  connected(client: ClientId, connection: Connection): void {
    if (this.known.has(connection.server)) this.connections.opened(client, connection);
  }

  disconnected(client: ClientId): void {
    this.connections.closed(client);
  }

  onDone(address: string, what: 'take' | 'release', outcome: AddressOutcome): void {
    this.holding.onDone(address, what, outcome);
  }

  /** A message of a peer. Throws DecodeError. */
  onMessage(from: NodeId, bytes: Uint8Array): void {
    const message = decodeAddressMessage(bytes);
    switch (message.kind) {
      case 'report':
        return this.leading.onReport(from, message);
      case 'table':
        return this.onTable(from, message.epoch, message.version, message.entries);
      case 'connections':
        return this.connections.onMessage(from, message.whole, message.added, message.removed);
    }
  }

  /** For the processes that ask. */
  holders(): { address: string; holder: NodeId | null }[] {
    return [...this.known].map(([address, { holder }]) => ({ address, holder }));
  }

  status(): AddressStatus[] {
    return this.places.map((place) => {
      const { holder, since } = this.known.get(place.address)!;
      const connections = this.connections.count(place.address, holder);
      return { ...place, holder, sinceMicros: this.context.now() - since, connections };
    });
  }

  private onTable(from: NodeId, epoch: Epoch, version: number, entries: readonly TableEntry[]): void {
    const isNewest = epoch === this.epoch && from === this.leader && version > this.version;
    if (!isNewest) return this.context.count('address.table.stale');
    this.version = version;
    for (const { address, holder } of entries) this.note(address, holder);
    const ours = entries.filter(({ holder }) => holder === this.context.self).map(({ address }) => address);
    this.holding.want(new Set(ours));
    this.report();
  }

  private note(address: string, holder: NodeId | null): void {
    const known = this.known.get(address);
    if (known === undefined) {
      this.context.count('address.unknown');
      return;
    }
    if (known.holder === holder) return;
    this.known.set(address, { holder, since: this.context.now() });
    if (holder === null) return;
    this.context.timers.at(this.context.now() + FORGET_MICROS, () => {
      this.connections.forget(address, this.known.get(address)?.holder ?? null);
    });
  }

  private sendTable(epoch: Epoch, version: number, entries: TableEntry[]): void {
    const message = encodeAddressMessage({ kind: 'table', epoch, version, entries });
    for (const peer of this.others()) this.context.send(peer, message);
    this.onTable(this.context.self, epoch, version, entries);
  }

  private standing(): Standing {
    if (!this.able) return 0;
    return this.draining ? 1 : this.isFit ? 3 : 2;
  }

  private others(): NodeId[] {
    return this.context.members.filter((node) => node !== this.context.self);
  }

  private report(): void {
    if (this.leader === null) return;
    const { epoch, version } = this;
    const standing = this.standing();
    const report = { epoch, version, standing, has: this.holding.has(), refused: this.holding.refused() };
    const text = JSON.stringify(report);
    if (text === this.reported) return;
    this.reported = text;
    if (this.leader === this.context.self) this.leading.onReport(this.context.self, report);
    else this.context.send(this.leader, encodeAddressMessage({ kind: 'report', ...report }));
  }
}
