/**
 * What goes into the core and what comes out. `PoolNode.step(input, now)` takes one input and returns effects, which
 * the host performs in the order given; the outcome of a store effect comes back as an input in the same turn. Times
 * are microseconds of a monotonic clock, as whole numbers.
 */
import type { ClientId, DatabaseId, Epoch, Incarnation, NodeId, RecordKey, Turn } from '../base/ids.js';
import type { View } from './views.js';
import type { HotAnswer, LockFilter, LocksAnswer, TraceEvent, TraceFilter } from '../wire/locks.js';
import type { ChangeResult } from './membership/port.js';
import type { Configuration, ConfiguredServer } from '../wire/membership-configuration.js';
import type { ServersChange } from '../wire/membership-messages.js';
import type { SavedMembership } from '../wire/membership-state.js';
import type { Connection } from '../wire/address-messages.js';

/** Microseconds on a monotonic clock. */
export type Micros = number;

/**
 * One step on a record in the local tdb, always under its chain, taken without waiting. `data` is the payload without
 * the 24-byte header (wire/record-header).
 *
 * - take: store `data` with ourselves as dmaster, rsn = turn, no flags. With `copyOf`, store a read-only copy of the
 *   record owned by that node instead (dmaster = copyOf, flag HAVE_READONLY).
 * - keep: store `data` as if we had given it to `owner` in this turn (dmaster = owner, rsn = turn - 1, no flags).
 *   Refused if we own the record, or have something of it that is not older.
 * - give: if we are dmaster, write `to` as the new dmaster (the payload stays, as backup) and return the payload.
 * - share: if we are dmaster, set HAVE_DELEGATIONS, so that local writers must ask first, and return the payload.
 * - unshare: if we are dmaster, clear HAVE_DELEGATIONS and set rsn = turn.
 * - peek: return the payload if the record is usable here for `mode` (owned; or for 'read' also a read-only copy).
 * - discard: delete the record if it is not ours (a read copy or backup) and its rsn <= turn; with `keep` only clear
 *   its flags, so that smbd reads it no more and it stays as backup. Nothing there is also done.
 * - erase: delete the record if it is ours, empty, and its rsn = turn.
 * - reclaim: if we hold the record for another dmaster (a backup), make it ours again with rsn = turn and say whether
 *   its payload is empty; if it is ours already, likewise.
 */
export type RecordOp =
  | { op: 'take'; turn: Turn; data: Uint8Array; copyOf: NodeId | null }
  | { op: 'keep'; turn: Turn; owner: NodeId; data: Uint8Array }
  | { op: 'give'; turn: Turn; to: NodeId }
  | { op: 'share'; turn: Turn }
  | { op: 'unshare'; turn: Turn }
  | { op: 'peek'; mode: AccessMode }
  | { op: 'discard'; turn: Turn; keep: boolean }
  | { op: 'erase'; turn: Turn }
  | { op: 'reclaim'; turn: Turn };

/** 'write' needs ownership; 'read' is content with a copy. */
export type AccessMode = 'read' | 'write';

/**
 * done: performed, `data` is the payload where the operation returns one, `isEmpty` (reclaim only) says whether it is
 * empty. busy: the chain is held by a smbd; ask again later. refused: the record is not in the state the operation
 * needs (`why`), nothing was changed. failed: the tdb answered an error (`why` is its text), nothing was changed.
 */
export type RecordOutcome =
  | { result: 'done'; data?: Uint8Array; isEmpty?: boolean }
  | { result: 'busy' }
  | { result: 'refused'; why: 'absent' | 'not-ours' | 'ours' | 'not-empty' | 'other-turn' | 'shared' }
  | { result: 'failed'; why: string };

export interface RecordEffect {
  kind: 'record';
  database: DatabaseId;
  key: RecordKey;
  op: RecordOp;
}

/** A row of a persistent database: `value` is the stored value with its 24-byte header. */
export interface PersistentRow {
  key: Uint8Array;
  value: Uint8Array;
}

/**
 * Work on a persistent database's file: slow (it waits for the disk), hence performed beside the loop, one after the
 * other per database; the answer is a 'persistent-done' input with the same token.
 * - apply: write all rows in one transaction, durable before it is answered. All or nothing.
 * - replace: make the file hold exactly these rows, in one durable transaction.
 * - read: all rows and the value of `__db_sequence_number__`.
 */
export type PersistentOp =
  | { op: 'apply'; rows: PersistentRow[] }
  | { op: 'replace'; rows: PersistentRow[] }
  | { op: 'read' };

