/**
 * One server of the membership's simulator: a clock of its own speed, a disk that takes time, and the engine, which
 * dies and starts anew, is stopped and goes on.
 */
import type { Incarnation, NodeId } from '../../../src/base/ids.js';
import type { Prng } from '../../../src/base/prng.js';
import type { Effect, Micros } from '../../../src/core/effects.js';
import {
  HEARD_LEASES, MEMBERSHIP_HEARTBEAT_MICROS, MEMBERSHIP_LEASE_MICROS,
} from '../../../src/core/membership/limits.js';
import { EtcdMembership } from '../../../src/core/membership/etcd.js';
import { Membership } from '../../../src/core/membership/membership.js';
import type { ChangeResult, MembershipEngine } from '../../../src/core/membership/port.js';
import type { Run, View } from '../../../src/core/views.js';
import { Timers } from '../../../src/core/timers.js';
import type { ServersChange } from '../../../src/wire/membership-messages.js';
import { decodeMembershipMessage } from '../../../src/wire/membership-messages.js';
import type { ConfiguredServer, SavedMembership } from '../../../src/wire/membership-state.js';
import { decodeSaved, encodeSaved } from '../../../src/wire/membership-state.js';
import type { SimulatedRegister } from '../../support/simulated-register.js';
import type { SimulatedTime } from '../../support/simulated-time.js';
import type { SimulatedWire } from '../../support/simulated-wire.js';
import type { Trace } from '../trace.js';
import { RESUMING_PROTOCOL } from '../../../src/wire/protocol-version.js';
import type { Announcements } from './releases.js';
import { ANNOUNCED_MICROS_MAX, announcementOf } from './releases.js';
import type { MembershipChecker } from './checker.js';
import { plant } from './planted.js';
import type { Settings } from './settings.js';

/** Thrown through the engine to stop it in the middle of a step. */
class Crash extends Error {}

export interface StationWorld {
  time: SimulatedTime;
  wire: SimulatedWire;
  prng: Prng;
  trace: Trace;
  checker: MembershipChecker;
  settings: Settings;
  /** What this server's file says of the servers. */
  serversOf(node: NodeId): readonly ConfiguredServer[];
  announcements: Announcements;
  /** For what has to do with releases, so that seeds without upgrades stay what they were. */
  releasePrng: Prng;
  /** Of the engine etcd. */
  register: SimulatedRegister;
  /** Whether this server runs and says something. */
  isUp(node: NodeId): boolean;
  /** Faults happen; false once they stopped. */
  troubled(): boolean;
}

/** Frames that wait for a stopped process; the rest is lost, as in a full receive ring. */
const WAITING_FRAMES_MAX = 200;
/** Saves are rare, and a crash around one is what matters most. */
const SAVE_CRASH_WEIGHT = 30;
const LISTEN_MICROS = 50_000;
const HEARD_MICROS = HEARD_LEASES * MEMBERSHIP_LEASE_MICROS;
const RESTART_MICROS_MAX = 60_000;
const LONG_DOWN_MICROS_MAX = 1_500_000;

export class Station {
  engine: MembershipEngine | null = null;
  incarnation = 0 as Incarnation;
  /** This run, by true time. */
  startedAt: Micros = 0;
  /** The link layer's verdict, given to the engine. */
  unheard: NodeId[] = [];
  willing = true;
  /** It said so, and is about to end. */
  isLeaving = false;
  isStopped = false;
  /** The first of the runs that the present one continues; itself if it began anew. */
  private first = 0 as Incarnation;
  private isContinued = false;
  /** What is installed; a run that started before keeps its own. */
  release: number;
  /** Runs of others whose announcement comes or came. */
  private met = new Set<string>();
  private disk: SavedMembership | null = null;
  private isRetired = false;
  private asked: ServersChange | null = null;
  /** How often it was told what. */
  readonly answers = new Map<string, number>();
  private readonly heardAt = new Map<NodeId, Micros>();
  private timers = new Timers();
  private localNow: Micros = 0;
  private wakeAt = Infinity;
  private waiting: (() => void)[] = [];
  private readonly speed: number;
  private readonly origin: Micros;

