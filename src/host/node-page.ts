/**
 * What the host writes into the node page (docs/shared-memory.md): that the loop runs, the core's counters, and what
 * went wrong. It is read when the daemon does not answer. Made by PoolHost; decides nothing.
 */
import type { LogLevel } from '../core/effects.js';
import type { Log } from '../ports/log.js';
import { CORE_COUNTER_NAMES } from '../wire/node-page.js';

/** Twice a second: soon enough to tell a hang from a busy moment, and the counters are no older than that. */
const HEARTBEAT_INTERVAL_MS = 500;
/** Codes of the errors in the page. */
const PAGE_CODE: Partial<Record<LogLevel, number>> = { error: 1, warn: 2 };
/** What tells two errors of one event apart. Numbers that vary are left out: the page has room for 64 errors. */
const CAUSE_FIELDS = ['peer', 'database', 'reason', 'why'] as const;

export interface PageTarget {
  beat(counters: Float64Array): void;
  recordError(code: number, text: string, realtimeMicros: number): void;
}

export class NodePageWriter {
  private readonly counters = new Float64Array(CORE_COUNTER_NAMES.length);
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    private readonly target: PageTarget,
    private readonly counter: (name: string) => number,
  ) {}

  /** The loop runs from now on. */
  start(): void {
    this.beat();
    this.timer = setInterval(() => this.beat(), HEARTBEAT_INTERVAL_MS);
    this.timer.unref();
  }

  /** Before the target closes. */
  stop(): void {
    this.stopped = true;
    clearInterval(this.timer);
  }

  /** A log whose errors and warnings are in the page, too. */
  logging(log: Log): Log {
    return {
      log: (level, event, fields) => {
        const code = PAGE_CODE[level];
        const isError = code !== undefined && !this.stopped;
        if (isError) this.target.recordError(code, textOf(event, fields), Date.now() * 1000);
        log.log(level, event, fields);
      },
    };
  }

  private beat(): void {
    CORE_COUNTER_NAMES.forEach((name, index) => (this.counters[index] = this.counter(name)));
    this.target.beat(this.counters);
  }
}

function textOf(event: string, fields: Record<string, unknown> = {}): string {
  const causes = CAUSE_FIELDS.filter((name) => ['string', 'number'].includes(typeof fields[name]));
  return [event, ...causes.map((name) => `${name} ${String(fields[name])}`)].join(', ');
}
