/**
 * The steps of `npm run demo`, each a promise of the pool shown with real SMB clients: what was expected, what was
 * seen. The integration tests run the same steps as assertions. Every step cleans up its own handles.
 */
import { Recording, smbpool } from './commands.js';
import type { RecordedEvent } from './commands.js';
import type { Lab } from './lab.js';
import { waitUntil } from './run.js';
import { SmbClient } from './smb-client.js';
import type { Answer, Opened } from './smb-client.js';
import { createUnixUser, removeUnixUser, setSmbUser, unixUserExists } from './users.js';

export interface Seen {
  held: boolean;
  /** In words, for people; names what differed when it did not hold. */
  seen: string;
  /** What a command printed, to be shown as it is. */
  output?: string;
}

export interface DemoStep {
  title: string;
  expected: string;
  /** It shows what only the VFS module can tell. */
  needsModule?: true;
  see: (lab: Lab) => Promise<Seen>;
}

const DEMO_USER = 'smbpdemo';
const DEMO_PASSWORD = 'secret-of-the-demo';
/** smbd's break messages cross the pool in milliseconds; a machine under load gets seconds. */
const BREAK_MILLIS_MAX = 10_000;
/** An open that waits for a break must not be answered before the break was acknowledged: how long we look. */
const WAIT_SHOWN_MILLIS = 300;

/** Server `index` of the lab, counted round: the steps also work with one server. */
function addressOf(lab: Lab, index: number): string {
  return lab.server(index % lab.options.servers).address;
}

/** Runs `work` with one connection to each of the given servers and ends the connections. */
async function withClients<T>(lab: Lab, servers: number[], work: (clients: SmbClient[]) => Promise<T>): Promise<T> {
  const clients: SmbClient[] = [];
  try {
    for (const server of servers) clients.push(await SmbClient.connect(addressOf(lab, server)));
    return await work(clients);
  } finally {
    for (const client of clients) client.close();
  }
}

function pick(clients: SmbClient[], index: number): SmbClient {
  const client = clients[index];
  if (!client) throw new RangeError(`no client ${index}`);
  return client;
}

async function readElsewhere(lab: Lab): Promise<Seen> {
  const text = `written through server 0 at ${new Date().toISOString()}`;
  return withClients(lab, [0], async (clients) => {
    const writer = pick(clients, 0);
    const opened = await writer.mustOpen('demo-read.txt', { disposition: 'overwrite_if' });
    await writer.write(opened.handle, text);
    await writer.closeHandle(opened.handle);
    const got = await lab.smbclient(lab.server(1 % lab.options.servers), 'get demo-read.txt -');
    const held = got.status === 0 && got.stdout.includes(text);
    const said = `smbclient said: ${got.stdout}${got.stderr}`;
    return { held, seen: held ? `smbclient at server 1 printed "${text}"` : said };
  });
}

async function denySharing(lab: Lab): Promise<Seen> {
  return withClients(lab, [0, 2], async (clients) => {
    const first = await pick(clients, 0).mustOpen('demo-share.txt', { share: '' });
    const refused = await pick(clients, 1).open('demo-share.txt');
    await pick(clients, 0).closeHandle(first.handle);
    const after = await pick(clients, 1).open('demo-share.txt');
    return {
      held: refused.status === 'SHARING_VIOLATION' && after.status === 'OK',
      seen: `server 2 answered ${refused.status}, and after the close on server 0 ${after.status}`,
    };
  });
}

async function byteRangeLock(lab: Lab): Promise<Seen> {
  return withClients(lab, [1, 0], async (clients) => {
    const [holder, other] = [pick(clients, 0), pick(clients, 1)];
    const held = await holder.mustOpen('demo-lock.txt');
    const asking = await other.mustOpen('demo-lock.txt');
    const range = { offset: 100, length: 50 };
    const taken = await holder.lock(held.handle, range);
    const refused = await other.lock(asking.handle, { offset: 120, length: 10 });
    const beside = await other.lock(asking.handle, { offset: 200, length: 10 });
    await holder.lock(held.handle, { ...range, unlock: true });
    const after = await other.lock(asking.handle, { offset: 120, length: 10 });
    const statuses = [taken, refused, beside, after].map((answer) => answer.status);
    return {
      held: statuses.join() === 'OK,LOCK_NOT_GRANTED,OK,OK',
      seen: `lock on server 1 ${taken.status}; on server 0 inside it ${refused.status}, beside it ${beside.status}, ` +
        `after the unlock ${after.status}`,
    };
  });
}

