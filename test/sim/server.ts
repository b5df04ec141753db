/**
 * One simulated server: a core, its store, its connections to simulated smbds and its place on the wire. Plays the
 * host: collects inputs into turns, steps the core, performs effects in the order given and feeds the outcomes of
 * store operations back within the turn. Bytes it lends to the core are overwritten afterwards, so whoever keeps them
 * is found.
 */
import type { ClientId, DatabaseId, Epoch, Incarnation, NodeId, RecordKey } from '../../src/base/ids.js';
import { clientId, keyOf } from '../../src/base/ids.js';
import { SILENCE_MICROS_MAX } from '../../src/core/link/limits.js';
import type { Effect, Input, Micros, RecordOp } from '../../src/core/effects.js';
import type { FolderTerms } from '../../src/core/operations/folders.js';
import type { FitnessStatus } from '../../src/core/fitness/fitness.js';
import type { View } from '../../src/core/views.js';
import type { Announcement } from '../../src/wire/protocol-version.js';
import type { MembershipSettings } from '../../src/core/node.js';
import { HOME_KIND } from '../../src/wire/ring-ops.js';
import type { SavedMembership } from '../../src/wire/membership-state.js';
import type { Prng } from '../../src/base/prng.js';
import type { SimulatedTime } from '../support/simulated-time.js';
import type { SimulatedWire } from '../support/simulated-wire.js';
import { describeKey } from '../support/describe.js';
import { Kept } from './kept.js';
import type { PinChecker } from './pin-checker.js';
import { SimulatedStore, describeOp } from './store.js';
import type { Trace } from './trace.js';

/** How long the disk takes, mostly, and now and then. */
/** Round trips between notifyds, after the view that names the successor. */
const CATCHING_UP_MICROS_MAX = 200_000;
const SAVE_MICROS_MAX = 3_000;
const SLOW_SAVE_MICROS_MAX = 60_000;

/** The core as a host sees it. */
export interface SteppedNode {
  step(input: Input, now: Micros): Effect[];
  deadline(): Micros;
  /** Requests of local processes not answered yet, if the node can tell. */
  waiting?(): number;
  /** The view that it installed, if it can tell. */
  view?(): View | null;
  /** What it tells people of each server, if it can tell. */
  fitness?(): FitnessStatus[];
}

export interface NodeOptions {
  self: NodeId;
  servers: readonly NodeId[];
  incarnation: Incarnation;
  /** It continues all runs of the server from this one on. */
  resumes?: Incarnation;
  /** The engine in the core agrees on views; absent: they come from an oracle. */
  membership?: MembershipSettings;
  /** What it tells the others of itself; absent: as this release does. */
  announcement?: Announcement;
  /** As in the core's options. */
  sharesFolders?: boolean;
  folderTerms?: FolderTerms;
  hasExcluder?: (lockingData: Uint8Array) => boolean;
  /** How long a server that is drained waits for leases; absent: as this release does. */
  drainLeasesMicros?: Micros;
}

/** What becomes of the wish to drain servers, in runs in which somebody has it (drains.ts). */
export interface DrainHost {
  /** A run starts: whether its disk says that the server is drained. */
  started(server: SimulatedServer): boolean;
  save(server: SimulatedServer, token: number, draining: boolean): void;
  answered(server: SimulatedServer, token: number, error: string | null): void;
  /** The flag in the node page is set or taken back. */
  flagged(server: SimulatedServer): void;
  /** It tells everybody whether it drains. */
  said(server: SimulatedServer, draining: boolean): void;
  turned(server: SimulatedServer): void;
  /** The run is over. */
  ended(server: SimulatedServer): void;
  /** From the moment that a daemon runs until a module that lost the one before attaches again. */
  attachMicros(): Micros;
}

export type NodeFactory = (options: NodeOptions) => SteppedNode;

export interface ServerWorld {
  time: SimulatedTime;
  wire: SimulatedWire;
  prng: Prng;
  trace: Trace;
  /** Something happened that must not: the core's own alarm. */
  alarm(server: NodeId, what: string): void;
  name(database: DatabaseId): string;
  /** How long a turn waits for more input, at most. */
  turnMicrosMax: Micros;
  /** From the daemon to a smbd and back: a socket and a scheduler. */
  socketMicrosMax: Micros;
  /** Absent: nobody drains servers. */
  drains?: DrainHost | undefined;
}

