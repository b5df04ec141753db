/**
 * REQ_CALL: a local process wants to own a record (migrate) or to read it (fetch). Hands the wish to the record engine
 * and sends the answer back. Every call is answered once: smbd waits for ever otherwise.
 */
import type { DatabaseId, RecordKey } from '../../base/ids.js';
import { databaseId, keyOf } from '../../base/ids.js';
import { databaseIdOf } from '../../base/jenkins.js';
import { CALL_ID } from '../../wire/ctdb.js';
import type { CtdbPacketOf } from '../../wire/ctdb.js';
import { KEY_BYTES_MAX } from '../../wire/record-messages.js';
import { encodeRecord } from '../../wire/record-header.js';
import type { CoreContext } from '../context.js';
import { CALLS_PER_CLIENT_MAX } from './clients.js';
import type { Client, Clients } from './clients.js';
import type { RecordsForGate } from './ports.js';
import type { Tokens } from './tokens.js';

const EMPTY = new Uint8Array(0);

/** What clients find in `status` of a refused call; they only look whether it is 0. */
const CALL_FAILED = 0xffff_ffff;

/**
 * Databases whose records move to a reader instead of being copied. smbd reads a share mode record under its chain and,
 * from inside that, writes the same record to wake those who wait for it (g_lock_wake_watchers within g_lock_dump).
 * While the record is owned and not shared it does so without asking us. With a copy, or with a record that is shared
 * with readers, it would ask: and we could never answer, because we store under the chain that it holds until we have.
 */
const MOVED_TO_READERS: ReadonlySet<DatabaseId> = new Set([databaseIdOf('locking.tdb'), databaseIdOf('g_lock.tdb')]);

/** Whole names: one put together for each call costs more than the counting. */
const COUNTERS = {
  migrate: 'gate.call.migrate',
  fetch: 'gate.call.fetch',
  'fetch-with-header': 'gate.call.fetch-with-header',
} as const satisfies Record<Call['what'], string>;

interface Call {
  database: DatabaseId;
  key: RecordKey;
  client: Client;
  requestId: number;
  what: 'migrate' | 'fetch' | 'fetch-with-header';
}

export class Calls {
  private readonly pending = new Map<number, Call>();

  constructor(
    private readonly context: CoreContext,
    private readonly clients: Clients,
    private readonly records: RecordsForGate,
    private readonly tokens: Tokens,
    /** Whether it is an open volatile database. */
    private readonly isServed: (database: DatabaseId) => boolean,
  ) {}

  get size(): number {
    return this.pending.size;
  }

  request(client: Client, packet: CtdbPacketOf<'request-call'>): void {
    const database = databaseId(packet.database);
    const what = kindOf(packet);
    if (what === null) {
      // the client library of the ctdb tool hangs on an error packet, so this refusal is a reply with a status
      this.context.count('gate.call.refused.unknown-function');
      const reply = { kind: 'reply-call', status: CALL_FAILED, data: new Uint8Array(0) } as const;
      return this.clients.send(client.id, reply, packet.requestId);
    }
    if (!this.isServed(database)) return this.refuse(client, packet.requestId, 'unknown-database');
    // such a key would make peers refuse the whole message in which it travels with the keys of others
    if (packet.key.length === 0) return this.refuse(client, packet.requestId, 'key-empty');
    if (packet.key.length > KEY_BYTES_MAX) return this.refuse(client, packet.requestId, 'key-too-long');
    if (client.calls.size >= CALLS_PER_CLIENT_MAX) return this.refuse(client, packet.requestId, 'too-many-calls');
    const token = this.tokens.next();
    const key = keyOf(packet.key);
    this.pending.set(token, { database, key, client, requestId: packet.requestId, what });
    client.calls.add(token);
    this.context.count(COUNTERS[what]);
    const isAgain = what === 'migrate' && client.lastDatabase === database && client.lastMigrated === key;
    client.lastDatabase = database;
    client.lastMigrated = what === 'migrate' ? key : '';
    if (what === 'migrate') {
      if (!client.hasMigrated) {
        client.hasMigrated = true;
        this.clients.keep(client);
      }
      this.records.migrate(database, key, token, isAgain);
    } else if (MOVED_TO_READERS.has(database)) {
      // smbd lists over a connection of its own, on which it never takes a record and after which it keeps nothing
      if (client.hasMigrated) this.records.migrate(database, key, token, false);
      else this.records.look(database, key, token);
    } else this.records.fetch(database, key, token);
  }

  private refuse(client: Client, requestId: number, why: string): void {
    this.context.count(`gate.call.refused.${why}`);
    this.clients.send(client.id, { kind: 'reply-error', status: CALL_FAILED, message: why }, requestId);
  }

  /** True when the token was one of ours. */
  migrated(token: number): boolean {
    const call = this.pending.get(token);
    if (call !== undefined && call.what !== 'migrate') {
      // it came for a reader: it is here now, and is read before anybody else gets it
      this.records.fetch(call.database, call.key, token);
      return true;
    }
    return this.answer(token, EMPTY);
  }

  fetched(token: number, data: Uint8Array): boolean {
    return this.answer(token, data);
  }

  failed(token: number, why: string): boolean {
    const call = this.take(token);
    if (call === undefined) return false;
    this.context.count('gate.call.failed');
    this.context.log('warn', 'gate.call.failed', { pid: call.client.pid, why });
    this.clients.send(call.client.id, { kind: 'reply-error', status: CALL_FAILED, message: why }, call.requestId);
    return true;
  }

  private answer(token: number, payload: Uint8Array): boolean {
    const call = this.take(token);
    if (call === undefined) return false;
    const data = call.what === 'migrate' ? EMPTY : call.what === 'fetch' ? payload : this.withHeader(payload);
    this.clients.send(call.client.id, { kind: 'reply-call', status: 0, data }, call.requestId);
    return true;
  }

  private withHeader(payload: Uint8Array): Uint8Array {
    return encodeRecord({ rsn: 0, dmaster: this.context.self, flags: 0 }, payload);
  }

  private take(token: number): Call | undefined {
    const call = this.pending.get(token);
    if (call === undefined) return undefined;
    this.pending.delete(token);
    call.client.calls.delete(token);
    return call;
  }

  /** The client is gone: nothing it asked for is wanted any more. */
  clientClosed(client: Client): void {
    for (const token of [...client.calls]) {
      this.take(token);
      this.records.cancel(token);
    }
  }
}

/**
 * null: a function that does not exist here. Flags are only hints: a fetch never takes a record away from its owner.
 */
function kindOf(packet: CtdbPacketOf<'request-call'>): Call['what'] | null {
  if (packet.callId === CALL_ID.migrate) return 'migrate';
  if (packet.callId === CALL_ID.fetch) return 'fetch';
  return packet.callId === CALL_ID.fetchWithHeader ? 'fetch-with-header' : null;
}
