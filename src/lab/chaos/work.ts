/**
 * The checked work of a chaos run: counters under byte-range locks, files under share modes, and values in Samba's
 * registry, a persistent database. Each worker notes what it saw and what it was answered; history.ts judges it.
 */
import type { Prng } from '../../base/prng.js';
import { pause } from '../run.js';
import type { Answer, OpenRequest } from '../smb-client.js';
import type { Connection, World } from './connection.js';
import { ConnectionLost, STUCK_SECONDS } from './connection.js';
import type { Change, Session } from './history.js';
import { writeOutcome } from './history.js';
import { machineSeconds } from './outages.js';
import type { Service } from './report.js';

/** Enough that every server is home of some, few enough that clients meet. */
const FILES = 5;
/** What a counter has before the first increment. */
export const COUNTER_BEGIN = '0'.padStart(12);
/** What a file has before the first write; all contents are equally long, so that none leaves a rest of another. */
export const CONTENT_BEGIN = 'nobody'.padEnd(48);
export const COUNTERS = Array.from({ length: FILES }, (_, index) => `chaos-counter-${index}`);
export const CONTENTS = Array.from({ length: FILES }, (_, index) => `chaos-content-${index}`);
/** Of the registry. */
export const REGISTRY_KEY = 'HKLM\\Software\\smbpool';
const NAMES = 4;

/** The whole of a counter. */
const RANGE = { offset: 0, length: COUNTER_BEGIN.length };
const LOCK_WAIT_MILLIS = 2000;
/** How long a client holds what it has before it writes: so that faults meet it. */
const HOLD_MILLIS = 60;
const REST_MILLIS = 40;
const REGISTRY_REST_MILLIS = 1500;
/** As long as SMB requests may take, and the start of the program. */
const NET_MILLIS_MAX = (STUCK_SECONDS + 5) * 1000;
/** Clients that cache make the pool break what they have. */
const OPLOCKS = ['none', 'none', 'level2', 'batch'] as const;
const READER_CHANCE = 0.3;

export interface Notes {
  counters: Map<string, Session[]>;
  contents: Map<string, Session[]>;
  changes: Change[];
}

export function emptyNotes(): Notes {
  const of = (files: readonly string[]) => new Map(files.map((file): [string, Session[]] => [file, []]));
  return { counters: of(COUNTERS), contents: of(CONTENTS), changes: [] };
}

export interface Work {
  world: World;
  notes: Notes;
  prng: Prng;
  service: Service;
}

/** Runs sessions until the run is over; a connection that is lost ends only the session. */
async function again({ world, prng }: Work, connection: Connection, session: () => Promise<void>): Promise<void> {
  try {
    while (!world.isOver()) {
      await session().catch((error: unknown) => {
        if (!(error instanceof ConnectionLost)) throw error;
      });
      await pause(prng.below(REST_MILLIS));
    }
  } finally {
    connection.close();
  }
}

function begin(connection: Connection, file: string, exclusive: boolean, granted: Answer): Session {
  const client = connection.words;
  return { file, client, exclusive, from: granted.at, heldUntil: granted.at, read: null, written: null };
}

/** Reads and writes what it holds, and notes what was answered. */
async function change(
  { prng, service }: Work,
  connection: Connection,
  handle: number,
  session: Session,
  next: (content: string) => string,
): Promise<void> {
  const began = machineSeconds();
  const read = await connection.ask(`a read of ${session.file}`, (client) => client.read(handle));
  if (read.status !== 'OK') return;
  await pause(prng.below(HOLD_MILLIS));
  const content = next(read.data ?? '');
  session.written = { content, outcome: 'unknown' };
  const write = await connection.ask(`a write of ${session.file}`, (client) => client.write(handle, content));
  const outcome = writeOutcome(write.status);
  session.written = outcome && { content, outcome };
  if (outcome !== 'done') return;
  // only who still holds it is answered so: then what was read before counts, too
  session.read = read.data ?? '';
  session.heldUntil = write.sent;
  service.done(write.at - began);
}

