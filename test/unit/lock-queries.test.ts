/**
 * The admin socket's questions about locks: what is passed on to the witness, what is refused, and that a trace ends
 * with its reader and costs a slow one events, never the daemon memory. The filter's rules are tested here, too.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { lockMatcher } from '../../src/base/lock-filter.js';
import type { LockTextsWanted } from '../../src/base/lock-filter.js';
import { Prng } from '../../src/base/prng.js';
import { AdminServer } from '../../src/daemon/admin-server.js';
import type { LockWitness } from '../../src/ports/lock-witness.js';
import type { TraceEvent } from '../../src/wire/locks.js';
import { exampleEvents, exampleHot, exampleLocks, FakeWitness } from '../support/example-locks.js';
import { exampleRecord, exampleStatus } from '../support/example-status.js';

const folder = mkdtempSync(join(tmpdir(), 'smbpool-locks-'));
after(() => rmSync(folder, { recursive: true }));

type Run = (path: string, server: AdminServer) => Promise<void>;

async function serving(name: string, witness: LockWitness | null, run: Run): Promise<void> {
  const source = { status: exampleStatus, describeRecord: async () => exampleRecord() };
  const path = join(folder, name);
  const server = await AdminServer.start({
    path,
    source: witness === null ? source : { ...source, witness },
    witnessTimeoutMs: 50,
  });
  try {
    await run(path, server);
  } finally {
    await server.stop();
  }
}

function open(socketPath: string, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request({ socketPath, path }, resolve).on('error', reject).end();
  });
}

async function get(socketPath: string, path: string): Promise<{ status: number; body: unknown }> {
  const response = await open(socketPath, path);
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode ?? 0, body: JSON.parse(text) as unknown };
}

/** The first `count` events of a stream; leaves then. */
async function take(response: IncomingMessage, count: number): Promise<TraceEvent[]> {
  let text = '';
  for await (const chunk of response) {
    text += String(chunk);
    if (text.split('\n').length > count) break;
  }
  const lines = text.split('\n').slice(0, count);
  return lines.map((line) => JSON.parse(line) as TraceEvent);
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    assert.ok(tries < 500, 'this did not come true in five seconds');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('locks and hot files are served, with the filter as asked', async () => {
  const witness = new FakeWitness();
  await serving('a', witness, async (path) => {
    const filter = 'path=Docs%2Fa%20b&user=OFFICE%5Canna&client=10.0.0.51&share=pool';
    assert.deepEqual(await get(path, `/locks?${filter}`), { status: 200, body: exampleLocks() });
    assert.deepEqual(await get(path, '/locks'), { status: 200, body: exampleLocks() });
    assert.deepEqual(await get(path, '/hot'), { status: 200, body: exampleHot() });
  });
  const first = { path: 'Docs/a b', user: 'OFFICE\\anna', client: '10.0.0.51', share: 'pool' };
  assert.deepEqual(witness.asked, [first, {}]);
});

const REFUSED: [path: string, status: number, says: RegExp][] = [
  ['/locks?pat=x', 400, /\/locks does not know "pat"; it takes path, user, client, share/],
  ['/locks?path=a&path=b', 400, /path is given twice/],
  ['/locks?path=', 400, /path is empty/],
  ['/locks?path=a%00b', 400, /NUL/],
  ['/locks?__proto__=x', 400, /does not know "__proto__"/],
  [`/locks?user=${'x'.repeat(4097)}`, 400, /user is over 4096 bytes/],
  ['/locks?ops=open', 400, /does not know "ops"/],
  ['/hot?path=a', 400, /\/hot does not know "path"; it takes no parameters/],
  ['/trace?ops=', 400, /no operation is called ""; open, waiting, /],
  ['/trace?ops=open,,lock', 400, /no operation is called ""/],
  ['/trace?ops=open,steal', 400, /no operation is called "steal"/],
  [`/trace?ops=${'x'.repeat(5000)}`, 400, /no operation is called "x{40}"/],
  ['/trace/', 404, /not served here/],
  ['//', 400, /not a path/],
  ['http://[', 400, /not a path/],
];

test('what cannot be meant is refused with a reason', () =>
  serving('b', new FakeWitness(), async (path, server) => {
    for (const [query, status, says] of REFUSED) {
      const answer = await get(path, query);
      assert.equal(answer.status, status, query);
      assert.match((answer.body as { error: string }).error, says);
    }
    assert.equal(server.traceReaders, 0);
  }));

test('no query ends the daemon or comes through unfiltered', async () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000_000);
  console.log(`seed ${seed}`);
  const random = new Prng(seed);
  const witness = new FakeWitness();
  witness.events = [];
  const pieces = ['path', 'user', 'ops', 'client', '=', '=', '&', '?', '%', '%00', '%ff', '%C3', '/', '..', ',', 'open',
    'lock', '\\', '+', '[', '*', '%0a', '%1b[2J', 'x'.repeat(300)];
  await serving('c', witness, async (path, server) => {
    for (let round = 0; round < 300; round++) {
      const query = Array.from({ length: random.below(12) }, () => random.pick(pieces)).join('');
      const target = `${random.pick(['/locks', '/trace', '/hot'])}?${query}`;
      const response = await open(path, target);
      assert.ok([200, 400].includes(response.statusCode ?? 0), `seed ${seed}: ${target}: ${response.statusCode}`);
      response.destroy();
    }
    await until(() => server.traceReaders === 0);
    assert.equal((await get(path, '/status')).status, 200);
  });
  assert.equal(witness.readers.size, 0);
  const known = ['path', 'user', 'client', 'share', 'kinds'];
  for (const filter of witness.asked) assert.deepEqual(Object.keys(filter).filter((key) => !known.includes(key)), []);
});

