/**
 * Watches from outside whether clients that watch folders are told: a change that is begun after a watch was answered
 * is told to that watch, through whatever server it is made.
 */

interface Watch {
  smbd: string;
  folder: string;
  /** Answered while all servers could be reached: it must count at once. */
  isStrict: boolean;
}

export class WatchChecker {
  readonly totals = { watches: 0, changes: 0, told: 0, twice: 0 };
  private readonly watches = new Map<number, Watch>();
  /** By "watch/change": what is still to be told, and through which server it was changed. */
  private readonly owed = new Map<string, { watch: number; change: number; through: number }>();
  private readonly settled = new Set<string>();

  constructor(private readonly report: (rule: string, text: string) => void) {}

  /** smbd takes its client's next request. */
  answered(watch: number, smbd: string, folder: string, isStrict: boolean): void {
    this.totals.watches++;
    this.watches.set(watch, { smbd, folder, isStrict });
  }

  /** `all`: late watches must be told, too. */
  changed(change: number, folder: string, through: number, all: boolean): void {
    this.totals.changes++;
    for (const [watch, { folder: watched, isStrict }] of this.watches) {
      if (watched === folder && (isStrict || all)) this.owed.set(`${watch}/${change}`, { watch, change, through });
    }
  }

  told(watch: number, change: number): void {
    const key = `${watch}/${change}`;
    if (this.settled.has(key)) this.totals.twice++;
    this.settled.add(key);
    if (this.owed.delete(key)) this.totals.told++;
  }

  ended(watch: number): void {
    this.watches.delete(watch);
    for (const [key, owed] of this.owed) if (owed.watch === watch) this.owed.delete(key);
  }

  died(smbd: string): void {
    for (const [watch, { smbd: of }] of this.watches) if (of === smbd) this.ended(watch);
  }

  /** Its notifyd may have died before it told anybody, or its daemon, and what is told to others goes through that. */
  serverDied(server: number): void {
    for (const [key, { through }] of this.owed) if (through === server) this.owed.delete(key);
  }

  /** All messages had the time to arrive. */
  finish(): void {
    for (const { watch, change, through } of this.owed.values()) {
      const { smbd, folder } = this.watches.get(watch) ?? { smbd: 'nobody', folder: '' };
      this.report('watchers-are-told', `${smbd}, watch ${watch} of ${folder}: change ${change} through ${through}`);
    }
  }
}