/** Increments counters under a lock. */
export function count(work: Work, connection: Connection): Promise<void> {
  const { prng, notes } = work;
  return again(work, connection, async () => {
    const file = prng.pick(COUNTERS);
    const oplock = prng.pick(OPLOCKS);
    const how: OpenRequest = { access: ['read', 'write'], share: 'rwd', disposition: 'open', oplock };
    const opened = await connection.ask(`an open of ${file}`, (client) => client.open(file, how));
    if (opened.status !== 'OK' || opened.handle === undefined) return;
    const { handle } = opened;
    const wish = { ...RANGE, exclusive: true, waitMs: LOCK_WAIT_MILLIS };
    const locked = await connection.ask(`a lock of ${file}`, (client) => client.lock(handle, wish));
    if (locked.status === 'OK') {
      const session = begin(connection, file, true, locked);
      notes.counters.get(file)?.push(session);
      const next = (content: string) => String(Number(content) + 1).padStart(COUNTER_BEGIN.length);
      await change(work, connection, handle, session, next);
      if (prng.chance(0.5)) {
        await connection.ask(`an unlock of ${file}`, (client) => client.lock(handle, { ...RANGE, unlock: true }));
      }
    }
    await connection.ask(`a close of ${file}`, (client) => client.closeHandle(handle));
  });
}

/** Writes and reads files that share modes protect. */
export function replace(work: Work, connection: Connection): Promise<void> {
  const { prng } = work;
  let written = 0;
  return again(work, connection, async () => {
    const file = prng.pick(CONTENTS);
    const isReader = prng.chance(READER_CHANCE);
    const how: OpenRequest = isReader ? { access: ['read'], share: 'r' } : { access: ['read', 'write'], share: '' };
    const open = { ...how, disposition: 'open', oplock: prng.pick(OPLOCKS) } as const;
    const opened = await connection.ask(`an open of ${file}`, (client) => client.open(file, open));
    if (opened.status !== 'OK' || opened.handle === undefined) return;
    const { handle } = opened;
    const session = begin(connection, file, !isReader, opened);
    work.notes.contents.get(file)?.push(session);
    if (isReader) await readHeld(work, connection, handle, session);
    else await change(work, connection, handle, session, () => `${connection.name} ${++written}`.padEnd(48));
    await connection.ask(`a close of ${file}`, (client) => client.closeHandle(handle));
  });
}

/** A read, and something that only who still holds the file is answered OK: a lock. */
async function readHeld({ service }: Work, connection: Connection, handle: number, session: Session): Promise<void> {
  const began = machineSeconds();
  const read = await connection.ask(`a read of ${session.file}`, (client) => client.read(handle));
  if (read.status !== 'OK') return;
  const wish = { ...RANGE, exclusive: false };
  const locked = await connection.ask(`a lock of ${session.file}`, (client) => client.lock(handle, wish));
  if (locked.status !== 'OK') return;
  session.read = read.data ?? '';
  session.heldUntil = locked.sent;
  service.done(locked.at - began);
}

/** Sets values in the registry through one server; their names are this worker's own. */
export async function register({ world, notes, prng, service }: Work, server: number): Promise<void> {
  const place = world.lab.server(server);
  for (let value = 1; !world.isOver(); value++) {
    const name = `server-${server}-value-${prng.below(NAMES)}`;
    const noted: Change = { name, value: String(value), outcome: 'unknown' };
    notes.changes.push(noted);
    const began = machineSeconds();
    const args = ['registry', 'setvalue', REGISTRY_KEY, name, 'sz', String(value)];
    const { status, timedOut } = await world.lab.runIn(place, 'net', args, NET_MILLIS_MAX);
    const took = machineSeconds() - began;
    if (status === 0) {
      noted.outcome = 'done';
      service.done(took);
    } else if (world.outages.wellFor(server) > took) {
      const what = timedOut ? `no answer for ${took.toFixed(0)} s` : `refused with status ${status}`;
      world.violated(`a commit at server-${server}: ${what}, and the server is well`);
    }
    await pause(prng.below(REGISTRY_REST_MILLIS));
  }
}
