/** What host/persistent-store and its worker thread say to each other. Rows cross as copies. */
import type { DatabaseId } from '../base/ids.js';
import type { PersistentOp } from '../core/effects.js';
import type { OpenedDatabase, PersistentResult } from '../ports/record-store.js';

export type PersistentRequest =
  | { id: number; kind: 'open'; database: DatabaseId; path: string }
  | { id: number; kind: 'work'; database: DatabaseId; work: PersistentOp }
  | { id: number; kind: 'close' };

export type PersistentReply =
  | { id: number; kind: 'opened'; opened: OpenedDatabase }
  | { id: number; kind: 'refused'; why: string }
  | { id: number; kind: 'worked'; result: PersistentResult }
  | { id: number; kind: 'closed' };
