/**
 * A chaos run on a lab that is up: clients on all servers do work that can be checked, while servers, processes and
 * links fail at random. Everything random comes from one seed; what the machine's timing adds does not. Used by
 * `smbpool lab chaos` and by the tests.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Prng } from '../../base/prng.js';
import { messageOf } from '../errors.js';
import type { Lab } from '../lab.js';
import { pause, waitUntil } from '../run.js';
import type { World } from './connection.js';
import { Connection } from './connection.js';
import { Faults } from './faults.js';
import { Keeper } from './keeper.js';
import { Outages, machineSeconds } from './outages.js';
import type { Fault, Round } from './plan.js';
import { faultWords, nextRound } from './plan.js';
import { Service, countsText, workTable } from './report.js';
import { contentProblems, prepare, stateProblems } from './verify.js';
import type { Notes, Work } from './work.js';
import { count, emptyNotes, register, replace } from './work.js';

/** A server that was healed learns that its run is over within a second, if it is. */
const AFTERMATH_MILLIS = 1500;
/** From the end of a fault until the server serves again; a busy machine misses a run that starts several times. */
const WELL_MILLIS_MAX = 90_000;
/** The work goes on a little after the last fault. */
const CALM_MILLIS = 3000;
/** Clients of servers that are well may wait so long while a minority is hurt; a second is usual. */
const SILENCE_SECONDS_MAX = 10;
const LOOK_MILLIS = 250;
/** More are not printed. */
const VIOLATIONS_SHOWN_MAX = 30;

export interface ChaosPlan {
  seed: number;
  minutes: number;
}

export interface ChaosResult {
  /** What must not happen, in words; empty when all is well. */
  violations: string[];
  /** How many faults there were. */
  faults: number;
  /** How much work was answered. */
  done: number;
}

class Run {
  private readonly began = machineSeconds();
  private readonly outages: Outages;
  private readonly notes: Notes = emptyNotes();
  private readonly violations: string[] = [];
  private readonly statuses = new Map<string, number>();
  private readonly kinds = new Map<string, number>();
  private readonly counters = new Service('counters');
  private readonly contents = new Service('files');
  private readonly commits = new Service('registry');
  private readonly services = [this.counters, this.contents, this.commits];
  private readonly connections: Connection[] = [];
  private keepers: Keeper[] = [];
  private quorumLosses = 0;
  private isOver = false;

  constructor(
    private readonly lab: Lab,
    private readonly plan: ChaosPlan,
    private readonly print: (line: string) => void,
  ) {
    this.outages = new Outages(lab.options.servers);
  }

  private say(line: string): void {
    this.print(`${(machineSeconds() - this.began).toFixed(1).padStart(7)} s  ${line}`);
  }

  private violated(what: string): void {
    this.violations.push(what);
    this.say(`VIOLATED: ${what}`);
  }

  async run(): Promise<ChaosResult> {
    const { lab } = this;
    await prepare(lab);
    this.keepers = lab.servers().map((place) => {
      return new Keeper(lab, place, this.outages, (line) => this.say(line), (what) => this.violated(what));
    });
    try {
      await this.workAndFaults();
      await this.verify();
    } finally {
      await Promise.all(this.keepers.map((keeper) => keeper.stop()));
    }
    this.report();
    const done = this.services.reduce((sum, service) => sum + service.count, 0);
    const made = [...this.kinds.values()].reduce((sum, times) => sum + times, 0);
    return { violations: this.violations, faults: made, done };
  }

  private async workAndFaults(): Promise<void> {
    const working = Promise.all([this.startWork(), this.watchServices()]);
    const faults = new Faults(this.lab, this.keepers, new Prng(this.plan.seed + 1));
    try {
      await this.makeFaults(faults);
      await pause(CALM_MILLIS);
    } finally {
      this.isOver = true;
      for (const service of this.services) service.noteGap();
      await faults.heal();
      await working;
    }
  }

