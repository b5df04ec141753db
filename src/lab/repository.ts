/**
 * Finds the repository's folder from the compiled files, for what is not compiled: the client script, the npm scripts.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LabError } from './errors.js';

/** The nearest folder above this file that holds package.json. */
export function repositoryFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const above = dirname(folder);
    if (above === folder) throw new LabError('the lab runs only from its repository: package.json was not found');
    folder = above;
  }
  return folder;
}