/** One module's ring: messages keep their order, each way. */
export interface Successor {
  afterMicros: Micros;
  options: () => NodeOptions;
}

interface Ring {
  /** The daemon is gone, and another one comes. */
  lost: () => void;
  receive: (op: number, payload: Uint8Array) => void;
  lastToDaemon: Micros;
  lastToClient: Micros;
}

/** One smbd's socket: packets keep their order, each way. */
interface Connection {
  receive: (packet: Uint8Array) => void;
  lastToDaemon: Micros;
  lastToClient: Micros;
}

export class SimulatedServer {
  readonly store: SimulatedStore;
  readonly counters = { turns: 0, steps: 0, ticks: 0 };
  private node: SteppedNode;
  /** Of the present run; others before it may have been continued by it. */
  options: NodeOptions;
  private readonly kept = new Kept();
  /** The daemon was killed, and the one that continues it does not run yet. */
  down = false;
  /** Whether clients' packets are given to the present run. */
  private givesPackets = true;
  /** Killed as often as this while its smbds went on, and when last. */
  resumptions = 0;
  killedAt: Micros = -Infinity;
  private replacedAt: Micros = -Infinity;
  readonly startedAt: Micros;
  /** The first run of those that the present one continues, itself included. */
  private readonly first: Incarnation;
  /** Says after which time a run starts that continues this one, and makes its options then. */
  successor: (() => Successor) | null = null;
  private isContinued = false;
  private killsAt: RecordOp['op'] | null = null;
  /** It runs. */
  onResumed: (() => void) | null = null;
  private readonly waitingForRun: (() => void)[] = [];
  private readonly saves = new Set<SavedMembership>();
  private inbox: Input[] = [];
  private turnSet = false;
  private wakeAt: Micros = Infinity;
  private nextClient = 1;
  private readonly clients = new Map<ClientId, Connection>();
  private nextAttachment = 1;
  private readonly rings = new Map<number, Ring>();
  /** Hears what goes in and out, if there are modules. */
  pins: PinChecker | null = null;
  /** While above now, the daemon is stuck: turns wait. */
  stuckUntil: Micros = 0;
  /** The daemon is gone and with it its smbds and its files; a later run is another object. */
  dead = false;
  /** Called when it died; whoever started it buries its smbds. */
  onDeath: (() => void) | null = null;
  /** Hears which views' recovery the core has behind it. */
  onRecovered: ((epoch: Epoch) => void) | null = null;
  /** A view was installed. */
  onView: ((view: View) => void) | null = null;
  /** The daemon was killed; its smbds go on. */
  onKilled: (() => void) | null = null;
  /** What the disk holds of the membership; `onSaved` hears of each write. */
  onSaved: ((state: SavedMembership) => void) | null = null;
  /** Until when the module lets its smbds do anything. */
  leaseUntil: Micros = Infinity;
  private readonly fenced: (() => void)[] = [];
  /** For a canary: a module that does not look. */
  ignoresLease = false;
  private lastView: View | null = null;
  private effectsUntilDeath = Infinity;
  /** The flag in the node page: smbds let clients cache no writes. The page outlives a run that is continued. */
  isDrainFlagSet = false;
  /** In the node page of the present run: folders whose opens go to the slice. */
  readonly delegated = new Set<RecordKey>();
  /** For scenarios: every packet takes exactly this long. */
  socketMicrosFixed: Micros | null = null;

  constructor(
    options: NodeOptions,
    private readonly world: ServerWorld,
    private readonly makeNode: NodeFactory,
  ) {
    this.options = options;
    this.first = options.incarnation;
    this.startedAt = world.time.now;
    this.store = new SimulatedStore(options.self);
    if (options.membership !== undefined) this.leaseUntil = 0;
    this.node = makeNode(options);
    this.attach();
    this.inbox.push(...this.drainInputs());
    this.arm();
  }