type Caching = { oplock: 'batch' } | { lease: string };

interface BreakSeen extends Seen {
  held: boolean;
  opened: Opened;
  answer: Answer | null;
}

/** `holder` is granted `how`, `opener` opens too, `holder` is asked and gives up after `meanwhile`. */
async function breakBetween(
  [holder, opener]: [SmbClient, SmbClient],
  path: string,
  how: Caching,
  meanwhile: () => Promise<void>,
): Promise<BreakSeen> {
  await holder.request('automatic', { on: false });
  const opened = await holder.mustOpen(path, how);
  let answered = false;
  const second = opener.open(path).then((answer) => {
    answered = true;
    return answer;
  });
  const broken = await holder.nextBreak(BREAK_MILLIS_MAX);
  if (!broken) return { held: false, seen: 'no break reached the holder on server 0', opened, answer: null };
  await new Promise((resolve) => setTimeout(resolve, WAIT_SHOWN_MILLIS));
  await meanwhile();
  const waited = !answered;
  const which = broken.leaseKey === undefined ? { handle: opened.handle } : { leaseKey: broken.leaseKey };
  const acknowledged = await holder.request('acknowledge', { ...which, to: broken.to });
  const answer = await second;
  const granted = opened.lease ?? opened.oplock ?? 'nothing';
  return {
    held: waited && acknowledged.status === 'OK' && answer.status === 'OK' && answer.at >= broken.at,
    seen: `server 0 had granted ${granted}, was asked for ${broken.to || 'none'}; the open on server 2 ` +
      `${waited ? 'waited' : 'did not wait'}, then ${answer.status}`,
    opened,
    answer,
  };
}

async function breakOf(lab: Lab, path: string, how: Caching): Promise<Seen> {
  return withClients(lab, [0, 2], async (clients) => {
    const { held, seen } = await breakBetween([pick(clients, 0), pick(clients, 1)], path, how, async () => {});
    return { held, seen };
  });
}

/** Asked on server 1, which has nothing to do with it. */
async function whoWaits(lab: Lab): Promise<Seen> {
  return withClients(lab, [0, 2], async (clients) => {
    const asked = lab.server(1 % lab.options.servers);
    let output = '';
    const { held, seen } = await breakBetween(
      [pick(clients, 0), pick(clients, 1)],
      'demo-who.txt',
      { oplock: 'batch' },
      async () => void (output = await smbpool(asked, 'who', 'demo-who.txt')),
    );
    const names = /held by[^]*server-0[^]*batch[^]*waiting[^]*server-2[^]*break[^]*server-0 pid \d+/.test(output);
    if (!held) return { held, seen, output };
    const said = names ? 'both are named, and who waits for whom' : 'somebody is not named';
    return { held: names, seen: `"smbpool who demo-who.txt" on server 1: ${said}`, output };
  });
}

function eventsOf(recording: Recording, path: string): RecordedEvent[] {
  return recording.events().filter((event) => event.path === path);
}

async function traceOfBreak(lab: Lab): Promise<Seen> {
  const path = 'demo-trace.txt';
  return withClients(lab, [0, 2], async (clients) => {
    const [holder, opener] = [pick(clients, 0), pick(clients, 1)];
    const recording = await Recording.start(lab, lab.server(1 % lab.options.servers), clients);
    const broken = await breakBetween([holder, opener], path, { oplock: 'batch' }, async () => {});
    const { held, seen, opened, answer } = broken;
    // the module sees smbd's states, not its messages: the holder's answer some milliseconds late
    const done = () => eventsOf(recording, path).some(({ kind }) => kind === 'break-done');
    await waitUntil(done, BREAK_MILLIS_MAX);
    if (answer?.handle !== undefined) await opener.closeHandle(answer.handle);
    await holder.closeHandle(opened.handle);
    await recording.stop();
    const output = await recording.text(path);
    const step = (kind: string, server: number) => `${kind} on server ${server}`;
    const told = new Set(eventsOf(recording, path).map(({ kind, server }) => step(kind, server)));
    const ofHolder = ['granted', 'break-sent', 'break-done', 'close'].map((kind) => step(kind, 0));
    const opening = 2 % lab.options.servers;
    const ofOpener = ['waiting', ...(opening === 0 ? [] : ['moved']), 'granted'].map((kind) => step(kind, opening));
    const wanted = [...ofHolder, ...ofOpener];
    const missing = wanted.filter((what) => !told.has(what));
    const complete = missing.length === 0;
    const said = complete ? 'every step is there, of both servers' : `"${missing.join('", "')}" is missing`;
    return { held: held && complete, seen: held ? `the trace recorded on server 1: ${said}` : seen, output };
  });
}

