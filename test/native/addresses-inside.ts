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
const native = loadNative();
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });

export interface Seen {
  address: string;
  configured: boolean;
  /** The neighbour, which believed something else, sends to us. */
  believed: boolean;
  ended: number;
  client: string;
  /** After its lifetime. */
  stays: boolean;
}

/** A client at the neighbour's that says how its connection ends. */
function client(address: string): Promise<string> {
  const script = `const s = require('net').connect({ host: '${address}', port: 4445, localPort: 5555 });
    s.on('error', (e) => { console.log(e.code); process.exit(); }); setTimeout(() => process.exit(), 10000);`;
  const child = spawn('ip', ['netns', 'exec', 'n', process.execPath, '-e', script]);
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  return new Promise((resolve) => child.on('close', () => resolve(said.trim())));
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

async function see(address: string, prefixLength: number, neighbour: string): Promise<Seen> {
  const place = { address, prefixLength, interface: 'v0' };
  const take = { ...place, lifetimeSeconds: 3, deadlineMicros: Infinity, announce: true };
  ip('-n', 'n', 'neigh', 'replace', address, 'lladdr', WRONG_MAC, 'dev', 'v1', 'nud', 'stale');
  await native.takeAddress({ ...take, tickle: [] });
  await sleep(100);
  const configured = ip('-o', 'addr', 'show', 'dev', 'v0').includes(address);
  const own = /ether (\S+)/.exec(ip('-o', 'link', 'show', 'v0'))?.[1] ?? '?';
  const believed = ip('-n', 'n', 'neigh', 'show', address).includes(own);
  const { server, connected } = await listen(address);
  const ending = client(address);
  await connected;
  const { ended } = await native.releaseAddress(place);
  await sleep(100);
  const tickle = [{ server: address, serverPort: 4445, client: neighbour, clientPort: 5555 }];
  await native.takeAddress({ ...take, tickle });
  const said = await ending;
  server.close();
  await sleep(6000);
  const stays = ip('-o', 'addr', 'show', 'dev', 'v0').includes(address);
  return { address, configured, believed, ended, client: said, stays };
}

ip('netns', 'add', 'n');
ip('link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1', 'netns', 'n');
for (const [namespace, name, number] of [[[], 'v0', 1], [['-n', 'n'], 'v1', 2]] as const) {
  ip(...namespace, 'link', 'set', name, 'up');
  ip(...namespace, 'addr', 'add', `10.9.0.${number}/24`, 'dev', name);
  ip(...namespace, 'addr', 'add', `fd00::${number}/64`, 'dev', name, 'nodad');
}
await sleep(1500);
const seen = [await see('10.9.0.100', 24, '10.9.0.2'), await see('fd00::100', 64, 'fd00::2')];
ip('netns', 'del', 'n');
process.stdout.write(`${JSON.stringify(seen)}\n`);