/**
 * Of the one value that the pool keeps outside of itself (engine etcd), changed by compare-and-swap only. A read tells
 * what was there at some moment between the request and its answer. A swap puts the value in place of the one with this
 * revision; 0: there must be none.
 */
export type RegisterRequest = { kind: 'read' } | { kind: 'swap'; revision: number; value: Uint8Array };

/** A value and its revision, which is another for each value that was ever there; null and 0: there is none. */
export interface RegisterValue {
  revision: number;
  value: Uint8Array | null;
}

/**
 * - value: of a read.
 * - swapped: done; the new revision.
 * - refused: another value was there; nothing was changed.
 * - failed: no answer, in time or at all. A swap may have been done, or may still be done later. `why` is a sentence.
 */
export type RegisterResult =
  | ({ kind: 'value' } & RegisterValue)
  | { kind: 'swapped'; revision: number }
  | ({ kind: 'refused' } & RegisterValue)
  | { kind: 'failed'; why: string };

/** Erasures that are worth keeping for the next run; older ones are known to whoever must know them. */
export const ERASURES_KEPT_MAX = 4_096;

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export type Effect =
  /** Send one packet of the CTDB client protocol, whole, to a local process. */
  | { kind: 'client-send'; client: ClientId; packet: Uint8Array }
  /** End a local process's connection; `reason` goes to the log. The host still reports 'client-closed'. */
  | { kind: 'client-close'; client: ClientId; reason: string }
  /**
   * Keep this, beyond the end of this run, in place of what was kept of this client before: what the run that continues
   * ours must know of it (wire/kept-state). Comes before the answer to the request that changed it. Emitted by every
   * run; a host that keeps nothing ignores it.
   */
  | { kind: 'client-keep'; client: ClientId; state: Uint8Array }
  /** The same for a volatile database. */
  | { kind: 'database-keep'; database: DatabaseId; name: string; state: Uint8Array }
  /**
   * Note, beyond the end of this run, that the record is about to be erased: the store operation follows, and may do
   * nothing. The newest ERASURES_KEPT_MAX of the last seconds are enough.
   */
  | { kind: 'erasure-keep'; database: DatabaseId; key: RecordKey; turn: Turn }
  /**
   * Of a run that continues another one: it is a member and may serve. From here on the host gives the packets of the
   * clients, those first that the former run had not settled; before this it gives none.
   */
  | { kind: 'resumed' }
  /** Seal and send one frame (a body made by core/link) to a peer, or to whoever is there with `peer` (hello). */
  | { kind: 'frame-send'; peer: NodeId; body: Uint8Array }
  /** Open or create a tdb; answered by 'database-opened'. */
  | { kind: 'database-open'; database: DatabaseId; name: string; persistent: boolean }
  | RecordEffect
  | { kind: 'persistent'; database: DatabaseId; token: number; work: PersistentOp }
  /** A message of the shared-memory ring to the smbd of this attachment (native/shared/smbpool_ops.h). */
  | { kind: 'ring-send'; attachment: number; op: number; payload: Uint8Array }
  /** End the attachment: what it wrote makes no sense. Its 'ring-detached' follows. */
  | { kind: 'ring-end'; attachment: number }
  /**
   * The node page's table of what is here: 1 = a file's records (24 bytes of file id), 2 = a lease (GUID and key), 3 =
   * a folder's delegation (24 bytes of file id).
   */
  | { kind: 'home'; present: boolean; what: 1 | 2 | 3; key: Uint8Array }
  /** Into the node page: smbds here ask before they exclude anybody from a folder. */
  | { kind: 'shares-folders' }
  /** One sample of a histogram in the node page (enum smbpool_histogram). */
  | { kind: 'latency'; histogram: number; micros: Micros }
  /** The answer to a 'witness-query'. */
  | { kind: 'witness-answer'; token: number; answer: LocksAnswer | HotAnswer }
  /** For the reader that gave 'trace-start' this token. */
  | { kind: 'trace-event'; token: number; event: TraceEvent }
  /** The answer to a 'record-query'. */
  | { kind: 'record-answer'; token: number; answer: RecordDescription | { error: string } }
  /** For an engine of membership outside of the core: what the view of this epoch asked of our records is done. */
  | { kind: 'recovered'; epoch: Epoch }
  /** Until when this server may serve, for those who look at the node page; 0: not at all. */
  | { kind: 'lease'; until: Micros }
  /**
   * Keep this on disk in place of what was kept before: all or nothing, synced before it is answered by
   * 'membership-saved' with the same token. Slow, hence beside the loop; one is under way at a time.
   */
  | { kind: 'membership-save'; token: number; state: SavedMembership }
  /** Ask the register outside of the pool; answered by 'register-answer' with the same token, at the latest then. */
  | { kind: 'register-request'; token: number; request: RegisterRequest; deadlineMicros: Micros }
  /** The answer to 'leave': the pool goes on without this run. */
  | { kind: 'left' }
  /** End this run now, without performing anything more; a new one must follow. */
  | { kind: 'start-anew'; reason: string; remedy: string }
  /**
   * Put a public address on the interface, or say again that it stays: without this the kernel removes it after a few
   * seconds. `announce`: to the network's neighbours, and by a tickle to the clients of these connections. Answered by
   * 'address-done'; not done at all when the lease is over by then.
   */
  | ({ kind: 'address-take'; announce: boolean; tickle: readonly Connection[] } & AddressPlace)
  /** Remove it and end the connections to it; answered by 'address-done'. */
  | ({ kind: 'address-release' } & AddressPlace)
  /**
   * Into the node page, before what follows: whether this server drains, so that its smbds let clients cache no
   * writes.
   */
  | { kind: 'draining'; draining: boolean }
  /** Keep on disk whether a person drains this server; answered by 'drain-saved' with the same token. */
  | { kind: 'drain-save'; token: number; draining: boolean }
  /** The pool's servers are these from here on; `servers` has the former ones, too. */
  | { kind: 'servers'; configuration: Configuration; servers: readonly ConfiguredServer[] }
  /** The answer to 'servers-change'. */
  | { kind: 'servers-changed'; token: number; result: ChangeResult }
  /** The answer to a 'drain-query'; null: it was done. */
  | { kind: 'drain-answer'; token: number; error: string | null }
  /** Something that the administrator's own programs (hooks) may want to know; nothing waits for them. */
  | { kind: 'event'; event: HookEvent; fields: Record<string, string> }
  | { kind: 'log'; level: LogLevel; event: string; fields: Record<string, unknown> };

