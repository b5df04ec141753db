/**
 * The controls that smbd and its helpers, nmbd, smbstatus, net and smbpasswd send: registration, databases, liveness,
 * traversals, commits. Entries of the table of core/gate/controls.
 */
import { DecodeError } from '../../base/bytes.js';
import { databaseId, keyOf } from '../../base/ids.js';
import { nameBytes } from '../../wire/ctdb.js';
import {
  ADDRESS_BYTES,
  CONTROL,
  NODE_FLAG,
  decodeCheckPidSrvid,
  decodeName,
  decodeNotify,
  decodeTcpClient,
  decodeTraverseStart,
  decodeU32,
  encodeNodeMap,
  encodePublicIps,
  encodeU32,
} from '../../wire/ctdb-controls.js';
import { decodeMarshalled, decodeScheduleForDeletion } from '../../wire/ctdb-records.js';
import type { DatabaseKind } from '../../wire/gate-messages.js';
import type { CoreContext } from '../context.js';
import type { Client, Clients } from './clients.js';
import type { ControlCall, ControlHandler } from './controls.js';
import type { Database, Databases } from './databases.js';
import { NO_DATA, refused } from './forwarding.js';
import type { ControlAnswer } from './forwarding.js';
import type { Messages } from './messages.js';
import type { AddressesForGate, GateOptions, PersistentForGate, RecordsForGate } from './ports.js';
import type { Processes } from './processes.js';
import type { Traversals } from './traversals.js';

/** The address family field alone says what it is, so both addresses always take their full room. */
const TCP_CLIENT_BYTES = 2 * ADDRESS_BYTES;
/** Texts a client asks to be sent when it is gone. */
const NOTIFIES_PER_CLIENT_MAX = 64;
/** CTDB's number for no server. */
const NOBODY = 0xffff_ffff;
/** CTDB's answer to taking back what was not registered. */
const NOT_REGISTERED = 2;

export interface ControlParts {
  context: CoreContext;
  options: GateOptions;
  clients: Clients;
  processes: Processes;
  databases: Databases;
  messages: Messages;
  traversals: Traversals;
  records: RecordsForGate;
  persistent: PersistentForGate;
  /** Absent: there are no public addresses. */
  addresses: AddressesForGate | undefined;
  /** Somebody may have begun to listen to an address that the gate itself speaks to. */
  addressRegistered(client: Client, srvid: bigint): void;
  /** Somebody may listen no more. */
  addressDropped(): void;
}

export const done = (data: Uint8Array = NO_DATA): ControlAnswer => ({ status: 0, data, error: '' });
export const value = (status: number): ControlAnswer => ({ status, data: NO_DATA, error: '' });

export function smbdControls(parts: ControlParts): [number, ControlHandler][] {
  return [...serverControls(parts), ...addressControls(parts), ...databaseControls(parts), ...recordControls(parts)];
}

function serverControls({ context, options, processes, addresses }: ControlParts): [number, ControlHandler][] {
  return [
    [CONTROL.getPnn, (call) => call.answer(value(context.self))],
    [
      CONTROL.getNodeMap,
      (call) => {
        const nodes = context.servers.map((node) => ({
          node,
          flags: context.isUp(node) ? 0 : NODE_FLAG.disconnected,
          address: options.addresses.get(node) ?? '0.0.0.0',
          port: 0,
        }));
        call.answer(done(encodeNodeMap(nodes)));
      },
    ],
    [
      CONTROL.getPublicIps,
      (call) => {
        const ips = addresses?.holders() ?? [];
        const entries = ips.map(({ address, holder }) => ({ address, port: 0, node: holder ?? NOBODY }));
        call.answer(done(encodePublicIps(entries)));
      },
    ],
    [
      CONTROL.tcpClient,
      (call) => {
        if (call.data.length !== TCP_CLIENT_BYTES) throw new DecodeError('wrong-size');
        if (addresses !== undefined && call.client !== null) {
          addresses.connected(call.client.id, decodeTcpClient(call.data));
          call.client.connections.push(Uint8Array.prototype.slice.call(call.data));
        }
        call.answer(done());
      },
    ],
    [
      CONTROL.processExists,
      (call) => {
        const alive = processes.isAlive(context.self, decodeU32(call.data) | 0, null) === 'alive';
        call.answer(value(alive ? 0 : -1));
      },
    ],
    [
      CONTROL.checkPidSrvid,
      (call) => {
        const { pid, srvid } = decodeCheckPidSrvid(call.data);
        call.answer(value(processes.isAlive(context.self, pid, srvid) === 'alive' ? 0 : -1));
      },
    ],
  ];
}