  /** What the host found on its disk. */
  private drainInputs(): Input[] {
    const { drains } = this.world;
    if (drains === undefined) return [];
    return [{ kind: 'drain-saved', token: 0, draining: drains.started(this), error: null }];
  }

  private attach(): void {
    this.world.wire.attach(this.self, (peer, incarnation, body) => {
      this.input({ kind: 'frame', peer, incarnation, body: Uint8Array.prototype.slice.call(body) });
    });
  }

  // --- being killed while the smbds go on

  /** Kills the daemon now; what continues it starts a little later. */
  private kill(successor: Successor): void {
    const { time, wire, trace, prng } = this.world;
    trace.add(time.now, () => `server ${this.self} is killed; its smbds go on`);
    this.resumptions++;
    this.killedAt = time.now;
    // of the page that the next run makes; who has this one mapped has no attachment, and goes by nothing of it
    this.delegated.clear();
    this.world.drains?.ended(this);
    this.onKilled?.();
    this.down = true;
    this.effectsUntilDeath = Infinity;
    this.killsAt = null;
    wire.detach(this.self);
    this.inbox = [];
    this.givesPackets = false;
    this.kept.runEnded();
    // what the disk was about to write is there, or not
    for (const state of this.saves) if (prng.chance(0.5)) this.onSaved?.(state);
    this.saves.clear();
    this.wakeAt = Infinity;
    for (const ring of [...this.rings.values()]) ring.lost();
    this.rings.clear();
    time.after(successor.afterMicros, () => this.resume(successor.options()));
  }

  private resume(options: NodeOptions): void {
    if (this.dead) return;
    const { time, trace } = this.world;
    this.options = { ...options, resumes: this.first };
    trace.add(time.now, () => `server ${this.self} resumes as ${options.incarnation}`);
    this.down = false;
    this.replacedAt = time.now;
    this.node = this.makeNode(this.options);
    this.inbox = [...this.kept.inputs(this.store, this.self), ...this.drainInputs()];
    this.attach();
    this.setTurn();
    this.onResumed?.();
    for (const action of this.waitingForRun.splice(0)) action();
  }

  /** Runs the action when a daemon runs: now, or when the next one has started. */
  whenRunning(action: () => void): void {
    if (this.down) this.waitingForRun.push(action);
    else action();
  }

  /** Stuck now, or so lately that others may still take it for dead. */
  stuckLately(): boolean {
    return this.stuckUntil > 0 && this.world.time.now < this.stuckUntil + SILENCE_MICROS_MAX;
  }

  /** It is stuck no more, and does now what waited for that. */
  goOn(): void {
    if (this.world.time.now >= this.stuckUntil) return;
    this.stuckUntil = this.world.time.now;
    if (!this.turnSet) return;
    this.turnSet = false;
    this.setTurn();
  }

  isFenced(): boolean {
    return !this.ignoresLease && this.world.time.now >= this.leaseUntil;
  }

  /** Runs the action when there is a lease again. */
  whenServing(action: () => void): void {
    this.fenced.push(action);
  }

  /** Whether the other server is a member of the newest view that this one has installed. */
  knowsMember(other: NodeId): boolean {
    return this.lastView?.members.some(({ node }) => node === other) ?? false;
  }

  /** Which run of the other server is a member of that view, if one is. */
  memberRun(other: NodeId): Incarnation | undefined {
    return this.lastView?.members.find(({ node }) => node === other)?.incarnation;
  }

  /** What it tells people of each server. */
  fitness(): FitnessStatus[] {
    return this.node.fitness?.() ?? [];
  }

  get self(): NodeId {
    return this.options.self;
  }

  /** Kills the daemon after so many more effects: in the middle of a turn, or of a step. */
  dieAfter(effects: number): void {
    this.effectsUntilDeath = effects;
    this.isContinued = false;
    if (effects === Infinity) this.killsAt = null;
  }

  /** Kills it now, between two turns; its smbds go on, and another run continues this one. */
  killNow(): void {
    if (this.successor !== null && !this.down) this.kill(this.successor());
  }

