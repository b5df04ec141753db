/**
 * Runs in network and mount namespaces of its own, made by addresses.test.ts: takes and releases public addresses
 * beside a neighbour in another namespace, and prints what became of them as JSON.
 */
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { execFileSync, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadNative } from '../../src/host/native.js';

const WRONG_MAC = '02:00:00:00:00:09';
const LIFETIME_SECONDS = 3;
const NEIGHBOURS = ['10.9.0.2', 'fd00::2'];
const native = loadNative();
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });

export interface Seen {
  address: string;
  /** And serves at once. */
  configured: boolean;
  /** The neighbour, which believed something else, sends to us. */
  believed: boolean;
  /** From where we speak when we call the neighbour. */
  calls: string;
  ended: number;
  /** What the client heard before the tickle: nothing, as what ended its connection was lost. */
  heard: string;
  client: string;
  /** After its lifetime. */
  stays: boolean;
}

export interface Report {
  seen: Seen[];
  /** Whether what others configured, also with another prefix length, was removed. */
  stale: boolean[];
  /** How long the route to the network of an own address with a lifetime lasts when a public one is there: seconds. */
  ownRoute: number;
  /** Whether there is a route to the network of a public address where there is no own one. */
  route: boolean;
}

interface Case {
  address: string;
  prefixLength: number;
  /** Where the server listens; the address unless told. */
  listens?: string;
  /** The client's address, and with its scope if it has one. */
  client: string;
  from?: string;
}

/** A client at the neighbour's that says how its connection ends. */
function connectFrom(address: string, from: string): { said: () => string; ended: Promise<void> } {
  const from4445 = `host: '${address}', port: 4445, localPort: 5555, localAddress: '${from}'`;
  const script = `const s = require('net').connect({ ${from4445} });
    s.on('error', (e) => { console.log(e.code); process.exit(); }); setTimeout(() => process.exit(), 10000);`;
  const child = spawn('ip', ['netns', 'exec', 'n', process.execPath, '-e', script]);
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  return { said: () => said.trim(), ended: new Promise((resolve) => child.on('close', () => resolve())) };
}

async function listen(address: string): Promise<{ server: Server; connected: Promise<void> }> {
  const server = createServer();
  const connected = new Promise<void>((resolve) => {
    server.on('connection', (socket) => {
      socket.on('error', () => undefined);
      resolve();
    });
  });
  await new Promise<void>((resolve) => server.listen(4445, address, resolve));
  return { server, connected };
}

async function see({ address, prefixLength, listens, client, from }: Case): Promise<Omit<Seen, 'stays'>> {
  const place = { address, prefixLength, interface: 'v0' };
  const take = { ...place, lifetimeSeconds: LIFETIME_SECONDS, deadlineMicros: Infinity, announce: true };
  ip('-n', 'n', 'neigh', 'replace', address, 'lladdr', WRONG_MAC, 'dev', 'v1', 'nud', 'stale');
  // a busy machine takes seconds to start the client
  await native.takeAddress({ ...take, lifetimeSeconds: 60, tickle: [] });
  const configured = isUsable(address);
  await sleep(100);
  const believed = ip('-n', 'n', 'neigh', 'show', address).includes(macOf('v0'));
  const [neighbour = ''] = NEIGHBOURS.filter((one) => one.includes(':') === address.includes(':'));
  const calls = / src (\S+)/.exec(ip('route', 'get', neighbour))?.[1] ?? '?';
  const { server, connected } = await listen(listens ?? address);
  const connection = connectFrom(address, from ?? client);
  await Promise.race([connected, connection.ended]);
  // nothing but a tickle can reach the client
  ip('neigh', 'replace', client, 'lladdr', WRONG_MAC, 'dev', 'v0', 'nud', 'permanent');
  const { ended } = await native.releaseAddress(place);
  await sleep(100);
  const heard = connection.said();
  // the tickle's answer is here at once, as nothing waits for the client's MAC
  ip('neigh', 'replace', client, 'lladdr', macOf('v1', '-n', 'n'), 'dev', 'v0', 'nud', 'reachable');
  const tickle = [{ server: address, serverPort: 4445, client, clientPort: 5555 }];
  // several at once, as when a server died: the kernel is then late with what IPv6 needs
  const others = [1, 2, 3].map((last) => ({ ...take, address: `${address}${last}`, tickle: [] }));
  await Promise.all([...others, { ...take, tickle }].map((one) => native.takeAddress(one)));
  await connection.ended;
  server.close();
  return { address, configured, believed, calls, ended, heard, client: connection.said() };
}

