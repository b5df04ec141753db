/**
 * Servers with two interfaces for each other: one link of a server is lost while clients work on all of them. No client
 * may notice, the view stays, and status and failovers tell, until the link is back. With both links lost the server is
 * lost like any other.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { smbpool } from '../../src/lab/commands.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import {
  LAB_PASSWORD, LAB_USER, SECOND_INTERFACE, SERVER_INTERFACE, SHARE, hostInterface, secondAddress, secondHostInterface,
} from '../../src/lab/layout.js';
import { pause, run, waitUntil } from '../../src/lab/run.js';
import type { OpenRequest } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import {
  TAKEN_OVER_MILLIS_MAX, Unrelated, assertRunEnds, assertStatus, millis, newestView, serverThat, startAgain,
} from './failover.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

/** A silence is told of after three seconds. */
const TOLD_MILLIS_MAX = 20_000;
/** Two leases: nobody may have waited for the end of one. Alone on a machine the longest open takes some 20 ms. */
const LONGEST_SECONDS_MAX = 0.6;
/** Each with a home of its own. */
const FILES = 6;
const SHARED: OpenRequest = { access: ['read', 'write'], share: 'rwd', disposition: 'open_if' };
const LOCK = { offset: 0, length: 10, exclusive: true };

interface Link {
  what: string;
  /** What a server calls it, and the other one. */
  name(place: ServerPlace): string;
  other(place: ServerPlace): string;
  outside(namespace: string): string;
}

function links(first: (place: ServerPlace) => string, second: (place: ServerPlace) => string): [Link, Link] {
  return [
    { what: 'link 1', name: first, other: second, outside: hostInterface },
    { what: 'link 2', name: second, other: first, outside: secondHostInterface },
  ];
}

const ETHERNET = links(() => SERVER_INTERFACE, () => SECOND_INTERFACE);
const UDP = links(({ address }) => address, ({ id }) => secondAddress(id ?? -1));

const setLink = (place: ServerPlace, link: Link, state: 'up' | 'down') =>
  run('ip', ['link', 'set', link.outside(place.namespace), state]);

/** From within the server, so that the client has nothing to do with the links. */
const clientIn = (place: ServerPlace): Promise<SmbClient> =>
  SmbClient.connect(place.address, LAB_USER, LAB_PASSWORD, SHARE, place.namespace);

async function withClients(places: readonly ServerPlace[], work: (clients: SmbClient[]) => Promise<void>) {
  const clients: SmbClient[] = [];
  try {
    for (const place of places) clients.push(await clientIn(place));
    await work(clients);
  } finally {
    for (const client of clients) client.close();
  }
}

const status = (place: ServerPlace): Promise<string> => smbpool(place, 'status', '--seconds', '0');

/** Waits until the status of this server does, or does not, match. */
async function untilTold(place: ServerPlace, pattern: RegExp, told: boolean): Promise<void> {
  let text = '';
  const asWanted = async () => pattern.test((text = await status(place))) === told;
  const isSo = await waitUntil(asWanted, TOLD_MILLIS_MAX, 200);
  assert.ok(isSo, `${place.name} ${told ? 'does not tell' : 'still tells'}:\n${text}`);
}

/** Files that a client of the server whose link fails holds open and locked. */
class Held {
  private constructor(private readonly names: readonly string[]) {}

  static async hold(client: SmbClient, prefix: string): Promise<Held> {
    const names = Array.from({ length: FILES }, (_, index) => `${prefix}-held-${index}`);
    for (const name of names) {
      const { handle } = await client.mustOpen(name, SHARED);
      assertStatus(await client.lock(handle, LOCK), 'OK', name);
      await client.mustOpen(`${name}-deny`, { ...SHARED, share: 'r' });
    }
    return new Held(names);
  }

