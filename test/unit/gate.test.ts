/**
 * The gate: what a local process is answered, alone and in a pool of three, also when servers and processes go away.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { databaseIdOf } from '../../src/base/jenkins.js';
import type { DatabaseId } from '../../src/base/ids.js';
import { keyOf } from '../../src/base/ids.js';
import {
  CALL_ID,
  CONTROL_FLAG,
  DESTINATION,
  SRVID,
  nameBytes,
  textOf,
} from '../../src/wire/ctdb.js';
import {
  CONTROL,
  decodeDatabaseMap,
  decodeNodeMap,
  decodeU32,
  encodeCheckPidSrvid,
  encodeU32,
} from '../../src/wire/ctdb-controls.js';
import { encodeScheduleForDeletion } from '../../src/wire/ctdb-records.js';
import { LIVENESS_WAIT_MICROS_MAX, CONTROL_WAIT_MICROS_MAX } from '../../src/core/gate/forwarding.js';
import { GatePool } from '../support/gate-pool.js';
import type { TestClient } from '../support/gate-pool.js';

const LOCKING = databaseIdOf('locking.tdb');
const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const EMPTY = new Uint8Array(0);

function attach(
  pool: GatePool,
  client: TestClient,
  name = 'locking.tdb',
  opcode: number = CONTROL.databaseAttach,
): void {
  const request = client.control(opcode, nameBytes(name));
  pool.advance(10_000);
  const answer = client.answer(request);
  assert.equal(answer.status, 0, answer.error);
  assert.equal(decodeU32(answer.data), databaseIdOf(name));
}

function call(client: TestClient, callId: number, key: string, database = LOCKING): number {
  return client.send({ kind: 'request-call', flags: 1, database, callId, hopCount: 0, key: bytes(key), data: EMPTY });
}

describe('a new connection', () => {
  test('learns its server and that it is active, as smbd demands', () => {
    const pool = new GatePool(3, [1]);
    const client = pool.server(1).connect(100);
    assert.equal(client.answer(client.control(CONTROL.getPnn)).status, 1);
    const nodes = decodeNodeMap(client.answer(client.control(CONTROL.getNodeMap)).data);
    assert.deepEqual(
      nodes.map(({ node, flags, address }) => [node, flags, address]),
      [
        [0, 1, '10.77.0.10'],
        [1, 0, '10.77.0.11'],
        [2, 1, '10.77.0.12'],
      ],
    );
  });

  test('has its TCP connection and public addresses accepted', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(100);
    const quiet = client.control(CONTROL.tcpClient, new Uint8Array(56), { flags: CONTROL_FLAG.noReply });
    assert.equal(client.reply(quiet), undefined);
    assert.deepEqual([...client.answer(client.control(CONTROL.getPublicIps)).data], [0, 0, 0, 0]);
  });
});

describe('attach', () => {
  test('is answered only once the file is open', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    server.holdDisk = true;
    const client = server.connect(100);
    const first = client.control(CONTROL.databaseAttach, nameBytes('locking.tdb'));
    const second = client.control(CONTROL.databaseAttach, nameBytes('locking.tdb'));
    pool.settle();
    assert.equal(client.reply(first), undefined);
    server.holdDisk = false;
    pool.settle();
    assert.equal(decodeU32(client.answer(first).data), LOCKING);
    assert.equal(decodeU32(client.answer(second).data), LOCKING);
    assert.deepEqual(server.records.added, ['locking.tdb']);
  });

  test('makes every server have the database, also one that starts later', () => {
    const pool = new GatePool(3, [0, 1]);
    attach(pool, pool.server(0).connect(100));
    assert.deepEqual(pool.server(1).records.added, ['locking.tdb']);
    pool.start(2);
    pool.settle();
    assert.deepEqual(pool.server(2).records.added, ['locking.tdb']);
  });

  test('tells path, flags and name; counting changes adds its flag', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(100);
    attach(pool, client);
    const ask = (opcode: number): Uint8Array => client.answer(client.control(opcode, encodeU32(LOCKING))).data;
    assert.equal(textOf(ask(CONTROL.getDatabasePath)), '/db/locking.tdb.0');
    assert.equal(decodeU32(ask(CONTROL.databaseOpenFlags)), 0x1c41);
    ask(CONTROL.enableSequenceNumber);
    assert.equal(decodeU32(ask(CONTROL.databaseOpenFlags)), 0x1cc1);
    assert.equal(textOf(ask(CONTROL.getDatabaseName)), 'locking.tdb');
  });

  test('of a volatile database as persistent is refused, the other way round it is not', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(100);
    attach(pool, client);
    const refused = client.control(CONTROL.databaseAttachPersistent, nameBytes('locking.tdb'));
    assert.equal(client.answer(refused).status, -1);
    attach(pool, client, 'secrets.tdb', CONTROL.databaseAttachPersistent);
    attach(pool, client, 'secrets.tdb', CONTROL.databaseAttach);
  });

  test('of a file that cannot be opened fails, and may be tried again', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    const client = server.connect(100);
    server.openFailure = 'disk full';
    const failed = client.control(CONTROL.databaseAttach, nameBytes('locking.tdb'));
    pool.settle();
    assert.equal(client.answer(failed).status, -1);
    server.openFailure = null;
    attach(pool, client);
  });

  test('refuses names that are not fit for a file', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(100);
    for (const name of ['../x', 'a/b', '.hidden', 'x'.repeat(500)]) {
      assert.equal(client.answer(client.control(CONTROL.databaseAttach, nameBytes(name))).status, -1, name);
    }
    assert.equal(client.answer(client.control(CONTROL.databaseAttach, bytes('no-nul'))).status, -1);
  });
});

describe('calls', () => {
  test('migrate is answered empty, fetch with the payload', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    const client = server.connect(100);
    attach(pool, client);
    server.records.owned.set(keyOf(bytes('k')), bytes('value'));
    const migrate = client.reply(call(client, CALL_ID.migrate, 'k'));
    assert.ok(migrate?.kind === 'reply-call' && migrate.status === 0 && migrate.data.length === 0);
    const fetch = client.reply(call(client, CALL_ID.fetch, 'k'));
    assert.ok(fetch?.kind === 'reply-call' && textOf(fetch.data) === 'value');
    const absent = client.reply(call(client, CALL_ID.fetch, 'absent'));
    assert.ok(absent?.kind === 'reply-call' && absent.data.length === 0);
  });

  test('to read a share mode record move it: smbd writes it under the chain it reads it under', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    const client = server.connect(100);
    attach(pool, client);
    attach(pool, client, 'brlock.tdb');
    const read = (key: string, database: DatabaseId) => client.reply(call(client, CALL_ID.fetch, key, database));
    assert.equal(read('looked at', LOCKING)?.kind, 'reply-call', 'a listing, over a connection that takes nothing');
    assert.deepEqual([...server.records.owned.keys()], []);
    client.reply(call(client, CALL_ID.migrate, 'taken', LOCKING));
    assert.equal(read('moved', LOCKING)?.kind, 'reply-call');
    assert.equal(read('copied', databaseIdOf('brlock.tdb'))?.kind, 'reply-call');
    assert.deepEqual([...server.records.owned.keys()], [keyOf(bytes('taken')), keyOf(bytes('moved'))]);
  });

  test('of an unknown database, an unknown function, or that fail are answered with an error', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    const client = server.connect(100);
    attach(pool, client);
    assert.equal(client.reply(call(client, CALL_ID.migrate, 'k', databaseIdOf('none')))?.kind, 'reply-error');
    const unknown = client.reply(call(client, 7, 'k'));
    assert.ok(unknown?.kind === 'reply-call' && unknown.status !== 0);
    assert.equal(client.reply(call(client, CALL_ID.fetch, 'x'.repeat(5000)))?.kind, 'reply-error');
    server.records.failWith = 'disk error';
    assert.equal(client.reply(call(client, CALL_ID.fetch, 'k'))?.kind, 'reply-error');
  });

  test('of a client that went away are cancelled', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    const client = server.connect(100);
    attach(pool, client);
    server.records.hold = true;
    call(client, CALL_ID.migrate, 'a');
    call(client, CALL_ID.fetch, 'b');
    client.close();
    assert.equal(server.records.cancelled.length, 2);
    server.act(() => server.records.held.forEach(({ answer }) => answer()));
    assert.equal(server.counter('gate.answer.unexpected'), 2);
    assert.equal(server.gate.status().calls, 0);
  });

  test('deletion is a hint to the record engine, without an answer', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(100);
    attach(pool, client);
    const data = encodeScheduleForDeletion(LOCKING, new Uint8Array(24), bytes('k'));
    const request = client.control(CONTROL.scheduleForDeletion, data, { flags: CONTROL_FLAG.noReply });
    assert.equal(client.reply(request), undefined);
    assert.deepEqual(pool.server(0).records.deletions, [keyOf(bytes('k'))]);
  });
});

describe('messages', () => {
  const register = (client: TestClient, srvid: bigint): void => {
    assert.equal(client.answer(client.control(CONTROL.registerSrvid, EMPTY, { srvid })).status, 0);
  };
  const say = (client: TestClient, srvid: bigint, text: string, destination: number): void => {
    client.send({ kind: 'message', srvid, data: bytes(text) }, destination);
  };

  test('reach a process of another server and of the own, in order', () => {
    const pool = new GatePool(3);
    const [from, near, far] = [pool.server(0).connect(1), pool.server(0).connect(2), pool.server(2).connect(3)];
    register(near, 2n);
    register(far, 3n);
    for (let i = 0; i < 20; i++) {
      say(from, 3n, `far ${i}`, 2);
      say(from, 2n, `near ${i}`, DESTINATION.current);
    }
    pool.settle();
    const expected = (name: string): string[] => Array.from({ length: 20 }, (_, i) => `${name} ${i}`);
    assert.deepEqual(far.messages.map((message) => textOf(message.data)), expected('far'));
    assert.deepEqual(near.messages.map((message) => textOf(message.data)), expected('near'));
    assert.equal(far.messages[0]?.source, 2);
  });

  test('to all reach every server, the own included, and a client registered twice gets them twice', () => {
    const pool = new GatePool(3);
    const clients = [0, 1, 2].map((id) => pool.server(id).connect(10 + id));
    for (const client of clients) register(client, SRVID.sambaProcess);
    const [first] = clients;
    assert.ok(first !== undefined);
    register(first, SRVID.sambaProcess);
    const everything = pool.server(1).connect(50);
    register(everything, SRVID.all);
    say(first, SRVID.sambaProcess, 'hello', DESTINATION.connected);
    pool.settle();
    assert.deepEqual(clients.map((client) => client.messages.length), [2, 1, 1]);
    assert.equal(everything.messages.length, 1);
  });

  test('to a process of a server that is silent for a while arrive afterwards; those to all do not', () => {
    const pool = new GatePool(2);
    const [from, to] = [pool.server(0).connect(1), pool.server(1).connect(2)];
    register(to, 5n);
    pool.cut(0, 1);
    say(from, 5n, 'break your lease', 1);
    say(from, 5n, 'to all', DESTINATION.all);
    pool.settle();
    assert.equal(to.messages.length, 0);
    pool.heal(0, 1);
    pool.settle();
    assert.deepEqual(to.messages.map((message) => textOf(message.data)), ['break your lease']);
    assert.equal(pool.server(0).counter('gate.message.dropped.server-down'), 1);
  });

  test('to nobody, to no such server and to a server that was never there are dropped and counted', () => {
    const pool = new GatePool(3, [0, 1]);
    const server = pool.server(0);
    const client = server.connect(1);
    say(client, 77n, 'x', DESTINATION.current);
    say(client, 77n, 'x', 9);
    say(client, 77n, 'x', 2);
    assert.equal(server.counter('gate.message.dropped.nobody'), 1);
    assert.equal(server.counter('gate.message.dropped.unknown-server'), 1);
    assert.equal(server.counter('gate.message.dropped.server-down'), 1);
  });

  test('stop after the address was taken back or the client went', () => {
    const pool = new GatePool(1);
    const [from, to] = [pool.server(0).connect(1), pool.server(0).connect(2)];
    register(to, 5n);
    register(to, 6n);
    assert.equal(to.answer(to.control(CONTROL.deregisterSrvid, EMPTY, { srvid: 5n })).status, 0);
    assert.equal(to.answer(to.control(CONTROL.deregisterSrvid, EMPTY, { srvid: 5n })).status, 2);
    say(from, 5n, 'x', DESTINATION.current);
    to.close();
    say(from, 6n, 'x', DESTINATION.current);
    assert.equal(to.messages.length, 0);
  });

  test('a notification asked for is sent when the client is gone', () => {
    const pool = new GatePool(2);
    const [leaving, listening] = [pool.server(0).connect(1), pool.server(1).connect(2)];
    register(listening, SRVID.sambaNotify);
    const data = Buffer.alloc(13);
    data.writeBigUInt64LE(SRVID.sambaNotify);
    data.writeUInt32LE(1, 8);
    assert.equal(leaving.answer(leaving.control(CONTROL.registerNotify, data)).status, 0);
    leaving.close();
    pool.settle();
    assert.equal(listening.messages.length, 1);
  });

  test('who leads is told once a second to those who listen', () => {
    const pool = new GatePool(2);
    const client = pool.server(1).connect(1);
    register(client, SRVID.leader);
    pool.advance(2_500_000);
    assert.equal(client.messages.length, 3);
    assert.equal(decodeU32(client.messages[0]?.data ?? EMPTY), 0);
    client.close();
    pool.advance(2_000_000);
    assert.equal(pool.server(1).timers.deadline(), Infinity);
  });
});

describe('liveness', () => {
  const UNIQUE = 0x1234_5678_9abc_def0n;
  const isAlive = (pool: GatePool, client: TestClient, destination: number, pid: number, srvid: bigint): number => {
    pool.settle();
    const request = client.control(CONTROL.checkPidSrvid, encodeCheckPidSrvid(pid, srvid), { destination });
    pool.settle();
    return client.answer(request).status;
  };
  const exists = (pool: GatePool, client: TestClient, destination: number, pid: number): number => {
    pool.settle();
    const request = client.control(CONTROL.processExists, encodeU32(pid), { destination });
    pool.settle();
    return client.answer(request).status;
  };
  const hold = (client: TestClient, srvid: bigint): void => {
    client.control(CONTROL.registerSrvid, EMPTY, { srvid });
  };

  test('of a process of another server is known at once, and its end too', () => {
    const pool = new GatePool(3);
    const asking = pool.server(0).connect(1);
    const other = pool.server(2).connect(500);
    hold(other, UNIQUE);
    pool.settle();
    const before = pool.delivered;
    assert.equal(isAlive(pool, asking, 2, 500, UNIQUE), 0);
    assert.equal(exists(pool, asking, 2, 500), 0);
    assert.equal(pool.delivered, before, 'answered from memory');
    other.close();
    pool.settle();
    const after = pool.delivered;
    assert.equal(isAlive(pool, asking, 2, 500, UNIQUE), -1);
    assert.equal(pool.delivered, after, 'answered from memory');
    assert.equal(exists(pool, asking, 2, 500), -1);
  });

  test('an unknown process is asked for, never guessed dead: the news of it may be under way', () => {
    const pool = new GatePool(2);
    const asking = pool.server(0).connect(1);
    const other = pool.server(1).connect(500);
    hold(other, UNIQUE);
    // the announcement has not been delivered yet
    const request = asking.control(CONTROL.checkPidSrvid, encodeCheckPidSrvid(500, UNIQUE), { destination: 1 });
    pool.settle();
    assert.equal(asking.answer(request).status, 0);
    assert.equal(isAlive(pool, asking, 1, 777, 1n), -1);
  });

  test('a process that lives on with one of two connections is alive', () => {
    const pool = new GatePool(2);
    const asking = pool.server(0).connect(1);
    const [one, two] = [pool.server(1).connect(500), pool.server(1).connect(500)];
    hold(one, UNIQUE);
    one.close();
    pool.settle();
    assert.equal(exists(pool, asking, 1, 500), 0);
    assert.equal(isAlive(pool, asking, 1, 500, UNIQUE), -1);
    two.close();
    assert.equal(exists(pool, asking, 1, 500), -1);
  });

  test('a process id used again does not make the old process live, nor the new one dead', () => {
    const pool = new GatePool(2);
    const asking = pool.server(0).connect(1);
    const old = pool.server(1).connect(500);
    hold(old, 11n << 32n);
    old.close();
    hold(pool.server(1).connect(500), 22n << 32n);
    assert.equal(isAlive(pool, asking, 1, 500, 11n << 32n), -1);
    assert.equal(isAlive(pool, asking, 1, 500, 22n << 32n), 0);
  });

  test('a server that cannot be asked keeps its processes alive, and the answer comes at once', () => {
    const pool = new GatePool(3);
    const asking = pool.server(0).connect(1);
    hold(pool.server(1).connect(500), UNIQUE);
    pool.settle();
    pool.stop(1);
    assert.equal(isAlive(pool, asking, 1, 500, UNIQUE), 0);
    assert.equal(isAlive(pool, asking, 1, 999, 9n), 0);
  });

  test('processes of a server that is out of the view are dead at once, also those nobody has heard of', () => {
    const pool = new GatePool(3);
    const asking = pool.server(0).connect(1);
    hold(pool.server(1).connect(500), UNIQUE);
    pool.settle();
    pool.stop(1);
    assert.equal(isAlive(pool, asking, 1, 500, UNIQUE), 0, 'it may only be silent');
    pool.agree();
    const before = pool.delivered;
    assert.equal(isAlive(pool, asking, 1, 500, UNIQUE), -1);
    assert.equal(isAlive(pool, asking, 1, 999, 9n), -1);
    assert.equal(exists(pool, asking, 1, 500), -1);
    assert.equal(pool.delivered, before, 'nobody is asked');
    // its next run's processes live
    pool.start(1);
    hold(pool.server(1).connect(500), 2n * UNIQUE);
    pool.settle();
    assert.equal(isAlive(pool, asking, 1, 500, 2n * UNIQUE), 0);
    assert.equal(isAlive(pool, asking, 1, 500, UNIQUE), -1);
  });

  test('a process that is asked for while its server leaves the view is answered dead, or alive, but at once', () => {
    const pool = new GatePool(3);
    const asking = pool.server(0).connect(1);
    const request = asking.control(CONTROL.processExists, encodeU32(1234), { destination: 1 });
    pool.lose(1);
    pool.settle();
    assert.notEqual(asking.reply(request), undefined);
  });

  test('before the first view nobody is taken for dead', () => {
    const pool = new GatePool(3, [0]);
    const asking = pool.server(0).connect(1);
    assert.equal(isAlive(pool, asking, 1, 500, UNIQUE), 0);
  });

  test('after the server started anew all its earlier processes are gone', () => {
    const pool = new GatePool(2);
    const asking = pool.server(0).connect(1);
    hold(pool.server(1).connect(500), UNIQUE);
    pool.settle();
    pool.stop(1);
    pool.start(1);
    pool.settle();
    assert.equal(isAlive(pool, asking, 1, 500, UNIQUE), -1);
    assert.equal(exists(pool, asking, 1, 500), -1);
  });

  test('a server that falls silent while it is asked: alive, after a bounded wait', () => {
    const pool = new GatePool(2);
    const asking = pool.server(0).connect(1);
    const request = asking.control(CONTROL.processExists, encodeU32(1234), { destination: 1 });
    pool.cut(0, 1);
    pool.settle();
    assert.equal(asking.answer(request).status, 0);
    pool.heal(0, 1);
    pool.settle();
    const late = asking.control(CONTROL.processExists, encodeU32(1234), { destination: 1 });
    pool.server(1).up.delete(pool.server(0).id);
    pool.advance(LIVENESS_WAIT_MICROS_MAX);
    assert.equal(asking.answer(late).status, 0);
  });

  test('processes that came before the servers met are known after it', () => {
    const pool = new GatePool(2, [1]);
    for (let pid = 1; pid <= 2_500; pid++) hold(pool.server(1).connect(pid), (BigInt(pid) << 40n) + 7n);
    pool.start(0);
    pool.settle();
    const asking = pool.server(0).connect(9_999);
    pool.settle();
    const before = pool.delivered;
    assert.equal(isAlive(pool, asking, 1, 2_500, (2_500n << 40n) + 7n), 0);
    assert.equal(pool.delivered, before);
    assert.equal(pool.server(0).gate.status().servers[1]?.processes, 2_500);
  });
});

describe('controls', () => {
  test('for another server are carried there and the answer back', () => {
    const pool = new GatePool(3);
    const client = pool.server(0).connect(1);
    attach(pool, client);
    pool.server(2).connect(2);
    const ping = client.control(CONTROL.ping, EMPTY, { destination: 2 });
    const path = client.control(CONTROL.getDatabasePath, encodeU32(LOCKING), { destination: 2 });
    pool.settle();
    assert.equal(client.answer(ping).status, 1);
    assert.equal(textOf(client.answer(path).data), '/db/locking.tdb.2');
  });

  test('for a server that is down, goes down or does not answer get -1 and a sentence', () => {
    const pool = new GatePool(3, [0, 1]);
    const client = pool.server(0).connect(1);
    assert.match(client.answer(client.control(CONTROL.ping, EMPTY, { destination: 2 })).error, /down/);
    assert.match(client.answer(client.control(CONTROL.ping, EMPTY, { destination: 77 })).error, /no server 77/);
    const lost = client.control(CONTROL.ping, EMPTY, { destination: 1 });
    pool.cut(0, 1);
    assert.match(client.answer(lost).error, /down/);
    pool.heal(0, 1);
    pool.server(1).up.clear();
    const late = client.control(CONTROL.ping, EMPTY, { destination: 1 });
    pool.advance(CONTROL_WAIT_MICROS_MAX);
    assert.match(client.answer(late).error, /in time/);
    assert.equal(pool.server(0).gate.status().controls, 0);
  });

  test('unknown ones are refused and counted by number', () => {
    const pool = new GatePool(1);
    const server = pool.server(0);
    const client = server.connect(1);
    for (const opcode of [2, 199, 199, 70_000]) {
      const answer = client.answer(client.control(opcode));
      assert.equal(answer.status, -1);
      assert.match(answer.error, /not offered/);
    }
    assert.equal(server.counter('gate.control.unknown.199'), 2);
    assert.equal(server.counter('gate.control.unknown.other'), 1);
  });

  test('with data of a wrong size are refused, all of them', () => {
    const pool = new GatePool(1);
    const client = pool.server(0).connect(1);
    const withData = ['getDatabasePath', 'checkPidSrvid', 'processExists', 'traverseStart', 'echoData'] as const;
    const more = ['scheduleForDeletion', 'tcpClient', 'databaseAttach', 'transactionCommit'] as const;
    for (const name of [...withData, ...more]) {
      for (const data of [EMPTY, new Uint8Array(3)]) {
        assert.equal(client.answer(client.control(CONTROL[name], data)).status, -1, name);
      }
    }
  });

  test('to all servers must not ask for an answer', () => {
    const pool = new GatePool(2);
    const client = pool.server(0).connect(1);
    const request = client.control(CONTROL.ping, EMPTY, { destination: DESTINATION.all });
    assert.equal(client.answer(request).status, -1);
    const flags = CONTROL_FLAG.noReply;
    client.control(CONTROL.ping, EMPTY, { destination: DESTINATION.all, flags });
    pool.settle();
    assert.equal(pool.server(1).counter('gate.control.ping'), 1);
  });

  test('of the ctdb tool', () => {
    const pool = new GatePool(3);
    const client = pool.server(1).connect(1);
    attach(pool, client);
    attach(pool, client, 'passdb.tdb', CONTROL.databaseAttachPersistent);
    const data = (opcode: number, input: Uint8Array = EMPTY): Uint8Array => {
      const answer = client.answer(client.control(opcode, input));
      assert.equal(answer.status, 0);
      return answer.data;
    };
    assert.deepEqual(decodeDatabaseMap(data(CONTROL.getDatabaseMap)), [
      { database: LOCKING, flags: 0 },
      { database: databaseIdOf('passdb.tdb'), flags: 1 },
    ]);
    assert.equal(data(CONTROL.getDatabaseHealth, encodeU32(LOCKING)).length, 0);
    assert.deepEqual([...data(CONTROL.getVnnMap)].slice(4), [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    assert.equal(data(CONTROL.getRecoveryMode).length, 0);
    assert.equal(data(CONTROL.uptime).length, 64);
    assert.equal(decodeU32(data(CONTROL.getRunState)), 5);
    assert.equal(client.answer(client.control(CONTROL.getPid)).status, 4_001);
    assert.equal(client.answer(client.control(CONTROL.setDatabaseReadonly, encodeU32(LOCKING))).status, 0);
    assert.equal(decodeDatabaseMap(data(CONTROL.getDatabaseMap))[0]?.flags, 2);
  });
});

describe('the release of Samba', () => {
  const startedWith = (...releases: (string | undefined)[]): GatePool => {
    const pool = new GatePool(releases.length, []);
    releases.forEach((samba, id) => {
      pool.samba = samba;
      pool.start(id);
      pool.settle();
    });
    return pool;
  };
  const ends = (pool: GatePool): (string | null)[] => pool.ids.map((id) => pool.server(id).ended);

  test('is one in the whole pool', () => assert.deepEqual(ends(startedWith('4.17', '4.17')), [null, null]));

  test('that differs ends the server that started later, with a sentence', () => {
    const pool = startedWith('4.17', '4.17', '4.22');
    assert.deepEqual(ends(pool).slice(0, 2), [null, null]);
    assert.match(ends(pool)[2] ?? '', /^this server has Samba 4\.22, but server [01] of the pool has Samba 4\.17$/);
    assert.equal(pool.server(0).counter('gate.release.differs'), 1);
  });

  test('is not compared with a server that has none', () => {
    assert.deepEqual(ends(startedWith('4.17', undefined)), [null, null]);
  });
});
