/**
 * One SMB connection that holds handles, locks and oplocks: drives client/smb_client.py, one process per connection.
 * Used by the demo and the integration tests. Several requests may be under way at once.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { LabError } from './errors.js';
import { LAB_PASSWORD, LAB_USER, SHARE } from './layout.js';
import { repositoryFolder } from './repository.js';

/** Longer than smbd waits for the acknowledgement of an oplock break (35 s) before it goes on without. */
const ANSWER_MILLIS_MAX = 60_000;
/** Python and impacket start in half a second on an idle machine. */
const CONNECT_MILLIS_MAX = 30_000;

export interface Answer {
  /** "OK", or the name of the NTSTATUS without "NT_STATUS_". */
  status: string;
  /** Seconds on the machine-wide monotonic clock: when the request went out, when the answer came. */
  sent: number;
  at: number;
  handle?: number;
  /** What was granted. */
  oplock?: string;
  lease?: string;
  /** The lease is being broken, and the answer to that break was not there yet: what was granted is about to end. */
  leaseIsBreaking?: boolean;
  /** Of an open: the end of the file and its last write time (a FILETIME), as smbd told them. */
  size?: number;
  lastWrite?: string;
  /** The file's identity, the same on all servers. */
  fileId?: string;
  data?: string;
  /** Of a watched folder; empty when there were more than smbd tells one by one. */
  changes?: FolderChange[];
}

export interface FolderChange {
  action: 'added' | 'removed' | 'modified' | 'renamed from' | 'renamed to';
  /** Below the watched folder. */
  name: string;
}

export interface WatchRequest {
  /** Also what happens in the folders below. */
  recursive?: boolean;
  /** FILE_NOTIFY_CHANGE_*; names, attributes, sizes and write times unless told. */
  filter?: number;
  /** Give up after so long. */
  waitMs?: number;
}

export interface BreakEvent {
  at: number;
  /** null when the handle was closed meanwhile. */
  handle: number | null;
  to: string;
  from?: string;
  leaseKey?: string;
  acknowledge: boolean;
}

export interface OpenRequest {
  access?: ('read' | 'write' | 'delete')[];
  /** Letters of "rwd": what others may do meanwhile; '' denies all. */
  share?: string;
  disposition?: 'open' | 'create' | 'open_if' | 'overwrite' | 'overwrite_if';
  oplock?: 'none' | 'level2' | 'exclusive' | 'batch';
  /** Letters of "RWH". */
  lease?: string;
  /** 32 hexadecimal digits; clients use one for all handles of a file. Default: a new one. */
  leaseKey?: string;
  deleteOnClose?: boolean;
  folder?: boolean;
}

export interface LockRequest {
  offset: number;
  length: number;
  exclusive?: boolean;
  unlock?: boolean;
  /** Wait until the range is free instead of failing at once, but no longer than this. */
  waitMs?: number;
}

/** FILE_NOTIFY_CHANGE_FILE_NAME, _DIR_NAME, _ATTRIBUTES, _SIZE, _LAST_WRITE. */
const FILTER_DEFAULT = 0x1f;

type Line = Partial<Answer> & Partial<BreakEvent> & { id?: number; event?: string };

/** An open handle whose opening succeeded. */
export interface Opened extends Answer {
  handle: number;
}

export class SmbClient {
  private readonly waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
  private readonly breakWaiters: ((event: BreakEvent) => void)[] = [];
  private readonly breaks: BreakEvent[] = [];
  private nextId = 1;
  private lost: LabError | null = null;
  /** When the connection ended by itself, in seconds of the machine-wide clock; null while it has not. */
  lostAt: number | null = null;
  /** Called for every break, before nextBreak sees it. */
  onBreak: (event: BreakEvent) => void = () => undefined;

  private constructor(
    readonly address: string,
    private readonly child: ChildProcessWithoutNullStreams,
  ) {}

