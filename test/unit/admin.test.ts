/**
 * The admin socket: what it serves, what it refuses, who may use it; and the limit on repeated warnings.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { AdminServer } from '../../src/daemon/admin-server.js';
import type { AdminSource } from '../../src/daemon/admin-server.js';
import { CAUSES_MAX, RepeatLimiter } from '../../src/daemon/repeat-limiter.js';
import { exampleRecord, exampleStatus } from '../support/example-status.js';

const folder = mkdtempSync(join(tmpdir(), 'smbpool-admin-'));
after(() => rmSync(folder, { recursive: true }));

function get(socket: string, path: string, method = 'GET'): Promise<{ status: number; body: unknown }> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: socket, path, method }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) as unknown }));
    });
    call.on('error', reject);
    call.end();
  });
}

type Run = (path: string) => Promise<void>;

/** Starts a server, runs the test with its path, and stops it. */
async function serving(name: string, changes: Partial<AdminSource>, run: Run): Promise<void> {
  const source: AdminSource = {
    status: exampleStatus,
    describeRecord: (database, key) =>
      Promise.resolve({ ...exampleRecord(), database, keyHex: Buffer.from(key).toString('hex') }),
    ...changes,
  };
  const path = join(folder, name);
  const server = await AdminServer.start({ path, source, recordTimeoutMs: 50 });
  try {
    await run(path);
  } finally {
    await server.stop();
  }
}

test('status, counters and a record are served as JSON, to the owner only', () =>
  serving('a', {}, async (path) => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(await get(path, '/status'), { status: 200, body: exampleStatus() });
    assert.deepEqual(await get(path, '/counters'), { status: 200, body: exampleStatus().counters });
    const record = { ...exampleRecord(), keyHex: '00ff' };
    assert.deepEqual(await get(path, '/record?database=locking.tdb&key=00ff'), { status: 200, body: record });
    assert.deepEqual(await get(path, '/record?database=locking&key=00FF'), { status: 200, body: record });
  }));

const REFUSED: [path: string, status: number, says: RegExp][] = [
  ['/', 404, /\/ is not served here; \/status, \/record, .*\/failovers, \/addresses, \/drain, \/join, \/leave are/],
  ['/record', 400, /hexadecimal/],
  ['/record?database=locking&key=0', 400, /hexadecimal/],
  [`/record?database=locking&key=${'00'.repeat(4097)}`, 400, /over 4096 bytes/],
  ['/record?database=nothing&key=00', 404, /no database nothing is open here; open are locking\.tdb, /],
  ['/record?database=secrets&key=00', 400, /secrets\.tdb is persistent/],
];

test('what is not served is refused with a reason', () =>
  serving('b', {}, async (path) => {
    for (const [query, status, says] of REFUSED) {
      const answer = await get(path, query);
      assert.equal(answer.status, status, query);
      assert.match((answer.body as { error: string }).error, says);
    }
    assert.equal((await get(path, '/status', 'POST')).status, 405);
  }));

test('a server is drained by a POST, and what keeps it from that is told', async () => {
  const asked: string[] = [];
  const drain = async (server: string, draining: boolean): Promise<void> => {
    if (server !== 'beta') throw new Error(`there is no server "${server}"`);
    asked.push(`${server} ${draining}`);
  };
  await serving('g', { drain }, async (path) => {
    assert.deepEqual(await get(path, '/drain?server=beta&draining=true', 'POST'), { status: 200, body: {} });
    assert.equal((await get(path, '/drain?server=beta&draining=false', 'POST')).status, 200);
    const wrong = await get(path, '/drain?server=x&draining=true', 'POST');
    assert.deepEqual(wrong, { status: 502, body: { error: 'there is no server "x"' } });
    assert.equal((await get(path, '/drain?server=beta&draining=1', 'POST')).status, 400);
    assert.equal((await get(path, '/drain?server=beta&draining=true')).status, 405, 'looking changes nothing');
  });
  assert.deepEqual(asked, ['beta true', 'beta false']);
  await serving('h', {}, async (path) => {
    assert.equal((await get(path, '/drain?server=beta&draining=true', 'POST')).status, 404);
  });
});

test('a home that cannot say, or does not answer, is told', async () => {
  const error = () => Promise.reject(new Error('its home, server 2, is down'));
  await serving('c', { describeRecord: error }, async (path) => {
    const answer = await get(path, '/record?database=locking&key=00');
    assert.deepEqual(answer, { status: 502, body: { error: 'its home, server 2, is down' } });
  });
  await serving('d', { describeRecord: () => new Promise(() => {}) }, async (path) => {
    const answer = await get(path, '/record?database=locking&key=00');
    assert.equal(answer.status, 504);
  });
});

test('an error inside is answered, not thrown', () =>
  serving(
    'e',
    {
      status: () => {
        throw new Error('broken');
      },
    },
    async (path) => assert.deepEqual(await get(path, '/status'), { status: 500, body: { error: 'broken' } }),
  ));

test('garbage on the socket ends that connection only', () =>
  serving('f', {}, async (path) => {
    await new Promise<void>((resolve) => {
      const socket = connect(path);
      socket.on('close', () => resolve()).on('error', () => {});
      socket.resume();
      socket.write('\u0000\u0001garbage\r\n\r\n');
    });
    assert.equal((await get(path, '/status')).status, 200);
  }));

test('a socket left by a daemon that is gone is replaced', async () => {
  await serving('g', {}, async () => {});
  await serving('g', {}, async (path) => assert.equal((await get(path, '/status')).status, 200));
});

test('a warning is said once per cause, then counted', () => {
  const limiter = new RepeatLimiter();
  const say = (peer: number, micros: number): boolean => {
    return limiter.admit('frame refused', { peer, reason: 'seal', micros });
  };
  assert.equal(say(1, 10), true);
  assert.equal(say(1, 20), false, 'another time is no other cause');
  assert.equal(say(2, 10), true, 'another peer is');
  assert.deepEqual(limiter.summary(), [{ event: 'frame refused', fields: { peer: 1, reason: 'seal' }, count: 1 }]);
  assert.equal(say(1, 30), false);
  assert.equal(limiter.summary().length, 1);
  assert.deepEqual(limiter.summary(), []);
  assert.equal(say(1, 40), true, 'quiet for a while, so it is said again');
});

test('the causes remembered are bounded', () => {
  const limiter = new RepeatLimiter();
  for (let client = 0; client <= CAUSES_MAX; client++) assert.equal(limiter.admit('refused', { client }), true);
  assert.equal(limiter.admit('refused', { client: 0 }), true, 'the longest-known was forgotten');
  assert.equal(limiter.admit('refused', { client: CAUSES_MAX }), false);
});