async function replicatedUser(lab: Lab): Promise<Seen> {
  const before = unixUserExists(DEMO_USER);
  if (!before) await createUnixUser(DEMO_USER);
  const place = lab.server(1 % lab.options.servers);
  try {
    await setSmbUser(place, DEMO_USER, DEMO_PASSWORD);
    const seen: string[] = [];
    let held = true;
    for (const server of lab.servers()) {
      const right = await lab.smbclient(server, 'ls', `${DEMO_USER}%${DEMO_PASSWORD}`);
      const wrong = await lab.smbclient(server, 'ls', `${DEMO_USER}%wrong`);
      const refused = `${wrong.stdout}${wrong.stderr}`.includes('NT_STATUS_LOGON_FAILURE');
      held &&= right.status === 0 && refused;
      seen.push(`server ${server.id}: ${right.status === 0 ? 'logged on' : right.stdout.trim()}`);
      if (!refused) seen.push('and took a wrong password');
    }
    return { held, seen: seen.join('; ') };
  } finally {
    await lab.runIn(place, 'smbpasswd', ['-x', DEMO_USER]);
    if (!before) await removeUnixUser(DEMO_USER);
  }
}

async function statusOfAll(lab: Lab): Promise<Seen> {
  const ids = lab.servers().map((server) => server.id ?? 0);
  return withClients(lab, ids, async (clients) => {
    for (const [id, client] of clients.entries()) await client.mustOpen(`demo-open-on-${id}.txt`);
    const missing: string[] = [];
    for (const server of lab.servers()) {
      const said = await lab.runIn(server, 'smbstatus', ['--locks']);
      const unseen = ids.filter((id) => !said.stdout.includes(`demo-open-on-${id}.txt`));
      if (unseen.length > 0) missing.push(`smbstatus on server ${server.id} misses the open of ${unseen.join(', ')}`);
    }
    const all = `smbstatus on each of ${ids.length} servers lists the opens of all ${ids.length}`;
    return { held: missing.length === 0, seen: missing.length === 0 ? all : missing.join('; ') };
  });
}

export const DEMO_STEPS: DemoStep[] = [
  {
    title: 'A file written through server 0 is read through server 1',
    expected: 'the same text',
    see: readElsewhere,
  },
  {
    title: 'An open on server 0 that denies sharing keeps server 2 out',
    expected: 'SHARING_VIOLATION on server 2; OK after the close',
    see: denySharing,
  },
  {
    title: 'A byte-range lock taken on server 1 refuses a lock on server 0',
    expected: 'LOCK_NOT_GRANTED inside the range, OK beside it, OK after the unlock',
    see: byteRangeLock,
  },
  {
    title: 'A batch oplock on server 0 is broken by an open on server 2',
    expected: 'the holder is asked, the second open waits for its answer, then succeeds',
    see: (lab) => breakOf(lab, 'demo-oplock.txt', { oplock: 'batch' }),
  },
  {
    title: 'A lease (read, write, handle) on server 0 is broken by an open on server 2',
    expected: 'the holder is asked, the second open waits for its answer, then succeeds',
    see: (lab) => breakOf(lab, 'demo-lease.txt', { lease: 'RWH' }),
  },
  {
    title: 'A user added on server 1 can log on at every server',
    expected: 'logged on everywhere, refused with a wrong password',
    see: replicatedUser,
  },
  {
    title: 'smbstatus on any server shows the opens of all',
    expected: 'one open on each server, all of them listed on each',
    see: statusOfAll,
  },
  {
    title: 'smbpool who, on server 1: a batch oplock on server 0, and an open on server 2 that waits for it',
    expected: 'the holder, the waiter, and that the one waits for the other',
    needsModule: true,
    see: whoWaits,
  },
  {
    title: 'smbpool trace, on server 1: an open on server 2 breaks a batch oplock on server 0',
    expected: 'granted; an open that waits, records that move, break sent, break done; granted, closed',
    needsModule: true,
    see: traceOfBreak,
  },
];
