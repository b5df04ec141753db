/**
 * People who have servers drained, and want them back: they ask any member, at any moment, also about a server that is
 * down. Here is what each server's disk has of it (the file that src/host/drain-file.ts writes: before it is answered,
 * one change after the other), what goes wrong meanwhile, and how long everything may take. At the end, when nothing
 * goes wrong any more, all servers are asked once more, some of them end right then, and all must be as it was wanted.
 */
import type { Incarnation, NodeId } from '../../src/base/ids.js';
import type { Micros } from '../../src/core/effects.js';
import type { Prng } from '../../src/base/prng.js';
import type { SimulatedTime } from '../support/simulated-time.js';
import { DrainChecker } from './drain-checker.js';
import type { Wish } from './drain-wishes.js';
import type { DrainHost, SimulatedServer } from './server.js';
import type { Settings } from './settings.js';
import type { Trace } from './trace.js';

/** How long the disk takes, mostly, and now and then. */
const SAVE_MICROS_MAX = 3_000;
const SLOW_SAVE_MICROS_MAX = 60_000;
const DISK_ERROR = 'the disk is full';

/** A server that had no turn for so long stands still: its links' heartbeats come oftener. */
const ASLEEP_MICROS = 120_000;
/** As long as a question waits for its answer (core/fitness), and some turns. */
const ANSWER_MICROS_MAX = 4_000_000 + 300_000;
/** From the end of the wait until it is said: a look and some turns. */
const SAY_MICROS_MAX = 150_000;
/** What a run sent that died arrives within this time, or never. */
const UNDER_WAY_MICROS = 5_000_000;
/** With nobody who hangs: the question's way, the modules' way back, the breaks, and looks. */
const SOON_MICROS = 2_400_000;
/** Time for all that may come late: the module's way back, a client that lets go late, a look at what is left. */
const LATE_MICROS = 3_000_000;

interface Question {
  wish: Wish;
  asker: SimulatedServer;
  run: Incarnation;
  token: number;
  /** null: no answer yet. */
  answer: { error: string | null } | null;
}

/** A question that failed, and may be carried out still by this run of the server or one before. */
interface Ghost {
  wish: Wish;
  until: Incarnation;
}

/** What one server's disk has; the rest is on its way there. */
interface Disk {
  draining: boolean;
  queue: { token: number; draining: boolean; isWritten: boolean }[];
  /** Counts the runs that used it. */
  run: number;
}

export interface DrainWorldOptions {
  settings: Settings;
  time: SimulatedTime;
  /** Of its own: other runs are as they were before there were drains. */
  prng: Prng;
  trace: Trace;
  servers: readonly SimulatedServer[];
  fail: (rule: string, text: string) => void;
}

export class DrainWorld implements DrainHost {
  readonly checker: DrainChecker;
  readonly totals = { asked: 0, done: 0, failed: 0 };
  /** smbds that nobody expects anything of. */
  readonly mutes = new Set<string>();
  private readonly disks = new Map<NodeId, Disk>();
  private readonly questions = new Map<string, Question>();
  private readonly ghosts = new Set<Ghost>();
  private readonly lastTokens = new Map<Incarnation, number>();
  private readonly lastWishes = new Map<NodeId, boolean>();
  private readonly turns = new Map<SimulatedServer, { last: Micros; awakeSince: Micros }>();
  private isOver = false;

  constructor(private readonly options: DrainWorldOptions) {
    const { time, settings, fail } = options;
    this.checker = new DrainChecker(() => time.now, settings.drainLeasesMicros, fail);
  }

  /** smbds that never say that they heard, and clients that let go late. */
  isMute(): boolean {
    return this.options.settings.drainsHang && this.options.prng.chance(0.1);
  }

  lateMicros(): Micros {
    const { settings: { drainsHang }, prng } = this.options;
    return drainsHang && !this.isOver && prng.chance(0.2) ? prng.below(1_500_000) : 0;
  }

  /** From the moment that a daemon runs until a module that lost the one before looks for it. */
  attachMicros(): Micros {
    return this.options.prng.below(500_000);
  }

  get looksAtAll(): boolean {
    return this.options.settings.sabotage !== 'module-tells-no-changes';
  }

  // --- what people do