  /** As dieAfter, but its smbds go on, and another run continues this one. */
  killAfter(effects: number): void {
    if (this.effectsUntilDeath !== Infinity) return;
    this.effectsUntilDeath = effects;
    this.isContinued = true;
  }

  /** Kills the daemon so when it has done the next store operation of this kind, before it knows of it. */
  killAt(operation: RecordOp['op']): void {
    this.killsAt = operation;
  }

  /** Killed so lately that others may not know yet of all that it did last. */
  killedLately(): boolean {
    return this.down || this.world.time.now < this.killedAt + SILENCE_MICROS_MAX;
  }

  /** Its daemon was replaced so lately that others may not have told its processes yet what they missed. */
  replacedLately(): boolean {
    return this.down || this.world.time.now < this.replacedAt + CATCHING_UP_MICROS_MAX;
  }

  die(): void {
    this.dead = true;
    this.world.trace.add(this.world.time.now, () => `server ${this.self} dies`);
    this.world.wire.detach(this.self);
    this.world.drains?.ended(this);
    this.clients.clear();
    this.rings.clear();
    this.onDeath?.();
  }

  waiting(): number {
    return this.node.waiting?.() ?? 0;
  }

  // --- the smbds' side

  connect(pid: number, receive: (packet: Uint8Array) => void): ClientId {
    const client = clientId(this.nextClient++);
    this.clients.set(client, { receive, lastToDaemon: 0, lastToClient: 0 });
    // who connects while no daemon runs is accepted by the next one
    this.whenRunning(() => {
      this.kept.opened(client, pid);
      this.input({ kind: 'client-opened', client, pid });
    });
    return client;
  }

  sendPacket(client: ClientId, packet: Uint8Array): void {
    const connection = this.clients.get(client);
    if (connection === undefined) return;
    const { time } = this.world;
    const arrival = Math.max(connection.lastToDaemon, time.now + this.socketMicros());
    connection.lastToDaemon = arrival;
    time.after(arrival - time.now, () => {
      if (!this.clients.has(client)) return;
      this.whenRunning(() => {
        const input = this.kept.arrived(client, packet, this.givesPackets);
        if (input !== null) this.input(input);
      });
    });
  }

  private socketMicros(): Micros {
    return this.socketMicrosFixed ?? this.world.prng.below(this.world.socketMicrosMax + 1);
  }

  disconnect(client: ClientId): void {
    if (!this.clients.delete(client)) return;
    this.whenRunning(() => {
      this.kept.closed(client);
      this.input({ kind: 'client-closed', client });
    });
  }

  // --- the VFS modules' side

  attachRing(pid: number, receive: (op: number, payload: Uint8Array) => void, lost: () => void): number {
    const attachment = this.nextAttachment++;
    this.rings.set(attachment, { receive, lost, lastToDaemon: 0, lastToClient: 0 });
    this.input({ kind: 'ring-attached', attachment, pid });
    return attachment;
  }

  sendRing(attachment: number, op: number, payload: Uint8Array): void {
    const ring = this.rings.get(attachment);
    if (ring === undefined) return;
    const { time } = this.world;
    const arrival = Math.max(ring.lastToDaemon, time.now + this.socketMicros());
    ring.lastToDaemon = arrival;
    time.after(arrival - time.now, () => {
      if (this.rings.has(attachment)) this.input({ kind: 'ring-message', attachment, op, payload });
    });
  }

  detachRing(attachment: number): void {
    if (this.rings.delete(attachment)) this.input({ kind: 'ring-detached', attachment, bad: false });
  }

  private performRing(effect: Extract<Effect, { kind: 'ring-send' }>): void {
    this.pins?.sent(effect);
    const { attachment, op } = effect;
    const ring = this.rings.get(attachment);
    if (ring === undefined) return;
    const { time } = this.world;
    const payload = Uint8Array.prototype.slice.call(effect.payload);
    const arrival = Math.max(ring.lastToClient, time.now + 1 + this.socketMicros());
    ring.lastToClient = arrival;
    time.after(arrival - time.now, () => this.rings.get(attachment)?.receive(op, payload));
  }

  // --- turns

