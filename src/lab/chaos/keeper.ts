/**
 * systemd's part for one server of a chaos run: what ended is started again, and while it is away the server counts as
 * hurt. Runs beside everything else until it is stopped.
 */
import { daemonStatus } from '../admin.js';
import { messageOf } from '../errors.js';
import type { Lab } from '../lab.js';
import type { ServerPlace } from '../layout.js';
import { processesIn, signalAll } from '../network.js';
import { pause, waitUntil } from '../run.js';
import type { Outages } from './outages.js';
import { machineSeconds } from './outages.js';

/** RestartSec of packaging/smbpoold.service. */
const RESTART_MILLIS = 1000;
const LOOK_MILLIS = 50;
/** A standby has taken over by then, or will not. */
const TAKEOVER_MILLIS = 2000;
/** smbds end with their daemon; those that wait for a lease first, at most as long as they may. */
const END_MILLIS_MAX = 30_000;

export class Keeper {
  private isOver = false;
  private isHeld = false;
  /** Who was killed is started as it is. */
  private isHurtByHold = false;
  /** How often a run ended by itself while no fault was near: a busy machine, or a mistake. */
  surprises = 0;
  private readonly done: Promise<void>;

  constructor(
    private readonly lab: Lab,
    private readonly place: ServerPlace,
    private readonly outages: Outages,
    private readonly say: (line: string) => void,
    /** Told of what must not happen. */
    private readonly violated: (what: string) => void,
  ) {
    this.done = this.keep();
    // told of when it is stopped
    this.done.catch(() => undefined);
  }

  /** Nothing is started while `work` runs. */
  async hold(work: () => Promise<void>): Promise<void> {
    this.isHeld = true;
    this.isHurtByHold = true;
    try {
      await work();
    } finally {
      this.isHeld = false;
    }
  }

  async stop(): Promise<void> {
    this.isOver = true;
    await this.done;
  }

  private async keep(): Promise<void> {
    const isWhole = () => this.isRunning('smbpoold') && this.isRunning('smbd');
    const isWholeOrHeld = () => this.isHeld || isWhole();
    while (!this.isOver) {
      if (!isWholeOrHeld()) await this.missed(isWholeOrHeld);
      await pause(LOOK_MILLIS);
    }
  }

  private async missed(isWhole: () => boolean): Promise<void> {
    const isOfAFault = this.outages.isHurt(this.place.id ?? 0);
    if (this.lab.options.standby && (await this.isTakenOver(isWhole))) return;
    if (!isOfAFault) this.surprises++;
    await this.bringBack(this.isRunning('smbpoold'));
  }

  private isRunning(kind: 'smbpoold' | 'smbd'): boolean {
    return this.lab.isRunning(kind, this.place);
  }

  private async isTakenOver(isWhole: () => boolean): Promise<boolean> {
    const { id } = this.place;
    this.outages.begin(id ?? 0);
    try {
      return await waitUntil(isWhole, TAKEOVER_MILLIS, LOOK_MILLIS);
    } finally {
      this.outages.end(id ?? 0);
    }
  }

  private async bringBack(daemonRuns: boolean): Promise<void> {
    const { id, name } = this.place;
    const from = machineSeconds();
    this.outages.begin(id ?? 0);
    try {
      await this.clear(daemonRuns);
      if (!this.isHurtByHold) await pause(RESTART_MILLIS);
      this.isHurtByHold = false;
      // one that is killed, or lost, on its way is seen in the next round
      await this.lab.startAgain(this.place);
      this.say(`${name} serves again, ${(machineSeconds() - from).toFixed(1)} s after it was seen to have ended`);
    } catch (error) {
      this.say(`${name} did not start: ${messageOf(error).slice(0, 200)}`);
    } finally {
      this.outages.end(id ?? 0);
    }
  }

  /** Waits until nothing of before is left. smbds end with their daemon; without their main one systemd ends them. */
  private async clear(daemonRuns: boolean): Promise<void> {
    const { id, namespace } = this.place;
    const staying = [this.lab.process('etcd', id)?.pid];
    if (daemonRuns) staying.push(this.lab.process('smbpoold', id)?.pid, await this.standby());
    const others = async () => (await processesIn(namespace)).filter((pid) => !staying.includes(pid));
    if (daemonRuns) signalAll(await others(), 'SIGKILL');
    const isClear = async () => (await others()).length === 0;
    if (await waitUntil(isClear, END_MILLIS_MAX, LOOK_MILLIS)) return;
    const left = await others();
    this.violated(`${this.place.name}: processes ${left.join(', ')} go on without what they belong to`);
    signalAll(left, 'SIGKILL');
  }

  private async standby(): Promise<number | undefined> {
    if (!this.lab.options.standby) return undefined;
    return (await daemonStatus(this.place.adminSocket))?.standby?.pid ?? undefined;
  }
}
