/**
 * One event of a trace as one line of text. Pure but for the machine's time zone, in which times are shown.
 */
import type { TraceEvent } from '../wire/locks.js';
import { clientWords, pathWords } from './lock-options.js';
import { plural, printable } from './text.js';

/** Widths that most values fit; longer ones push the rest of their line to the right. */
const WIDTHS = { server: 8, pid: 7, kind: 10, took: 11, path: 24 } as const;

export class TraceText {
  private day = '';

  /** The event's line; before it the day when that is another than before, and what was lost before it. */
  text(event: TraceEvent): string {
    const date = new Date(Math.floor(event.atMicros / 1000));
    const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map(twoDigits).join('-');
    const heading = day === this.day ? '' : `${day}\n`;
    this.day = day;
    const { dropped } = event;
    const lost = dropped === undefined ? '' : `... ${plural(dropped, 'event')} lost here: too many to keep up with\n`;
    return `${heading}${lost}${lineOf(event, date)}\n`;
  }
}

function lineOf(event: TraceEvent, date: Date): string {
  const { serverName, pid, kind, tookMicros, user, share, status, detail } = event;
  const micros = String(event.atMicros % 1_000_000).padStart(6, '0');
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(':');
  const who = [printable(user), clientWords(event), printable(share)].filter((text) => text !== '').join(' ');
  const rest = [printable(status), printable(detail)].filter((text) => text !== '').join('  ');
  const parts = [
    `${time}.${micros}`,
    printable(serverName).padEnd(WIDTHS.server),
    (pid === 0 ? '-' : String(pid)).padStart(WIDTHS.pid),
    kind.padEnd(WIDTHS.kind),
    (tookMicros === null ? '-' : `${tookMicros} us`).padStart(WIDTHS.took),
    fileWords(event).padEnd(WIDTHS.path),
    who,
  ];
  return `${parts.join(' ')}  ${rest}`.trimEnd();
}

/** A record may move for somebody without the module: then only the file's number is known, or not even that. */
function fileWords({ path, share, fileId }: TraceEvent): string {
  if (share !== '' || path !== '') return pathWords(path);
  return fileId === '' ? '-' : `(file ${fileId})`;
}

function twoDigits(number: number): string {
  return String(number).padStart(2, '0');
}
