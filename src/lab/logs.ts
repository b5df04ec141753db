/**
 * Reads the lab's logs for people and for tests: the line that explains a failure, and every sign of an smbd that
 * panicked.
 */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ServerPlace } from './layout.js';

/** What an smbd that broke writes. Any of these in any log of the pool is a failure of the pool. */
const PANIC = /PANIC|INTERNAL ERROR|Bad talloc|smb_panic|talloc: access after free|cluster_fatal|ctdbd died/i;
/** Lines that explain why a daemon did not come up, most telling first. */
const TELLING = [
  /fatal|panic|INTERNAL ERROR/i,
  /"level":"error"|\b(error|cannot|refus|denied|in use|missing)\b/i,
  /fail|warn/i,
];
/** Of smbpoold's log; what it says when it cannot start, or a standby, is plain text. */
const WARNING = /"level":"(warn|error|fatal)"|^[^{]/;
/** Only the end of a long log is read to explain a failure. */
const TAIL_BYTES = 256 * 1024;
/** No line of an explanation may fill the screen. */
const LINE_LENGTH_MAX = 400;

function logFiles(place: ServerPlace): string[] {
  if (!existsSync(place.logs)) return [];
  return readdirSync(place.logs).map((name) => join(place.logs, name)).filter((file) => statSync(file).isFile());
}

function shortened(line: string): string {
  const text = line.trim();
  return text.length > LINE_LENGTH_MAX ? `${text.slice(0, LINE_LENGTH_MAX)} ...` : text;
}

/** The newest log line of this server that tells best why it does not work, with its file; null when there is none. */
export function explanation(place: ServerPlace, only?: (file: string) => boolean): string | null {
  const files = logFiles(place).filter((file) => only?.(file) ?? true);
  const lines = files.flatMap((file) => {
    const text = readFileSync(file, 'utf8').slice(-TAIL_BYTES);
    return text.split('\n').filter((line) => line.trim() !== '').map((line) => ({ file, line }));
  });
  for (const pattern of TELLING) {
    const found = lines.findLast(({ line }) => pattern.test(line));
    if (found) return `${found.file}: ${shortened(found.line)}`;
  }
  const last = lines.at(-1);
  return last ? `${last.file}: ${shortened(last.line)}` : null;
}

/** The last warnings and errors of this server's smbpoold, at most `count` lines. */
export function lastWarnings(place: ServerPlace, count: number): string[] {
  if (!existsSync(place.daemonLog)) return [];
  const lines = readFileSync(place.daemonLog, 'utf8').split('\n').filter((line) => WARNING.test(line));
  return lines.slice(-count).map((line) => `${place.name}: ${shortened(line)}`);
}

/** Every line of this server's logs that an smbd or a daemon in trouble writes. */
export function panics(place: ServerPlace): string[] {
  return logFiles(place).flatMap((file) =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => PANIC.test(line))
      .map((line) => `${file}: ${shortened(line)}`),
  );
}
