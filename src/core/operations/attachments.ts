/**
 * The smbds of this server that have the VFS module attached, each with its client, its trees and the creates that it
 * has under way. As the modules told us; what is lost is mended by the next resync. Used by operations.ts, read by
 * core/witness.
 */
import type { FileId, OpenTerms } from '../../wire/ring-ops.js';
import type { ServerId } from '../../wire/samba-messages.js';
import { NOBODY } from '../../wire/samba-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { NeededRecord } from '../records/pins.js';

export interface Tree {
  share: string;
  user: string;
  path: string;
}

/** A create that smbd began and has not ended. */
export interface Operation extends OpenTerms {
  /** The module's number for it. */
  id: bigint;
  /** Of the pins; unique among all attachments. */
  number: number;
  tree: bigint;
  /** The one id; smbd goes by `key`, which may be our slice of the folder. */
  file: FileId;
  key: FileId;
  path: string;
  since: Micros;
  /** It waits for its records. */
  isWaiting: boolean;
  /** When its records were pinned for it. */
  readyAt: Micros | null;
  flags: number;
  /** What it needs here, as far as known. */
  names: readonly NeededRecord[];
}

export class Attachment {
  server: ServerId = NOBODY;
  clientGuid = '';
  address = '';
  name = '';
  readonly trees = new Map<bigint, Tree>();
  /** By id. */
  readonly operations = new Map<bigint, Operation>();
  /** It tells all its handles anew, and has not told all. */
  isResyncing = false;
  /** Of the last break-all that it heard; 0: none. */
  breaksSent = 0;

  constructor(
    readonly id: number,
    readonly pid: number,
  ) {}
}

/** Puts a message (RING_OP) into the ring of a module. */
export function sendToModule(context: CoreContext, { id }: Attachment, op: number, payload: Uint8Array): void {
  context.emit({ kind: 'ring-send', attachment: id, op, payload });
}
