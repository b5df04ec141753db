/** The version in package.json, for --version of both programs, the log and the status. */
import { readFileSync } from 'node:fs';

/** dist/src/ports/version.js lies three folders below package.json. */
export function version(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
