/**
 * Servers that are lost, in every way that a machine can do: killed, cut off, stopped, too many at once. What clients
 * of the others hold must count all the time, what only the lost one's clients held must be free soon, and a server
 * that the others took over must do no harm. Times are printed, and bounded only generously: other work shares the
 * machine.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Prng } from '../../src/base/prng.js';
import { smbpool } from '../../src/lab/commands.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { LAB_PASSWORD, LAB_USER, SHARE } from '../../src/lab/layout.js';
import { removeFrameLoss, setFrameLoss, setInterface, setLink } from '../../src/lab/network.js';
import { isAlive } from '../../src/lab/processes.js';
import { pause, waitUntil } from '../../src/lab/run.js';
import type { Answer } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { setSmbUser } from '../../src/lab/users.js';
import {
  HeldFiles, MINE, TAKEN_OVER_MILLIS_MAX, Unrelated, assertRunEnds, assertStatus, firstOpen, killServer, machineSeconds,
  millis, newestView, others, serverThat, startAgain, touch, withClients,
} from './failover.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

/** How many servers are killed one after the other, at random moments. */
const FAILOVERS = Number(process.env['SMBPOOL_FAILOVERS'] ?? 5);
/** Files of each kind: the home of each is another server's turn. */
const FILES = 8;
/** From the fault to the first open of what the lost server had; 0.4 s on an idle machine. */
const FIRST_OPEN_SECONDS_MAX = 5;
/** Much longer than a lease. */
const OUTAGE_MILLIS = 1_500;

function tell(what: string, first: number, longest: number): void {
  const times = `what it held: ${millis(first)} ms, longest elsewhere: ${millis(longest)} ms`;
  process.stdout.write(`  ${what}: ${times}\n`);
  assert.ok(first < FIRST_OPEN_SECONDS_MAX && longest < FIRST_OPEN_SECONDS_MAX, times);
}

/** A new client of the server that is back is excluded by what others held all the time. */
async function assertJoined(place: ServerPlace, files: HeldFiles, name: string): Promise<void> {
  await withClients([place], async ([back]) => {
    await files.assertExcludes(back!);
    await back!.closeHandle((await back!.mustOpen(name, MINE)).handle);
  });
}

async function killed(lab: Lab, victim: ServerPlace, prng: Prng, prefix: string): Promise<void> {
  const healthy = prng.below(2) === 0 ? others(lab, victim) : others(lab, victim).reverse();
  const [first, second] = healthy as [ServerPlace, ServerPlace];
  await withClients([first, second, victim, victim, first, second], async (clients) => {
    const [holder, other, dying, toucher, ...rest] = clients as [SmbClient, SmbClient, SmbClient, SmbClient];
    const files = await HeldFiles.hold(prefix, FILES, holder, dying);
    const touching = touch(toucher, files.shared, () => prng.below(2 ** 30));
    const unrelated = await Promise.all(
      rest.map((client, index) => Unrelated.begin(client, `${prefix}-unrelated-${index}`)),
    );
    await pause(prng.below(1000));
    const { at, gone } = await killServer(victim);
    const free = await firstOpen(other, files.onlyVictims, at, MINE);
    await files.assertHeld(other, at);
    const longest = Math.max(...(await Promise.all(unrelated.map((one) => one.stop()))));
    await touching;
    // a process that the daemon outlived by a moment is told of as gone: its files are free before there is a view
    const isOut = () => !newestView(healthy).members.includes(victim.id ?? -1);
    assert.ok(await waitUntil(isOut, TAKEN_OVER_MILLIS_MAX, 50), `${victim.name} stays a member`);
    tell(`${victim.name} killed`, free, longest);
    await gone();
    await startAgain(lab, victim);
    await assertJoined(victim, files, `${prefix}-back`);
    await files.release();
  });
}

async function killedAgainAndAgain(lab: Lab, seed: number): Promise<void> {
  const prng = new Prng(seed);
  for (let round = 0; round < FAILOVERS; round++) {
    const leads = round % 2 === 1;
    process.stdout.write(`round ${round}: ${leads ? 'the leader' : 'not the leader'}\n`);
    await killed(lab, serverThat(lab, leads), prng, `kill-${round}`);
  }
}