function addressControls(parts: ControlParts): [number, ControlHandler][] {
  const { clients, processes } = parts;
  return [
    [
      CONTROL.registerSrvid,
      ({ client, srvid, answer }) => {
        if (client === null) return answer(refused('an address is registered at the own server'));
        const first = !client.srvids.has(srvid);
        if (!clients.register(client, srvid)) return answer(refused('too many addresses'));
        if (first) processes.registered(client, srvid);
        answer(done());
        parts.addressRegistered(client, srvid);
      },
    ],
    [
      CONTROL.deregisterSrvid,
      ({ client, srvid, answer }) => {
        if (client === null) return answer(refused('an address is registered at the own server'));
        if (!clients.deregister(client, srvid)) return answer(value(NOT_REGISTERED));
        processes.deregistered(client, srvid);
        answer(done());
        parts.addressDropped();
      },
    ],
    [
      CONTROL.registerNotify,
      ({ client, data, answer }) => {
        const notify = decodeNotify(data);
        if (client === null || client.notifies.has(notify.srvid)) return answer(refused('registered already'));
        if (client.notifies.size >= NOTIFIES_PER_CLIENT_MAX) return answer(refused('too many notifications'));
        client.notifies.set(notify.srvid, notify.data);
        answer(done());
      },
    ],
    [
      CONTROL.deregisterNotify,
      ({ client, data, answer }) => {
        if (data.length !== 8) throw new DecodeError('wrong-size');
        const srvid = new DataView(data.buffer, data.byteOffset, 8).getBigUint64(0, true);
        answer(client?.notifies.delete(srvid) === true ? done() : refused('not registered'));
      },
    ],
  ];
}

function databaseControls({ databases }: ControlParts): [number, ControlHandler][] {
  const attach =
    (kind: DatabaseKind): ControlHandler =>
    (call) => {
      databases.attach(decodeName(call.data), kind, (refusal, id) => {
        call.answer(refusal === null ? done(encodeU32(id)) : refused(refusal));
      });
    };
  return [
    [CONTROL.databaseAttach, attach('volatile')],
    [CONTROL.databaseAttachPersistent, attach('persistent')],
    [CONTROL.databaseAttachReplicated, attach('replicated')],
    [CONTROL.getDatabasePath, onDatabase(databases, (database) => done(nameBytes(database.path)))],
    [CONTROL.databaseOpenFlags, onDatabase(databases, (database) => done(encodeU32(databases.openFlags(database))))],
    [
      CONTROL.enableSequenceNumber,
      onDatabase(databases, (database) => {
        databases.countChanges(database);
        return done();
      }),
    ],
    [
      CONTROL.setDatabaseReadonly,
      onDatabase(databases, (database) =>
        databases.setReadonly(database) ? done() : refused('only a volatile database can have read copies'),
      ),
    ],
  ];
}

/** A control whose data is the number of a database that is open here. */
export function onDatabase(databases: Databases, act: (database: Database) => ControlAnswer): ControlHandler {
  return ({ data, answer }: ControlCall) => {
    const database = databases.get(databaseId(decodeU32(data)));
    if (database === undefined || database.state !== 'open') answer(refused('no such database'));
    else answer(act(database));
  };
}

function recordControls({ context, databases, traversals, records, persistent }: ControlParts): [
  number,
  ControlHandler,
][] {
  const traverse =
    (extended: boolean): ControlHandler =>
    ({ client, data, answer }) => {
      const start = decodeTraverseStart(data, extended);
      const database = databases.get(databaseId(start.database));
      if (client === null) return answer(refused('a traversal is asked for at the own server'));
      if (database === undefined || database.state !== 'open') return answer(refused('no such database'));
      client.traversals.add(start);
      answer(done());
      traversals.start(client, start, database.id, database.kind !== 'volatile');
    };
  return [
    [CONTROL.traverseStart, traverse(false)],
    [CONTROL.traverseStartExtended, traverse(true)],
    [
      CONTROL.scheduleForDeletion,
      ({ data, answer }) => {
        const { database, key } = decodeScheduleForDeletion(data);
        const id = databaseId(database);
        if (databases.isVolatile(id)) records.scheduleDeletion(id, keyOf(key));
        else context.count('gate.deletion.ignored');
        answer(done());
      },
    ],
    [
      CONTROL.transactionCommit,
      ({ data, answer }) => {
        const { database, rows } = decodeMarshalled(data);
        const known = databases.get(databaseId(database));
        if (known === undefined || known.state !== 'open') return answer(refused('no such database'));
        if (known.kind === 'volatile') return answer(refused('a volatile database has no transactions'));
        persistent.commit(known.id, rows, (refusal) => answer(refusal === null ? done() : refused(refusal)));
      },
    ],
  ];
}
