/**
 * Controls that people's tools ask (the stock `ctdb` command): how many clients, which databases, who leads. None of
 * them changes anything. Entries of the table of core/gate/controls.
 */
import { ByteReader } from '../../base/bytes.js';
import { nameBytes } from '../../wire/ctdb.js';
import {
  CAPABILITY,
  CONTROL,
  DATABASE_FLAG,
  RUN_STATE,
  decodeTunableName,
  encodeDatabaseMap,
  encodeInterfaces,
  encodeTunableNames,
  encodeU32,
  encodeU64,
  encodeUptime,
  encodeVnnMap,
} from '../../wire/ctdb-controls.js';
import { databaseId } from '../../base/ids.js';
import type { ControlHandler } from './controls.js';
import type { Database } from './databases.js';
import { refused } from './forwarding.js';
import { done, onDatabase, value } from './smbd-controls.js';
import type { ControlParts } from './smbd-controls.js';

/** CTDB's answer for a tunable it does not have. */
const NO_SUCH_TUNABLE = -22;
/** Samba's number for the log level "notice". */
const LOG_LEVEL_NOTICE = 3;
/** CTDB's number for "no recovery is running". */
const RECOVERY_MODE_NORMAL = 0;

export function toolControls(parts: ControlParts, generation: number): [number, ControlHandler][] {
  return [...daemonControls(parts, generation), ...databaseToolControls(parts)];
}

function daemonControls(
  { context, options, clients }: ControlParts,
  generation: number,
): [number, ControlHandler][] {
  const startedAt = context.now();
  return [
    [CONTROL.ping, (call) => call.answer(value(clients.size))],
    [CONTROL.getPid, (call) => call.answer(value(options.pid))],
    [CONTROL.getRecoveryMode, (call) => call.answer(value(RECOVERY_MODE_NORMAL))],
    [CONTROL.getVnnMap, (call) => call.answer(done(encodeVnnMap(generation, context.members)))],
    [CONTROL.getRecoveryLockFile, (call) => call.answer(done())],
    [CONTROL.getRunState, (call) => call.answer(done(encodeU32(RUN_STATE.running)))],
    [CONTROL.getCapabilities, (call) => call.answer(done(encodeU32(CAPABILITY.leader | CAPABILITY.lmaster)))],
    [CONTROL.getInterfaces, (call) => call.answer(done(encodeInterfaces()))],
    [CONTROL.getDebug, (call) => call.answer(done(encodeU32(LOG_LEVEL_NOTICE)))],
    [CONTROL.listTunables, (call) => call.answer(done(encodeTunableNames([])))],
    [
      CONTROL.getTunable,
      (call) => call.answer({ ...refused(`no tunable ${decodeTunableName(call.data)}`), status: NO_SUCH_TUNABLE }),
    ],
    [
      CONTROL.uptime,
      (call) => {
        const started = options.wallClockOriginMicros + startedAt;
        const now = options.wallClockOriginMicros + context.now();
        call.answer(done(encodeUptime([now, started, started, started])));
      },
    ],
    [
      CONTROL.echoData,
      (call) => {
        const reader = new ByteReader(call.data);
        reader.skip(4);
        reader.view8(reader.u32());
        call.answer(done(Uint8Array.prototype.slice.call(call.data)));
      },
    ],
  ];
}

function databaseToolControls({ databases, persistent }: ControlParts): [number, ControlHandler][] {
  return [
    [
      CONTROL.getDatabaseMap,
      (call) => {
        const open = databases.list().filter((database) => database.state === 'open');
        call.answer(done(encodeDatabaseMap(open.map((each) => ({ database: each.id, flags: flagsOf(each) })))));
      },
    ],
    [CONTROL.getDatabaseName, onDatabase(databases, (database) => done(nameBytes(database.name)))],
    // empty means healthy: what cannot be opened is not attached at all
    [CONTROL.getDatabaseHealth, onDatabase(databases, () => done())],
    [CONTROL.setDatabaseHealthy, onDatabase(databases, () => done())],
    [
      CONTROL.getDatabaseSequence,
      (call) => {
        const reader = new ByteReader(call.data);
        const database = databases.get(databaseId(reader.u32()));
        reader.skip(4);
        reader.end();
        if (database === undefined) return call.answer(refused('no such database'));
        const sequence = database.kind === 'volatile' ? 0 : persistent.sequence(database.id);
        call.answer(done(encodeU64(BigInt(sequence))));
      },
    ],
  ];
}

function flagsOf(database: Database): number {
  const kind =
    database.kind === 'persistent'
      ? DATABASE_FLAG.persistent
      : database.kind === 'replicated'
        ? DATABASE_FLAG.replicated
        : 0;
  return kind | (database.readonly ? DATABASE_FLAG.readonly : 0);
}
