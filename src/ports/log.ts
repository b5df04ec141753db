/**
 * Where the host writes what people should know. The daemon brings one over pino; tests bring their own. Never throws.
 */
import type { LogLevel } from '../core/effects.js';

export interface Log {
  /** `event` is a fixed name; what varies is in `fields`. */
  log(level: LogLevel, event: string, fields?: Record<string, unknown>): void;
}
