/**
 * For whom a record came to this server: the open under way that asked for it, or those who have its file open. Only
 * for people who watch; used by core/witness/witness.
 */
import type { DatabaseId } from '../../base/ids.js';
import { databaseIdOf } from '../../base/jenkins.js';
import type { TraceEvent } from '../../wire/locks.js';
import { fileIdText } from '../../wire/ring-ops.js';
import type { Micros } from '../effects.js';
import type { RecordName } from '../records/pins.js';
import type { Attachment } from '../operations/attachments.js';
import { BRLOCK, LEASES, LOCKING } from '../operations/file-records.js';
import type { Opens } from './opens.js';
import type { EventFacts, EventSubject, Reporter } from './reports.js';
import { identity, traceEvent } from './reports.js';

/** Databases whose records move because somebody opens, locks or closes a file. */
const NAMES = new Map<DatabaseId, string>([
  [LOCKING, 'locking.tdb'],
  [BRLOCK, 'brlock.tdb'],
  [LEASES, 'leases.tdb'],
  [databaseIdOf('smbXsrv_open_global.tdb'), 'smbXsrv_open_global.tdb'],
]);

/** smbd's struct file_id, the key of the first two. */
const FILE_ID_BYTES = 24;

/** A record that came to this server from another one. */
export interface Move {
  record: RecordName;
  fromName: string;
  atMicros: number;
  /** How long the first here who asked for it has waited; null when nobody does any more. */
  tookMicros: Micros | null;
}

/** Null: no file's record. */
export function moveEvent(
  reporter: Reporter,
  attachments: Iterable<Attachment>,
  opens: Opens,
  { record, fromName, atMicros, tookMicros }: Move,
): TraceEvent | null {
  const name = NAMES.get(record.database);
  if (name === undefined) return null;
  const detail = `${name} from ${fromName}`;
  const facts: EventFacts = { kind: 'moved', atMicros, tookMicros, status: '', detail };
  const asking = operationFor(attachments, record);
  if (asking !== null) {
    const { attachment, subject } = asking;
    return traceEvent(identity(reporter, attachment, subject.tree), subject, facts);
  }
  const isFile = record.database === LOCKING || record.database === BRLOCK;
  const holders = isFile ? opens.ofFile(record.key) : opens.ofLease(record.key);
  const [first] = holders;
  if (first !== undefined) {
    const [open, attachment] = first;
    const base = identity(reporter, attachment, open.tree);
    const isOne = new Set(holders.values()).size === 1;
    // of several clients with the file open, it may be any
    return traceEvent(isOne ? base : { ...base, ...NOBODY }, open, facts);
  }
  const base = { ...reporter, ...NOBODY, share: '' };
  const file = isFile && record.key.length === FILE_ID_BYTES ? fileIdText(record.key) : '';
  return { ...base, path: '', fileId: file, ...facts };
}

const NOBODY = { pid: 0, client: '', clientName: '', user: '' };

/** The open under way that needs the record. */
function operationFor(
  attachments: Iterable<Attachment>,
  { database, key }: RecordName,
): { attachment: Attachment; subject: EventSubject } | null {
  for (const attachment of attachments) {
    for (const begun of attachment.operations.values()) {
      const needsIt = begun.names.some((name) => name.key === key && name.database === database);
      if (needsIt) return { attachment, subject: begun };
    }
  }
  return null;
}