/**
 * The records of what the holder holds went from the first victim to the second: the first one's death takes their
 * backups, the second one's the records. In between the pool was whole.
 */
async function oneAfterTheOther(lab: Lab): Promise<void> {
  const [stays, first, second] = lab.servers() as [ServerPlace, ServerPlace, ServerPlace];
  await withClients([stays, first, second], async ([holder, before, last]) => {
    const files = await HeldFiles.hold('succession', FILES, holder!, before!);
    for (const name of files.shared) await last!.mustOpen(name, { access: ['read'], share: 'rwd' });
    const { gone } = await killServer(first);
    await gone();
    await startAgain(lab, first);
    const { at, gone: secondGone } = await killServer(second);
    await withClients([first], async ([other]) => {
      await firstOpen(other!, 'succession-new', at, MINE);
      await files.assertHeld(other!, at);
    });
    await secondGone();
    await startAgain(lab, second);
    await files.release();
  });
}

/** What became of a request: its status, or 'lost' when the connection ended first. */
const outcome = (asked: Promise<Answer>): Promise<string> => asked.then(({ status }) => status, () => 'lost');

interface Isolation {
  what: string;
  begin(place: ServerPlace): Promise<unknown>;
  end(place: ServerPlace): Promise<unknown>;
}

const LINK_DOWN: Isolation = {
  what: 'link down',
  begin: (place) => setLink(place.namespace, 'down'),
  end: (place) => setLink(place.namespace, 'up'),
};

/** Nothing arrives there, and all that it says is heard. */
const HEARS_NOBODY: Isolation = {
  what: 'hears nobody',
  begin: (place) => setFrameLoss([{ from: null, to: place.namespace, percent: 100 }]),
  end: removeFrameLoss,
};

function daemonStopped(lab: Lab): Isolation {
  const signal = (place: ServerPlace, name: NodeJS.Signals) => {
    process.kill(lab.process('smbpoold', place.id)?.pid ?? 0, name);
    return Promise.resolve();
  };
  return {
    what: 'daemon stopped',
    begin: (place) => signal(place, 'SIGSTOP'),
    end: (place) => signal(place, 'SIGCONT'),
  };
}

/** The server lives, but not for the others, and its client is with it. */
async function isolated(lab: Lab, victim: ServerPlace, isolation: Isolation, prefix: string): Promise<void> {
  const [first, second] = others(lab, victim) as [ServerPlace, ServerPlace];
  const contested = `${prefix}-contested`;
  const onDisk = () => readFileSync(join(victim.share, contested), 'utf8');
  const inside = await SmbClient.connect(victim.address, LAB_USER, LAB_PASSWORD, SHARE, victim.namespace);
  try {
    await withClients([first, second, first, second], async (clients) => {
      const [holder, other, ...rest] = clients as [SmbClient, SmbClient];
      const files = await HeldFiles.hold(prefix, FILES, holder, inside);
      const own = await inside.mustOpen(contested, MINE);
      assertStatus(await inside.write(own.handle, 'before'), 'OK', contested);
      const unrelated = await Promise.all(
        rest.map((client, index) => Unrelated.begin(client, `${prefix}-unrelated-${index}`)),
      );
      const at = machineSeconds();
      await isolation.begin(victim);
      let asked: Promise<string>[] = [];
      try {
        const free = await firstOpen(other, contested, at, MINE);
        const theirs = await other.mustOpen(contested, MINE);
        assertStatus(await other.write(theirs.handle, 'after!'), 'OK', contested);
        asked = [
          outcome(inside.write(own.handle, 'wrong!')),
          outcome(inside.open(`${prefix}-wrong`, { disposition: 'create' })),
          outcome(inside.open(contested, MINE)),
        ];
        await files.assertHeld(other, at);
        const longest = Math.max(...(await Promise.all(unrelated.map((one) => one.stop()))));
        tell(`${isolation.what} of ${victim.name}`, free, longest);
        await pause(OUTAGE_MILLIS);
        assert.equal(onDisk(), 'after!');
      } finally {
        await isolation.end(victim);
      }
      await assertRunEnds(lab, victim);
      const statuses = await Promise.all(asked);
      process.stdout.write(`  a write and two opens on it meanwhile: ${statuses.join(', ')}\n`);
      assert.ok(!statuses.includes('OK'), 'it served although the others had taken over');
      assert.equal(onDisk(), 'after!');
      assert.equal(existsSync(join(victim.share, `${prefix}-wrong`)), false);
      await startAgain(lab, victim);
      await assertJoined(victim, files, `${prefix}-back`);
      await files.release();
    });
  } finally {
    inside.close();
  }
}

