/**
 * `smbpool who`: who holds and who waits, in the whole pool, file by file. The text is made by a pure function, which
 * tests compare with golden files.
 */
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type { LockFilter, LocksAnswer, OpenReport, RangeLock, WaitReport, WaitTarget } from '../wire/locks.js';
import { addAdminOptions, adminSocket, ask } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import {
  addFilterOptions,
  clientWords,
  filterWords,
  incompleteText,
  lockFilter,
  pathWords,
  processWords,
} from './lock-options.js';
import type { LockFilterOptions } from './lock-options.js';
import { duration, plural, printable, table } from './text.js';

/** An open may hold thousands; a line shows the first ones and says how many there are. */
const RANGES_SHOWN_MAX = 3;
/** Names of one file (hard links, shares that overlap) in its heading. */
const PATHS_SHOWN_MAX = 3;
const FILE_BYTES_END = 1n << 64n;

interface WhoOptions extends AdminOptions, LockFilterOptions {
  json?: true;
}

export function registerWho(program: Command): void {
  const command = program
    .command('who')
    .description('who has a file open or waits for it, in the whole pool; without arguments: all files')
    .option('--json', "the daemon's answer as JSON");
  addFilterOptions(command);
  addAdminOptions(command).action(async (path: string | undefined, options: WhoOptions) => {
    const filter = lockFilter(path, options);
    const answer = await ask<LocksAnswer>(adminSocket(options), ADMIN_PATH.locks, { ...filter });
    process.stdout.write(options.json ? `${JSON.stringify(answer, null, 2)}\n` : whoText(answer, filter));
  });
}

interface FileGroup {
  fileId: string;
  paths: Set<string>;
  opens: OpenReport[];
  waits: WaitReport[];
}

export function whoText(answer: LocksAnswer, filter: LockFilter): string {
  const files = groupByFile(answer);
  if (files.length === 0) {
    const nobody = `Nobody holds or waits for anything${filterWords(filter)}\n`;
    return nobody + incompleteText(answer);
  }
  const { opens, waits } = answer;
  const counts = [plural(opens.length, 'open'), plural(waits.length, 'waiter')];
  const heading = `${plural(files.length, 'file')}: ${counts.join(', ')}\n`;
  return [heading + incompleteText(answer), ...files.map(fileText)].join('\n');
}

/** Files for which somebody waits first, then by path. */
function groupByFile({ opens, waits }: LocksAnswer): FileGroup[] {
  const files = new Map<string, FileGroup>();
  const groupOf = ({ fileId, path }: OpenReport | WaitReport): FileGroup => {
    const group = files.get(fileId) ?? { fileId, paths: new Set(), opens: [], waits: [] };
    files.set(fileId, group);
    group.paths.add(pathWords(path));
    return group;
  };
  for (const open of opens) groupOf(open).opens.push(open);
  for (const wait of waits) groupOf(wait).waits.push(wait);
  const first = (group: FileGroup): string => [...group.paths][0] ?? '';
  return [...files.values()].sort((a, b) => {
    const byWaits = Number(b.waits.length > 0) - Number(a.waits.length > 0);
    return byWaits !== 0 ? byWaits : first(a) < first(b) ? -1 : 1;
  });
}

function fileText({ fileId, paths, opens, waits }: FileGroup): string {
  const names = [...paths];
  const more = names.length > PATHS_SHOWN_MAX ? ` and ${names.length - PATHS_SHOWN_MAX} more names` : '';
  const kind = opens.some(({ directory }) => directory) ? 'directory' : 'file';
  const heading = `${names.slice(0, PATHS_SHOWN_MAX).join(', ')}${more}  (${kind} ${printable(fileId)})\n`;
  const holders = opens.length === 0 ? '' : `${holderTable(opens)}\n`;
  if (waits.length === 0) return heading + holders;
  return `${heading}${holders}${opens.length === 0 ? '' : '\n'}${waiterTable(waits, opens)}\n`;
}

function holderTable(opens: readonly OpenReport[]): string {
  const head = ['held by', 'client', 'share', 'server', 'pid', 'access', 'lets', 'oplock', 'since', 'ranges'];
  const rows = [...opens]
    .sort((a, b) => b.openMicrosAgo - a.openMicrosAgo)
    .map((open) => [
      printable(open.user),
      clientWords(open),
      printable(open.share),
      printable(open.serverName),
      open.pid,
      printable(open.access),
      printable(open.sharing),
      cachingWords(open),
      duration(open.openMicrosAgo),
      rangesWords(open.locks),
    ]);
  return table(head, rows);
}

function cachingWords({ oplock, lease, durable }: OpenReport): string {
  const caching = oplock === 'lease' ? `lease ${lease === '' ? 'none' : lease}` : oplock;
  return printable(durable ? `${caching}, durable` : caching);
}

function rangesWords(locks: readonly RangeLock[]): string {
  const words = locks.slice(0, RANGES_SHOWN_MAX).map((lock) => `${rangeWords(lock)} ${lock.type}`);
  if (locks.length > words.length) words.push(`${locks.length - words.length} more`);
  return words.length === 0 ? 'none' : words.join(', ');
}

function rangeWords({ start, size }: RangeLock): string {
  if (!/^\d{1,20}$/.test(start) || !/^\d{1,20}$/.test(size)) return `${printable(start)}+${printable(size)}`;
  if (size === '0') return `at ${start}, empty`;
  const end = BigInt(start) + BigInt(size);
  return end >= FILE_BYTES_END ? `${start} to the end` : `${start} to ${end - 1n}`;
}

function waiterTable(waits: readonly WaitReport[], opens: readonly OpenReport[]): string {
  const head = ['waiting', 'client', 'share', 'server', 'pid', 'wants', 'waits', 'for', 'whom'];
  const rows = [...waits]
    .sort((a, b) => b.waitMicros - a.waitMicros)
    .flatMap((wait) => {
      const known = wait.waitsFor.map((target) => targetWords(target, opens));
      const whom = known.length === 0 ? ['not known'] : known;
      const { user, share, serverName, pid, wants, what, waitMicros } = wait;
      const first = [
        printable(user),
        clientWords(wait),
        printable(share),
        printable(serverName),
        pid,
        printable(wants),
        duration(waitMicros),
        what,
      ];
      // one line for each of those it waits for; what is said once is not said again
      return whom.map((words, index) => [...(index === 0 ? first : first.map(() => '')), words]);
    });
  return table(head, rows);
}

function targetWords(target: WaitTarget, opens: readonly OpenReport[]): string {
  const holder = opens.find(({ server, pid }) => server === target.server && pid === target.pid);
  const user = holder === undefined ? '' : ` (${printable(holder.user)})`;
  const state = target.alive ? '' : ', DEAD OR STUCK';
  return `${processWords(target)}${user}: ${printable(target.what)}${state}`;
}
