/**
 * Which servers of a chaos run are hurt, and since when all is well: whoever waits for a server must know whether that
 * is a fault's doing. Times are seconds of the machine-wide clock.
 */

/** The clock of the SMB clients' answers. */
export function machineSeconds(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

export class Outages {
  private readonly hurtBy: number[];
  private readonly wellSince: number[];
  private poolWellSince = 0;

  constructor(private readonly servers: number) {
    this.hurtBy = Array.from({ length: servers }, () => 0);
    this.wellSince = Array.from({ length: servers }, () => machineSeconds());
  }

  /** Something hurts the server from now on; several things may at a time. */
  begin(server: number): void {
    this.hurtBy[server] = (this.hurtBy[server] ?? 0) + 1;
    this.touch();
  }

  /** It does not any more. */
  end(server: number): void {
    this.hurtBy[server] = (this.hurtBy[server] ?? 0) - 1;
    this.wellSince[server] = machineSeconds();
    this.touch();
  }

  isHurt(server: number): boolean {
    return (this.hurtBy[server] ?? 0) > 0;
  }

  hurt(): number[] {
    return Array.from({ length: this.servers }, (_, id) => id).filter((id) => this.isHurt(id));
  }

  private isQuorate(): boolean {
    return this.hurt().length * 2 < this.servers;
  }

  private touch(): void {
    if (!this.isQuorate()) this.poolWellSince = Infinity;
    else if (this.poolWellSince === Infinity) this.poolWellSince = machineSeconds();
  }

  /** For how long, in seconds, this server has been well in a pool with a majority; 0 when it is not. */
  wellFor(server: number): number {
    if (this.isHurt(server)) return 0;
    return Math.max(0, machineSeconds() - Math.max(this.wellSince[server] ?? 0, this.poolWellSince));
  }
}
