/**
 * How the commands write tables, times and numbers, so that all of them look alike. Pure; the same input gives the same
 * text on every machine.
 */
import Table from 'cli-table3';

/** A table without lines: a title row, then one row each; numbers to the right. No colours. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const blank = {
    top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '',
    'bottom-right': '', left: '  ', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: '  ',
  };
  const numeric = head.map((_, column) => rows.length > 0 && rows.every((row) => isNumeric(row[column])));
  const built = new Table({
    head: [...head],
    chars: blank,
    colAligns: numeric.map((right) => (right ? 'right' : 'left')),
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  built.push(...rows.map((row) => row.map(String)));
  return built
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

function isNumeric(cell: string | number | undefined): boolean {
  return cell !== undefined && /^(|-|[\d.,]+( (us|ms|s|min|h|d|B|KiB|MiB|%))?)$/.test(String(cell));
}

/** 850 us, 1.2 ms, 45 s, 12 min, 3 h, 9 d; '-' for nothing measured. */
export function duration(micros: number | null): string {
  if (micros === null) return '-';
  if (micros < 1_000) return `${Math.round(micros)} us`;
  if (micros < 1_000_000) return `${oneDigit(micros / 1_000)} ms`;
  const seconds = micros / 1_000_000;
  if (seconds < 120) return `${oneDigit(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  if (count < 1024 * 1024) return `${oneDigit(count / 1024)} KiB`;
  return `${oneDigit(count / (1024 * 1024))} MiB`;
}

/**
 * Text of somebody else (a path, a user) for a terminal: control and invisible characters, which could move the cursor
 * or turn the line around, as `\\u{1b}`.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
  });
}

/** '1 wait', '2 waits'. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** A part of a whole in percent; '-' when there is no whole. */
export function percent(part: number, whole: number): string {
  return whole === 0 ? '-' : `${((100 * part) / whole).toFixed(2)} %`;
}

export function perSecond(count: number, micros: number): string {
  return micros <= 0 ? '-' : ((count * 1_000_000) / micros).toFixed(1);
}

function oneDigit(value: number): string {
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}
