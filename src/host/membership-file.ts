/**
 * The file of a server's membership: term, vote and accepted view (docs/decisions/membership.md). Written anew beside
 * the old one, synced and renamed, without keeping the loop waiting. Decides nothing.
 */
import { readFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DecodeError } from '../base/bytes.js';
import type { Log } from '../ports/log.js';
import type { SavedMembership } from '../wire/membership-state.js';
import { STATE_VERSION, decodeSaved, encodeSaved } from '../wire/membership-state.js';
import { PoolError, messageOf } from './errors.js';

/** In the persistent directory. */
export const MEMBERSHIP_FILE = 'smbpoold.membership';

export class MembershipFile {
  private readonly path: string;

  constructor(
    directory: string,
    private readonly log: Log,
  ) {
    this.path = join(directory, MEMBERSHIP_FILE);
  }

  /**
   * What was saved last; null: nothing ever was.
   * @throws PoolError when the file cannot be read: a server that forgot its vote could vote twice.
   */
  read(): SavedMembership | null {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(this.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw new PoolError('ERR_POOL_MEMBERSHIP', `${this.path} cannot be read: ${messageOf(error)}`);
    }
    try {
      return decodeSaved(bytes);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      if (error.reason === STATE_VERSION) {
        const message =
          `${this.path} has layout ${error.message}, which this release of smbpool does not know: a later release ` +
          'wrote it. Install that one again; what the file says of votes must not be lost';
        throw new PoolError('ERR_POOL_MEMBERSHIP', message);
      }
      const message =
        `${this.path} is damaged (${error.reason}): this server does not know any more how it voted. Remove the file ` +
        'while all other servers of the pool run, and start smbpoold half a minute later';
      throw new PoolError('ERR_POOL_MEMBERSHIP', message);
    }
  }

  /** All or nothing, and on disk when it resolves with true. */
  async save(state: SavedMembership): Promise<boolean> {
    const fresh = `${this.path}.new`;
    try {
      await writeSynced(fresh, encodeSaved(state));
      await rename(fresh, this.path);
      await syncDirectory(dirname(this.path));
      return true;
    } catch (error) {
      const remedy =
        'see why the disk below the persistent directory refuses; until it is there, which is tried again and again, ' +
        'this server neither votes nor accepts views';
      this.log.log('error', 'membership.save-failed', { file: this.path, why: messageOf(error), remedy });
      return false;
    }
  }
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'w', 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
