/**
 * Which servers should serve new clients: each says so of itself (docs/decisions/health.md), from what its host's
 * checks and hooks find, whether smbd runs there, and whether a person drains it. Also carries the wish of a person to
 * drain a server to that server; what is cached there is broken first (lease-breaks.ts). Used by PoolNode, which tells
 * the public addresses; an unfit server stays a member.
 */
import type { ClientId, NodeId } from '../../base/ids.js';
import type { Connection } from '../../wire/address-messages.js';
import type { Fitness as FitnessReport, LeasesLeft } from '../../wire/fitness-messages.js';
import {
  CLIENTS_NAMED_MAX, LEASES_PROTOCOL, REASONS_MAX, cutReason, decodeFitnessMessage, encodeFitnessMessage,
} from '../../wire/fitness-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';
import type { CachingSmbds, LeaseTimes } from './lease-breaks.js';
import { LeaseBreaks } from './lease-breaks.js';

/** A message is delivered in milliseconds, a small file written in tens of them: later the server is not there. */
const DRAIN_ANSWER_MICROS = 4_000_000;
/** While a server drains, people watch its clients go; they look no oftener. */
const CLIENTS_TOLD_MICROS = 500_000;

export const NO_SMBD = 'no smbd runs on this server';

export interface FitnessEvents {
  /** What the public addresses go by has changed. `isFit` says nothing of draining. */
  changed(isFit: boolean, draining: boolean): void;
}

/** What a server says of itself; `leases`: of one that is drained, if it told. */
export interface FitnessStatus {
  node: NodeId;
  fitness: FitnessReport;
  leases?: LeasesLeft;
}

interface Question {
  server: NodeId;
  timer: Timer;
}

export class Fitness {
  /** Of the host's checks and hooks. */
  private reasons: readonly string[] = [];
  /** A smbd serves here. */
  hasSmbd = false;
  /** A person wants it; and it is said, when the leases are broken. */
  private wished = false;
  private draining = false;
  private readonly breaks: LeaseBreaks;
  private readonly clients = new Map<ClientId, string[]>();
  private readonly others = new Map<NodeId, FitnessReport>();
  private readonly leases = new Map<NodeId, LeasesLeft>();
  /** Asked here, for another server: by the host's token, which that server sends back. */
  private readonly questions = new Map<number, Question>();
  /** Being written to disk: who asked; null: our own host. */
  private readonly saving = new Map<number, { from: NodeId; token: number } | { from: null }>();
  private lastSave = 0;
  /** As it was told last: a server that starts says nothing before it has a smbd. */
  private told = shown(false, [NO_SMBD]);
  private clientsTimer: Timer | null = null;

  constructor(
    private readonly context: CoreContext,
    private readonly nameOf: (server: NodeId) => string,
    private readonly events: FitnessEvents,
    smbds: CachingSmbds,
    times: LeaseTimes,
  ) {
    this.breaks = new LeaseBreaks(context, smbds, times, () => this.tellLeases(context.members));
  }

  /** What the host's checks found, all of it; none: all passed. */
  setReasons(reasons: readonly string[]): void {
    this.reasons = reasons.slice(0, REASONS_MAX - 1).map(cutReason);
    this.tell();
  }

  /** Whether a smbd serves here. */
  setSmbd(hasSmbd: boolean): void {
    this.hasSmbd = hasSmbd;
    this.tell();
  }

  connected(client: ClientId, connection: Connection): void {
    // our own checks, and tools on this server: they are not there to be sent elsewhere
    if (connection.client === connection.server || isLoopback(connection.client)) return;
    this.clients.set(client, [...(this.clients.get(client) ?? []), connection.client]);
    this.clientsChanged();
  }

  disconnected(client: ClientId): void {
    if (this.clients.delete(client)) this.clientsChanged();
  }

  /** A run of the peer that knows nothing of us yet, nor of what the one before asked and told. */
  peerUp(peer: NodeId): void {
    this.leases.delete(peer);
    for (const [token, { from }] of this.saving) if (from === peer) this.saving.delete(token);
    this.context.send(peer, encodeFitnessMessage({ kind: 'fitness', ...this.own() }));
    if (this.wished) this.tellLeases([peer]);
  }

  /** The peer is out of the view. */
  peerLeft(peer: NodeId): void {
    this.others.delete(peer);
    this.leases.delete(peer);
    for (const [token, { server }] of this.questions) {
      if (server === peer) this.answer(token, `${this.nameOf(peer)} was lost from the pool before it answered`);
    }
  }

  /** A person wants the server drained, or no more; answered by the effect 'drain-answer' with the token. */
  onQuery(token: number, server: NodeId, draining: boolean): void {
    if (server === this.context.self) return this.save(draining, { from: null }, token);
    if (!this.context.members.includes(server)) {
      return this.answer(token, `${this.nameOf(server)} is no member of the pool now: ask again when it is`);
    }
    const name = this.nameOf(server);
    const timer = this.context.timers.at(this.context.now() + DRAIN_ANSWER_MICROS, () => {
      this.answer(token, `${name} did not answer; see "smbpool status" there whether it drains`);
    });
    this.questions.set(token, { server, timer });
    this.context.send(server, encodeFitnessMessage({ kind: 'drain', token, draining }));
  }

