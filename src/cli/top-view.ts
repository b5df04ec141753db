/**
 * What `smbpool top` shows and what its keys do: pure functions, tested without a terminal.
 */
import type { HotAnswer, HotFile } from '../wire/locks.js';
import { incompleteText, pathWords } from './lock-options.js';
import { duration, perSecond, plural, printable, table } from './text.js';

export const TOP_SORTS = ['opens', 'moves', 'waits', 'p99'] as const;
export type TopSort = (typeof TOP_SORTS)[number];

/** Longer than any path that helps to find a file. */
const FILTER_LENGTH_MAX = 200;
const FOOTER = 'Keys: o opens, m moves, w waits, p p99, f filter, q quit';

export interface TopView {
  sort: TopSort;
  /** Part of the path, without case; '' shows all. */
  filter: string;
  /** What is being typed as the next filter; null when nothing is. */
  typing: string | null;
  quit: boolean;
}

/** As readline's keypress events name it. */
export interface Key {
  /** The character, if it is one. */
  text: string;
  name: string;
  ctrl: boolean;
}

const SORT_KEYS = new Map<string, TopSort>([['o', 'opens'], ['m', 'moves'], ['w', 'waits'], ['p', 'p99']]);

/** The view after a key. */
export function press(view: TopView, key: Key): TopView {
  if (key.ctrl && (key.name === 'c' || key.name === 'd')) return { ...view, quit: true };
  if (view.typing !== null) return type(view, view.typing, key);
  if (key.name === 'q') return { ...view, quit: true };
  if (key.name === 'f') return { ...view, typing: view.filter };
  const sort = key.ctrl ? undefined : SORT_KEYS.get(key.name);
  return sort === undefined ? view : { ...view, sort };
}

function type(view: TopView, typed: string, key: Key): TopView {
  switch (key.name) {
    case 'return':
    case 'enter':
      return { ...view, filter: typed, typing: null };
    case 'escape':
      return { ...view, typing: null };
    case 'backspace':
      return { ...view, typing: [...typed].slice(0, -1).join('') };
    default:
  }
  if (key.ctrl) return key.name === 'u' ? { ...view, typing: '' } : view;
  if (key.text === '' || printable(key.text) !== key.text || typed.length >= FILTER_LENGTH_MAX) return view;
  return { ...view, typing: typed + key.text };
}

/** The files that the view shows, hottest first. */
export function shownFiles(files: readonly HotFile[], view: Pick<TopView, 'sort' | 'filter'>): HotFile[] {
  const part = view.filter.toLowerCase();
  const shown = files.filter((file) => file.path.toLowerCase().includes(part));
  return shown.sort((a, b) => {
    const difference = heat(b, view.sort) - heat(a, view.sort);
    return difference !== 0 ? difference : a.path < b.path ? -1 : 1;
  });
}

function heat(file: HotFile, sort: TopSort): number {
  return sort === 'p99' ? file.waitP99Micros : file[sort];
}

/** One screen or one table. `rowsMax`: lines that the whole text may have. */
export function topText(answer: HotAnswer, view: TopView, rowsMax: number, isLive: boolean): string {
  const files = shownFiles(answer.files, view);
  const filter = view.filter === '' ? '' : `, with "${printable(view.filter)}" in the path`;
  const interval = `in the last ${duration(answer.intervalMicros)}`;
  const heading = `${plural(files.length, 'file')} used ${interval}, most ${view.sort} first${filter}\n`;
  const incomplete = incompleteText(answer);
  const footer = isLive ? `\n${footerOf(view)}\n` : '';
  // beside those: the table's title row, and the line that counts the rest
  const taken = (heading + incomplete + footer).split('\n').length - 1 + (isLive ? 1 : 2);
  const listed = files.slice(0, Math.max(0, rowsMax - taken));
  const body = listed.length === 0 ? '' : `${hotTable(listed, answer.intervalMicros)}\n`;
  const more = files.length > listed.length && !isLive ? `  ${files.length - listed.length} more\n` : '';
  return heading + incomplete + body + more + footer;
}

function footerOf(view: TopView): string {
  if (view.typing === null) return FOOTER;
  return `Part of the path: ${printable(view.typing)}_   (Enter: use it, Escape: leave it as it was)`;
}

function hotTable(files: readonly HotFile[], intervalMicros: number): string {
  const head = ['opens/s', 'moves/s', 'waits', 'p50', 'p99', 'held', 'servers', 'share', 'path'];
  const rows = files.map((file) => [
    perSecond(file.opens, intervalMicros),
    perSecond(file.moves, intervalMicros),
    file.waits,
    file.waits === 0 ? '-' : duration(file.waitMedianMicros),
    file.waits === 0 ? '-' : duration(file.waitP99Micros),
    file.holders,
    file.servers.join(' '),
    printable(file.share),
    // only moved, not opened, in the interval: then nobody said its path
    file.path === '' && file.share === '' ? `(file ${printable(file.fileId)})` : pathWords(file.path),
  ]);
  return table(head, rows);
}