  /** Ends with the run; a worker that breaks is a violation. */
  private async startWork(): Promise<void> {
    const world: World = {
      lab: this.lab,
      outages: this.outages,
      violated: (what) => this.violated(what),
      count: (status) => this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1),
      isOver: () => this.isOver,
    };
    const workers = this.lab.servers().flatMap(({ id }) => {
      const server = id ?? 0;
      const of = (part: number, service: Service): Work => {
        return { world, notes: this.notes, prng: new Prng(this.plan.seed + 100 * (server + 1) + part), service };
      };
      const connect = (part: number, name: string, service: Service) => {
        const connection = new Connection(`${name} ${server}`, world, new Prng(this.plan.seed - part), server);
        this.connections.push(connection);
        service.workers.push(() => connection.wellFor);
        return connection;
      };
      this.commits.workers.push(() => this.outages.wellFor(server));
      return [
        count(of(1, this.counters), connect(1, 'counter', this.counters)),
        replace(of(2, this.contents), connect(2, 'writer', this.contents)),
        register(of(3, this.commits), server),
      ];
    });
    const ends = await Promise.allSettled(workers);
    for (const end of ends) if (end.status === 'rejected') this.violated(`a client broke: ${messageOf(end.reason)}`);
  }

  /** Whoever is hurt, the others serve those that are with them. */
  private async watchServices(): Promise<void> {
    const told = new Set<number>();
    while (!this.isOver) {
      for (const { name, last, workers } of this.services) {
        const served = Math.max(...workers.map((wellFor) => wellFor()));
        const silence = Math.min(machineSeconds() - last, served);
        if (silence < SILENCE_SECONDS_MAX || told.has(last)) continue;
        told.add(last);
        this.violated(`${name}: nothing was done for ${SILENCE_SECONDS_MAX} s, with servers that are well`);
      }
      await pause(LOOK_MILLIS);
    }
  }

  private async makeFaults(faults: Faults): Promise<void> {
    const prng = new Prng(this.plan.seed);
    const until = this.began + this.plan.minutes * 60;
    while (machineSeconds() < until) {
      const round = nextRound(prng, this.lab.options.servers);
      await pause(round.pauseMillis);
      if (!(await this.makeRound(faults, round))) return;
    }
  }

  /** False when not all is well again after it. */
  private async makeRound(faults: Faults, round: Round): Promise<boolean> {
    if (round.losesQuorum) {
      this.quorumLosses++;
      this.say('the majority is lost for a while');
    }
    await Promise.all(round.faults.map((fault) => this.makeFault(faults, fault)));
    const isWell = async () => this.outages.hurt().length === 0 && (await this.lab.isComplete());
    if (await waitUntil(isWell, WELL_MILLIS_MAX, 100)) return true;
    this.violated(`not all servers are members again ${WELL_MILLIS_MAX / 1000} s after the last fault`);
    return false;
  }

  private async makeFault(faults: Faults, fault: Fault): Promise<void> {
    await pause(fault.afterMillis);
    this.kinds.set(fault.kind, (this.kinds.get(fault.kind) ?? 0) + 1);
    this.say(faultWords(fault));
    // of a pair the leader leaves out whom it chooses
    const hurt = fault.peer === null ? [fault.server] : [fault.server, fault.peer];
    for (const server of hurt) this.outages.begin(server);
    try {
      await faults.make(fault);
      await pause(AFTERMATH_MILLIS);
    } finally {
      for (const server of hurt) this.outages.end(server);
    }
  }

  private async verify(): Promise<void> {
    this.say('the work is over; all is compared');
    try {
      for (const problem of await contentProblems(this.lab, this.notes)) this.violated(problem);
    } catch (error) {
      this.violated(messageOf(error));
    }
    try {
      for (const problem of await stateProblems(this.lab)) this.violated(problem);
    } catch (error) {
      this.violated(messageOf(error));
    }
    const file = join(this.lab.layout.root, 'chaos-notes.json');
    const { counters, contents, changes } = this.notes;
    const notes = { ...this.plan, counters: [...counters], contents: [...contents], changes };
    if (this.violations.length > 0) writeFileSync(file, `${JSON.stringify(notes, null, 1)}\n`);
  }

  private report(): void {
    const unknown = (outcomes: readonly ({ outcome: string } | null)[]) =>
      outcomes.filter((one) => one?.outcome === 'unknown').length;
    const written = (notes: Notes['counters']) => [...notes.values()].flat().map((session) => session.written);
    const rows = [
      { service: this.counters, unknown: unknown(written(this.notes.counters)) },
      { service: this.contents, unknown: unknown(written(this.notes.contents)) },
      { service: this.commits, unknown: unknown(this.notes.changes) },
    ];
    this.print(workTable(rows));
    this.print(`faults: ${countsText(this.kinds)}; the majority was lost ${this.quorumLosses} times`);
    const losses = this.connections.reduce((sum, connection) => sum + connection.losses, 0);
    const surprises = this.keepers.reduce((sum, keeper) => sum + keeper.surprises, 0);
    this.print(`${losses} connections lost; ${surprises} runs ended without a fault on them; ` +
      `answers: ${countsText(this.statuses)}`);
    for (const violation of this.violations.slice(0, VIOLATIONS_SHOWN_MAX)) this.print(`✘ ${violation}`);
    const hidden = this.violations.length - VIOLATIONS_SHOWN_MAX;
    if (hidden > 0) this.print(`✘ and ${hidden} more`);
  }
}

/** Runs it to its end. `print` gets a line at each event, and the tables at the end. */
export function chaos(lab: Lab, plan: ChaosPlan, print: (line: string) => void): Promise<ChaosResult> {
  return new Run(lab, plan, print).run();
}