  input(input: Input): void {
    if (this.dead || this.down) return;
    this.inbox.push(input);
    this.setTurn();
  }

  private setTurn(): void {
    if (this.turnSet) return;
    this.turnSet = true;
    const { time, prng, turnMicrosMax } = this.world;
    const wait = Math.max(prng.below(turnMicrosMax + 1), this.stuckUntil - time.now);
    time.after(wait, () => {
      this.turnSet = false;
      if (this.dead || this.down) return;
      if (this.stuckUntil > time.now) this.setTurn();
      else this.turn();
    });
  }

  private turn(): void {
    const { resumptions } = this;
    const isOver = (): boolean => this.dead || this.resumptions !== resumptions;
    this.counters.turns++;
    if (this.node.deadline() <= this.world.time.now) {
      this.counters.ticks++;
      this.step({ kind: 'tick' });
      if (isOver()) return;
    }
    const inputs = this.inbox;
    this.inbox = [];
    this.kept.turnBegins();
    for (const input of [...inputs, { kind: 'turn-end' } as const]) {
      if (!isOver()) this.step(input);
    }
    if (isOver()) return;
    this.kept.turnEnded();
    this.world.drains?.turned(this);
    this.arm();
  }

  private arm(): void {
    if (this.down) return;
    const due = this.node.deadline();
    const { time } = this.world;
    const { resumptions } = this;
    if (due === Infinity || (this.wakeAt <= due && this.wakeAt > time.now)) return;
    this.wakeAt = due;
    // the core's times are whole microseconds, as those of the host's clock; its estimates are not
    time.after(Math.ceil(due - time.now), () => {
      if (this.dead || this.down || this.resumptions !== resumptions) return;
      if (time.now >= this.wakeAt) this.wakeAt = Infinity;
      if (this.node.deadline() <= time.now) this.setTurn();
      else this.arm();
    });
  }

  /** One step and all that follows from it in the same turn. */
  private step(first: Input): void {
    const inputs: Input[] = [first];
    for (let input = inputs.shift(); input !== undefined; input = inputs.shift()) {
      this.counters.steps++;
      this.pins?.input(input);
      const effects = this.node.step(input, this.world.time.now);
      this.noteView();
      if (input.kind === 'frame') input.body.fill(0xee);
      if (input.kind === 'client-packet') input.packet.fill(0xee);
      if (input.kind === 'ring-message') input.payload.fill(0xee);
      for (const effect of effects) {
        if (this.effectsUntilDeath-- <= 0) {
          if (!this.isContinued || this.successor === null) return this.die();
          return this.kill(this.successor());
        }
        this.kept.performed(effect);
        this.perform(effect, inputs);
        if (this.dead) return;
        if (effect.kind === 'record' && effect.op.op === this.killsAt && this.successor !== null) {
          return this.kill(this.successor());
        }
      }
    }
  }

  /** A crash before the answer leaves the old state or the new one. */
  private saveMembership({ token, state }: Extract<Effect, { kind: 'membership-save' }>): void {
    const { time, prng } = this.world;
    const micros = prng.chance(0.05) ? prng.below(SLOW_SAVE_MICROS_MAX) : 100 + prng.below(SAVE_MICROS_MAX);
    const written = prng.below(micros);
    const { resumptions } = this;
    this.saves.add(state);
    time.after(written, () => {
      if (this.saves.delete(state) && (!this.dead || prng.chance(0.5))) this.onSaved?.(state);
    });
    time.after(micros, () => {
      if (this.resumptions === resumptions) this.input({ kind: 'membership-saved', token, ok: true });
    });
  }

  private performHome({ present, what, key }: Extract<Effect, { kind: 'home' }>): void {
    if (what !== HOME_KIND.folder) return;
    if (present) this.delegated.add(keyOf(key));
    else this.delegated.delete(keyOf(key));
  }

  private performDrain(effect: Extract<Effect, { kind: 'draining' | 'drain-save' | 'drain-answer' | 'event' }>): void {
    const { drains } = this.world;
    if (drains === undefined) return;
    switch (effect.kind) {
      case 'draining':
        this.isDrainFlagSet = effect.draining;
        return drains.flagged(this);
      case 'drain-save':
        return drains.save(this, effect.token, effect.draining);
      case 'drain-answer':
        return drains.answered(this, effect.token, effect.error);
      case 'event':
        if (['fit', 'unfit', 'draining'].includes(effect.event)) drains.said(this, effect.event === 'draining');
    }
  }

