/**
 * Feeds the core and performs its effects. One turn: the inputs of a batch one after the other, the outcomes of record
 * operations right behind the input that caused them, then 'turn-end', which makes the frames. Called by PoolHost;
 * knows the outside only through ports, so tests drive it without a socket.
 */
import type { ChangeResult } from '../core/membership/port.js';
import type { Configuration, ConfiguredServer } from '../wire/membership-configuration.js';
import { assert, unreachable } from '../base/assert.js';
import type { ClientId, DatabaseId, RecordKey, Turn } from '../base/ids.js';
import type { Effect, HookEvent, Input, Micros, RecordDescription } from '../core/effects.js';
import type { Interconnect } from '../ports/interconnect.js';
import type { Log } from '../ports/log.js';
import type { PoolRegister } from '../ports/pool-register.js';
import type { PublicAddresses } from '../ports/public-addresses.js';
import type { PersistentStore, RecordStore } from '../ports/record-store.js';
import type { SmbdGate } from '../ports/smbd-gate.js';
import type { SmbdRing } from '../ports/smbd-ring.js';
import type { HotAnswer, LocksAnswer, TraceEvent } from '../wire/locks.js';
import type { SavedMembership } from '../wire/membership-state.js';
import { messageOf } from './errors.js';

/** What the loop needs of PoolNode. */
export interface Core {
  step(input: Input, now: Micros): Effect[];
  deadline(): Micros;
}

/** Memory that outlives the run: see the effects of the same names. */
export interface KeptPort {
  client(client: ClientId, state: Uint8Array): void;
  database(database: DatabaseId, name: string, state: Uint8Array): void;
  erasure(database: DatabaseId, key: RecordKey, turn: Turn): void;
}

export interface CoreLoopPorts {
  gate: SmbdGate;
  ring: SmbdRing;
  interconnect: Interconnect;
  records: RecordStore;
  persistent: PersistentStore;
  /** Absent: there are no public addresses. */
  addresses?: PublicAddresses;
  /** Of the engine etcd. */
  register?: PoolRegister;
  /** What outlives this run; absent: nothing is kept. */
  kept?: KeptPort;
  /** Of a run that continues another one: clients may be read from now on. */
  resumed?(): void;
  log: Log;
  now(): Micros;
  /** Runs an action in a later turn of the event loop. */
  later(action: () => void): void;
  /** A later input arrived outside a batch: what it caused must be sent and the timer set. */
  outsideTurnDone(deadline: Micros): void;
  recordAnswer(token: number, answer: RecordDescription | { error: string }): void;
  witnessAnswer(token: number, answer: LocksAnswer | HotAnswer): void;
  traceEvent(token: number, event: TraceEvent): void;
  /** Keeps it on disk in place of what was kept before, all or nothing; false: it may not be there. */
  saveMembership(state: SavedMembership): Promise<boolean>;
  /** Keeps on disk whether this server drains; never rejects: null, or why it is not there. */
  saveDraining(draining: boolean): Promise<string | null>;
  drainAnswer(token: number, error: string | null): void;
  /** The pool's servers changed. */
  servers(configuration: Configuration, servers: readonly ConfiguredServer[]): void;
  serversChanged(token: number, result: ChangeResult): void;
  /** For the administrator's own programs. */
  event(event: HookEvent, fields: Record<string, string>): void;
  /** The answer to the input 'leave'. */
  left(): void;
  /** The run must end. Called once; the loop has stopped by then. */
  startAnew(reason: string, remedy: string): void;
}

/**
 * Outcomes fed back in one turn before the rest waits for the next: far above what a full batch of requests causes
 * (some 5,000 packets, a few operations each), so only a core that answers each outcome with a new operation reaches
 * it.
 */
export const OUTCOMES_PER_TURN_MAX = 100_000;
/**
 * 'turn-end' may cause operations whose outcomes cause messages; after so many rounds the rest waits for the next turn.
 */
export const TURN_ENDS_MAX = 8;

/** An input takes some microseconds: the time is never off by more than a fraction of a millisecond. */
const INPUTS_PER_CLOCK = 16;
const TICK: Input = { kind: 'tick' };
const TURN_END: Input = { kind: 'turn-end' };

export class CoreLoop {
  /** Inputs made while effects were performed, oldest first from `outcomesAt`. */
  private outcomes: Input[] = [];
  private outcomesAt = 0;
  private outcomesInTurn = 0;
  private dirty = false;
  /** What the clock said last in this turn, and for how many more inputs that is good. */
  private time: Micros = 0;
  private untilClock = 0;
  private laterScheduled = false;
  private stopped = false;

