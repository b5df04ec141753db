/**
 * Turns what the modules told us into what people read: opens, waits, events. Pure; used by core/witness.
 */
import type { NodeId } from '../../base/ids.js';
import type { LocksAnswer, OpenReport, TraceEvent, TraceKind, WaitReport, WaitTarget } from '../../wire/locks.js';
import { OPEN_FLAG, fileIdText } from '../../wire/ring-ops.js';
import type { FileId, OpenTerms } from '../../wire/ring-ops.js';
import type { Micros } from '../effects.js';
import type { Attachment, Operation } from '../operations/attachments.js';
import type { LockTry, Open } from './open.js';
import { accessWords, cachingWords, dispositionWord, leaseWord, oplockWord, sharingWords } from './words.js';

export interface Reporter {
  server: NodeId;
  serverName: string;
}

/** What an event is about, beside the smbd and its tree. */
export interface EventSubject {
  tree: bigint;
  file: FileId;
  path: string;
}

export interface EventFacts {
  kind: TraceKind;
  atMicros: number;
  tookMicros: number | null;
  status: string;
  detail: string;
}

type Identity = Pick<
  OpenReport,
  'server' | 'serverName' | 'pid' | 'client' | 'clientName' | 'user' | 'share' | 'shareRoot'
>;

export function identity(reporter: Reporter, attachment: Attachment, tree: bigint): Identity {
  const known = attachment.trees.get(tree);
  return {
    server: reporter.server,
    serverName: reporter.serverName,
    pid: attachment.pid,
    client: attachment.address,
    clientName: attachment.name,
    user: known?.user ?? '',
    share: known?.share ?? '',
    shareRoot: known?.path ?? '',
  };
}

export function openReport(reporter: Reporter, attachment: Attachment, open: Open, now: Micros): OpenReport {
  return {
    ...identity(reporter, attachment, open.tree),
    path: open.path,
    fileId: fileIdText(open.file),
    shareFileId: String(open.shareFileId),
    persistentId: String(open.persistentId),
    accessMask: open.accessMask,
    access: accessWords(open.accessMask),
    sharing: sharingWords(open.shareAccess),
    oplock: oplockWord(open.oplock),
    lease: leaseWord(open.leaseState),
    durable: (open.flags & OPEN_FLAG.durable) !== 0,
    directory: (open.flags & OPEN_FLAG.directory) !== 0,
    openMicrosAgo: Math.max(0, now - open.since),
    locks: open.locks.map(({ start, size, type }) => ({ start: String(start), size: String(size), type })),
  };
}

/** A waiting create; whom it waits for is filled in where all opens of the pool are known (`findHolders`). */
export function waitingOpenReport(
  reporter: Reporter,
  attachment: Attachment,
  wait: Operation,
  facts: { what: 'records' | 'break'; now: Micros; waitsFor: WaitTarget[] },
): WaitReport {
  return {
    ...identity(reporter, attachment, wait.tree),
    path: wait.path,
    fileId: fileIdText(wait.file),
    what: facts.what,
    wants: openWords(wait),
    waitMicros: Math.max(0, facts.now - wait.since),
    waitsFor: facts.waitsFor,
  };
}

export function waitingLockReport(
  reporter: Reporter,
  attachment: Attachment,
  open: Open,
  facts: { attempt: LockTry; now: Micros },
): WaitReport {
  const { attempt, now } = facts;
  return {
    ...identity(reporter, attachment, open.tree),
    path: open.path,
    fileId: fileIdText(open.file),
    what: 'range',
    wants: `lock ${rangeWords(attempt.start, attempt.size)} ${attempt.type}`,
    waitMicros: Math.max(0, now - attempt.since),
    // the blocker's persistent id until all opens of the pool are known
    waitsFor: [{ server: -1, serverName: '', pid: 0, what: String(attempt.blocker), alive: true }],
  };
}

export function traceEvent(base: Identity, subject: EventSubject, facts: EventFacts): TraceEvent {
  return { ...base, path: subject.path, fileId: fileIdText(subject.file), ...facts };
}

/** 'open: read, write; lets others rwd; lease RWH'. */
export function openWords(terms: OpenTerms): string {
  const caching = cachingWords(terms.oplock, terms.leaseState);
  return [
    `${dispositionWord(terms.disposition)}: ${accessWords(terms.accessMask)}`,
    `lets others ${sharingWords(terms.shareAccess)}`,
    `asks ${caching}`,
  ].join('; ');
}

export function grantedWords(terms: OpenTerms): string {
  const caching = cachingWords(terms.oplock, terms.leaseState);
  return `${accessWords(terms.accessMask)}; lets others ${sharingWords(terms.shareAccess)}; has ${caching}`;
}

export function rangeWords(start: bigint, size: bigint): string {
  return size === 0n ? `at ${start}, empty` : `${start} to ${start + size - 1n}`;
}

/** Fills in for whom the waits for breaks and ranges wait, from all opens of the pool. */
export function findHolders(answer: LocksAnswer, all: readonly OpenReport[]): void {
  for (const wait of answer.waits) {
    if (wait.what === 'break') {
      const holders = all.filter((open) => open.fileId === wait.fileId && canBreak(open));
      wait.waitsFor = holders.map((open) => target(open, holdsWords(open)));
    } else if (wait.what === 'range') {
      const blocker = wait.waitsFor[0]?.what;
      const others = all.filter((open) => open.fileId === wait.fileId && open.locks.length > 0);
      const named = others.filter((open) => open.persistentId === blocker);
      // an SMB1 lock names its holder by a number that no open has: everybody else with locks on the file may be it
      const holders = named.length > 0 ? named : others.filter((open) => !isSameProcess(open, wait));
      wait.waitsFor = holders.map((open) => target(open, holdsRangesWords(open)));
    }
  }
}

function canBreak(open: OpenReport): boolean {
  if (open.oplock === 'lease') return open.lease.includes('W') || open.lease.includes('H');
  return open.oplock === 'exclusive' || open.oplock === 'batch';
}

function isSameProcess(open: OpenReport, wait: WaitReport): boolean {
  return open.server === wait.server && open.pid === wait.pid;
}

function target(open: OpenReport, what: string): WaitTarget {
  return { server: open.server, serverName: open.serverName, pid: open.pid, what, alive: true };
}

function holdsWords(open: OpenReport): string {
  return open.oplock === 'lease' ? `holds lease ${open.lease}` : `holds ${open.oplock} oplock`;
}

function holdsRangesWords(open: OpenReport): string {
  const ranges = open.locks.slice(0, 3).map(({ start, size, type }) => {
    return /^\d+$/.test(start + size) ? `${rangeWords(BigInt(start), BigInt(size))} ${type}` : type;
  });
  return ranges.length === 0 ? 'holds the range' : `holds ${ranges.join(', ')}`;
}

/** "lease RWH on work/a.txt, of 10.0.0.7:49152 (DOM\\bob)". */
export function cachingSentence(attachment: Attachment, open: Open): string {
  const { trees } = attachment;
  const { share, user } = trees.get(open.tree) ?? { share: '?', user: '?' };
  return `${cachingWords(open.oplock, open.leaseState)} on ${share}/${open.path}, of ${clientOf(attachment)} (${user})`;
}

/** Its address, without the word that smbd puts before it. */
export function clientOf({ address }: Attachment): string {
  return address.replace(/^ipv[46]:/, '');
}