/** docs/decisions/health.md says what is told with each. */
export type HookEvent = 'view' | 'address-taken' | 'address-released' | 'fit' | 'unfit' | 'draining';

export interface DescribedServer {
  node: NodeId;
  name: string;
  address: string;
}

/** What the host saw of a server that has two interfaces, as we have. */
export interface PeerHeard {
  peer: NodeId;
  /** Of the run that the times are of. */
  incarnation: Incarnation;
  /** By each interface, the last authentic frame; null: none. */
  at: readonly (Micros | null)[];
}

/** late: the lease was over before it could be taken, and nothing was done. */
export type AddressOutcome = { result: 'done' } | { result: 'late' } | { result: 'failed'; why: string };

/** A public address and where it belongs on this server. */
export interface AddressPlace {
  /** Canonical text (base/ip-address). */
  address: string;
  prefixLength: number;
  interface: string;
}

/** Where a record is and where it has been, as its home knows it. Times are microseconds ago. */
export interface RecordDescription {
  database: string;
  keyHex: string;
  home: NodeId;
  /** null: nobody has the record; it does not exist. */
  owner: NodeId | null;
  backup: NodeId | null;
  readers: NodeId[];
  waiting: NodeId[];
  turn: number;
  /** Newest last; bounded (directory.ts OWNER_HISTORY_MAX). */
  history: { owner: NodeId; turn: number; microsAgo: Micros }[];
}

/**
 * Before the first 'tick' of a run that continues another one (NodeOptions.resumes) the host gives what was kept, each
 * thing once: 'database-kept' for each volatile database that was open, then 'record-kept' for each record in them,
 * 'erasure-kept', and 'client-kept' for each connection that lives. Persistent databases are opened as at any start.
 */