  constructor(
    private readonly world: StationWorld,
    readonly self: NodeId,
    readonly role: ConfiguredServer['role'],
  ) {
    const { speedDeviation, release } = world.settings;
    this.release = release ?? 1;
    this.speed = 1 + speedDeviation * (world.prng.below(2001) / 1000 - 1);
    this.origin = world.prng.below(1_000_000_000);
  }

  private get run(): Run {
    return { node: this.self, incarnation: this.incarnation };
  }

  private localTime(): Micros {
    return Math.floor(this.origin + this.world.time.now * this.speed);
  }

  trueTime(local: Micros): Micros {
    return Math.ceil((local - this.origin) / this.speed);
  }

  // --- life and death

  start(): void {
    const { time, wire, trace, settings, announcements, checker } = this.world;
    if (this.engine !== null || this.isRetired) return;
    const servers = this.world.serversOf(this.self);
    this.incarnation = (this.incarnation + 1) as Incarnation;
    this.startedAt = time.now;
    // in a pool that does not know of such runs, or has forgotten all, smbpoold does not try
    const resumes = this.isContinued && this.protocolOnDisk >= RESUMING_PROTOCOL;
    if (!resumes) this.first = this.incarnation;
    this.isContinued = false;
    this.timers = new Timers();
    this.wakeAt = Infinity;
    this.isStopped = false;
    this.waiting = [];
    const { run } = this;
    const announcement = announcementOf(this.release);
    announcements.started(run, announcement);
    checker.versions.started(run, announcement.speaks);
    this.met = new Set();
    trace.add(time.now, () => {
      const what = resumes ? `continues ${this.first}` : 'starts';
      return `${this.self} ${what}, run ${run.incarnation}, release ${announcement.release}`;
    });
    this.localNow = this.localTime();
    const context = {
      now: () => this.localNow,
      timers: this.timers,
      emit: (effect: Effect) => this.perform(run, effect),
      log: (level: string, event: string, fields = {}) =>
        trace.add(time.now, () => `${this.self} log ${level} ${event} ${JSON.stringify(fields)}`),
      count: () => undefined,
    };
    const options = {
      self: this.self,
      incarnation: run.incarnation,
      ...(resumes ? { resumes: this.first } : {}),
      announcement,
      servers,
      heartbeatMicros: MEMBERSHIP_HEARTBEAT_MICROS,
      leaseMicros: MEMBERSHIP_LEASE_MICROS,
      // through its bytes, as on a real disk
      saved: this.disk === null ? null : decodeSaved(encodeSaved(this.disk)),
    };
    const Engine = settings.engine === 'etcd' ? EtcdMembership : Membership;
    const engine = new Engine(context, options, {
      view: (view) => this.installView(view),
      lease: (until) => {
        if (until === 0) this.world.checker.gaveBack(run);
        else this.world.checker.lease(run, this.trueTime(until));
      },
      removed: (view) => this.remove(view),
      changeAnswered: (result) => this.changeAnswered(run, result),
      send: (peer, body) => this.send(peer, body),
    });
    this.engine = engine;
    if (settings.engine === 'etcd') this.listen(run);
    plant(engine, settings.sabotage);
    wire.attach(this.self, (from, of, body) => {
      const bytes = Uint8Array.prototype.slice.call(body);
      this.meet({ node: from, incarnation: of });
      this.input(() => this.engine?.onFrame(from, of, bytes));
    });
    this.input(() => {
      engine.setUnheard(this.unheard);
      engine.setWilling(this.willing);
    });
  }