  /** Questions at random moments. */
  schedule(): void {
    const { settings, time, prng } = this.options;
    for (let i = 0; i < settings.drains; i++) {
      time.after(prng.below(settings.activeMicros), () => this.askSomebody());
    }
  }

  private askSomebody(): void {
    const { servers, prng } = this.options;
    const asked = servers.filter((server) => !server.dead && !server.down);
    if (asked.length === 0 || this.isOver) return;
    const target = prng.pick(servers);
    this.ask(prng.pick(asked), target, this.nextWish(target));
    // somebody else wants something else
    if (prng.chance(0.15)) this.ask(prng.pick(asked), target, prng.chance(0.5));
    this.disturb(target);
  }

  private nextWish({ self }: SimulatedServer): boolean {
    return this.options.prng.chance(0.85) ? this.lastWishes.get(self) !== true : this.options.prng.chance(0.5);
  }

  /** Just when it has been asked it ends. */
  private disturb(target: SimulatedServer): void {
    const { settings, time, prng } = this.options;
    const after = prng.below(prng.chance(0.7) ? 10_000 : 300_000);
    if (settings.resumes > 0 && prng.chance(0.4)) time.after(after, () => target.killAfter(prng.below(10)));
    else if (settings.restarts > 0 && prng.chance(0.3)) time.after(after, () => target.dieAfter(prng.below(10)));
  }

  private ask(asker: SimulatedServer, { self: target }: SimulatedServer, draining: boolean): Question {
    const { time, trace } = this.options;
    const run = asker.options.incarnation;
    const token = (this.lastTokens.get(run) ?? 0) + 1;
    this.lastTokens.set(run, token);
    this.lastWishes.set(target, draining);
    const question: Question = { wish: this.checker.wishes.begin(target, draining), asker, run, token, answer: null };
    this.questions.set(`${run}/${token}`, question);
    this.totals.asked++;
    trace.add(time.now, () => `server ${asker.self} is asked, as ${token}, to ${words(draining)} server ${target}`);
    asker.input({ kind: 'drain-query', token, server: target, draining });
    this.expectAnswer(question, ANSWER_MICROS_MAX);
    return question;
  }

  private expectAnswer(question: Question, micros: Micros): void {
    const { asker, run, token, wish } = question;
    const { time } = this.options;
    time.after(micros, () => {
      if (question.answer !== null || !isRun(asker, run)) return;
      const moreMicros = this.awakeSince(asker) + ANSWER_MICROS_MAX - time.now;
      if (moreMicros > 0) return this.expectAnswer(question, moreMicros);
      const text = `server ${asker.self} was asked, as ${token}, to ${words(wish.draining)} server ${wish.target}`;
      this.options.fail('drains-are-answered', text);
    });
  }

  /** When it stood still last; one that does has all its time still before it. */
  private awakeSince(server: SimulatedServer): Micros {
    const { now } = this.options.time;
    const turns = this.turns.get(server);
    return turns === undefined || now - turns.last > ASLEEP_MICROS ? now : turns.awakeSince;
  }

  // --- what the servers do

  answered(server: SimulatedServer, token: number, error: string | null): void {
    const { time, trace } = this.options;
    const question = this.questions.get(`${server.options.incarnation}/${token}`);
    if (question === undefined || question.answer !== null) {
      return this.options.fail('drains-are-answered', `server ${server.self} answers ${token}, which nobody asked`);
    }
    question.answer = { error };
    trace.add(time.now, () => `server ${server.self} answers ${token}: ${error ?? 'done'}`);
    const { wish } = question;
    this.totals[error === null ? 'done' : 'failed']++;
    if (error === null) this.checker.wishes.done(wish);
    else if (error.includes('is no member')) this.checker.wishes.notSent(wish);
    else if (error === DISK_ERROR) this.checker.wishes.mayBeDone(wish);
    else this.haunt(wish);
    this.judge(wish.target);
  }

  /** The question may still be under way, to the run that is or one before it. */
  private haunt(wish: Wish): void {
    const target = this.server(wish.target);
    const ghost = { wish, until: target.options.incarnation };
    this.ghosts.add(ghost);
    if (target.down || target.dead) this.lay(ghost);
  }

  private lay(ghost: Ghost): void {
    if (!this.ghosts.delete(ghost)) return;
    this.checker.wishes.mayBeDone(ghost.wish);
    this.judge(ghost.wish.target);
  }

