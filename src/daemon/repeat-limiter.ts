/**
 * Says a warning once per cause and counts the rest, so that a broken peer or client cannot fill the disk with one
 * sentence. Used by log.ts; knows no logger and no clock.
 */

/** Distinct causes remembered; the longest-known is forgotten first, and is then said again when it comes back. */
export const CAUSES_MAX = 1024;

/** What makes two warnings the same one: the event and these fields, where present. Numbers that vary are no cause. */
const CAUSE_FIELDS = ['peer', 'client', 'pid', 'database', 'reason', 'why', 'cause', 'operation', 'opcode'] as const;

interface Cause {
  event: string;
  fields: Record<string, unknown>;
  /** Held back since the last summary. */
  held: number;
}

export interface Repeated {
  event: string;
  fields: Record<string, unknown>;
  count: number;
}

export class RepeatLimiter {
  private readonly causes = new Map<string, Cause>();

  /** Whether to say it now; otherwise it is counted for the next summary. */
  admit(event: string, fields: Record<string, unknown>): boolean {
    const named = CAUSE_FIELDS.filter((name) => name in fields).map((name) => [name, fields[name]] as const);
    const key = JSON.stringify([event, named]);
    const known = this.causes.get(key);
    if (known !== undefined) {
      known.held++;
      return false;
    }
    if (this.causes.size >= CAUSES_MAX) {
      const [oldest] = this.causes.keys();
      if (oldest !== undefined) this.causes.delete(oldest);
    }
    this.causes.set(key, { event, fields: Object.fromEntries(named), held: 0 });
    return true;
  }

  /**
   * What was held back since the last call. A cause that was quiet since then is forgotten, and said when it returns.
   */
  summary(): Repeated[] {
    const repeated: Repeated[] = [];
    for (const [key, cause] of this.causes) {
      if (cause.held === 0) this.causes.delete(key);
      else repeated.push({ event: cause.event, fields: cause.fields, count: cause.held });
      cause.held = 0;
    }
    return repeated;
  }
}