  /** What the links of a real server tell: of whom some frame came lately that names one of ours. */
  private listen(run: Run): void {
    const { time, wire, isUp } = this.world;
    const servers = this.world.serversOf(this.self);
    if (this.incarnation !== run.incarnation || this.engine === null) return;
    for (const { node } of servers) {
      const isHeard = node !== this.self && isUp(node) && !wire.isCut(node, this.self);
      const hearsUs = this.world.settings.sabotage === 'hears-one-way' || !wire.isCut(this.self, node);
      if (isHeard && hearsUs && !this.isStopped) this.heardAt.set(node, time.now);
    }
    const heard = [...this.heardAt].filter(([, at]) => time.now - at < HEARD_MICROS).map(([node]) => node);
    if (!this.isStopped) this.input(() => this.engine?.setHeard(heard));
    time.after(LISTEN_MICROS, () => this.listen(run));
  }

  /** By the hellos of links, beside the membership's own frames. */
  private meet(peer: Run): void {
    const key = `${peer.node}/${peer.incarnation}`;
    if (this.met.has(key)) return;
    this.met.add(key);
    const { incarnation } = this;
    this.world.time.after(this.world.releasePrng.below(ANNOUNCED_MICROS_MAX), () => {
      if (incarnation !== this.incarnation) return;
      const announcement = this.world.announcements.of(peer);
      this.input(() => this.engine?.announced(peer.node, peer.incarnation, announcement));
    });
  }

  /** What is on its disk of the pool's protocol. */
  get protocolOnDisk(): number {
    return this.disk?.accepted?.protocol ?? 0;
  }

  /** Another release is installed, and it starts anew with that. */
  install(release: number, restartMicros: Micros | null = null): void {
    this.world.trace.add(this.world.time.now, () => `${this.self} gets release ${release}`);
    this.release = release;
    this.crash(restartMicros);
  }

  /** A person asks this server for another list of servers. */
  ask(what: ServersChange['what'], server: ConfiguredServer): void {
    if (this.engine === null || this.asked !== null) return;
    const { number } = this.engine.status().configuration;
    this.asked = { what, number, server };
    this.world.trace.add(this.world.time.now, () => `${this.self} is asked: ${what} ${server.node} after ${number}`);
    this.input(() => {
      if (this.asked !== null) this.engine?.changeServers(this.asked);
    });
  }

  get isAsked(): boolean {
    return this.asked !== null;
  }

  private changeAnswered(run: Run, result: ChangeResult): void {
    const { asked } = this;
    if (asked === null || run.incarnation !== this.incarnation) return;
    this.asked = null;
    const { time, trace, checker } = this.world;
    const text = result === 'done' ? result : result.why;
    trace.add(time.now, () => `${this.self} is told of ${asked.what} ${asked.server.node}: ${text}`);
    this.answers.set(text, (this.answers.get(text) ?? 0) + 1);
    if (result === 'done') checker.servers.done(asked);
  }

  /** Nobody starts it any more. */
  retire(): void {
    this.isRetired = true;
    this.crash();
  }

  /** It is started, with its disk. */
  recall(): void {
    this.isRetired = false;
    this.start();
  }

  /** Its links do not hear these. */
  hearsNot(nodes: NodeId[]): void {
    this.unheard = nodes;
    this.input(() => this.engine?.setUnheard(nodes));
  }

  crash(restartMicros: Micros | null = null): void {
    if (this.engine === null) return;
    const { time, wire, trace, prng } = this.world;
    trace.add(time.now, () => `${this.self} crashes`);
    this.engine = null;
    this.asked = null;
    this.isLeaving = false;
    this.world.checker.versions.ended(this.run);
    wire.detach(this.self);
    const isLong = this.world.troubled() && prng.chance(0.2);
    const after = restartMicros ?? 100 + prng.below(isLong ? LONG_DOWN_MICROS_MAX : RESTART_MICROS_MAX);
    time.after(after, () => this.start());
  }

