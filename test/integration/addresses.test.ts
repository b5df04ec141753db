/**
 * Public addresses on real smbds, IPv4 and IPv6: all served once each and balanced; when a server dies, is cut off or
 * stands still, its addresses are at others, and a client that waits idle on one of them notices. The figures go to the
 * output.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { ask } from '../../src/cli/admin-client.js';
import { accepts } from '../../src/lab/admin.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import {
  PREFIX_LENGTH, PREFIX_LENGTH_6, hostInterface, publicAddress, publicAddress6,
} from '../../src/lab/layout.js';
import { run, tryRun, waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { ADMIN_PATH } from '../../src/ports/admin.js';
import type { AddressReport } from '../../src/ports/status.js';
import { forgetTheEnd } from './kill-daemon.js';
import { SKIP, withLab } from './pool.js';

/** As many as servers: each has one of either kind. */
const OF_EACH_KIND = 3;
const ADDRESSES = [publicAddress, publicAddress6].flatMap((address) => {
  return Array.from({ length: OF_EACH_KIND }, (_, index) => address(index));
});
/** A lease, an election if the leader is lost, the table: far below on an idle machine. */
const MOVE_MILLIS_MAX = 10_000;
/** A tickle may meet a client's machine that does not heed it; the last comes after two seconds. */
const NOTICE_MILLIS_MAX = 2_000;
/**
 * After the table: the first tickle's answer ends the connection. Were it lost, the one after a second would: Linux
 * answers such segments every 500 ms, so that of 200 ms is not heard.
 */
const FIRST_TICKLE_MILLIS_MAX = 900;
const BALANCE_MILLIS_MAX = 20_000;
/** The kernel's own: host/addresses, and a second of its clock. */
const LIFETIME_MILLIS_MAX = 6_000;
const END_MILLIS_MAX = 20_000;

const seconds = (): number => Number(process.hrtime.bigint()) / 1e9;
const say = (what: string, since: number, until = seconds()): void =>
  void process.stdout.write(`${what}: ${Math.round((until - since) * 1000)} ms\n`);

async function report(lab: Lab, asked: number): Promise<AddressReport[]> {
  return ask<AddressReport[]>(lab.server(asked).adminSocket, ADMIN_PATH.addresses);
}

/** Which server has which address by the table; null while an address moves. */
async function holders(lab: Lab, asked: number): Promise<Map<string, number | null>> {
  return new Map((await report(lab, asked)).map(({ address, holder }) => [address, holder]));
}

/** What is configured on the server's interface, and serves: IPv6 may wait until no duplicate was found. */
async function configured(place: ServerPlace): Promise<string[]> {
  const { stdout } = await tryRun('ip', ['-n', place.namespace, '-o', 'addr', 'show', 'dev', 'eth0', '-tentative']);
  return ADDRESSES.filter((address) => stdout.includes(` ${address}/`));
}

const kindOf = (address: string): string => (address.includes(':') ? 'IPv6' : 'IPv4');

async function isBalanced(lab: Lab): Promise<boolean> {
  const kinds = await Promise.all(lab.servers().map(async (place) => (await configured(place)).map(kindOf).join()));
  const table = [...(await holders(lab, 0)).values()];
  return kinds.every((has) => has === 'IPv4,IPv6') && table.every((holder) => holder !== null);
}

async function assertBalanced(lab: Lab): Promise<void> {
  const balanced = await waitUntil(() => isBalanced(lab), BALANCE_MILLIS_MAX, 100);
  assert.ok(balanced, `not balanced: ${JSON.stringify([...(await holders(lab, 0))])}`);
  // each once, by the interfaces
  const all = (await Promise.all(lab.servers().map(configured))).flat();
  assert.deepEqual(all.sort(), [...ADDRESSES].sort());
}

async function macOf(place: ServerPlace): Promise<string> {
  const { stdout } = await tryRun('ip', ['-n', place.namespace, '-o', 'link', 'show', 'dev', 'eth0']);
  return /link\/ether (\S+)/.exec(stdout)?.[1] ?? '';
}

/** Whether clients of this machine send to the server what they send to the address. */
async function leadsTo(address: string, place: ServerPlace): Promise<boolean> {
  const { stdout } = await tryRun('ip', ['neigh', 'show', address]);
  return stdout.includes(await macOf(place));
}