function macOf(name: string, ...namespace: string[]): string {
  return /ether (\S+)/.exec(ip(...namespace, '-o', 'link', 'show', name))?.[1] ?? '?';
}

/** There, and no duplicates of it are sought. */
function isUsable(address: string): boolean {
  return ip('-o', 'addr', 'show', 'dev', 'v0', '-tentative').includes(` ${address}/`);
}

ip('netns', 'add', 'n');
ip('link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1', 'netns', 'n');
for (const [namespace, name, number] of [[[], 'v0', 1], [['-n', 'n'], 'v1', 2]] as const) {
  ip(...namespace, 'link', 'set', name, 'up');
  ip(...namespace, 'addr', 'add', `10.9.0.${number}/24`, 'dev', name);
  ip(...namespace, 'addr', 'add', `fd00::${number}/64`, 'dev', name, 'nodad');
}
await sleep(1500);
const linkLocal = /inet6 (fe80:\S+)\//.exec(ip('-n', 'n', '-o', 'addr', 'show', 'dev', 'v1'))?.[1] ?? '?';
const cases: Case[] = [
  { address: '10.9.0.10', prefixLength: 24, client: '10.9.0.2' },
  { address: '10.9.0.11', prefixLength: 24, client: '10.9.0.2', listens: '::' },
  { address: 'fd00::100', prefixLength: 64, client: 'fd00::2' },
  { address: 'fd00::101', prefixLength: 64, client: linkLocal, from: `${linkLocal}%v1` },
];
const seen: Omit<Seen, 'stays'>[] = [];
for (const one of cases) seen.push(await see(one));
await sleep((LIFETIME_SECONDS + 3) * 1000);
const isRemoved = (address: string, configured: number, prefixLength: number): boolean => {
  ip('addr', 'add', `${address}/${configured}`, 'dev', 'v0');
  const was = native.removeAddress({ address, prefixLength, interface: 'v0' });
  return was && !ip('-o', 'addr', 'show', 'dev', 'v0').includes(` ${address}/`);
};
/** Twice, as it is renewed. */
async function lasting(address: string): Promise<number | null> {
  const where = { address, prefixLength: 64, interface: 'v0' };
  const take = { ...where, lifetimeSeconds: LIFETIME_SECONDS, deadlineMicros: Infinity, announce: false, tickle: [] };
  await native.takeAddress(take);
  await native.takeAddress(take);
  const route = ip('-6', 'route', 'show', address.replace(/::.*/, '::/64'), 'dev', 'v0');
  const expires = / expires (\d+)sec/.exec(route)?.[1];
  return expires === undefined ? null : Number(expires);
}
ip('addr', 'add', 'fd01::1/64', 'dev', 'v0', 'nodad', 'valid_lft', '600', 'preferred_lft', '600');
const ownRoute = (await lasting('fd01::100')) ?? 0;
const route = (await lasting('fd02::100')) !== null;
const stale = [isRemoved('10.9.0.103', 32, 24), isRemoved('fd00::103', 128, 64), isRemoved('fd00::104', 64, 64)];
const left = ip('-o', 'addr', 'show', 'dev', 'v0');
ip('netns', 'del', 'n');
const all = seen.map((one): Seen => ({ ...one, stays: left.includes(` ${one.address}/`) }));
process.stdout.write(JSON.stringify({ seen: all, stale, ownRoute, route } satisfies Report));