/** Its own interface is down, so that sending fails, too. */
async function interfaceDown(lab: Lab, victim: ServerPlace): Promise<void> {
  const [first, second] = others(lab, victim) as [ServerPlace, ServerPlace];
  await withClients([first, second, victim], async (clients) => {
    const [holder, other, dying] = clients as [SmbClient, SmbClient, SmbClient];
    const files = await HeldFiles.hold('interface', FILES, holder, dying);
    const at = machineSeconds();
    await setInterface(victim.namespace, 'down');
    try {
      const free = await firstOpen(other, files.onlyVictims, at, MINE);
      await files.assertHeld(other, at);
      tell(`interface of ${victim.name} down`, free, 0);
      await pause(OUTAGE_MILLIS);
    } finally {
      await setInterface(victim.namespace, 'up');
    }
    await assertRunEnds(lab, victim);
    await startAgain(lab, victim);
    await assertJoined(victim, files, 'interface-back');
    await files.release();
  });
}

async function noQuorum(lab: Lab): Promise<void> {
  const [alone, ...lost] = lab.servers() as [ServerPlace, ServerPlace, ServerPlace];
  const daemon = lab.process('smbpoold', alone.id);
  assert.ok(daemon);
  await withClients([alone], async ([client]) => {
    const denied = await client!.mustOpen('quorum-deny', { ...MINE, share: 'r' });
    const ends = await Promise.all(lost.map((place) => killServer(place)));
    await Promise.all(ends.map(({ gone }) => gone()));
    await pause(OUTAGE_MILLIS);
    let answered = '';
    const opening = outcome(client!.open('quorum-new', MINE)).then((status) => (answered = status));
    await pause(OUTAGE_MILLIS);
    assert.notEqual(answered, 'OK', 'it serves alone');
    const began = machineSeconds();
    await startAgain(lab, lost[0]);
    const free = await firstOpen(client!, 'quorum-again', began, MINE);
    process.stdout.write(`  the one left alone serves ${millis(free)} ms after the start of another\n`);
    assert.ok(isAlive(daemon), 'its run did not go on');
    process.stdout.write(`  what was asked for meanwhile: ${await opening}\n`);
    assertStatus(await client!.write(denied.handle, 'mine'), 'OK', 'quorum-deny');
    await withClients([lost[0]], async ([other]) => {
      const answer = await other!.open('quorum-deny', { access: ['write'], share: 'rwd' });
      assertStatus(answer, 'SHARING_VIOLATION', 'quorum-deny');
    });
    await startAgain(lab, lost[1]);
    await client!.closeHandle(denied.handle);
  });
}

/** Accounts of the system that every machine has: smbd insists on a unix account. */
const ACCOUNTS = ['daemon', 'games'] as const;

/** Waits until all servers know these accounts. */
async function untilKnown(lab: Lab, names: readonly string[]): Promise<void> {
  for (const place of lab.servers()) {
    let listed = '';
    const hasAll = async () => {
      listed = (await lab.runIn(place, 'pdbedit', ['-L'])).stdout;
      return names.every((name) => new RegExp(`^${name}:`, 'm').test(listed));
    };
    assert.ok(await waitUntil(hasAll, TAKEN_OVER_MILLIS_MAX, 200), `${place.name} has only ${listed}`);
  }
}