test('a daemon without a witness, a witness that is late or fails: each is told', async () => {
  await serving('d', null, async (path) => {
    for (const query of ['/locks', '/hot', '/trace']) {
      const { status, body } = await get(path, query);
      assert.equal(status, 501);
      assert.match((body as { error: string }).error, /does not watch locks/);
    }
  });
  const late = Object.assign(new FakeWitness(), { locks: () => new Promise<never>(() => {}) });
  await serving('e', late, async (path) => {
    assert.deepEqual(await get(path, '/locks'), { status: 504, body: { error: 'the pool did not answer in 50 ms' } });
  });
  const broken = Object.assign(new FakeWitness(), {
    trace: () => {
      throw new Error('the witness is broken');
    },
  });
  await serving('f', broken, async (path, server) => {
    assert.deepEqual(await get(path, '/trace'), { status: 500, body: { error: 'the witness is broken' } });
    assert.equal(server.traceReaders, 0);
  });
});

test('a trace streams events as they come, and ends when its reader leaves', async () => {
  const witness = new FakeWitness();
  await serving('g', witness, async (path, server) => {
    const response = await open(path, '/trace?path=docs&ops=open,lock');
    assert.equal(response.headers['content-type'], 'application/x-ndjson');
    assert.equal(server.traceReaders, 1);
    const events = exampleEvents();
    assert.deepEqual(await take(response, events.length), events);
    await until(() => server.traceReaders === 0);
    assert.equal(witness.readers.size, 0);
  });
  assert.deepEqual(witness.asked, [{ path: 'docs', kinds: ['open', 'lock'] }]);
});

test('the readers of traces are limited, and end with the daemon', async () => {
  const witness = new FakeWitness();
  await serving('h', witness, async (path) => {
    const responses = await Promise.all(Array.from({ length: 8 }, () => open(path, '/trace')));
    for (const response of responses) response.on('error', () => {});
    const { status, body } = await get(path, '/trace');
    assert.equal(status, 503);
    assert.match((body as { error: string }).error, /too many traces/);
  });
  await until(() => witness.readers.size === 0);
});

test('a slow reader loses events, which the next one counts with those lost before', async () => {
  const witness = new FakeWitness();
  const [event] = exampleEvents();
  witness.events = [];
  await serving('i', witness, async (path) => {
    const response = await open(path, '/trace');
    const [put] = [...witness.readers];
    let sent = 0;
    const burst = (count: number, changes: Partial<TraceEvent> = {}): void => {
      for (let i = 0; i < count; i++) put!({ ...event!, atMicros: sent++, ...changes });
    };
    burst(29_999);
    burst(1, { dropped: 5 });
    // the buffer has room again as the reader reads: one of these gets through and carries the count
    const more = setInterval(() => burst(1), 50);
    let text = '';
    for await (const chunk of response) {
      text += String(chunk);
      if (text.length > 4_000_000 && text.includes('"dropped"') && text.endsWith('\n')) break;
    }
    clearInterval(more);
    const received = text.trimEnd().split('\n').map((line) => JSON.parse(line) as TraceEvent);
    const at = received.findIndex(({ dropped }) => dropped !== undefined);
    assert.ok(at > 1_000 && at < 29_000, `${at} came through`);
    assert.equal(received[at]!.dropped, received[at]!.atMicros - at + 5);
  });
});

const MATCHES: [wanted: LockTextsWanted, matches: boolean][] = [
  [{}, true],
  [{ path: 'Docs/Report.odt' }, true],
  [{ path: 'docs' }, true],
  [{ path: 'docs/' }, true],
  [{ path: '/docs' }, true],
  [{ path: '\\docs\\report.odt' }, true],
  [{ path: './docs//report.odt' }, true],
  [{ path: '/' }, true],
  [{ path: 'doc' }, false],
  [{ path: 'report.odt' }, false],
  [{ path: 'docs/report.odt/x' }, false],
  [{ path: '/srv/pool/docs' }, true],
  [{ path: '/srv/pool' }, true],
  [{ path: 'srv/pool/docs' }, false],
  [{ user: 'anna' }, true],
  [{ user: 'OFFICE\\ANNA' }, true],
  [{ user: 'ann' }, false],
  [{ user: 'office' }, false],
  [{ client: '10.0.0.51' }, true],
  [{ client: '10.0.0.51:50123' }, true],
  [{ client: 'ipv4:10.0.0.51:50123' }, true],
  [{ client: 'pc-anna' }, true],
  [{ client: '10.0.0.5' }, false],
  [{ share: 'POOL' }, true],
  [{ share: 'poo' }, false],
  [{ path: 'docs', user: 'anna', client: 'PC-ANNA', share: 'pool' }, true],
  [{ path: 'docs', user: 'bob' }, false],
];

test('a filter compares without case, paths by whole parts, clients with or without port', () => {
  const event = exampleEvents()[0]!;
  for (const [wanted, matches] of MATCHES) assert.equal(lockMatcher(wanted)(event), matches, JSON.stringify(wanted));
  const stream = { ...event, path: 'docs/report.odt:Zone.Identifier' };
  assert.equal(lockMatcher({ path: 'docs/report.odt' })(stream), true, 'a stream belongs to its file');
  const rootless = { ...event, shareRoot: '' };
  assert.equal(lockMatcher({ path: '/srv/pool/docs' })(rootless), false);
  const six = { ...event, client: '[fe80::53]:50300' };
  assert.equal(lockMatcher({ client: 'FE80::53' })(six), true);
});
