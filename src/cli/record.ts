/**
 * `smbpool record DB KEY`: where one record is, who waits for it and who had it. The asked daemon asks the record's
 * home. The text is made by a pure function, which tests compare with golden files.
 */
import type { Command } from 'commander';
import { ADMIN_PATH, RECORD_KEY_BYTES_MAX } from '../ports/admin.js';
import type { RecordReport, StatusReport } from '../ports/status.js';
import { addAdminOptions, adminSocket, ask } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { CommandError } from './errors.js';
import { duration, table } from './text.js';

interface RecordOptions extends AdminOptions {
  json?: true;
}

export function registerRecord(program: Command): void {
  const command = program
    .command('record')
    .argument('<database>', 'for example locking or locking.tdb')
    .argument('<key>', 'hexadecimal digits, or text:... with \\0 for a NUL and \\xHH for any byte')
    .description('where a record is, who waits for it, and its history of owners')
    .option('--json', 'as JSON');
  addAdminOptions(command).action(async (database: string, key: string, options: RecordOptions) => {
    const socket = adminSocket(options);
    const query = { database, key: parseKey(key) };
    const record = await ask<RecordReport>(socket, ADMIN_PATH.record, query);
    if (options.json) {
      process.stdout.write(`${JSON.stringify(record, null, 2)}\n`);
      return;
    }
    const { servers } = await ask<StatusReport>(socket, ADMIN_PATH.status);
    process.stdout.write(recordText(record, new Map(servers.map(({ id, name }) => [id, name]))));
  });
}

/**
 * The key in hexadecimal. What is neither marked `text:` nor hexadecimal is taken as text.
 * @throws CommandError when the key is empty or too long.
 */
export function parseKey(key: string): string {
  const hex = /^(?:hex:|0x)?((?:[0-9a-fA-F]{2})+)$/.exec(key)?.[1];
  const result = hex?.toLowerCase() ?? textBytes(key.replace(/^text:/, '')).toString('hex');
  if (result === '') throw new CommandError('the key is empty: give hexadecimal digits, or text:...');
  if (result.length / 2 > RECORD_KEY_BYTES_MAX) throw new CommandError(`the key is over ${RECORD_KEY_BYTES_MAX} bytes`);
  return result;
}

function textBytes(text: string): Buffer {
  const parts = text.split(/(\\0|\\\\|\\x[0-9a-fA-F]{2})/);
  return Buffer.concat(
    parts.map((part) => {
      if (part === '\\0') return Buffer.from([0]);
      if (part === '\\\\') return Buffer.from('\\');
      if (part.startsWith('\\x')) return Buffer.from(part.slice(2), 'hex');
      return Buffer.from(part);
    }),
  );
}

export function recordText(record: RecordReport, names: ReadonlyMap<number, string>): string {
  const named = (id: number): string => (names.has(id) ? `${id} (${names.get(id) ?? ''})` : String(id));
  const list = (ids: readonly number[]): string => (ids.length === 0 ? 'nobody' : ids.map(named).join(', '));
  const lines = [
    `Record ${record.keyHex} of ${record.database}`,
    `  home     ${named(record.home)}`,
    `  owner    ${record.owner === null ? 'nobody: the record does not exist' : named(record.owner)}`,
    `  turn     ${record.turn}`,
    `  backup   ${record.backup === null ? 'none' : named(record.backup)}`,
    `  readers  ${list(record.readers)}`,
    `  waiting  ${list(record.waiting)}`,
  ];
  if (record.history.length === 0) return `${lines.join('\n')}\n`;
  const rows = [...record.history]
    .reverse()
    .map(({ owner, turn, microsAgo }) => [named(owner), turn, `${duration(microsAgo)} ago`]);
  return `${lines.join('\n')}\nOwners, newest first\n${table(['server', 'turn', 'since'], rows)}\n`;
}
