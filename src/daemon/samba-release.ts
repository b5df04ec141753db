/**
 * Which Samba this server has, and whether this smbpoold knows it. The table of releases is beside the module
 * (samba-module/compat/releases), whose build reads it too.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { StartError } from './errors.js';

/** It prints its version and ends. */
const SMBD_MILLIS_MAX = 10_000;
/** dist/src/daemon/samba-release.js lies three folders below. */
const TABLE = new URL('../../../samba-module/compat/releases', import.meta.url);

/** The releases in the table, as "4.17". */
export function knownReleases(table: string = readFileSync(TABLE, 'utf8')): string[] {
  return table.split('\n').flatMap((line) => /^(\d+\.\d+)\s/.exec(line)?.[1] ?? []);
}

/**
 * The release in what "smbd -V" prints; undefined for nothing, as where no Samba is installed.
 * @throws StartError when it is none that we know.
 */
export function releaseOf(printed: string, known: readonly string[] = knownReleases()): string | undefined {
  const release = /^Version (\d+\.\d+)/.exec(printed)?.[1];
  if (release === undefined) return undefined;
  if (known.includes(release)) return release;
  throw new StartError(
    `smbd here is Samba ${release}, and this smbpoold knows ${known.join(' and ')}: ` +
      'install one of these, or a newer smbpool',
  );
}

/** @throws StartError as releaseOf. */
export function installedSamba(): string | undefined {
  return releaseOf(spawnSync('smbd', ['-V'], { encoding: 'utf8', timeout: SMBD_MILLIS_MAX }).stdout ?? '');
}
