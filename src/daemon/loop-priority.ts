/**
 * Real-time priority for the daemon's loop, where the configuration wants it and the system allows it; gives it back
 * some time after the guard of the addon took it away (docs/decisions/real-time.md). Made by the daemon before the
 * host, so that the thread of the persistent databases, which the loop never waits for, has ordinary priority.
 */
import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { codeOf, messageOf } from '../host/errors.js';
import type { NativeRealtime } from '../host/native.js';
import type { Log } from '../ports/log.js';
import type { RealtimeReport } from '../ports/status.js';
import { CAP_SYS_NICE, hasCapability } from './machine.js';

/** Well within the 10 s for which the guard lets a loop go on that never rests. */
const LOOK_INTERVAL_MS = 1_000;
/** Long enough that a loop which runs away again and again leaves the machine nine tenths of its time. */
const QUIET_MS = 5_000;

/** What the process and its system are; a test gives its own. */
export interface PrioritySystem {
  native: NativeRealtime;
  /** The threads of this process that the loop waits for. */
  helpers(): Promise<number[]>;
  /** The text of /proc/self/status. */
  processStatus(): string;
  /** Milliseconds that never go back. */
  now(): number;
}

export function thisProcess(native: NativeRealtime): PrioritySystem {
  return {
    native,
    // asked of libuv's pool, whose threads exist from then on: all threads but those that are made later
    helpers: async () => (await readdir('/proc/self/task')).map(Number),
    processStatus: () => readFileSync('/proc/self/status', 'utf8'),
    now: () => performance.now(),
  };
}

export class LoopPriority {
  private why: string | null = null;
  private lost = 0;
  private lostAt = 0;
  private timer: NodeJS.Timeout | undefined;

  private constructor(
    private readonly system: PrioritySystem,
    private readonly log: Log,
    private readonly helpers: readonly number[],
  ) {}

  /** Never fails: without real-time priority everything works, only less surely on a busy machine. */
  static async start(wanted: boolean, system: PrioritySystem, log: Log): Promise<LoopPriority> {
    const priority = new LoopPriority(system, log, wanted ? await system.helpers() : []);
    if (!wanted) priority.why = 'the configuration says "realtime: false"';
    else if (priority.take()) {
      priority.timer = setInterval(() => priority.look(), LOOK_INTERVAL_MS);
      priority.timer.unref();
    }
    return priority;
  }

  status(): RealtimeReport {
    return { on: this.why === null, why: this.why, lost: this.lost };
  }

  stop(): void {
    clearInterval(this.timer);
    if (this.why === null) this.system.native.realtimeStop();
  }

  /** Tells the guard that the loop comes round, and asks what it did. */
  look(): void {
    const { demotions, stuckMicros } = this.system.native.realtimeLook();
    if (demotions > this.lost) {
      this.lost = demotions;
      this.lostAt = this.system.now();
      const stuckMs = Math.round(stuckMicros / 1000);
      this.why = `the loop ran without rest: it gets it back after ${QUIET_MS / 1000} s`;
      this.log.log('warn', 'the loop lost its real-time priority', {
        stuckMs,
        remedy: 'a loop that does not come round, or never rests, must not take the whole machine; if it happens ' +
          'again, please report it with the lines before',
      });
    } else if (this.why !== null && this.system.now() - this.lostAt >= QUIET_MS && this.take()) {
      this.log.log('info', 'the loop has real-time priority again');
    }
  }

  private take(): boolean {
    try {
      this.system.native.realtimeStart(this.helpers);
      this.why = null;
      return true;
    } catch (error) {
      this.why = messageOf(error);
      clearInterval(this.timer);
      this.log.log('warn', 'the loop has no real-time priority: on a busy machine this server may lose its lease', {
        cause: messageOf(error),
        remedy: this.remedy(error),
      });
      return false;
    }
  }

  private remedy(error: unknown): string {
    const without = 'or write "realtime: false" to go without and not be warned';
    if (codeOf(error) === 'ERANGE') return `take LimitRTTIME out of the service's unit, ${without}`;
    if (codeOf(error) !== 'EPERM') return `see sched(7), ${without}`;
    if (hasCapability(this.system.processStatus(), CAP_SYS_NICE)) {
      return `this control group has no real-time budget: give it one (cpu.rt_runtime_us), ${without}`;
    }
    return 'start smbpoold by its systemd unit, which has LimitRTPRIO=2, or give it CAP_SYS_NICE (docker run ' +
      `--cap-add SYS_NICE), ${without}`;
  }
}
