/**
 * Reads the pool's key: 32 random bytes in hexadecimal or base64 in a file that only its owner may read. Called by main
 * at start and by --check-config. `smbpool keygen` writes such a file. The key itself never appears in a message.
 */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { ConfigError } from './errors.js';

/** AES-256 keys are derived from it (docs/protocol.md); less would weaken them, more would not strengthen them. */
export const POOL_KEY_BYTES = 32;

/**
 * The pool's key.
 * @throws ConfigError when the file is missing, is readable by others, or does not hold a key.
 */
export function readKeyFile(file: string, userId: number): Uint8Array {
  const make = `make one with "smbpool keygen ${file}" and copy it to all servers`;
  let descriptor: number;
  try {
    descriptor = openSync(file, 'r');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    const why = missing ? 'does not exist' : `cannot be read: ${text(error)}`;
    throw new ConfigError([`${file}: the pool's key (pool.keyFile) ${why}; ${make}`]);
  }
  try {
    const status = fstatSync(descriptor);
    if (!status.isFile()) throw new ConfigError([`${file}: the pool's key (pool.keyFile) is not a file; ${make}`]);
    if (status.uid !== 0 && status.uid !== userId) {
      throw new ConfigError([`${file}: the pool's key belongs to user ${status.uid}; "chown root ${file}"`]);
    }
    if ((status.mode & 0o077) !== 0) {
      const mode = (status.mode & 0o777).toString(8).padStart(4, '0');
      throw new ConfigError([`${file}: the pool's key has mode ${mode}, others can use it; "chmod 0600 ${file}"`]);
    }
    const key = parseKey(readFileSync(descriptor, 'utf8'));
    if (key === null) {
      const length = `${POOL_KEY_BYTES} bytes as ${POOL_KEY_BYTES * 2} hexadecimal digits or in base64`;
      throw new ConfigError([`${file}: the pool's key must be ${length} and nothing else; ${make}`]);
    }
    return key;
  } finally {
    closeSync(descriptor);
  }
}

/** The key in a key file's text; null when there is none. */
export function parseKey(content: string): Uint8Array | null {
  const value = content.trim();
  if (/^[0-9a-fA-F]{64}$/.test(value)) return Buffer.from(value, 'hex');
  if (/^[A-Za-z0-9+/]{43}=$/.test(value)) return Buffer.from(value, 'base64');
  return null;
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