/** Until all addresses of the lost server serve at another one; when the table said so. */
async function untilMoved(lab: Lab, lost: number, addresses: readonly string[], since: number): Promise<number> {
  const asked = lost === 0 ? 1 : 0;
  const isMoved = async () => {
    const now = await holders(lab, asked);
    return addresses.every((address) => ![null, undefined, lost].includes(now.get(address)));
  };
  assert.ok(await waitUntil(isMoved, MOVE_MILLIS_MAX, 5), 'the addresses did not move');
  const moved = seconds();
  say(`  the table gives the addresses of server ${lost} to others after`, since, moved);
  for (const address of addresses) {
    assert.ok(await waitUntil(() => accepts({ host: address, port: 445 }), MOVE_MILLIS_MAX, 5), `${address} is dead`);
  }
  say('  a new connection is served after', since);
  const now = await holders(lab, asked);
  for (const address of addresses) {
    const holder = lab.server(now.get(address)!);
    assert.ok(await leadsTo(address, holder), `${address} does not lead to ${holder.name}`);
  }
  return moved;
}

/** A client with an open file. */
async function clientOf(address: string): Promise<SmbClient> {
  const client = await SmbClient.connect(address);
  await client.mustOpen('idle', { access: ['read', 'write'], share: 'rwd', disposition: 'open_if' });
  return client;
}

/** The addresses of the server, and a client with an open file on each. */
async function idleClients(lab: Lab, server: number): Promise<{ clients: SmbClient[]; addresses: string[] }> {
  const addresses = await configured(lab.server(server));
  const clients = await Promise.all(addresses.map(clientOf));
  const isTold = async () => {
    const others = await report(lab, (server + 1) % 3);
    return addresses.every((address) => others.find((one) => one.address === address)!.connections > 0);
  };
  assert.ok(await waitUntil(isTold, NOTICE_MILLIS_MAX, 20), 'the other servers do not know of the connections');
  return { clients, addresses };
}

/** Also that they are served again when they come back. `moved` is when the table gave their addresses to others. */
async function untilNoticed(clients: readonly SmbClient[], since: number, moved: number): Promise<void> {
  await Promise.all(clients.map(async (client) => {
    const kind = kindOf(client.address);
    const noticed = await waitUntil(() => client.lostAt !== null, MOVE_MILLIS_MAX + NOTICE_MILLIS_MAX, 10);
    assert.ok(noticed, `the idle client on ${client.address} hangs`);
    say(`  an idle client on a moved address (${kind}) notices after`, since, client.lostAt!);
    const late = Math.round((client.lostAt! - moved) * 1000);
    assert.ok(late < FIRST_TICKLE_MILLIS_MAX, `the first tickle of ${client.address} missed: ${late} ms late`);
    client.close();
    const again = await clientOf(client.address);
    say(`  a new client there (${kind}) has a file open after`, since);
    again.close();
  }));
}

/** Ends all that runs on the server, at once, and starts it again later. */
async function killAll(place: ServerPlace): Promise<() => Promise<void>> {
  const inside = async () => {
    const { stdout } = await tryRun('ip', ['netns', 'pids', place.namespace]);
    return stdout.split(/\s+/).filter(Boolean);
  };
  for (const pid of await inside()) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // it ended with its parent
    }
  }
  return async () => {
    assert.ok(await waitUntil(async () => (await inside()).length === 0, END_MILLIS_MAX, 50), 'something lives on');
    forgetTheEnd(place);
  };
}

async function configure(place: ServerPlace, address: string): Promise<void> {
  const isIpv6 = kindOf(address) === 'IPv6';
  const where = `${address}/${isIpv6 ? PREFIX_LENGTH_6 : PREFIX_LENGTH}`;
  await run('ip', ['-n', place.namespace, 'addr', 'add', where, 'dev', 'eth0', ...(isIpv6 ? ['nodad'] : [])]);
}

