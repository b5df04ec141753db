/**
 * Runs one check again and again and judges its outcomes: some failures in a row make it fail, some passes in a row
 * make it pass again, whatever was before. A check never runs twice at once, however long it hangs. Used by health.ts
 * and hooks.ts.
 */
import { messageOf } from '../../host/errors.js';

/** How often, how long, and how sure: from the configuration. */
export interface CheckTimes {
  intervalMs: number;
  timeoutMs: number;
  /** So many in a row change the verdict. */
  failures: number;
  passes: number;
}

export interface Check {
  /** Names it among all checks of this server. */
  readonly name: string;
  /** null: passed; else why not, a sentence for people. Rejects likewise. */
  run(): Promise<string | null>;
  /** The sentence for a run that did not end within the time. */
  late(seconds: number): string;
  /** The run did not end in time: what can be ended is ended. It may hang on all the same. */
  abandon?(): void;
  /** No run will follow. */
  stop?(): void;
}

/** A check whose outcome is not what the verdict says is done again after this time, not after a whole interval. */
const SUSPICION_MS = 1_000;

/** Outcomes in a row. Pure. */
export class Verdict {
  /** Why it fails; null: it passes. Of the failure that made it so: a text that changes all the time is no news. */
  reason: string | null = null;
  private inRow = 0;

  constructor(private readonly times: Pick<CheckTimes, 'failures' | 'passes'>) {}

  /** Returns whether the verdict changed. */
  take(outcome: string | null): boolean {
    const agrees = (outcome === null) === (this.reason === null);
    this.inRow = agrees ? 0 : this.inRow + 1;
    if (agrees || this.inRow < (outcome === null ? this.times.passes : this.times.failures)) return false;
    this.reason = outcome;
    this.inRow = 0;
    return true;
  }

  /** The last outcome was another than the verdict says. */
  get isDoubted(): boolean {
    return this.inRow > 0;
  }
}

export class Watch {
  private readonly verdict: Verdict;
  /** The run that has not ended. */
  private underWay: Promise<string | null> | null = null;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    private readonly check: Check,
    private readonly times: CheckTimes,
    /** The verdict changed: why the check fails, or null. */
    private readonly changed: (name: string, reason: string | null) => void,
  ) {
    this.after(Math.min(times.intervalMs, SUSPICION_MS));
    this.verdict = new Verdict(times);
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.check.abandon?.();
    this.check.stop?.();
  }

  private after(ms: number): void {
    this.timer = setTimeout(() => void this.round(), ms);
    this.timer.unref();
  }

  private async round(): Promise<void> {
    const outcome = await this.outcome();
    if (this.stopped) return;
    if (this.verdict.take(outcome)) this.changed(this.check.name, this.verdict.reason);
    const { intervalMs } = this.times;
    this.after(this.verdict.isDoubted ? Math.min(intervalMs, SUSPICION_MS) : intervalMs);
  }

  /** Of a new run, or of an earlier one that has not ended yet. */
  private async outcome(): Promise<string | null> {
    const { timeoutMs } = this.times;
    this.underWay ??= this.check.run().catch(messageOf).finally(() => (this.underWay = null));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), timeoutMs);
      timer.unref();
    });
    const first = await Promise.race([this.underWay.then((outcome) => ({ outcome })), late]);
    clearTimeout(timer);
    if (first !== 'late') return first.outcome;
    this.check.abandon?.();
    return this.check.late(timeoutMs / 1000);
  }
}