  /** Each question takes the file's records to the other client's server, and the next load takes them back. */
  async assertHeld(other: SmbClient): Promise<void> {
    for (const name of this.names) {
      const { handle } = await other.mustOpen(name, SHARED);
      assertStatus(await other.lock(handle, LOCK), 'LOCK_NOT_GRANTED', name);
      await other.closeHandle(handle);
      assertStatus(await other.open(`${name}-deny`, SHARED), 'SHARING_VIOLATION', `${name}-deny`);
    }
  }
}

async function oneLink(lab: Lab, victim: ServerPlace, link: Link, prefix: string): Promise<void> {
  // places are made anew each time they are asked for
  const servers = lab.servers().map((place) => (place.id === victim.id ? victim : place));
  const [first, second] = servers.filter(({ id }) => id !== victim.id) as [ServerPlace, ServerPlace];
  const before = newestView(servers).epoch;
  await withClients([victim, first, second, ...servers], async (clients) => {
    const [inside, ...more] = clients as [SmbClient];
    const [others, rest] = [more.slice(0, 2), more.slice(2)];
    const held = await Held.hold(inside, prefix);
    const work = await Promise.all(rest.map((client, index) => Unrelated.begin(client, `${prefix}-${index}`)));
    await setLink(victim, link, 'down');
    try {
      for (const place of servers) {
        const whom = place === victim ? 'any other server' : victim.name;
        const told = `  ${link.name(place)} brings nothing of ${whom}, ${link.other(place)} does:`;
        await untilTold(place, new RegExp(`^${told}$`, 'm'), true);
      }
      for (const other of others) await held.assertHeld(other);
    } finally {
      await setLink(victim, link, 'up');
    }
    for (const place of servers) await untilTold(place, /brings nothing/, false);
    const longest = Math.max(...(await Promise.all(work.map((one) => one.stop()))));
    process.stdout.write(`  ${link.what} of ${victim.name}: longest open or close ${millis(longest)} ms\n`);
    assert.ok(longest < LONGEST_SECONDS_MAX, `${longest} s`);
    for (const other of others) await held.assertHeld(other);
  });
  assert.equal(newestView(servers).epoch, before, 'the view changed');
  for (const place of servers) {
    const told = await smbpool(place, 'failovers', '--last', '1');
    assert.match(told, new RegExp(`${link.name(place)} brings nothing of .*: until [0-9:.]+, `));
  }
}

async function bothLinks(lab: Lab, victim: ServerPlace): Promise<void> {
  const witnesses = lab.servers().filter(({ id }) => id !== victim.id);
  for (const link of ETHERNET) await setLink(victim, link, 'down');
  try {
    const isOut = () => !newestView(witnesses).members.includes(victim.id ?? -1);
    assert.ok(await waitUntil(isOut, TAKEN_OVER_MILLIS_MAX, 50), `${victim.name} stays a member`);
    await pause(1000);
    for (const place of witnesses) {
      const told = await smbpool(place, 'failovers', '--last', '1');
      for (const { name } of ETHERNET) assert.match(told, new RegExp(`last frame of ${victim.name} by ${name(place)}`));
      assert.doesNotMatch(await status(place), /brings nothing/, 'it is not one interface that is silent');
    }
  } finally {
    for (const link of ETHERNET) await setLink(victim, link, 'up');
  }
  await assertRunEnds(lab, victim);
  await startAgain(lab, victim);
  for (const place of lab.servers()) await untilTold(place, /SILENT|NEVER/, false);
}

test('servers with two interfaces', { skip: WITHOUT_MODULE }, async () => {
  await withLab({ servers: 3, interfaces: 2 }, async (lab) => {
    for (const [index, link] of ETHERNET.entries()) {
      for (const leads of [false, true]) await oneLink(lab, serverThat(lab, leads), link, `second-${index}-${leads}`);
    }
    await bothLinks(lab, serverThat(lab, false));
  });
  await withLab({ servers: 3, interfaces: 2, transport: 'udp' }, async (lab) => {
    await oneLink(lab, serverThat(lab, true), UDP[0], 'second-udp');
  });
});
