/**
 * Smbpool's own commands, run against a server of the lab as an administrator runs them there: for the demo and the
 * tests. They reach a daemon by its admin socket, so they run outside the server's namespace.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LabError } from './errors.js';
import type { Lab } from './lab.js';
import type { ServerPlace } from './layout.js';
import { run, waitUntil } from './run.js';
import type { SmbClient } from './smb-client.js';

const COMMAND_MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url));
/** Starting the command and telling all servers that somebody reads takes half a second on a busy machine. */
const RECORDING_MILLIS_MAX = 20_000;
/** A trace is told batch by batch; what was reported before the end is there after this. */
const EVENTS_LATE_MILLIS = 500;
/** Opened until the recording shows it: then events of that server reach the reader. */
const SENTINEL = 'trace-begins.txt';

/** Runs `smbpool ARGS` for the server and returns what it printed. Throws LabError when it fails. */
export function smbpool(place: ServerPlace, ...args: string[]): Promise<string> {
  return run(process.execPath, [COMMAND_MAIN, ...args, '--socket', place.adminSocket]);
}

/** What the lab reads of an event; src/wire/locks.ts has the whole. */
export interface RecordedEvent {
  server: number;
  pid: number;
  kind: string;
  path: string;
  user: string;
  client: string;
  tookMicros: number | null;
  status: string;
  detail: string;
}

/** `smbpool trace --write FILE` at work. */
export class Recording {
  private constructor(
    private readonly place: ServerPlace,
    private readonly file: string,
    private readonly child: ChildProcess,
  ) {}

  /** Starts at `place`, and waits until it sees what the given clients do, on whatever servers they are. */
  static async start(lab: Lab, place: ServerPlace, clients: readonly SmbClient[]): Promise<Recording> {
    const file = join(lab.layout.root, 'demo.trace');
    rmSync(file, { force: true });
    const args = [COMMAND_MAIN, 'trace', '--write', file, '--socket', place.adminSocket];
    const child = spawn(process.execPath, args, { detached: true, stdio: 'ignore' });
    const recording = new Recording(place, file, child);
    const seesAll = async (): Promise<boolean> => {
      for (const client of clients) await client.closeHandle((await client.mustOpen(SENTINEL)).handle);
      const pids = recording.events().filter(({ path, kind }) => path === SENTINEL && kind === 'close');
      return new Set(pids.map(({ server, pid }) => `${server}:${pid}`)).size === clients.length;
    };
    if (await waitUntil(seesAll, RECORDING_MILLIS_MAX, 100)) return recording;
    child.kill('SIGKILL');
    throw new LabError(`smbpool trace at ${place.name} does not show what happens on all servers`);
  }

  events(): RecordedEvent[] {
    if (!existsSync(this.file)) return [];
    // the first line tells the format; the last may be half written
    const lines = readFileSync(this.file, 'utf8').split('\n').slice(1, -1);
    return lines.map((line) => JSON.parse(line) as RecordedEvent);
  }

  /** Ends the recording. */
  async stop(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, EVENTS_LATE_MILLIS));
    const gone = this.child.exitCode !== null || this.child.signalCode !== null;
    if (gone) throw new LabError('smbpool trace ended by itself');
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGINT');
    await ended;
  }

  /** The recorded events of one file, as `smbpool trace --read` shows them. */
  async text(path: string): Promise<string> {
    return run(process.execPath, [COMMAND_MAIN, 'trace', '--read', this.file, path]);
  }
}
