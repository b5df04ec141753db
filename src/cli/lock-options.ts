/**
 * What `who`, `trace`, `top` and `waits` have in common: the options that name a path, a user, a client or a share, the
 * words for a client and a process, and what is said when an answer is not whole.
 */
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import type { ClientIdentity, LockFilter } from '../wire/locks.js';
import { printable } from './text.js';

export interface LockFilterOptions {
  user?: string;
  client?: string;
  share?: string;
}

export function addFilterOptions(command: Command): Command {
  return command
    .argument('[path]', 'below the root of the share, or absolute on the server; a directory means all below it')
    .option('--user <name>', 'of this user, with or without the domain')
    .option('--client <client>', 'of this client: its name, or its address with or without the port')
    .option('--share <name>', 'on this share');
}

export function lockFilter(path: string | undefined, { user, client, share }: LockFilterOptions): LockFilter {
  return {
    ...(path === undefined ? {} : { path }),
    ...(user === undefined ? {} : { user }),
    ...(client === undefined ? {} : { client }),
    ...(share === undefined ? {} : { share }),
  };
}

/** ' for path "a", user "b"'; '' without a filter. */
export function filterWords(filter: LockFilter): string {
  const words = Object.entries(filter).map(([key, text]) => `${key} ${JSON.stringify(text)}`);
  return words.length === 0 ? '' : ` for ${printable(words.join(', '))}`;
}

/** For an option that is a number: from `min` to `max`, with a fraction unless `whole`. */
export function numberParser(bounds: { min: number; max: number; whole?: true }): (value: string) => number {
  return (value) => {
    const number = Number(value);
    const isGood = value.trim() !== '' && number >= bounds.min && number <= bounds.max;
    if (isGood && (bounds.whole === undefined || Number.isInteger(number))) return number;
    const kind = bounds.whole === undefined ? 'a number' : 'a whole number';
    throw new InvalidArgumentError(`It must be ${kind} from ${bounds.min} to ${bounds.max}.`);
  };
}

/** '10.0.0.5:50123 (PC-ANNA)'; without the name where smbd knows the address only, and says it twice. */
export function clientWords({ client, clientName }: Pick<ClientIdentity, 'client' | 'clientName'>): string {
  const address = client.replace(/^ipv[46]:/, '');
  const isNamed = clientName !== '' && !address.startsWith(`${clientName}:`) && address !== clientName;
  return printable(isNamed ? `${address} (${clientName})` : address);
}

/** The root of a share has an empty path. */
export function pathWords(path: string): string {
  return path === '' ? '.' : printable(path);
}

/** 'beta pid 2302'; pid 0 is the server itself. */
export function processWords({ serverName, pid }: Pick<ClientIdentity, 'serverName' | 'pid'>): string {
  const name = printable(serverName);
  if (pid !== 0) return `${name} pid ${pid}`;
  return name.startsWith('server') ? name : `server ${name}`;
}

/** What is missing of an answer, one sentence a line; '' when it is whole. */
export function incompleteText(answer: { missing: readonly number[]; truncated?: boolean }): string {
  const { missing, truncated } = answer;
  const servers = `${missing.length === 1 ? 'Server' : 'Servers'} ${missing.join(', ')}`;
  const silent = missing.length === 0 ? '' : `${servers} did not answer: what is held there is not shown\n`;
  const more = truncated === true ? 'More matched than is shown: name a path, a user, a client or a share\n' : '';
  return silent + more;
}
