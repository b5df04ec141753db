/**
 * `smbpool join` and `smbpool leave`: one server more in a running pool, or one less. Any other daemon of the pool can
 * be asked; it answers when the servers have agreed. The texts are made by pure functions.
 */
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type { ServersReport, StatusReport } from '../ports/status.js';
import { addAdminOptions, adminSocket, ask, tell } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { waitUntilEmpty } from './drain.js';
import { CommandError } from './errors.js';
import { numberParser } from './lock-options.js';
import { plural } from './text.js';

/** Longer than the daemon's own limit. */
const CHANGE_TIMEOUT_MS = 15_000;
const TIMEOUT_SECONDS_DEFAULT = 60;
const TIMEOUT_SECONDS_MAX = 86_400;

const parseTimeout = numberParser({ min: 0, max: TIMEOUT_SECONDS_MAX, whole: true });

interface JoinOptions extends AdminOptions {
  address: string;
  id?: string;
  role?: string;
  interface?: string;
  interface2?: string;
  address2?: string;
  json?: true;
}

interface LeaveOptions extends AdminOptions {
  now?: true;
  timeout: number;
  json?: true;
}

export function registerServers(program: Command): void {
  const join = program
    .command('join')
    .argument('<name>', 'of the new server')
    .description('take one more server into the running pool; the others go on')
    .requiredOption('--address <address>', 'as servers[].address in the configuration file')
    .option('--id <number>', 'its number; otherwise the lowest that no server ever had')
    .option('--interface <name>', 'the interface of the new server that leads to the others; for raw Ethernet')
    .option('--interface2 <name>', 'a second one, on a network of its own')
    .option('--address2 <address>', 'with UDP what --interface2 is for raw Ethernet')
    .option('--role <role>', 'server, or witness')
    .option('--json', 'print JSON');
  addAdminOptions(join).action(async (name: string, options: JoinOptions) => {
    const keys = ['id', 'address', 'interface', 'interface2', 'address2', 'role'] as const;
    const given = keys.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]]));
    const query = { name, ...(Object.fromEntries(given) as Record<string, string>) };
    const report = await tell<ServersReport>(adminSocket(options), ADMIN_PATH.join, query, CHANGE_TIMEOUT_MS);
    process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : describeJoin(name, report));
  });
  const leave = program
    .command('leave')
    .argument('<server>', 'its name or number')
    .description('take a server out of the running pool, for good; the others go on')
    .option('--now', 'although it has clients: their connections end')
    .option('--timeout <seconds>', 'how long to wait until it has no clients', parseTimeout, TIMEOUT_SECONDS_DEFAULT)
    .option('--json', 'print JSON');
  addAdminOptions(leave).action(async (server: string, options: LeaveOptions) => {
    const socket = adminSocket(options);
    if (!options.now) await empty(socket, server, options.timeout);
    const report = await tell<ServersReport>(socket, ADMIN_PATH.leave, { server }, CHANGE_TIMEOUT_MS);
    process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : describeLeave(server, report));
  });
}

/** Drains the server, if it serves, and waits until it has no clients. @throws CommandError when some remain. */
async function empty(socket: string, name: string, seconds: number): Promise<void> {
  const { servers, self } = await ask<StatusReport>(socket, ADMIN_PATH.status);
  const server = servers.find((one) => one.name === name || `${one.id}` === name);
  // what is wrong with the name, the daemon says
  if (server === undefined || server.id === self || server.role === 'witness' || server.state !== 'member') return;
  await tell(socket, ADMIN_PATH.drain, { server: name, draining: 'true' });
  try {
    await waitUntilEmpty(socket, name, seconds);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const other = `or smbpool leave ${name} --now, or smbpool undrain ${name} to leave all as it was`;
    throw new CommandError(`${error.message}; ${other}`);
  }
}

export function describeJoin(name: string, report: ServersReport): string {
  const server = report.servers.find((one) => one.name === name);
  const number = server === undefined ? '' : ` as number ${server.id}`;
  return [
    `${name} is in the pool${number}; it counts in majorities as soon as it is heard.`,
    `Write this into the configuration file of all ${plural(report.servers.length, 'server')}, then start smbpoold on `
      + `${name}. The others need no restart.`,
    '',
    ...report.lines,
    '',
  ].join('\n');
}

export function describeLeave(name: string, report: ServersReport): string {
  return [
    `${name} is out of the pool: stop smbpoold and smbd there.`,
    `Write this into the configuration file of ${report.servers.length === 1 ? 'the other server'
      : `all ${plural(report.servers.length, 'server')}`}, which need no restart.`,
    '',
    ...report.lines,
    '',
  ].join('\n');
}