  private judge(target: NodeId): void {
    this.checker.judgeFlag(this.server(target));
  }

  private server(node: NodeId): SimulatedServer {
    return this.options.servers[node]!;
  }

  started(server: SimulatedServer): boolean {
    const disk = this.disk(server.self);
    const isDrained = disk.draining && this.options.settings.sabotage !== 'forget-drain';
    this.checker.started(server, isDrained);
    // a run that goes on in the place of another has all its time still before it
    this.turns.delete(server);
    return isDrained;
  }

  turned(server: SimulatedServer): void {
    const { now } = this.options.time;
    const { last, awakeSince } = this.turns.get(server) ?? { last: -Infinity, awakeSince: now };
    this.turns.set(server, { last: now, awakeSince: now - last > ASLEEP_MICROS ? now : awakeSince });
    this.checker.turned(server);
  }

  said(server: SimulatedServer, draining: boolean): void {
    this.checker.said(server, draining);
  }

  flagged(server: SimulatedServer): void {
    this.checker.flagged(server);
    const since = this.checker.flaggedAt(server);
    if (since === null) return;
    const { settings, time } = this.options;
    this.expectSaid(server, since, since + settings.drainLeasesMicros - time.now + SAY_MICROS_MAX);
  }

  private expectSaid(server: SimulatedServer, since: Micros, micros: Micros): void {
    const { time, fail } = this.options;
    time.after(micros, () => {
      if (!this.checker.isFlaggedSince(server, since) || this.checker.says(server)) return;
      const moreMicros = this.awakeSince(server) + SAY_MICROS_MAX - time.now;
      if (moreMicros > 0) return this.expectSaid(server, since, moreMicros);
      fail('drains-in-time', `server ${server.self} breaks leases since ${since}, and does not say that it drains`);
    });
  }

  ended(server: SimulatedServer): void {
    const { prng, time } = this.options;
    const disk = this.disk(server.self);
    const [first] = disk.queue;
    // what the disk was about to write is there, or not
    if (first?.isWritten === false && prng.chance(0.5)) disk.draining = first.draining;
    disk.queue = [];
    disk.run++;
    const run = server.options.incarnation;
    for (const question of this.questions.values()) {
      if (question.run !== run || question.answer !== null) continue;
      question.answer = { error: 'the daemon that was asked ended' };
      const ghost = { wish: question.wish, until: this.server(question.wish.target).options.incarnation };
      this.ghosts.add(ghost);
      time.after(UNDER_WAY_MICROS, () => this.lay(ghost));
    }
    for (const ghost of [...this.ghosts]) {
      if (ghost.wish.target === server.self && ghost.until <= run) this.lay(ghost);
    }
  }

  // --- the disk

  private disk(node: NodeId): Disk {
    const disk = this.disks.get(node) ?? { draining: false, queue: [], run: 0 };
    this.disks.set(node, disk);
    return disk;
  }

  save(server: SimulatedServer, token: number, draining: boolean): void {
    const disk = this.disk(server.self);
    disk.queue.push({ token, draining, isWritten: false });
    if (disk.queue.length === 1) this.write(server, disk);
  }

  private write(server: SimulatedServer, disk: Disk): void {
    const { time, prng, settings } = this.options;
    const [one] = disk.queue;
    if (one === undefined) return;
    const { run } = disk;
    const micros = prng.chance(0.1) ? prng.below(SLOW_SAVE_MICROS_MAX) : 100 + prng.below(SAVE_MICROS_MAX);
    const fails = !this.isOver && prng.chance(0.05);
    const isEarly = settings.sabotage === 'answer-unsaved';
    time.after(prng.below(micros), () => {
      if (disk.run !== run) return;
      one.isWritten = true;
      if (!fails || prng.chance(0.5)) disk.draining = one.draining;
    });
    time.after(isEarly ? 0 : micros, () => {
      if (disk.run !== run) return;
      const error = fails ? DISK_ERROR : null;
      server.input({ kind: 'drain-saved', token: one.token, draining: one.draining, error });
    });
    time.after(micros, () => {
      if (disk.run !== run) return;
      disk.queue.shift();
      this.write(server, disk);
    });
  }

  // --- at the end

