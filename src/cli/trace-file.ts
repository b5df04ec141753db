/**
 * A trace in a file: a header line, then one event a line, all JSON. Written by `smbpool trace --write`, shown again by
 * `--read`. What is read may be anything: it is checked line by line, and never held in memory as a whole.
 */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { z } from 'zod';
import { TRACE_KINDS } from '../wire/locks.js';
import type { TraceEvent, TraceFilter } from '../wire/locks.js';
import { CommandError } from './errors.js';

const FORMAT = 'smbpool trace';
const VERSION = 1;
/** Some three million events; who wants more starts another file. */
export const TRACE_FILE_BYTES_MAX = 1024 ** 3;
/** As on the admin socket. */
const LINE_CHARACTERS_MAX = 256 * 1024;
/** Readable by its owner only: it names users and files. */
const FILE_MODE = 0o600;

const headerSchema = z.object({ format: z.literal(FORMAT), version: z.number() });

const whole = z.int().min(0);
const eventSchema = z.object({
  server: whole,
  serverName: z.string(),
  pid: whole,
  client: z.string(),
  clientName: z.string(),
  user: z.string(),
  share: z.string(),
  shareRoot: z.string().exactOptional(),
  atMicros: whole,
  kind: z.enum(TRACE_KINDS),
  path: z.string(),
  fileId: z.string(),
  tookMicros: z.number().min(0).nullable(),
  status: z.string(),
  detail: z.string(),
  dropped: whole.exactOptional(),
});

export class TraceWriter {
  private bytes = 0;
  count = 0;

  private constructor(
    readonly path: string,
    private readonly file: FileHandle,
  ) {}

  /** @throws CommandError when the file cannot be made, or is there already. */
  static async create(path: string, filter: TraceFilter): Promise<TraceWriter> {
    let file: FileHandle;
    try {
      file = await open(path, 'wx', FILE_MODE);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const why = code === 'EEXIST' ? 'it exists already; name another file' : message;
      throw new CommandError(`${path} cannot be written: ${why}`, { cause: error });
    }
    const writer = new TraceWriter(path, file);
    await writer.append(`${JSON.stringify({ format: FORMAT, version: VERSION, filter })}\n`);
    return writer;
  }

  /**
   * False when the file has reached its limit (TRACE_FILE_BYTES_MAX): then nothing was written.
   * @throws CommandError when it cannot be written, as on a full disk.
   */
  async write(events: readonly TraceEvent[]): Promise<boolean> {
    const text = events.map((event) => `${JSON.stringify(event)}\n`).join('');
    if (this.bytes + Buffer.byteLength(text) > TRACE_FILE_BYTES_MAX) return false;
    await this.append(text);
    this.count += events.length;
    return true;
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private async append(text: string): Promise<void> {
    try {
      await this.file.appendFile(text);
    } catch (error) {
      throw new CommandError(`${this.path} cannot be written: ${(error as Error).message}`, { cause: error });
    }
    this.bytes += Buffer.byteLength(text);
  }
}

/**
 * The events of a file, in groups. Fields that a later version added are left out.
 * @throws CommandError when it cannot be read, is no trace, or has a line that is no event; a last line that was cut
 * off, as by a crash, only ends it.
 */
export async function* readTrace(path: string): AsyncGenerator<TraceEvent[]> {
  let number = 0;
  for await (const lines of linesOf(path)) {
    const events: TraceEvent[] = [];
    for (const line of lines) {
      number += 1;
      if (number === 1) checkHeader(path, line);
      else events.push(eventOf(path, line, number));
    }
    yield events;
  }
  if (number === 0) throw new CommandError(`${path} is not a trace: it has no whole line`);
}

/** Whole lines only. */
async function* linesOf(path: string): AsyncGenerator<string[]> {
  let rest = '';
  try {
    for await (const chunk of createReadStream(path, 'utf8')) {
      const lines = (rest + String(chunk)).split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > LINE_CHARACTERS_MAX) throw new CommandError(`${path} is not a trace: a line does not end`);
      yield lines;
    }
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError(`${path} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function checkHeader(path: string, line: string): void {
  const header = headerSchema.safeParse(parse(line));
  if (!header.success) throw new CommandError(`${path} is not a trace: its first line is not that of one`);
  const { version } = header.data;
  if (version !== VERSION) {
    throw new CommandError(`${path} is a trace of version ${version}; this smbpool reads version ${VERSION}`);
  }
}

function eventOf(path: string, line: string, number: number): TraceEvent {
  const event = eventSchema.safeParse(parse(line));
  if (event.success) return event.data;
  const [issue] = event.error.issues;
  const field = issue === undefined || issue.path.length === 0 ? '' : `: ${issue.path.join('.')} is missing or wrong`;
  throw new CommandError(`line ${number} of ${path} is not an event${field}`);
}
