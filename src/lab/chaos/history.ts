/**
 * Judges what the clients of a chaos run saw: who held a file alone and when, and what it contained then. Pure: it
 * reads only the clients' notes, never the pool, so that planted mistakes can be shown to it (test/unit/chaos.test.ts).
 * Times are seconds of one machine-wide clock.
 */

/** What a client wrote while it held a file. `unknown`: the answer was lost; it may have been written, or not. */
export interface Written {
  content: string;
  outcome: 'done' | 'unknown';
}

/**
 * What a server without a lease answers (docs/shared-memory.md): also to a write that was done, when the lease ended
 * before it could be answered. NT_STATUS_CONNECTION_DISCONNECTED, which the client has no name for.
 */
const FENCED = '0xC000020C';

/** What became of a write that was answered so; null: it was refused, and so not done. */
export function writeOutcome(status: string): Written['outcome'] | null {
  if (status === 'OK') return 'done';
  return status === FENCED ? 'unknown' : null;
}

/** A time for which a client held a file, by a share mode or by a lock. */
export interface Session {
  file: string;
  /** Of whom, for people: "client at server". */
  client: string;
  /** Whether nobody else may hold it meanwhile; readers may be several. */
  exclusive: boolean;
  /** When the answer came that granted it. */
  from: number;
  /** When the last request was sent that was answered as only a holder is: it was held until then, or longer. */
  heldUntil: number;
  /** What it read; null when it cannot be sure that it still held the file at that time. */
  read: string | null;
  /** null: nothing, or what was refused. */
  written: Written | null;
}

/** Contents are short, and of a foreign one the beginning tells most. */
const CONTENT_LENGTH_MAX = 60;

const shown = (content: string): string => JSON.stringify(content.slice(0, CONTENT_LENGTH_MAX));
const shownAll = (contents: ReadonlySet<string>): string => [...contents].map(shown).join(' or ');
const seconds = (at: number): string => `${at.toFixed(3)} s`;

/** Pairs of sessions of one file that exclude each other, and yet were held at one time; in words. */
function overlaps(sessions: readonly Session[]): string[] {
  const found: string[] = [];
  let active: Session[] = [];
  for (const next of sessions) {
    active = active.filter(({ heldUntil }) => heldUntil > next.from);
    if (next.heldUntil <= next.from) continue;
    for (const other of active.filter(({ exclusive }) => exclusive || next.exclusive)) {
      found.push(
        `${next.file}: ${other.client} held it from ${seconds(other.from)} to ${seconds(other.heldUntil)} at least, ` +
          `and ${next.client} got it at ${seconds(next.from)}`,
      );
    }
    active.push(next);
  }
  return found;
}

export interface Judgement {
  /** In words; empty when all is well. */
  problems: string[];
  /** What the file may contain after all of this. */
  possible: Set<string>;
}

/**
 * What is wrong with the sessions of one file that contained `initial` before. Whoever holds a file finds in it what
 * was written last with an answer, or a later one whose answer was lost; once somebody found that one of these is not
 * there, it must never come.
 */
export function judge(initial: string, unsorted: readonly Session[]): Judgement {
  // a grant is answered after it was made, and what it excludes was over by then: so this is their order
  const sessions = [...unsorted].sort((a, b) => a.from - b.from);
  const problems = overlaps(sessions);
  let possible = new Set([initial]);
  for (const { file, client, from, read, written } of sessions) {
    if (read !== null) {
      if (!possible.has(read)) {
        problems.push(`${file}: ${client} read ${shown(read)} after ${seconds(from)}; expected ${shownAll(possible)}`);
      }
      possible = new Set([read]);
    }
    if (written?.outcome === 'done') possible = new Set([written.content]);
    else if (written !== null) possible.add(written.content);
  }
  return { problems, possible };
}

/** What is wrong with the end of a file, as each server shows it. */
export function judgeEnd(file: string, possible: ReadonlySet<string>, seen: ReadonlyMap<string, string>): string[] {
  const wrong = [...seen].filter(([, content]) => !possible.has(content));
  const problems = wrong.map(([server, content]) => {
    return `${file}: ${server} shows ${shown(content)} at the end; expected ${shownAll(possible)}`;
  });
  if (new Set(seen.values()).size > 1) problems.push(`${file}: the servers show different contents at the end`);
  return problems;
}

/** A counter's end: every increment that was answered is in it, and nothing that nobody asked for. */
export function judgeCounter(file: string, sessions: readonly Session[], end: number): string[] {
  const counted = (outcome: Written['outcome']) =>
    sessions.filter(({ written }) => written?.outcome === outcome).length;
  const done = counted('done');
  const most = done + counted('unknown');
  if (end >= done && end <= most) return [];
  return [`${file}: it counts ${end} at the end; ${done} increments were answered, and ${most} asked for at most`];
}

/** One change of a value by the only one who changes it, in its order. */
export interface Change {
  name: string;
  value: string;
  outcome: Written['outcome'];
}

/** What is wrong with values that must be the same everywhere: `seen` is what each server has. */
export function judgeValues(
  changes: readonly Change[],
  seen: ReadonlyMap<string, ReadonlyMap<string, string>>,
): string[] {
  const possible = new Map<string, Set<string | undefined>>();
  for (const { name, value, outcome } of changes) {
    if (outcome === 'done') possible.set(name, new Set([value]));
    // before the first one that was answered there may be none
    else possible.set(name, (possible.get(name) ?? new Set<string | undefined>([undefined])).add(value));
  }
  const problems: string[] = [];
  for (const [name, values] of possible) {
    const found = new Set<string | undefined>();
    for (const [server, all] of seen) {
      const value = all.get(name);
      found.add(value);
      if (values.has(value)) continue;
      problems.push(`${name}: ${server} has ${value ?? 'nothing'}; expected ${[...values].join(' or ')}`);
    }
    if (found.size > 1) problems.push(`${name}: the servers have different values: ${[...found].join(', ')}`);
  }
  return problems;
}
