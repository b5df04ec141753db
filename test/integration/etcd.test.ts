/**
 * A pool whose membership is in etcd, on real smbds: servers that are killed and cut off, each with the etcd beside it,
 * and etcd itself standing still and killed. What clients hold must count all the time, and while there is no etcd
 * nobody may serve.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { etcdPlaces } from '../../src/lab/etcd.js';
import type { Lab } from '../../src/lab/lab.js';
import type { ServerPlace } from '../../src/lab/layout.js';
import { LAB_USER, LAB_PASSWORD, SHARE } from '../../src/lab/layout.js';
import { setLink } from '../../src/lab/network.js';
import { isAlive, signal } from '../../src/lab/processes.js';
import { pause, tryRun, waitUntil } from '../../src/lab/run.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import {
  HeldFiles, MINE, TAKEN_OVER_MILLIS_MAX, Unrelated, assertRunEnds, assertStatus, firstOpen, killServer, machineSeconds,
  millis, newestView, others, serverThat, startAgain, withClients,
} from './failover.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const FILES = 6;
/** Much longer than a lease. */
const OUTAGE_MILLIS = 3_000;

async function killed(lab: Lab, victim: ServerPlace, prefix: string): Promise<void> {
  const [first, second] = others(lab, victim) as [ServerPlace, ServerPlace];
  await withClients([first, second, victim, first, second], async (clients) => {
    const [holder, other, dying, ...rest] = clients as [SmbClient, SmbClient, SmbClient];
    const files = await HeldFiles.hold(prefix, FILES, holder, dying);
    const unrelated = await Promise.all(
      rest.map((client, index) => Unrelated.begin(client, `${prefix}-unrelated-${index}`)),
    );
    await pause(500);
    const { at, gone } = await killServer(victim);
    const free = await firstOpen(other, files.onlyVictims, at, MINE);
    await files.assertHeld(other, at);
    const longest = Math.max(...(await Promise.all(unrelated.map((one) => one.stop()))));
    const isOut = () => !newestView([first, second]).members.includes(victim.id ?? -1);
    assert.ok(await waitUntil(isOut, TAKEN_OVER_MILLIS_MAX, 50), `${victim.name} stays a member`);
    process.stdout.write(`  what it held: ${millis(free)} ms, longest elsewhere: ${millis(longest)} ms\n`);
    await gone();
    await startAgain(lab, victim);
    await withClients([victim], async ([back]) => files.assertExcludes(back!));
    await files.release();
  });
}

/** It and the etcd beside it hear nobody: the others go on, and it does no harm. */
async function cutOff(lab: Lab, victim: ServerPlace): Promise<void> {
  const [first, second] = others(lab, victim) as [ServerPlace, ServerPlace];
  const onDisk = () => readFileSync(join(victim.share, 'cut-contested'), 'utf8');
  const inside = await SmbClient.connect(victim.address, LAB_USER, LAB_PASSWORD, SHARE, victim.namespace);
  try {
    await withClients([first, second], async ([holder, other]) => {
      const files = await HeldFiles.hold('cut', FILES, holder!, inside);
      const own = await inside.mustOpen('cut-contested', MINE);
      assertStatus(await inside.write(own.handle, 'before'), 'OK', 'cut-contested');
      const at = machineSeconds();
      await setLink(victim.namespace, 'down');
      try {
        const free = await firstOpen(other!, 'cut-contested', at, MINE);
        const theirs = await other!.mustOpen('cut-contested', MINE);
        assertStatus(await other!.write(theirs.handle, 'after!'), 'OK', 'cut-contested');
        const late = inside.write(own.handle, 'wrong!').then(({ status }) => status, () => 'lost');
        await files.assertHeld(other!, at);
        await pause(1_000);
        assert.equal(onDisk(), 'after!');
        process.stdout.write(`  what it held: ${millis(free)} ms\n`);
        await setLink(victim.namespace, 'up');
        await assertRunEnds(lab, victim);
        assert.notEqual(await late, 'OK', 'it served although the others had taken over');
      } finally {
        await setLink(victim.namespace, 'up');
      }
      assert.equal(onDisk(), 'after!');
      await startAgain(lab, victim);
      await withClients([victim], async ([back]) => files.assertExcludes(back!));
      await files.release();
    });
  } finally {
    inside.close();
  }
}