  /** The host's answer to the effect 'drain-save'; and at its start, with token 0, what an earlier run saved. */
  onSaved(token: number, draining: boolean, error: string | null): void {
    if (token === 0) this.breaks.begin();
    if (error === null) this.wish(draining, token === 0);
    const asked = this.saving.get(token);
    if (asked === undefined) return;
    this.saving.delete(token);
    if (asked.from === null) this.context.emit({ kind: 'drain-answer', token, error });
    else {
      const answer = { kind: 'drained', token: asked.token, error: cutReason(error ?? '') } as const;
      this.context.send(asked.from, encodeFitnessMessage(answer));
    }
  }

  /** A message of a peer. Throws DecodeError. */
  onMessage(from: NodeId, bytes: Uint8Array): void {
    const message = decodeFitnessMessage(bytes);
    switch (message.kind) {
      case 'fitness': {
        const { draining, reasons, clients, named } = message;
        this.others.set(from, { draining, reasons, clients, named });
        return;
      }
      case 'leases': {
        const { breaking, left, named } = message;
        this.leases.set(from, { breaking, left, named });
        return;
      }
      case 'drain':
        this.context.log('info', 'drain.asked', { by: this.nameOf(from), draining: message.draining });
        // our own tokens are above 0
        return this.save(message.draining, { from, token: message.token }, --this.lastSave);
      case 'drained':
        if (this.questions.get(message.token)?.server !== from) return this.context.count('fitness.answer.unexpected');
        return this.answer(message.token, message.error === '' ? null : message.error);
    }
  }

  /** What each server said last; nothing of one that did not yet. */
  status(): FitnessStatus[] {
    const known = new Map([...this.others, [this.context.self, this.own()] as const]);
    const leases = new Map(this.leases);
    if (this.wished) leases.set(this.context.self, this.breaks.status());
    return [...known].map(([node, fitness]): FitnessStatus => {
      const left = leases.get(node);
      return left === undefined ? { node, fitness } : { node, fitness, leases: left };
    }).sort((a, b) => a.node - b.node);
  }

  private save(draining: boolean, asked: { from: NodeId; token: number } | { from: null }, token: number): void {
    this.saving.set(token, asked);
    this.context.emit({ kind: 'drain-save', token, draining });
  }

  /**
   * At the start of a run nothing is waited for: a plain start has no clients and no addresses, and one that goes on in
   * the place of another must not be taken for a server that may have more of them.
   */
  private wish(draining: boolean, isStart: boolean): void {
    if (draining === this.wished && !isStart) return;
    this.wished = draining;
    if (draining && !isStart) return this.breaks.start(() => this.setDraining(true));
    if (draining) this.breaks.start(null);
    else this.breaks.stop();
    this.setDraining(draining);
  }

  private setDraining(draining: boolean): void {
    if (draining === this.draining) return;
    this.draining = draining;
    this.context.count(draining ? 'fitness.drained' : 'fitness.undrained');
    this.tell();
  }

  private answer(token: number, error: string | null): void {
    const question = this.questions.get(token);
    question?.timer.cancel();
    this.questions.delete(token);
    this.context.emit({ kind: 'drain-answer', token, error });
  }

  private own(): FitnessReport {
    const all = [...this.clients.values()].flat();
    const named = [...new Set(all)].slice(0, CLIENTS_NAMED_MAX);
    const reasons = this.hasSmbd ? [...this.reasons] : [NO_SMBD, ...this.reasons];
    return { draining: this.draining, reasons, clients: all.length, named };
  }

  /** Tells the host and all members, if it is news. */
  private tell(): void {
    const { draining, reasons } = this.own();
    const text = shown(draining, reasons);
    if (text === this.told) return;
    this.told = text;
    this.logState(draining, reasons);
    this.events.changed(reasons.length === 0, draining);
    this.tellOthers();
  }

  private logState(draining: boolean, reasons: readonly string[]): void {
    const state = draining ? 'draining' : reasons.length === 0 ? 'fit' : 'unfit';
    const why = reasons.join('; ');
    const remedy = 'it gets no public addresses while others are fit, and its share again as soon as this is over';
    if (state === 'unfit') this.context.log('warn', 'server.unfit', { why, remedy });
    else this.context.log('info', `server.${state}`, { why });
    this.context.emit({ kind: 'event', event: state, fields: { reasons: why } });
  }

  private tellOthers(): void {
    const message = encodeFitnessMessage({ kind: 'fitness', ...this.own() });
    for (const peer of this.context.members) if (peer !== this.context.self) this.context.send(peer, message);
  }

  private tellLeases(peers: readonly NodeId[]): void {
    if (!this.context.speaks(LEASES_PROTOCOL)) return;
    const message = encodeFitnessMessage({ kind: 'leases', ...this.breaks.status() });
    for (const peer of peers) if (peer !== this.context.self) this.context.send(peer, message);
  }

  /** People look at others' clients only to see them go. */
  private clientsChanged(): void {
    if (!this.draining || this.clientsTimer !== null) return;
    const at: Micros = this.context.now() + CLIENTS_TOLD_MICROS;
    this.clientsTimer = this.context.timers.at(at, () => {
      this.clientsTimer = null;
      this.tellOthers();
    });
  }
}

function shown(draining: boolean, reasons: readonly string[]): string {
  return JSON.stringify({ draining, reasons });
}

function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1';
}