  /**
   * Connects and logs on; throws LabError with the status when that is refused. With `namespace` the client is inside
   * that network namespace: a client of a server whose link is down.
   */
  static async connect(
    address: string,
    user = LAB_USER,
    password = LAB_PASSWORD,
    share = SHARE,
    namespace?: string,
    giveUpMs = CONNECT_MILLIS_MAX,
  ): Promise<SmbClient> {
    const script = join(repositoryFolder(), 'src/lab/client/smb_client.py');
    const inside = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace];
    // Debian's python3 by its path: impacket is installed for that one
    const [command, ...args] = [...inside, '/usr/bin/python3', script, address, share, user, password];
    const child = spawn(command, args, { detached: true });
    const client = new SmbClient(address, child);
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)));
    child.stdin.on('error', () => undefined);
    await new Promise<void>((resolve, reject) => {
      const deadline = setTimeout(() => reject(new LabError(`${address}: no answer to the logon`)), giveUpMs);
      createInterface({ input: child.stdout }).on('line', (text) => {
        const line = JSON.parse(text) as Line;
        if (line.event === 'connected') {
          clearTimeout(deadline);
          resolve();
        } else {
          client.onLine(line, reject);
        }
      });
      child.on('error', reject);
      child.on('close', () => {
        clearTimeout(deadline);
        const error = client.lost ?? new LabError(`${address}: the connection ended ${said.trim()}`);
        client.fail(error);
        reject(error);
      });
    }).catch((error: unknown) => {
      client.close();
      throw error;
    });
    return client;
  }

  private onLine(line: Line, refuse: (error: Error) => void): void {
    if (line.event === 'break') {
      const event = line as BreakEvent;
      this.onBreak(event);
      const waiter = this.breakWaiters.shift();
      if (waiter) waiter(event);
      else this.breaks.push(event);
    } else if (line.event !== undefined) {
      this.lost = new LabError(`${this.address}: ${line.event}: ${line.status ?? ''}`);
      if (line.event === 'lost') this.lostAt = line.at ?? null;
      refuse(this.lost);
    } else if (line.id !== undefined) {
      const waiter = this.waiting.get(line.id);
      this.waiting.delete(line.id);
      waiter?.resolve(line as Answer);
    }
  }

  private fail(error: LabError): void {
    this.lost = error;
    for (const waiter of this.waiting.values()) waiter.reject(error);
    this.waiting.clear();
  }

  /**
   * Sends a request; the answer may take as long as smbd lets it wait, or `giveUpMs`: then the request is cancelled,
   * and answered CANCELLED unless its own answer was quicker.
   */
  request(op: string, fields: object, giveUpMs = Infinity): Promise<Answer> {
    if (this.lost) return Promise.reject(this.lost);
    const id = this.nextId++;
    const cancel = () => void this.child.stdin.write(`${JSON.stringify({ id: 0, op: 'cancel', request: id })}\n`);
    const giveUp = Number.isFinite(giveUpMs) ? setTimeout(cancel, giveUpMs) : undefined;
    return new Promise<Answer>((resolve, reject) => {
      const deadline = setTimeout(() => {
        this.waiting.delete(id);
        reject(new LabError(`${this.address}: no answer to ${op} ${JSON.stringify(fields)} for a minute`));
      }, ANSWER_MILLIS_MAX);
      const settle = <T>(done: (value: T) => void) => (value: T) => {
        clearTimeout(deadline);
        clearTimeout(giveUp);
        done(value);
      };
      this.waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
      this.child.stdin.write(`${JSON.stringify({ id, op, ...fields })}\n`);
    });
  }

  open(path: string, how: OpenRequest = {}): Promise<Answer> {
    return this.request('open', { path, ...how });
  }

  /** As open, but throws LabError unless it succeeded. */
  async mustOpen(path: string, how: OpenRequest = {}): Promise<Opened> {
    const answer = await this.open(path, how);
    if (answer.status !== 'OK' || answer.handle === undefined) {
      throw new LabError(`${this.address}: opening ${path} failed with ${answer.status}`);
    }
    return { ...answer, handle: answer.handle };
  }

  closeHandle(handle: number): Promise<Answer> {
    return this.request('close', { handle });
  }

  lock(handle: number, { waitMs, ...what }: LockRequest): Promise<Answer> {
    return this.request('lock', { handle, wait: waitMs !== undefined, ...what }, waitMs);
  }

  /** At most `length` bytes from the beginning; 64 KiB unless told. */
  read(handle: number, length?: number): Promise<Answer> {
    return this.request('read', { handle, length });
  }

  /** Sets the end of the file. */
  truncate(handle: number, size: number): Promise<Answer> {
    return this.request('truncate', { handle, size });
  }

  write(handle: number, data: string): Promise<Answer> {
    return this.request('write', { handle, data });
  }

  /** The next changes in an open folder; smbd keeps those that come between two calls. */
  watch(handle: number, { waitMs, ...what }: WatchRequest = {}): Promise<Answer> {
    return this.request('watch', { handle, filter: FILTER_DEFAULT, ...what }, waitMs);
  }

  /** Answered when smbd has taken all that was sent before. */
  echo(): Promise<Answer> {
    return this.request('echo', {});
  }

  /** Marks an open file or folder for deletion when it is closed. */
  delete(handle: number): Promise<Answer> {
    return this.request('delete', { handle });
  }

  rename(handle: number, to: string): Promise<Answer> {
    return this.request('rename', { handle, to });
  }

  /** The next break that nobody waited for yet; null when none came in time. */
  nextBreak(timeoutMs: number): Promise<BreakEvent | null> {
    const known = this.breaks.shift();
    if (known) return Promise.resolve(known);
    return new Promise((resolve) => {
      const waiter = (event: BreakEvent) => {
        clearTimeout(deadline);
        resolve(event);
      };
      const deadline = setTimeout(() => {
        const index = this.breakWaiters.indexOf(waiter);
        if (index >= 0) this.breakWaiters.splice(index, 1);
        resolve(null);
      }, timeoutMs);
      this.breakWaiters.push(waiter);
    });
  }

  /** Ends the connection as a client does that goes away: smbd closes what is open. */
  close(): void {
    this.child.stdin.end();
    if (this.child.exitCode === null) this.child.kill('SIGTERM');
  }
}