  constructor(
    private readonly core: Core,
    private readonly ports: CoreLoopPorts,
  ) {}

  /** One input of the batch that is being read. */
  input(input: Input): void {
    if (this.stopped) return;
    this.dirty = true;
    // one look at the clock serves a few inputs: asking the addon for each would cost as much as some of them
    if (this.untilClock-- === 0) {
      this.time = this.ports.now();
      this.untilClock = INPUTS_PER_CLOCK;
    }
    this.perform(this.core.step(input, this.time));
    this.drain();
  }

  /** All input of the batch was given. Answers the core's deadline. */
  endOfBatch(): Micros {
    if (this.stopped) return Infinity;
    this.time = this.ports.now();
    this.untilClock = INPUTS_PER_CLOCK;
    if (this.core.deadline() <= this.time) this.input(TICK);
    for (let round = 0; this.dirty; round++) {
      if (round === TURN_ENDS_MAX) {
        this.continueLater('turn-ends');
        break;
      }
      this.dirty = false;
      this.perform(this.core.step(TURN_END, this.time));
      // frames alone need no further round
      if (this.outcomesAt < this.outcomes.length) this.dirty = true;
      this.drain();
    }
    this.outcomesInTurn = 0;
    this.untilClock = 0;
    return this.core.deadline();
  }

  /** An input that came outside a batch: a turn of its own. */
  inputOutsideTurn(input: Input): void {
    if (this.stopped) return;
    this.input(input);
    this.ports.outsideTurnDone(this.endOfBatch());
  }

  /** Nothing more is fed or performed. */
  stop(): void {
    this.stopped = true;
  }

  private drain(): void {
    while (this.outcomesAt < this.outcomes.length) {
      if (this.outcomesInTurn >= OUTCOMES_PER_TURN_MAX) return this.continueLater('outcomes');
      this.outcomesInTurn++;
      const outcome = this.outcomes[this.outcomesAt++]!;
      this.perform(this.core.step(outcome, this.time));
    }
    if (this.outcomesAt === 0) return;
    this.outcomes.length = 0;
    this.outcomesAt = 0;
  }

  /** The guard against an endless exchange between core and store: the loop gets to its sockets and timers first. */
  private continueLater(what: string): void {
    if (this.laterScheduled) return;
    this.laterScheduled = true;
    this.ports.log.log('error', 'turn.runaway', {
      bound: what,
      waiting: this.outcomes.length - this.outcomesAt,
      remedy: 'this is a bug in smbpool: the core answers each outcome with new work',
    });
    this.ports.later(() => {
      this.laterScheduled = false;
      if (this.stopped) return;
      this.dirty = true;
      this.time = this.ports.now();
      this.drain();
      this.ports.outsideTurnDone(this.endOfBatch());
    });
  }

  private perform(effects: readonly Effect[]): void {
    for (const effect of effects) if (!this.stopped) this.performOne(effect);
  }

  private performRecord({ database, key, op }: Extract<Effect, { kind: 'record' }>): void {
    const outcome = this.ports.records.perform(database, key, op);
    this.outcomes.push({ kind: 'record-done', database, key, op, outcome });
  }

  private performOne(effect: Effect): void {
    const { ports } = this;
    switch (effect.kind) {
      case 'client-send':
        return ports.gate.sendPacket(effect.client, effect.packet);
      case 'frame-send':
        return ports.interconnect.send(effect.peer, effect.body);
      case 'record':
        return this.performRecord(effect);
      case 'log':
        return ports.log.log(effect.level, effect.event, effect.fields);
      case 'client-close':
        ports.log.log('info', 'client.closed-by-us', { client: effect.client, reason: effect.reason });
        return ports.gate.closeClient(effect.client);
      case 'database-open':
        return this.openDatabase(effect);
      case 'persistent':
        return this.performPersistent(effect);
      case 'record-answer':
        return ports.recordAnswer(effect.token, effect.answer);
      case 'ring-send':
        return ports.ring.sendToRing(effect.attachment, effect.op, effect.payload);
      case 'ring-end':
        return ports.ring.endRing(effect.attachment);
      case 'home':
      case 'latency':
      case 'shares-folders':
        return this.performOnPage(effect);
      case 'witness-answer':
        return ports.witnessAnswer(effect.token, effect.answer);
      case 'trace-event':
        return ports.traceEvent(effect.token, effect.event);
      case 'address-take':
      case 'address-release':
        return this.performAddress(effect);
      case 'draining':
      case 'drain-save':
      case 'drain-answer':
        return this.performDrain(effect);
      case 'servers':
        return ports.servers(effect.configuration, effect.servers);
      case 'servers-changed':
        return ports.serversChanged(effect.token, effect.result);
      case 'event':
        return ports.event(effect.event, effect.fields);
      case 'membership-save':
        return this.saveMembership(effect);
      case 'register-request':
        return this.askRegister(effect);
      case 'lease':
        ports.addresses?.setLease(effect.until);
        return ports.ring.setLease(effect.until);
      // no engine outside of the core is in use
      case 'recovered':
        return;
      case 'client-keep':
      case 'database-keep':
      case 'erasure-keep':
        return this.keep(effect);
      case 'resumed':
        return ports.resumed?.();
      case 'left':
        return ports.left();
      case 'start-anew':
        this.stop();
        ports.addresses?.removeNow();
        return ports.startAnew(effect.reason, effect.remedy);
      default:
        unreachable(effect);
    }
  }