  /** Killed; another run continues this one, soon or when the others have given it up. */
  kill(afterMicros: Micros): void {
    if (this.engine === null || this.isLeaving) return;
    this.crash(afterMicros);
    this.isContinued = true;
  }

  /** The run ends in order, and lives on for a moment; another follows. */
  leave(): void {
    if (this.engine === null) return;
    const { time, trace, prng } = this.world;
    trace.add(time.now, () => `${this.self} leaves`);
    this.isLeaving = true;
    this.input(() => this.engine?.leave());
    const { incarnation } = this;
    time.after(1 + prng.below(2 * MEMBERSHIP_LEASE_MICROS), () => {
      if (incarnation === this.incarnation) this.crash(1_000 + prng.below(1_000_000));
    });
  }

  /** The process is stopped: frames and timers wait. */
  stop(micros: Micros): void {
    if (this.engine === null || this.isStopped) return;
    const { time, trace } = this.world;
    trace.add(time.now, () => `${this.self} is stopped for ${micros / 1000} ms`);
    this.isStopped = true;
    const { incarnation } = this;
    time.after(micros, () => {
      if (incarnation !== this.incarnation || this.engine === null) return;
      trace.add(time.now, () => `${this.self} goes on`);
      this.isStopped = false;
      // timers first, as a loop that wakes up may do, or frames first
      const work = this.waiting;
      this.waiting = [];
      if (this.world.prng.chance(0.5)) this.input(() => undefined);
      for (const one of work) this.input(one);
      this.input(() => undefined);
    });
  }

  /** One input of the engine's: timers that are due, then the work. */
  input(work: () => void): void {
    if (this.engine === null) return;
    if (this.isStopped) {
      if (this.waiting.length < WAITING_FRAMES_MAX) this.waiting.push(work);
      return;
    }
    const { engine } = this;
    this.localNow = this.localTime();
    try {
      this.timers.run(this.localNow);
      if (this.engine === engine) work();
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
    }
    if (this.engine !== engine) return;
    this.watch(engine);
    this.arm();
  }

  private watch(engine: MembershipEngine): void {
    const { authorityUntil, term } = engine.status();
    if (this.world.settings.engine === 'etcd' && authorityUntil !== null && authorityUntil > -Infinity) {
      this.world.checker.authority(this.run, term, this.trueTime(authorityUntil));
    }
  }

  private arm(): void {
    const deadline = this.timers.deadline();
    if (deadline === Infinity) return;
    const at = Math.max(this.world.time.now, this.trueTime(deadline));
    if (this.wakeAt <= at && this.wakeAt > this.world.time.now) return;
    this.wakeAt = at;
    const { incarnation } = this;
    this.world.time.after(at - this.world.time.now, () => {
      if (incarnation !== this.incarnation || this.wakeAt !== at) return;
      this.wakeAt = Infinity;
      // a stopped process has this as its first work
      if (this.isStopped) this.waiting.unshift(() => undefined);
      else this.input(() => undefined);
    });
  }

  killMicros(): Micros {
    const { releasePrng } = this.world;
    return 1_000 + releasePrng.below(releasePrng.chance(0.8) ? 60_000 : 1_000_000);
  }

  private maybeCrash(weight = 1): void {
    const { prng, settings } = this.world;
    if (!this.world.troubled() || !prng.chance(weight * settings.crashProbability)) return;
    if (settings.resumes && this.world.releasePrng.chance(0.5)) this.kill(this.killMicros());
    else this.crash();
    throw new Crash();
  }

  // --- what the engine does

  private send(peer: NodeId, body: Uint8Array): void {
    this.maybeCrash();
    const { checker, wire } = this.world;
    const message = decodeMembershipMessage(body, this.world.settings.engine);
    if (message.kind === 'vote-answer' && message.granted) checker.voted(this.self, message.term, peer, 'told');
    if (message.kind === 'answer' && message.accepted > (this.disk?.accepted?.epoch ?? 0)) {
      checker.fail('told-is-on-disk', `${this.self} says it accepted ${message.accepted}`);
    }
    wire.send(this.self, this.incarnation, peer, body);
    this.maybeCrash();
  }

