/** Whether there is room in the daemon's directories, and whether its loop comes round in time. */
import { statfs } from 'node:fs/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Check } from './watch.js';

const MIB = 1024 * 1024;

export class SpaceCheck implements Check {
  readonly name: string;

  constructor(
    private readonly directory: string,
    private readonly mibMin: number,
  ) {
    this.name = `space ${directory}`;
  }

  async run(): Promise<string | null> {
    const { bavail, bsize } = await statfs(this.directory);
    const free = (bavail * bsize) / MIB;
    if (free >= this.mibMin) return null;
    return `${this.directory} has ${Math.floor(free)} MiB left, less than the ${this.mibMin} MiB it should have`;
  }

  late(seconds: number): string {
    return `the file system of ${this.directory} does not answer within ${seconds} s`;
  }
}

/** Wakes the loop so often; a delay below it is not seen. */
const RESOLUTION_MS = 100;
const NANOS_PER_MS = 1e6;

export class LoopCheck implements Check {
  readonly name = 'loop';
  private readonly delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  constructor(private readonly delayMsMax: number) {
    this.delays.enable();
  }

  /** Looks at what was since the last run. */
  run(): Promise<string | null> {
    const delayMs = Math.round(this.delays.max / NANOS_PER_MS) - RESOLUTION_MS;
    this.delays.reset();
    if (delayMs <= this.delayMsMax) return Promise.resolve(null);
    const why = `smbpoold's loop stood still for ${delayMs} ms, longer than ${this.delayMsMax} ms`;
    return Promise.resolve(`${why}: the machine is too busy, or stopped the process`);
  }

  late(seconds: number): string {
    return `smbpoold's loop was not measured within ${seconds} s`;
  }

  stop(): void {
    this.delays.disable();
  }
}