/** Without etcd nobody serves; with it all go on as before, and no run has ended. */
async function etcdAway(lab: Lab, away: () => Promise<void>, back: () => Promise<void>, prefix: string): Promise<void> {
  const places = lab.servers();
  const daemons = places.map((place) => lab.process('smbpoold', place.id)!);
  const before = newestView(places).members;
  await withClients([...places, ...places], async (clients) => {
    const [holder, other, , ...askers] = clients as [SmbClient, SmbClient, SmbClient, ...SmbClient[]];
    const denied = await holder.mustOpen(`${prefix}-deny`, { ...MINE, share: 'r' });
    const written = await holder.mustOpen(`${prefix}-written`, MINE);
    await away();
    await pause(OUTAGE_MILLIS / 2);
    const answers: string[] = [];
    const asked = askers.map(async (client, index) => {
      const { status } = await client.open(`${prefix}-new-${index}`, MINE);
      answers.push(status);
    });
    const writing = holder.write(written.handle, 'meanwhile');
    await pause(OUTAGE_MILLIS / 2);
    assert.ok(!answers.includes('OK'), `served without etcd: ${answers.join()}`);
    const from = machineSeconds();
    await back();
    const free = await firstOpen(other, `${prefix}-again`, from, MINE);
    process.stdout.write(`  served ${millis(free)} ms after etcd was back\n`);
    await Promise.all(asked);
    assertStatus(await writing, 'OK', 'what waited is written');
    assert.equal(readFileSync(join(lab.server(0).share, `${prefix}-written`), 'utf8'), 'meanwhile');
    const excluded = await other.open(`${prefix}-deny`, { access: ['write'], share: 'rwd' });
    assertStatus(excluded, 'SHARING_VIOLATION', 'what was held is held');
    assertStatus(await holder.write(denied.handle, 'mine'), 'OK', 'its holder goes on');
  });
  assert.ok(daemons.every(isAlive), 'no run ended');
  assert.deepEqual(newestView(places).members, before);
}

function standsStill(lab: Lab): Promise<void> {
  for (const { id } of etcdPlaces(lab.layout, lab.options)) signal(lab.process('etcd', id)!, 'SIGSTOP');
  return Promise.resolve();
}

function goesOn(lab: Lab): Promise<void> {
  for (const { id } of etcdPlaces(lab.layout, lab.options)) signal(lab.process('etcd', id)!, 'SIGCONT');
  return Promise.resolve();
}

async function isKilled(lab: Lab): Promise<void> {
  const processes = etcdPlaces(lab.layout, lab.options).map(({ id }) => lab.process('etcd', id)!);
  for (const one of processes) signal(one, 'SIGKILL');
  assert.ok(await waitUntil(() => !processes.some(isAlive), 5_000, 20));
}

async function isStarted(lab: Lab): Promise<void> {
  for (const place of etcdPlaces(lab.layout, lab.options)) await lab.startEtcd(place);
}

/** Without a witness: etcd, beside the first, has the only vote that is needed. */
async function oneOfTwo(lab: Lab): Promise<void> {
  const [first, second] = lab.servers() as [ServerPlace, ServerPlace];
  await withClients([first, second], async ([client, dying]) => {
    await dying!.mustOpen('two', MINE);
    const { at, gone } = await killServer(second);
    const free = await firstOpen(client!, 'two', at, MINE);
    process.stdout.write(`  what ${second.name} held: ${millis(free)} ms\n`);
    await gone();
  });
  await startAgain(lab, second);
  await withClients([second], async ([client]) => void (await client!.mustOpen('two', MINE)));
}

test('a pool on etcd', { skip: WITHOUT_MODULE }, async (t) => {
  const step = async (name: string, work: () => Promise<void>): Promise<void> => {
    let held = false;
    await t.test(name, async () => {
      process.stdout.write(`${name}\n`);
      await work();
      held = true;
    });
    assert.ok(held, `failed: ${name}`);
  };
  await withLab({ servers: 3, engine: 'etcd' }, async (lab) => {
    await step('status names the engine', async () => {
      const socket = lab.server(1).adminSocket;
      const { stdout } = await tryRun('node', ['dist/src/cli/main.js', 'status', '--socket', socket]);
      assert.match(stdout, /Engine: etcd, which answered .* ago; 3 of 3 servers run/);
    });
    for (const leads of [false, true]) {
      const who = leads ? 'the leader' : 'not the leader';
      await step(`a server killed with its etcd, ${who}`, () => killed(lab, serverThat(lab, leads), `kill-${leads}`));
    }
    await step('the leader cut off with its etcd', () => cutOff(lab, serverThat(lab, true)));
    await step('etcd stands still', () => etcdAway(lab, () => standsStill(lab), () => goesOn(lab), 'still'));
    await step('etcd killed and started', () => etcdAway(lab, () => isKilled(lab), () => isStarted(lab), 'killed'));
  });
  await withLab({ servers: 2, engine: 'etcd' }, (lab) => step('one of two servers killed', () => oneOfTwo(lab)));
});
