/**
 * Whether a person drains this server, kept in the persistent directory: the file is there while it drains, so that a
 * restart changes nothing. Decides nothing.
 */
import { existsSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from './errors.js';

/** In the persistent directory. */
export const DRAIN_FILE = 'smbpoold.draining';

const CONTENT = 'this server is drained: "smbpool undrain" removes the file\n';

export class DrainFile {
  private readonly path: string;
  /** One change after the other. */
  private last: Promise<unknown> = Promise.resolve();

  constructor(private readonly directory: string) {
    this.path = join(directory, DRAIN_FILE);
  }

  isThere(): boolean {
    return existsSync(this.path);
  }

  /** Never rejects: null when it is on disk, else why not. */
  save(draining: boolean): Promise<string | null> {
    const done = this.last.then(() => this.saveNow(draining));
    this.last = done;
    return done;
  }

  private async saveNow(draining: boolean): Promise<string | null> {
    try {
      if (draining) await this.write();
      else await rm(this.path, { force: true });
      const directory = await open(this.directory, 'r');
      await directory.sync().finally(() => directory.close());
      return null;
    } catch (error) {
      const wanted = draining ? 'written' : 'removed';
      return `${this.path} cannot be ${wanted}: ${messageOf(error)}; see why the disk refuses, and ask again`;
    }
  }

  private async write(): Promise<void> {
    const file = await open(this.path, 'w', 0o600);
    try {
      await file.writeFile(CONTENT);
      await file.sync();
    } finally {
      await file.close();
    }
  }
}