  private noteView(): void {
    const view = this.node.view?.() ?? null;
    if (view === null || view === this.lastView) return;
    this.lastView = view;
    this.pins?.viewInstalled();
    this.onView?.(view);
  }

  private perform(effect: Effect, inputs: Input[]): void {
    const { time, wire, trace } = this.world;
    switch (effect.kind) {
      case 'client-send': {
        const { client } = effect;
        const connection = this.clients.get(client);
        if (connection === undefined) return;
        const packet = Uint8Array.prototype.slice.call(effect.packet);
        const arrival = Math.max(connection.lastToClient, time.now + 1 + this.socketMicros());
        connection.lastToClient = arrival;
        time.after(arrival - time.now, () => this.clients.get(client)?.receive(packet));
        return;
      }
      case 'client-close':
        this.world.alarm(this.self, `the connection of a smbd is closed: ${effect.reason}`);
        return;
      case 'frame-send':
        wire.send(this.self, this.options.incarnation, effect.peer, effect.body);
        return;
      case 'database-open': {
        const { database, name } = effect;
        this.store.open(database, name);
        inputs.push({ kind: 'database-opened', database, path: `/sim/${name}.${this.self}`, flags: 0x1441 });
        return;
      }
      case 'record': {
        const { database, key, op } = effect;
        const outcome = this.store.perform(database, key, op);
        this.pins?.stored(effect, outcome);
        const record = `${this.world.name(database)}/${describeKey(key)}`;
        const result = outcome.result === 'refused' ? `refused: ${outcome.why}` : outcome.result;
        trace.add(time.now, () => `server ${this.self} store ${record} ${describeOp(op)}: ${result}`);
        inputs.push({ kind: 'record-done', database, key, op, outcome });
        return;
      }
      case 'persistent':
        inputs.push({
          kind: 'persistent-done',
          database: effect.database,
          token: effect.token,
          result: { ok: true, rows: [], sequence: 0 },
        });
        return;
      case 'ring-end':
        this.world.alarm(this.self, `ends the ring ${effect.attachment} of an honest smbd`);
        return;
      case 'ring-send':
        return this.performRing(effect);
      case 'lease':
        this.leaseUntil = effect.until;
        if (!this.isFenced()) for (const action of this.fenced.splice(0)) time.after(0, action);
        return;
      case 'membership-save':
        return this.saveMembership(effect);
      case 'client-keep':
      case 'database-keep':
      case 'erasure-keep':
        return;
      case 'resumed':
        trace.add(time.now, () => `server ${this.self} has resumed`);
        this.givesPackets = true;
        for (const input of this.kept.notGiven()) this.input(input);
        return;
      case 'home':
        return this.performHome(effect);
      case 'recovered':
        return this.onRecovered?.(effect.epoch);
      case 'start-anew':
        return this.die();
      case 'draining':
      case 'drain-save':
      case 'drain-answer':
      case 'event':
        return this.performDrain(effect);
      // nobody asks here, no addresses are configured, and the membership's engine is the embedded one (that on etcd
      // has a simulator of its own: membership/)
      case 'register-request':
      case 'servers':
      case 'servers-changed':
      case 'address-take':
      case 'address-release':
      case 'left':
      case 'record-answer':
      case 'shares-folders':
      case 'latency':
      case 'witness-answer':
      case 'trace-event':
        return;
      case 'log': {
        const { level, event, fields } = effect;
        trace.add(time.now, () => `server ${this.self} log ${level} ${event} ${JSON.stringify(fields)}`);
        // the daemon says so each time a store refuses, and it is the simulator that makes it refuse
        const isPlanted = event === 'store-failed' && fields.why === 'no space';
        if (level === 'error' && !isPlanted) this.world.alarm(this.self, `${event} ${JSON.stringify(fields)}`);
      }
    }
  }
}