  private performOnPage(effect: Extract<Effect, { kind: 'home' | 'latency' | 'shares-folders' }>): void {
    const { ring } = this.ports;
    switch (effect.kind) {
      case 'home':
        return ring.setHome(effect.present, effect.what, effect.key);
      case 'latency':
        return ring.recordLatency(effect.histogram, effect.micros);
      case 'shares-folders':
        return ring.setSharesFolders(true);
    }
  }

  private keep(effect: Extract<Effect, { kind: 'client-keep' | 'database-keep' | 'erasure-keep' }>): void {
    const { kept } = this.ports;
    switch (effect.kind) {
      case 'client-keep':
        return kept?.client(effect.client, effect.state);
      case 'database-keep':
        return kept?.database(effect.database, effect.name, effect.state);
      case 'erasure-keep':
        return kept?.erasure(effect.database, effect.key, effect.turn);
    }
  }

  private openDatabase({ database, name, persistent }: Extract<Effect, { kind: 'database-open' }>): void {
    const failed = (error: unknown): Input => ({
      kind: 'database-opened', database, path: '', flags: 0, error: messageOf(error),
    });
    if (!persistent) {
      try {
        const { path, flags } = this.ports.records.open(database, name);
        this.outcomes.push({ kind: 'database-opened', database, path, flags });
      } catch (error) {
        this.outcomes.push(failed(error));
      }
      return;
    }
    void this.ports.persistent.open(database, name).then(
      ({ path, flags }) => this.inputOutsideTurn({ kind: 'database-opened', database, path, flags }),
      (error: unknown) => this.inputOutsideTurn(failed(error)),
    );
  }

  private saveMembership({ token, state }: Extract<Effect, { kind: 'membership-save' }>): void {
    void this.ports.saveMembership(state).then((ok) => this.inputOutsideTurn({ kind: 'membership-saved', token, ok }));
  }

  private askRegister({ token, request, deadlineMicros }: Extract<Effect, { kind: 'register-request' }>): void {
    const { register } = this.ports;
    assert(register !== undefined, 'the engine that asks a register was given one');
    void register.request(request, deadlineMicros).then((result) => {
      // counted from a clock that was read before the answer came, a challenged leader would have less time
      this.untilClock = 0;
      this.inputOutsideTurn({ kind: 'register-answer', token, result });
    });
  }

  private performDrain(effect: Extract<Effect, { kind: 'draining' | 'drain-save' | 'drain-answer' }>): void {
    if (effect.kind === 'draining') this.ports.ring.setDraining(effect.draining);
    else if (effect.kind === 'drain-save') this.saveDraining(effect);
    else this.ports.drainAnswer(effect.token, effect.error);
  }

  private saveDraining({ token, draining }: Extract<Effect, { kind: 'drain-save' }>): void {
    void this.ports.saveDraining(draining).then((error) => {
      this.inputOutsideTurn({ kind: 'drain-saved', token, draining, error });
    });
  }

  private performAddress(effect: Extract<Effect, { kind: 'address-take' | 'address-release' }>): void {
    const { addresses } = this.ports;
    if (addresses === undefined) return;
    const what = effect.kind === 'address-take' ? 'take' : 'release';
    const performed = effect.kind === 'address-take' ? addresses.take(effect) : addresses.release(effect);
    void performed.then((outcome) => {
      this.inputOutsideTurn({ kind: 'address-done', address: effect.address, what, ...outcome });
    });
  }

  private performPersistent({ database, token, work }: Extract<Effect, { kind: 'persistent' }>): void {
    void this.ports.persistent.perform(database, work).then((result) => {
      this.inputOutsideTurn({ kind: 'persistent-done', database, token, result });
    });
  }
}
