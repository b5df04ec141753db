/**
 * Clients that watch folders (SMB2 CHANGE_NOTIFY) are told of what is changed through any server, from the moment their
 * own server has taken the request: 200 watches and changes, from a seed. SMBPOOL_SEED, SMBPOOL_WATCHES
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../src/base/prng.js';
import type { Lab } from '../../src/lab/lab.js';
import { pause } from '../../src/lab/run.js';
import type { Answer, FolderChange } from '../../src/lab/smb-client.js';
import { SmbClient } from '../../src/lab/smb-client.js';
import { WITHOUT_MODULE, withLab } from './pool.js';

const SEED = Number(process.env['SMBPOOL_SEED'] ?? Date.now() % 1_000_000);
const WATCHES = Number(process.env['SMBPOOL_WATCHES'] ?? 200);
/** Between the moment that the watcher's server has taken the request and the change. */
const DELAYS_MILLIS = [0, 5, 20, 100];
const TOLD_MILLIS_MAX = 3_000;

/** On one machine all servers would hear of each other's changes from its kernel. */
const LAB = { servers: 3, globalOptions: ['kernel change notify = no'] };

const FOLDER = { folder: true, access: ['read'] as 'read'[] };

/** One watcher and one changer on each server. */
class Clients {
  private constructor(
    readonly watchers: readonly SmbClient[],
    readonly changers: readonly SmbClient[],
  ) {}

  static async connect(lab: Lab): Promise<Clients> {
    const each = () => Promise.all(lab.servers().map(({ address }) => SmbClient.connect(address)));
    return new Clients(await each(), await each());
  }

  close(): void {
    for (const client of [...this.watchers, ...this.changers]) client.close();
  }
}

async function ok(answer: Promise<Answer>): Promise<Answer> {
  const got = await answer;
  assert.equal(got.status, 'OK');
  return got;
}

async function makeFolder(client: SmbClient, path: string): Promise<void> {
  const { handle } = await client.mustOpen(path, { ...FOLDER, disposition: 'create' });
  await ok(client.closeHandle(handle));
}

/** Makes a file of that name, or folder, and says what a watcher is to be told of. */
async function change(client: SmbClient, path: string, isFolder: boolean): Promise<void> {
  const { handle } = await client.mustOpen(path, { disposition: 'create', ...(isFolder ? FOLDER : {}) });
  await ok(client.closeHandle(handle));
}

function includes({ status, changes = [] }: Answer, wanted: FolderChange): boolean {
  return status === 'OK' && changes.some(({ action, name }) => action === wanted.action && name === wanted.name);
}

/** Sends the request and comes back when the server has taken it; the answer is still to come. */
async function watch(client: SmbClient, handle: number, recursive: boolean): Promise<{ told: Promise<Answer> }> {
  const told = client.watch(handle, { recursive, waitMs: TOLD_MILLIS_MAX });
  await ok(client.echo());
  return { told };
}

/** What was asked, when the watcher was not told; null when it was. */
async function oneWatch({ watchers, changers }: Clients, prng: Prng, folder: string): Promise<string | null> {
  const [here, there] = [prng.below(watchers.length), prng.below(changers.length)];
  const [watcher, changer] = [watchers[here]!, changers[there]!];
  const recursive = prng.chance(0.5);
  const delay = prng.pick(DELAYS_MILLIS);
  const renewals = prng.below(3);
  await makeFolder(prng.pick(changers), folder);
  if (recursive) await makeFolder(prng.pick(changers), `${folder}/below`);
  const { handle } = await watcher.mustOpen(folder, FOLDER);
  let { told } = await watch(watcher, handle, recursive);
  await pause(delay);
  for (let round = 0; round <= renewals; round++) {
    const name = `${recursive && prng.chance(0.7) ? 'below/' : ''}new-${round}`;
    await change(changer, `${folder}/${name}`, prng.chance(0.2));
    // what else is told of it may come first: the write time of the folder
    while (!includes(await told, { action: 'added', name })) {
      if ((await told).status !== 'OK') {
        const what = `watcher on ${here}, change through ${there} after ${delay} ms, round ${round}, ${name}`;
        return `${folder}: ${what}: ${(await told).status}`;
      }
      ({ told } = await watch(watcher, handle, recursive));
    }
    if (round < renewals) ({ told } = await watch(watcher, handle, recursive));
  }
  await ok(watcher.closeHandle(handle));
  return null;
}

test('watched folders', { skip: WITHOUT_MODULE }, async (t) => {
  await withLab(LAB, async (lab) => {
    const clients = await Clients.connect(lab);
    try {
      await t.test(`${WATCHES} watches on random servers, seed ${SEED}`, async () => {
        console.log(`seed ${SEED}`);
        const prng = new Prng(SEED);
        const lost: string[] = [];
        for (let i = 0; i < WATCHES; i++) {
          const what = await oneWatch(clients, prng, `w${i}`);
          if (what !== null) lost.push(what);
        }
        assert.deepEqual(lost, []);
      });
    } finally {
      clients.close();
    }
  });
});