  /** Nothing goes wrong any more: what is under way arrives, then everybody is asked once more. */
  *finale(): Generator<{ max: Micros; done: () => boolean }, void, boolean> {
    const { servers, prng, fail, settings } = this.options;
    this.isOver = true;
    yield { max: UNDER_WAY_MICROS, done: () => [...this.questions.values()].every(({ answer }) => answer !== null) };
    yield { max: LATE_MICROS, done: () => false };
    for (const ghost of [...this.ghosts]) this.lay(ghost);
    // to be killed in the middle of something that never came
    for (const server of servers) server.dieAfter(Infinity);
    const living = (): SimulatedServer[] => servers.filter((server) => !server.dead);
    const isWhole = (): boolean => living().every((one) => !one.down && living().every((other) => knows(one, other)));
    if (!(yield { max: UNDER_WAY_MICROS, done: isWhole })) return fail('pool-is-whole', 'some servers miss others');
    const questions = living().map((target) => {
      this.expectSoon(target);
      return this.ask(prng.pick(living()), target, prng.chance(0.7));
    });
    yield { max: UNDER_WAY_MICROS, done: () => questions.every(({ answer }) => answer !== null) };
    for (const { answer, wish } of questions) {
      const text = `of server ${wish.target}: ${answer?.error ?? 'nothing'}`;
      if (answer?.error !== null) fail('drains-are-answered', text);
    }
    this.endSome(living());
    if (!(yield { max: 2 * UNDER_WAY_MICROS, done: isWhole })) return fail('pool-is-whole', 'some servers miss others');
    yield { max: settings.drainLeasesMicros + LATE_MICROS, done: () => this.isSettled(living()) };
    this.judgeEnd(living());
  }

  /** All smbds are idle and honest: nobody waits for the end of the bounded time. */
  private expectSoon(target: SimulatedServer): void {
    const { settings, time, fail } = this.options;
    if (settings.drainsHang || settings.drainLeasesMicros <= SOON_MICROS) return;
    time.after(SOON_MICROS, () => {
      if (target.dead || target.down || !target.isDrainFlagSet || this.checker.says(target)) return;
      fail('drains-when-broken', `server ${target.self} waits for leases that are broken`);
    });
  }

  private endSome(living: readonly SimulatedServer[]): void {
    const { settings, time, prng } = this.options;
    // the others must be a majority still
    const victim = prng.pick(living);
    const after = prng.below(10_000);
    if (settings.resumes > 0) time.after(after, () => victim.killNow());
    else if (settings.restarts > 0 && living.length > 2) time.after(after, () => victim.dieAfter(0));
  }

  /** Until then it may take its time. */
  private isSettled(living: readonly SimulatedServer[]): boolean {
    const isTold = (of: SimulatedServer): boolean => living.every((one) => this.checker.judgeTold(one, of) === null);
    return living.every((one) => isTold(one) && (!one.isDrainFlagSet || this.judgedCaching(one).length === 0));
  }

  private judgedCaching(server: SimulatedServer): { smbd: string; file: string }[] {
    return this.checker.cachingAt(server).filter(({ smbd }) => !this.mutes.has(smbd));
  }

  private judgeEnd(living: readonly SimulatedServer[]): void {
    const { fail } = this.options;
    for (const of of living) {
      for (const asked of living) {
        const told = this.checker.judgeTold(asked, of);
        if (told !== null) fail('members-hear', `server ${asked.self} tells people ${told} of server ${of.self}`);
      }
      if (!of.isDrainFlagSet) continue;
      for (const { smbd, file } of this.judgedCaching(of)) {
        fail('leases-go', `a client of ${smbd} still caches writes of ${file}, and server ${of.self} is drained`);
      }
    }
  }

  summary(): string[] {
    const { asked, done, failed } = this.totals;
    const { drained, broken, withheld } = this.checker.totals;
    return [
      `${asked} asked to drain or not (${done} done, ${failed} failed)`,
      `${drained} drained, ${broken} leases broken, ${withheld} withheld`,
    ];
  }
}

function isRun(server: SimulatedServer, run: Incarnation): boolean {
  return !server.dead && !server.down && server.options.incarnation === run;
}

function knows(one: SimulatedServer, other: SimulatedServer): boolean {
  return one === other || one.memberRun(other.self) === other.options.incarnation;
}

const words = (draining: boolean): string => (draining ? 'drain' : 'undrain');
