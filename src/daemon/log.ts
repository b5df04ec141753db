/**
 * The daemon's log: pino, one JSON object a line, readable text on a terminal. A warning or error is said once per
 * cause and then counted (repeat-limiter.ts). Made by main and handed to the host as its Log port; never throws.
 */
import { pino } from 'pino';
import type { DestinationStream, Logger } from 'pino';
import pretty from 'pino-pretty';
import type { LogLevel } from '../core/effects.js';
import { StartError } from './errors.js';
import { RepeatLimiter } from './repeat-limiter.js';

/** How often held-back warnings are summed up: soon enough to see that a fault goes on. */
const SUMMARY_INTERVAL_MS = 60_000;

export interface LogOptions {
  level: LogLevel;
  /** Standard output when absent. */
  file?: string | undefined;
  /** In every line. */
  server: string;
}

/** A destination that can be opened again under its name after log rotation. */
type Destination = DestinationStream & { reopen?(): void; flushSync?(): void };

export class DaemonLog {
  private readonly limiter = new RepeatLimiter();
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly logger: Logger,
    private readonly destination: Destination,
  ) {
    this.timer = setInterval(() => this.summarize(), SUMMARY_INTERVAL_MS);
    this.timer.unref();
  }

  /** `event` is a fixed phrase or name; what varies is in `fields`. */
  log(level: LogLevel, event: string, fields: Record<string, unknown> = {}): void {
    const limited = level === 'warn' || level === 'error';
    if (limited && !this.limiter.admit(event, fields)) return;
    this.logger[level](fields, event);
  }

  /** After the file was moved away: go on in a new one under its name. */
  reopen(): void {
    this.destination.reopen?.();
  }

  /** Says what was held back and writes everything out. */
  close(): void {
    clearInterval(this.timer);
    this.summarize();
    this.destination.flushSync?.();
  }

  private summarize(): void {
    for (const { event, fields, count } of this.limiter.summary()) {
      this.logger.warn({ ...fields, repeated: event, count }, 'said before, happened again');
    }
  }
}

/** @throws StartError when the file cannot be written. */
export function openLog(options: LogOptions): DaemonLog {
  const destination = openDestination(options.file);
  const logger = pino(
    {
      level: options.level,
      base: { server: options.server },
      timestamp: pino.stdTimeFunctions.isoTime,
      // numbers mean nothing to people who read the log with grep
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    destination,
  );
  return new DaemonLog(logger, destination);
}

function openDestination(file: string | undefined): Destination {
  // written at once, not later from a buffer: the last lines before a crash are the ones that explain it
  if (file === undefined) {
    if (process.stdout.isTTY) return pretty({ sync: true, translateTime: 'SYS:HH:MM:ss.l', ignore: 'server' });
    return pino.destination({ dest: 1, sync: true });
  }
  try {
    return pino.destination({ dest: file, sync: true, append: true, mkdir: false });
  } catch (error) {
    throw new StartError(`the log file ${file} cannot be written: ${(error as Error).message}`, { cause: error });
  }
}
