/**
 * Where the repository is, for tests that read its files (goldens, sources): tests run compiled, from dist or
 * elsewhere.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The folder with our package.json: the current directory (npm sets it) or the nearest one above. */
export function repositoryRoot(): string {
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && existsSync(join(folder, 'tsconfig.json'))) return folder;
    if (folder === dirname(folder)) throw new Error('run the tests from inside the repository');
  }
}
