/**
 * `smbpool drain` and `smbpool undrain`: take a server out of use, and back. Any daemon of the pool can be asked. With
 * --wait, drain looks again and again until the server has no clients, or says who remains; without, until its clients'
 * leases are broken, which the server itself gives up after a while. The texts are made by pure functions.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type { AddressReport, ServerStatus, StatusReport } from '../ports/status.js';
import { addAdminOptions, adminSocket, ask, tell } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { CommandError } from './errors.js';
import { numberParser } from './lock-options.js';
import { plural } from './text.js';

const TIMEOUT_SECONDS_DEFAULT = 60;
const TIMEOUT_SECONDS_MAX = 86_400;
const LOOK_INTERVAL_MS = 300;

const parseTimeout = numberParser({ min: 0, max: TIMEOUT_SECONDS_MAX, whole: true });

interface DrainOptions extends AdminOptions {
  wait?: true;
  timeout: number;
}

export function registerDrain(program: Command): void {
  const drain = program
    .command('drain')
    .argument('<server>', 'its name or number')
    .description('take a server out of use: its public addresses and their clients go to others, also after a restart')
    .option('--wait', 'until it has no clients; exit status 1 if some remain')
    .option('--timeout <seconds>', 'how long to wait', parseTimeout, TIMEOUT_SECONDS_DEFAULT);
  addAdminOptions(drain).action(async (server: string, options: DrainOptions) => {
    const socket = adminSocket(options);
    await tell(socket, ADMIN_PATH.drain, { server, draining: 'true' });
    process.stdout.write(`${server} is drained until "smbpool undrain ${server}"\n`);
    process.stdout.write(await waitUntilBroken(socket, server, (text) => void process.stderr.write(text)));
    if (options.wait) process.stdout.write(await waitUntilEmpty(socket, server, options.timeout));
  });
  const undrain = program
    .command('undrain')
    .argument('<server>', 'its name or number')
    .description('take a drained server into use again');
  addAdminOptions(undrain).action(async (server: string, options: AdminOptions) => {
    await tell(adminSocket(options), ADMIN_PATH.drain, { server, draining: 'false' });
    process.stdout.write(`${server} is in use again: it has its share of the public addresses in a few seconds\n`);
  });
}

/** What to say when the server has broken its clients' leases, or waits for them no longer; '' when none are left. */
async function waitUntilBroken(socket: string, name: string, say: (text: string) => void): Promise<string> {
  for (let said = ''; ;) {
    const { servers } = await ask<StatusReport>(socket, ADMIN_PATH.status);
    const server = servers.find((one) => one.name === name || `${one.id}` === name);
    if (server?.leases?.breaking !== true) return server === undefined ? '' : leasesText(server);
    const text = leasesText(server);
    if (text !== said) say(text);
    said = text;
    await sleep(LOOK_INTERVAL_MS);
  }
}

/** That leases are being broken, or what could not be; '' when there are none. */
export function leasesText({ name, leases }: ServerStatus): string {
  if (leases === undefined) return '';
  const { breaking, left, named } = leases;
  if (breaking) return `${name} breaks its clients' leases and oplocks first: ${left} left\n`;
  const more = named.length < left ? [`and ${left - named.length} more`] : [];
  const lines = [...named, ...more].map((line) => `  ${line}\n`).join('');
  return `${name} could not break ${plural(left, 'lease')} in time; what these clients `
    + `had not written may be lost:\n${lines}`;
}

/**
 * The sentence for the end of the wait.
 * @throws CommandError when clients or addresses remain.
 */
export async function waitUntilEmpty(socket: string, name: string, seconds: number): Promise<string> {
  const until = performance.now() + seconds * 1000;
  for (;;) {
    const { servers } = await ask<StatusReport>(socket, ADMIN_PATH.status);
    const addresses = await ask<AddressReport[]>(socket, ADMIN_PATH.addresses);
    const server = servers.find((one) => one.name === name || `${one.id}` === name);
    if (server === undefined) throw new CommandError(`the pool has no server ${name} any more`);
    const remaining = remainingText(server, addresses);
    if (remaining === null) return `${server.name} has no clients\n`;
    if (performance.now() >= until) throw new CommandError(`after ${seconds} s ${remaining}`);
    await sleep(LOOK_INTERVAL_MS);
  }
}

/** What keeps a server from being empty; null: nothing. */
export function remainingText(server: ServerStatus, addresses: readonly AddressReport[]): string | null {
  const { id, name, state, fitness, leases, clients } = server;
  if (state === 'out') return null;
  const held = addresses.filter(({ holder }) => holder === id).map(({ address }) => address);
  if (leases?.breaking === true) return `${name} still breaks its clients' leases: ${leases.left} left`;
  if (held.length > 0) {
    return `${name} still has ${held.join(', ')}: no other server can have them (smbpool status tells why)`;
  }
  if (fitness !== 'draining' || clients == null) return `${name} has not said yet that it drains`;
  if (clients.connections === 0) return null;
  const more = clients.named.length < clients.connections ? ` (${plural(clients.connections, 'connection')})` : '';
  const who = `${name} still has clients: ${clients.named.join(', ')}${more}`;
  return `${who}; they use its own address, or do not let go: end them there, or stop its smbd`;
}