async function movesOfACrash(lab: Lab, server: number): Promise<void> {
  const place = lab.server(server);
  const { clients, addresses } = await idleClients(lab, server);
  const before = await holders(lab, (server + 1) % 3);
  const since = seconds();
  const ended = await killAll(place);
  await untilNoticed(clients, since, await untilMoved(lab, server, addresses, since));
  const after = await holders(lab, (server + 1) % 3);
  const others = [...before].filter(([, holder]) => holder !== server);
  for (const [address, holder] of others) assert.equal(after.get(address), holder, `${address} moved without need`);
  const gone = async () => (await configured(place)).length === 0;
  assert.ok(await waitUntil(gone, LIFETIME_MILLIS_MAX, 50), 'a dead daemon leaves its addresses');
  say('  the kernel has removed what the dead daemon left after', since);
  await ended();
  // of a run that could not remove them; balanced means that they are gone
  for (const address of addresses) await configure(place, address);
  const back = seconds();
  await lab.startAgain(place);
  await assertBalanced(lab);
  say('  started again and balanced after', back);
  const balanced = await holders(lab, 0);
  const moved = [...balanced].filter(([address, holder]) => after.get(address) !== holder);
  assert.equal(moved.length, 2, 'more moved than needed');
  assert.ok(moved.every(([, holder]) => holder === server));
}

/** Nobody says a word to the clients: only tickles can. */
async function ticklesWhenCutOff(lab: Lab, server: number): Promise<void> {
  const place = lab.server(server);
  const { clients, addresses } = await idleClients(lab, server);
  const since = seconds();
  await run('ip', ['link', 'set', hostInterface(place.namespace), 'down']);
  await untilNoticed(clients, since, await untilMoved(lab, server, addresses, since));
  assert.deepEqual(await configured(place), [], 'a server without a lease has addresses');
  await run('ip', ['link', 'set', hostInterface(place.namespace), 'up']);
  await backAgain(lab, place);
}

/** The daemon hears that the pool goes on without it, and ends with its smbds. */
async function backAgain(lab: Lab, place: ServerPlace): Promise<void> {
  const inside = async () => (await tryRun('ip', ['netns', 'pids', place.namespace])).stdout.trim() === '';
  assert.ok(await waitUntil(inside, END_MILLIS_MAX, 50), 'the daemon does not end');
  forgetTheEnd(place);
  await lab.startAgain(place);
  await assertBalanced(lab);
}

async function movesOfAStoppedDaemon(lab: Lab, server: number): Promise<void> {
  const place = lab.server(server);
  const daemon = lab.process('smbpoold', server)?.pid ?? 0;
  const { clients, addresses } = await idleClients(lab, server);
  const since = seconds();
  process.kill(daemon, 'SIGSTOP');
  try {
    await untilNoticed(clients, since, await untilMoved(lab, server, addresses, since));
  } finally {
    process.kill(daemon, 'SIGCONT');
  }
  const went = seconds();
  const gone = async () => (await configured(place)).length === 0;
  assert.ok(await waitUntil(gone, MOVE_MILLIS_MAX, 5), 'it keeps addresses without a lease');
  say('  after SIGCONT it has let go of them after', went);
  await backAgain(lab, place);
}

/** Its daemon lives, but clients would find nobody there. */
async function movesWithoutSmbd(lab: Lab, server: number): Promise<void> {
  const place = lab.server(server);
  const addresses = await configured(place);
  const since = seconds();
  process.kill(lab.process('smbd', server)?.pid ?? 0, 'SIGTERM');
  await untilMoved(lab, server, addresses, since);
  assert.deepEqual(await configured(place), []);
  process.kill(lab.process('smbpoold', server)?.pid ?? 0, 'SIGTERM');
  await backAgain(lab, place);
}

test('public addresses', { skip: SKIP }, async (t) => {
  await withLab({ servers: 3, addresses: OF_EACH_KIND, addresses6: OF_EACH_KIND }, async (lab) => {
    await t.test('all are served once each, balanced', async () => {
      await assertBalanced(lab);
      for (const address of ADDRESSES) {
        const client = await SmbClient.connect(address);
        await client.mustOpen('through-an-address', { access: ['read'], share: 'rwd', disposition: 'open_if' });
        client.close();
      }
    });
    await t.test('of a server that dies they are at others; when it is back, two move', () => movesOfACrash(lab, 2));
    await t.test('of the leader that dies, too', () => movesOfACrash(lab, 0));
    await t.test('idle clients of a server without network are tickled', () => ticklesWhenCutOff(lab, 1));
    await t.test('a stopped daemon loses them', () => movesOfAStoppedDaemon(lab, 2));
    await t.test('without smbd they go elsewhere', () => movesWithoutSmbd(lab, 1));
  });
});