async function accounts(lab: Lab): Promise<void> {
  const leader = serverThat(lab, true);
  const [first, second] = others(lab, leader) as [ServerPlace, ServerPlace];
  await setSmbUser(first, ACCOUNTS[0], 'before');
  const { gone } = await killServer(leader);
  const began = machineSeconds();
  await setSmbUser(second, ACCOUNTS[1], 'after');
  process.stdout.write(`  an account was added ${millis(machineSeconds() - began)} ms after the leader's death\n`);
  await gone();
  await startAgain(lab, leader);
  await untilKnown(lab, ACCOUNTS);
}

/** The one that is left serves, adds accounts, and comes up again alone. */
async function oneOfTwo(lab: Lab, leads: boolean): Promise<void> {
  const victim = serverThat(lab, leads);
  const [other] = others(lab, victim) as [ServerPlace];
  const path = `two-${leads}`;
  await withClients([victim, other], async ([dying, client]) => {
    await dying!.mustOpen(path, MINE);
    const { at, gone } = await killServer(victim);
    tell(`${victim.name} of two killed`, await firstOpen(client!, path, at, MINE), 0);
    await gone();
    await client!.closeHandle((await client!.mustOpen(path, MINE)).handle);
  });
  const account = ACCOUNTS[leads ? 1 : 0];
  await setSmbUser(other, account, 'alone');
  assert.ok(await isOnlyHolder(other), `status does not say that only ${other.name} has the account`);
  const { gone } = await killServer(other);
  await gone();
  await startAgain(lab, other);
  await withClients([other], async ([client]) => void (await client!.mustOpen(path, MINE)));
  await startAgain(lab, victim);
  await untilKnown(lab, [account]);
  const isMadeUp = async () => !(await isOnlyHolder(other));
  assert.ok(await waitUntil(isMadeUp, TAKEN_OVER_MILLIS_MAX, 200), `${victim.name} is not brought up to date`);
}

async function isOnlyHolder(place: ServerPlace): Promise<boolean> {
  const status = await smbpool(place, 'status', '--seconds', '0');
  return status.includes(`only ${place.name} has every change of accounts and registry`);
}

async function onlyOne(lab: Lab): Promise<void> {
  const place = lab.server(0);
  await withClients([place], async ([client]) => {
    await client!.mustOpen('only', MINE);
    const { gone } = await killServer(place);
    await gone();
  });
  await startAgain(lab, place);
  await withClients([place], async ([client]) => void (await client!.mustOpen('only', MINE)));
}

test('servers that are lost', { skip: WITHOUT_MODULE }, async (t) => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}\n`);
  // the next one needs a lab that is whole; ending here keeps the logs
  const step = async (name: string, work: () => Promise<void>): Promise<void> => {
    let held = false;
    await t.test(name, async () => {
      process.stdout.write(`${name}\n`);
      await work();
      held = true;
    });
    assert.ok(held, `failed: ${name}`);
  };
  await withLab({ servers: 3 }, async (lab) => {
    await step(`${FAILOVERS} servers killed, one after the other`, () => killedAgainAndAgain(lab, seed));
    await step('one killed, back, and then another one', () => oneAfterTheOther(lab));
    for (const leads of [false, true]) {
      const who = leads ? 'the leader' : 'not the leader';
      for (const isolation of [LINK_DOWN, HEARS_NOBODY, daemonStopped(lab)]) {
        const prefix = `${isolation.what.replace(' ', '-')}-${leads}`;
        await step(`${isolation.what}, ${who}`, () => isolated(lab, serverThat(lab, leads), isolation, prefix));
      }
    }
    await step('interface down', () => interfaceDown(lab, serverThat(lab, false)));
    await step('two of three killed', () => noQuorum(lab));
    await step('accounts around the death of the leader', () => accounts(lab));
  });
  await withLab({ servers: 2, witness: true }, async (lab) => {
    for (const leads of [false, true]) {
      const who = leads ? 'the leader' : 'not the leader';
      await step(`two servers and a witness, ${who} killed`, () => oneOfTwo(lab, leads));
    }
  });
  await withLab({ servers: 1 }, (lab) => step('the only server of a pool', () => onlyOne(lab)));
});