  private perform(run: Run, effect: Effect): void {
    if (effect.kind === 'register-request') return this.askRegister(run, effect);
    if (effect.kind !== 'membership-save') throw new Error(`unexpected effect ${effect.kind}`);
    const { time, prng, settings, checker, trace } = this.world;
    this.maybeCrash(SAVE_CRASH_WEIGHT);
    const { token, state } = effect;
    if (state.accepted?.leader === this.self) checker.versions.proposes(state.accepted);
    const slow = this.world.troubled() && prng.chance(settings.slowSaveProbability);
    const micros = 100 + prng.below(slow ? 1_000_000 : settings.saveMicrosMax);
    const fails = this.world.troubled() && prng.chance(settings.failedSaveProbability);
    // a crash or a failure in between may find either state on the disk
    const reachesAt = micros - prng.below(micros);
    const reaches = !fails || prng.chance(0.5);
    time.after(reachesAt, () => {
      if (this.incarnation !== run.incarnation || !reaches) return;
      if (this.engine === null && prng.chance(0.5)) return;
      this.disk = state;
      trace.add(time.now, () => `${this.self} has on disk: ${describeState(state)}`);
      // views are agreed in etcd; the disk only remembers them
      if (settings.engine === 'embedded') checker.saved(this.self, state);
    });
    time.after(micros, () => {
      if (this.incarnation === run.incarnation) this.input(() => this.engine?.onSaved(token, !fails));
    });
    if (this.world.troubled() && prng.chance(SAVE_CRASH_WEIGHT * settings.crashProbability)) {
      time.after(prng.below(micros), () => {
        // a slow disk may outlast the time of faults
        if (this.incarnation === run.incarnation && this.world.troubled()) this.crash(prng.chance(0.5) ? 1_000 : null);
      });
    }
  }

  private askRegister(run: Run, effect: Extract<Effect, { kind: 'register-request' }>): void {
    this.maybeCrash();
    const { register, trace, time } = this.world;
    const { token, request } = effect;
    const deadline = Math.ceil(effect.deadlineMicros / this.speed);
    register.request(this.self, request, deadline, (result) => {
      if (this.incarnation !== run.incarnation) return;
      if (result.kind !== 'value') trace.add(time.now, () => `${this.self} ${request.kind}: ${result.kind}`);
      this.input(() => this.engine?.onRegister(token, result));
    });
    this.maybeCrash();
  }

  private installView(view: View): void {
    const { checker, trace, time, prng } = this.world;
    trace.add(time.now, () => `${this.self} installs ${describeView(view)}`);
    checker.installed(this.run, view);
    const { incarnation } = this;
    time.after(1_000 + prng.below(300_000), () => {
      if (incarnation !== this.incarnation || this.engine === null) return;
      checker.recover(this.run, view.epoch);
      this.input(() => this.engine?.recovered(view.epoch));
    });
  }

  private remove(view: View): void {
    const { checker, trace, time } = this.world;
    trace.add(time.now, () => `${this.self} is out by ${describeView(view)}`);
    checker.removed(this.run, view);
    const { incarnation } = this;
    time.after(500, () => {
      if (incarnation === this.incarnation) this.crash();
    });
  }
}

export function describeView(view: View): string {
  const members = view.members.map(({ node, incarnation }) => `${node}/${incarnation}`).join(' ');
  return `${Math.floor(view.epoch / 2 ** 20)}.${view.epoch % 2 ** 20} by ${view.leader}: ${members}`;
}

function describeState({ term, votedFor, accepted }: SavedMembership): string {
  return `term ${term}, vote ${votedFor ?? 'none'}, ${accepted === null ? 'no view' : describeView(accepted)}`;
}
