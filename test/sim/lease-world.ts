/** What the clients that cache under leases have in common: the file system, and who lives. */
import type { RecordKey } from '../../src/base/ids.js';
import type { LeaseChecker } from './lease-checker.js';
import type { SimulatedSmbd } from './smbd.js';

/** The clock of the file system stands still for so long: the kernel's does for 4 ms. */
const TICK_MICROS = 4_000;

/** What fstat tells of a file. */
export interface Look {
  /** The tick of its last change; the size is always the same. */
  changed: number;
  /** Any change from now on shows in `changed`. */
  shows: boolean;
}

export class LeaseWorld {
  private readonly versions = new Map<RecordKey, number>();
  private readonly changes = new Map<RecordKey, number>();
  /** Those that live, by name. */
  readonly smbds = new Map<string, SimulatedSmbd>();

  constructor(
    private readonly now: () => number,
    readonly checker: LeaseChecker,
    /** smbd as it is without our module. */
    readonly stock: { looksOnce: boolean; tellsOnce: boolean; losesBreaks: boolean; trustsTicks: boolean },
  ) {}

  version(file: RecordKey): number {
    return this.versions.get(file) ?? 0;
  }

  /** Somebody wrote; the version that the file has now. */
  write(file: RecordKey): number {
    const version = this.version(file) + 1;
    this.versions.set(file, version);
    this.changes.set(file, tickOf(this.now()));
    return version;
  }

  look(file: RecordKey): Look {
    const changed = this.changes.get(file) ?? -1;
    return { changed, shows: this.stock.trustsTicks || tickOf(this.now()) > changed };
  }

  died(smbd: SimulatedSmbd): void {
    this.smbds.delete(smbd.name);
    this.checker.died(smbd.name);
  }
}

function tickOf(micros: number): number {
  return Math.floor(micros / TICK_MICROS);
}
