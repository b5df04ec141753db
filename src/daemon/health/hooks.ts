/**
 * The administrator's hooks (docs/decisions/health.md): check hooks are checks like our own, found anew all the time;
 * event hooks are told what happens, one event after the other. Made by health.ts.
 */
import { messageOf } from '../../host/errors.js';
import type { HookEvent } from '../../core/effects.js';
import type { Log } from '../../ports/log.js';
import type { HookFile, Running } from './hook-program.js';
import { listHooks, runHook } from './hook-program.js';
import type { Check, CheckTimes } from './watch.js';
import { Watch } from './watch.js';

export interface HookOptions {
  directory: string;
  times: CheckTimes;
  /** In the environment of each. */
  variables: Record<string, string>;
}

/** Events that wait behind a slow hook; a pool has some in an hour. */
const EVENTS_WAITING_MAX = 100;

class HookCheck implements Check {
  readonly name: string;
  private running: Running | null = null;

  constructor(
    private readonly file: HookFile,
    private readonly variables: Record<string, string>,
  ) {
    this.name = `hook ${file.name}`;
  }

  async run(): Promise<string | null> {
    this.running = runHook(this.file.path, ['check'], this.variables);
    const why = await this.running.outcome;
    this.running = null;
    return why === null ? null : `${this.file.name}: ${why}`;
  }

  late(seconds: number): string {
    return `${this.file.name} did not end within ${seconds} s`;
  }

  abandon(): void {
    this.running?.kill();
  }
}

export class Hooks {
  private readonly watches = new Map<string, Watch>();
  private readonly events: { event: HookEvent; fields: Record<string, string> }[] = [];
  private running: Running | null = null;
  private telling: Promise<void> | null = null;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    private readonly options: HookOptions,
    private readonly log: Log,
    private readonly changed: (name: string, reason: string | null) => void,
  ) {}

  start(): void {
    void this.look();
  }

  /** Hooks under way are ended. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    for (const watch of this.watches.values()) watch.stop();
    this.running?.kill();
  }

  tell(event: HookEvent, fields: Record<string, string>): void {
    if (this.stopped) return;
    if (this.events.length >= EVENTS_WAITING_MAX) {
      const remedy = 'see which event hook is so slow; this event is told to none';
      this.log.log('warn', 'hook.event-dropped', { event, waiting: this.events.length, remedy });
      return;
    }
    this.events.push({ event, fields });
    this.telling ??= this.tellAll().finally(() => (this.telling = null));
  }

  /** Begins to watch check hooks that are new, and ends it for those that are gone. */
  private async look(): Promise<void> {
    const checks = (await this.list()).filter(({ kind }) => kind === 'check');
    if (this.stopped) return;
    for (const [path, watch] of this.watches) {
      if (checks.some((file) => file.path === path)) continue;
      watch.stop();
      this.watches.delete(path);
      this.changed(`hook ${path.slice(path.lastIndexOf('/') + 1)}`, null);
    }
    for (const file of checks) {
      if (this.watches.has(file.path)) continue;
      const check = new HookCheck(file, this.options.variables);
      this.watches.set(file.path, new Watch(check, this.options.times, this.changed));
    }
    this.timer = setTimeout(() => void this.look(), this.options.times.intervalMs);
    this.timer.unref();
  }

  private async list(): Promise<HookFile[]> {
    const { hooks, refused } = await listHooks(this.options.directory, process.getuid?.() ?? 0);
    for (const refusal of refused) this.log.log('warn', 'hook.refused', { ...refusal });
    return hooks;
  }

  private async tellAll(): Promise<void> {
    for (let next = this.events.shift(); next !== undefined && !this.stopped; next = this.events.shift()) {
      for (const file of (await this.list()).filter(({ kind }) => kind === 'event')) {
        if (this.stopped) return;
        const why = await this.tellOne(file, next.event, next.fields).catch(messageOf);
        const remedy = 'the pool goes on; see why this program of yours failed';
        if (why !== null) this.log.log('warn', 'hook.failed', { hook: file.name, event: next.event, why, remedy });
      }
    }
  }

  private async tellOne(file: HookFile, event: HookEvent, fields: Record<string, string>): Promise<string | null> {
    const { times, variables } = this.options;
    const own = Object.entries(fields).map(([name, value]) => [`SMBPOOL_${name.toUpperCase()}`, value] as const);
    const running = runHook(file.path, [event], { ...variables, SMBPOOL_EVENT: event, ...Object.fromEntries(own) });
    this.running = running;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      running.kill();
    }, times.timeoutMs);
    timer.unref();
    const why = await running.outcome;
    clearTimeout(timer);
    this.running = null;
    return isLate ? `it did not end within ${times.timeoutMs / 1000} s and was ended` : why;
  }
}
