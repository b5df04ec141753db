/**
 * Drives native/test/ring_probe: an smbd's end of the ring, obeying lines. Compiles it when its sources changed, with
 * the compiler that set-up installs. Used by the tests of the ring.
 */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { eventually } from './native-helpers.js';
import { repositoryRoot } from './repository.js';

const SHARED = 'native/shared';
const SOURCES = {
  ring_probe: ['native/test/ring_probe.c', 'samba-module/client/ring_client.c'],
  ring_samples: ['native/test/ring_samples.c'],
};

/** Answers the program's path. */
async function compiled(name: keyof typeof SOURCES): Promise<string> {
  const root = repositoryRoot();
  const directory = join(root, 'dist/native-test');
  const program = join(directory, name);
  const headers = readdirSync(join(root, SHARED)).map((name) => join(SHARED, name));
  const changed = [...SOURCES[name], ...headers].map((file) => statSync(join(root, file)).mtimeMs);
  const made = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (made > Math.max(...changed)) return program;
  mkdirSync(directory, { recursive: true });
  // test files run at the same time
  const own = `${program}.${process.pid}`;
  const options = ['-std=gnu11', '-O1', '-g', '-Wall', '-Wextra', '-Werror', `-I${SHARED}`];
  await promisify(execFile)('gcc', [...options, '-o', own, ...SOURCES[name]], { cwd: root });
  renameSync(own, program);
  return program;
}

/** One message of each kind, as C lays it out (native/test/ring_samples.c): by name, operation and bytes. */
export async function ringSamples(): Promise<Map<string, { op: number; hex: string }>> {
  const { stdout } = await promisify(execFile)(await compiled('ring_samples'));
  const lines = stdout.split('\n').filter((line) => line !== '');
  return new Map(lines.map((line) => {
    const [name, op, hex] = line.split(' ');
    return [name!, { op: Number(op), hex: hex! }];
  }));
}

export class RingProbe {
  /** What it said, oldest first. */
  readonly lines: string[] = [];
  /** It and its pipes are gone. */
  ended = false;

  private constructor(private readonly child: ChildProcess) {
    createInterface({ input: child.stdout! }).on('line', (line) => this.lines.push(line));
    child.on('close', () => (this.ended = true));
    // it may have been killed while we write
    child.stdin!.on('error', () => undefined);
  }

  static async start(t: TestContext, socketPath: string, ...options: string[]): Promise<RingProbe> {
    const program = await compiled('ring_probe');
    const child = spawn(program, [socketPath, ...options], { stdio: ['pipe', 'pipe', 'inherit'], detached: true });
    const probe = new RingProbe(child);
    t.after(() => probe.kill());
    return probe;
  }

  /** Starts one and waits until it is attached. */
  static async attached(t: TestContext, socketPath: string): Promise<RingProbe> {
    const probe = await RingProbe.start(t, socketPath);
    await probe.says(/^up /);
    return probe;
  }

  get pid(): number {
    return this.child.pid!;
  }

  tell(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  /** Waits for a line that matches; it and all before are taken out of `lines`. */
  async says(pattern: RegExp): Promise<string> {
    let at = -1;
    await eventually(`the probe says ${String(pattern)}; it said ${this.lines.join(', ')}`, () => {
      at = this.lines.findIndex((line) => pattern.test(line));
      return at >= 0;
    });
    return this.lines.splice(0, at + 1).at(-1)!;
  }

  /** As `says` what answers `line`. */
  async asks(line: string, pattern: RegExp): Promise<string> {
    this.tell(line);
    return this.says(pattern);
  }

  /** SIGKILL, to it and those it made. */
  kill(): void {
    try {
      process.kill(-this.pid, 'SIGKILL');
    } catch {
      // it ended by itself
    }
  }
}
