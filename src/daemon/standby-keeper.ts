/**
 * The active daemon's side of its standby: starts it, tells it what is to outlive this process, starts another when it
 * dies, and tells people how it is. Made by the daemon; docs/decisions/standby.md.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Log } from '../ports/log.js';
import type { StandbyReport } from '../ports/status.js';
import type { ActiveSays, StandbySays } from './standby-link.js';

/** Between the end of one standby and the start of the next. */
const AGAIN_MS = 1_000;
/** A standby that ends before it was ready, so often in a row, will not be better the next time. */
const FAILURES_MAX = 5;

/** What the keeper needs of the host. */
export interface StandbyHost {
  heirloom(): { streams: number; listener: number; databases: string[] };
  setStandby(link: number): void;
  tellStandby(message: ActiveSays): void;
}

export interface StandbyKeeperOptions {
  log: Log;
  host: StandbyHost;
  /** Two connected ends; the native addon's. */
  pair(): [number, number];
  /** Descriptors of the locks. */
  locks: readonly number[];
  /** The program and its arguments that make a standby. */
  command: readonly [string, ...string[]];
  /** Of this chain of processes, in milliseconds of the wall clock. */
  takeovers: readonly number[];
  /** The text of the configuration that this process goes by. */
  config: string;
}

export class StandbyKeeper {
  private child: ChildProcess | null = null;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;
  private isReady = false;
  private residentKib: number | null = null;
  private started = 0;
  private failures = 0;
  private why: string | null = 'it starts';

  constructor(private readonly options: StandbyKeeperOptions) {}

  /** Starts a standby after so long. */
  start(afterMs = 0): void {
    if (this.stopped || this.child !== null) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.startNow(), afterMs);
    this.timer.unref();
  }

  status(): StandbyReport {
    const { takeovers } = this.options;
    const last = takeovers.at(-1);
    return {
      on: true,
      pid: this.child?.pid ?? null,
      ready: this.isReady,
      why: this.why,
      residentKib: this.residentKib,
      started: this.started,
      takeovers: takeovers.length,
      lastTakeover: last === undefined ? null : new Date(last).toISOString(),
    };
  }

  /** A database is open that was not before. */
  database(name: string): void {
    if (this.child !== null) this.options.host.tellStandby({ say: 'database', name });
  }

  /** This process ends, and nobody is to go on. */
  end(how: 'stop' | 'anew'): void {
    this.stopped = true;
    clearTimeout(this.timer);
    if (this.child === null) return;
    this.options.host.tellStandby({ say: how });
    this.options.host.setStandby(-1);
  }

  private startNow(): void {
    const { host, pair, locks, command } = this.options;
    const [ours, theirs] = pair();
    const { streams, listener } = host.heirloom();
    const [program, ...args] = command;
    const child = spawn(program, [...args, String(process.pid)], {
      // its order: STANDBY_FD
      stdio: ['ignore', 'inherit', 'inherit', 'pipe', theirs, streams, listener, ...locks],
    });
    closeSync(theirs);
    this.child = child;
    this.started++;
    let link: number | null = ours;
    const says = child.stdio[3] as Readable;
    child.on('error', (error) => this.options.log.log('warn', 'standby.start-failed', { why: error.message }));
    createInterface({ input: says }).on('line', (line) => {
      const said = this.understood(line);
      if (said === null) return;
      if (said.say === 'ready') return this.onReady(said.residentKib);
      if (link === null || this.stopped) return;
      host.setStandby(link);
      link = null;
      this.tell();
    });
    child.once('close', (status, signalName) => {
      if (link !== null) closeSync(link);
      this.onEnd(signalName ?? status ?? 1);
    });
    // it does not keep this process from ending
    child.unref();
    (says as unknown as { unref(): void }).unref();
  }

  /** A standby that was killed may have said half a line; that must not end us. */
  private understood(line: string): StandbySays | null {
    try {
      return JSON.parse(line) as StandbySays;
    } catch {
      this.options.log.log('warn', 'standby.unreadable', { line, remedy: 'another standby starts when this one ends' });
      return null;
    }
  }

  private tell(): void {
    const { host, locks, takeovers, config } = this.options;
    const { databases } = host.heirloom();
    host.tellStandby({ say: 'told', databases, locks: locks.length, takeovers: [...takeovers], config });
  }

  private onReady(residentKib: number): void {
    this.isReady = true;
    this.why = null;
    this.failures = 0;
    this.residentKib = residentKib;
    this.options.log.log('info', 'standby.ready', { process: this.child?.pid, residentKib });
  }

  private onEnd(how: string | number): void {
    const wasReady = this.isReady;
    this.child = null;
    this.isReady = false;
    if (this.stopped) return;
    this.options.host.setStandby(-1);
    if (!wasReady) this.failures++;
    this.why = `the last one ended (${how})`;
    const fields = { how, wasReady, remedy: 'another one starts; until it is ready a crash would end the smbds here' };
    this.options.log.log('warn', 'standby.ended', fields);
    if (this.failures >= FAILURES_MAX) {
      this.why = `${FAILURES_MAX} in a row ended before they were ready: see the log`;
      const remedy = 'see why it cannot start, then restart smbpoold, or write "standby: off" to go without';
      this.options.log.log('error', 'standby.given-up', { failures: this.failures, remedy });
      return;
    }
    this.start(AGAIN_MS);
  }
}
