/** What the clients that cache under leases have in common: the file system, and who lives. */
import type { RecordKey } from '../../src/base/ids.js';
import type { LeaseChecker } from './lease-checker.js';
import type { SimulatedSmbd } from './smbd.js';

export class LeaseWorld {
  readonly versions = new Map<RecordKey, number>();
  /** Those that live, by name. */
  readonly smbds = new Map<string, SimulatedSmbd>();

  constructor(
    readonly checker: LeaseChecker,
    /** smbd as it is without our module. */
    readonly stock: { looksOnce: boolean; tellsOnce: boolean; losesBreaks: boolean },
  ) {}

  version(file: RecordKey): number {
    return this.versions.get(file) ?? 0;
  }

  died(smbd: SimulatedSmbd): void {
    this.smbds.delete(smbd.name);
    this.checker.died(smbd.name);
  }
}
