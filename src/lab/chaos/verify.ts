/**
 * The end of a chaos run: what the workers noted against what the servers show, and that nothing is left of the
 * clients. Everything is healed, all servers are members, and all clients are gone by then.
 */
import { daemonStatus } from '../admin.js';
import { smbpool } from '../commands.js';
import { LabError } from '../errors.js';
import type { Lab } from '../lab.js';
import type { ServerPlace } from '../layout.js';
import { disagreements, leftovers } from '../leftovers.js';
import { panics } from '../logs.js';
import { waitUntil } from '../run.js';
import { SmbClient } from '../smb-client.js';
import type { Judgement, Session } from './history.js';
import { judge, judgeCounter, judgeEnd, judgeValues } from './history.js';
import type { Notes } from './work.js';
import { CONTENTS, CONTENT_BEGIN, COUNTERS, COUNTER_BEGIN, REGISTRY_KEY } from './work.js';

/** smbd cleans up behind a closed connection, then deletion runs in slices. */
const SETTLE_MILLIS_MAX = 30_000;
/** A smbd that loses its daemon says so and ends: wanted here. */
const WANTED_END = /cluster_fatal|ctdbd died/i;
/**
 * Stock smbd leaves what a killed process had in these databases, also where it is alone, until it starts anew with
 * empty ones: a lease, by the client's GUID, and opens, under random numbers. Nobody looks at either again.
 */
const LEFT_BY_KILLED_SMBDS = { except: ['leases.tdb', 'smbXsrv_open_global.tdb'] };

/** What must be there before the work begins. */
export async function prepare(lab: Lab): Promise<void> {
  const client = await SmbClient.connect(lab.server(0).address);
  try {
    const files = [...COUNTERS.map((file) => [file, COUNTER_BEGIN]), ...CONTENTS.map((file) => [file, CONTENT_BEGIN])];
    for (const [file, content] of files as [string, string][]) {
      const { handle } = await client.mustOpen(file, { disposition: 'create' });
      const { status } = await client.write(handle, content);
      if (status !== 'OK') throw new LabError(`${file} cannot be written: ${status}`);
      await client.closeHandle(handle);
    }
  } finally {
    client.close();
  }
  const { status, stdout, stderr } = await lab.runIn(lab.server(0), 'net', ['registry', 'createkey', REGISTRY_KEY]);
  if (status !== 0) throw new LabError(`${REGISTRY_KEY} cannot be made: ${stdout}${stderr}`);
}

/** What the server shows of these files. Each must be free for whoever wants it alone. */
async function readThrough(place: ServerPlace, files: readonly string[]): Promise<Map<string, string>> {
  const client = await SmbClient.connect(place.address);
  const contents = new Map<string, string>();
  try {
    for (const file of files) {
      const { handle } = await client.mustOpen(file, { access: ['read', 'write'], share: '', disposition: 'open' });
      const { status } = await client.lock(handle, { offset: 0, length: 100, exclusive: true });
      if (status !== 'OK') throw new LabError(`${place.name}: a lock of ${file} is left (${status})`);
      contents.set(file, (await client.read(handle)).data ?? '');
      await client.closeHandle(handle);
    }
  } finally {
    client.close();
  }
  return contents;
}

async function registryOf(lab: Lab, place: ServerPlace): Promise<Map<string, string>> {
  const { status, stdout, stderr } = await lab.runIn(place, 'net', ['registry', 'enumerate', REGISTRY_KEY]);
  if (status !== 0) throw new LabError(`${place.name}: the registry cannot be read: ${stdout}${stderr}`);
  const values = stdout.matchAll(/^Valuename\s*=\s*(\S+)\nType\s*=.*\nValue\s*=\s*"(.*)"$/gm);
  return new Map([...values].map(([, name, value]) => [name ?? '', value ?? '']));
}

function judgeAll(initial: string, sessions: ReadonlyMap<string, Session[]>): Map<string, Judgement> {
  return new Map([...sessions].map(([file, of]) => [file, judge(initial, of)]));
}

/** What the notes say and the servers show that must not be; in words. */
export async function contentProblems(lab: Lab, notes: Notes): Promise<string[]> {
  const judgements = new Map([...judgeAll(COUNTER_BEGIN, notes.counters), ...judgeAll(CONTENT_BEGIN, notes.contents)]);
  const problems = [...judgements.values()].flatMap((judgement) => judgement.problems);
  const seen = new Map<string, Map<string, string>>();
  for (const place of lab.servers()) seen.set(place.name, await readThrough(place, [...judgements.keys()]));
  for (const [file, { possible }] of judgements) {
    const ofFile = new Map([...seen].map(([server, contents]) => [server, contents.get(file) ?? '']));
    problems.push(...judgeEnd(file, possible, ofFile));
    const sessions = notes.counters.get(file);
    const [any] = ofFile.values();
    if (sessions) problems.push(...judgeCounter(file, sessions, Number(any)));
  }
  const values = new Map<string, Map<string, string>>();
  for (const place of lab.servers()) values.set(place.name, await registryOf(lab, place));
  return [...problems, ...judgeValues(notes.changes, values)];
}

/** What clients that are gone have left behind; in words. */
async function remains(lab: Lab): Promise<string[]> {
  const found: string[] = [];
  for (const place of lab.servers()) {
    const status = await daemonStatus(place.adminSocket);
    if (!status) {
      found.push(`${place.name}: smbpoold does not answer`);
      continue;
    }
    const counts = Object.entries({ ...status.modules, 'waiting requests': status.waitingRequests });
    found.push(...counts.filter(([, count]) => count !== 0).map(([what, count]) => `${place.name}: ${count} ${what}`));
    const waits = (await smbpool(place, 'waits', '--longer', '0')).trim();
    if (waits !== 'Nobody waits') found.push(`${place.name}: smbpool waits: ${waits}`);
  }
  // reading the databases is slow: only when the daemons know of nothing any more
  return found.length > 0 ? found : leftovers(lab, LEFT_BY_KILLED_SMBDS);
}

/** What is left of the clients, what the databases disagree about, what broke; in words. */
export async function stateProblems(lab: Lab): Promise<string[]> {
  let left: string[] = [];
  const isClear = async () => (left = await remains(lab)).length === 0;
  await waitUntil(isClear, SETTLE_MILLIS_MAX, 500);
  const broken = lab.servers().flatMap((place) => panics(place)).filter((line) => !WANTED_END.test(line));
  return [...left.map((line) => `left behind: ${line}`), ...(await disagreements(lab)), ...broken];
}