export type Input =
  /** `path` and `flags` as in 'database-opened'; `state`: of the newest 'database-keep'. */
  | { kind: 'database-kept'; database: DatabaseId; name: string; path: string; flags: number; state: Uint8Array }
  /** A record in the file, by its header (wire/record-header); `turn` is its rsn. */
  | {
      kind: 'record-kept';
      database: DatabaseId;
      key: RecordKey;
      dmaster: NodeId;
      turn: Turn;
      flags: number;
      isEmpty: boolean;
    }
  /** Of an 'erasure-keep', oldest first. */
  | { kind: 'erasure-kept'; database: DatabaseId; key: RecordKey; turn: Turn }
  /** A public address that the former run had put on the interface. */
  | { kind: 'address-kept'; address: string }
  /** `state`: of the newest 'client-keep', empty if there was none. The number is as in the former run. */
  | { kind: 'client-kept'; client: ClientId; pid: number; state: Uint8Array }
  /** A local process connected. `pid` comes from the kernel (SO_PEERCRED). */
  | { kind: 'client-opened'; client: ClientId; pid: number }
  /** One whole packet (its length word included) from a local process. The bytes are only valid during the step. */
  | { kind: 'client-packet'; client: ClientId; packet: Uint8Array }
  | { kind: 'client-closed'; client: ClientId }
  /**
   * One authentic frame; `incarnation` is the sender's, from the sealed header. The bytes are only valid during the
   * step.
   */
  | { kind: 'frame'; peer: NodeId; incarnation: Incarnation; body: Uint8Array }
  | { kind: 'database-opened'; database: DatabaseId; path: string; flags: number; error?: string }
  | { kind: 'record-done'; database: DatabaseId; key: RecordKey; op: RecordOp; outcome: RecordOutcome }
  | {
      kind: 'persistent-done';
      database: DatabaseId;
      token: number;
      result: { ok: true; rows?: PersistentRow[]; sequence: number } | { ok: false; why: string };
    }
  /** The answer to 'membership-save'; not ok: the disk may have the old or the new one. */
  | { kind: 'membership-saved'; token: number; ok: boolean }
  /** The answer to 'register-request'. */
  | { kind: 'register-answer'; token: number; result: RegisterResult }
  /** The answer to 'address-take' or 'address-release'; `error`: it was not done. */
  | ({ kind: 'address-done'; address: string; what: 'take' | 'release' } & AddressOutcome)
  /** A smbd attached to the ring; `pid` comes from the kernel. */
  | { kind: 'ring-attached'; attachment: number; pid: number }
  /** One message of its ring, already copied; the bytes are only valid during the step. */
  | { kind: 'ring-message'; attachment: number; op: number; payload: Uint8Array }
  /** It died, left or was dropped; `bad` says that what it wrote made no sense. */
  | { kind: 'ring-detached'; attachment: number; bad: boolean }
  /** A person asks who holds and who waits, or what is hot, in the whole pool; answered by 'witness-answer'. */
  | { kind: 'witness-query'; token: number; query: { what: 'locks'; filter: LockFilter } | { what: 'hot' } }
  /** A person watches operations pass, until 'trace-stop' with the same token. */
  | { kind: 'trace-start'; token: number; filter: TraceFilter }
  | { kind: 'trace-stop'; token: number }
  /** From an engine outside of the core: a later view than before, agreed. */
  | { kind: 'view'; view: View }
  /** From an engine outside of the core: until when we may serve; 0: not at all. */
  | { kind: 'lease'; until: Micros }
  /** What the host's checks find wrong with this server, a sentence each; none: all pass. */
  | { kind: 'health'; reasons: string[] }
  /** A person wants a server drained, or no more; answered by 'drain-answer'. The token is above 0. */
  | { kind: 'drain-query'; token: number; server: NodeId; draining: boolean }
  /** A person wants another list of servers; answered by 'servers-changed' with the same token. */
  | { kind: 'servers-change'; token: number; change: ServersChange }
  /** What people call servers, and where they are: of those that were not known at the start, or have changed. */
  | { kind: 'servers-described'; servers: readonly DescribedServer[] }
  /** The answer to 'drain-save', `error`: it was not done; with token 0 what is on disk when the host starts. */
  | { kind: 'drain-saved'; token: number; draining: boolean; error: string | null }
  /** This run is to end in order; answered by 'left', unless the others cannot be told. */
  | { kind: 'leave' }
  /** A person asks where a record is; answered by 'record-answer' with the same token. */
  | { kind: 'record-query'; token: number; database: DatabaseId; key: RecordKey }
  /** The deadline the core named (PoolNode.deadline) has passed. */
  /** Several times a second, where there are two interfaces: when the other servers were heard by each. */
  | { kind: 'interfaces-heard'; heard: readonly PeerHeard[] }
  | { kind: 'tick' }
  /** The host has no more input in this turn: frames are made and sent now. */
  | { kind: 'turn-end' };

/** Given once, at the start of a run that continues another one. */
export type KeptInput = Extract<
  Input,
  { kind: 'database-kept' | 'record-kept' | 'erasure-kept' | 'address-kept' | 'client-kept' }
>;
