/**
 * Who holds and who waits, as it crosses the admin socket in JSON: what `smbpool who`, `trace`, `top` and `waits` show.
 * Filled by the daemon from what the VFS module reports; plain data only. Times are microseconds.
 */

/**
 * Which opens, waits or events are meant; an empty filter means all. Texts match without case; path also as a prefix.
 */
export interface LockFilter {
  /** Path below the share's root, or absolute on the server; `/` between parts. */
  path?: string;
  user?: string;
  /** Address or name of the client. */
  client?: string;
  share?: string;
}

export interface ClientIdentity {
  /** The server that the client is connected to, and its smbd there. */
  server: number;
  serverName: string;
  pid: number;
  /** Address and port, and the name the client gave. */
  client: string;
  clientName: string;
  user: string;
  share: string;
  /** The share's directory on its server, where known: then absolute paths find it too. */
  shareRoot?: string;
}

export interface RangeLock {
  /** Decimal, as 64-bit numbers do not fit JSON. */
  start: string;
  size: string;
  type: 'read' | 'write';
}

/** One open file or directory. */
export interface OpenReport extends ClientIdentity {
  path: string;
  /** volume:inode:snapshot */
  fileId: string;
  shareFileId: string;
  persistentId: string;
  /** As granted, and in words: 'read', 'write', 'delete' … */
  accessMask: number;
  access: string;
  /** What the holder lets others do: 'rwd', 'r--' … */
  sharing: string;
  oplock: 'none' | 'level2' | 'exclusive' | 'batch' | 'lease';
  /** 'RWH', 'RH', 'R', '' */
  lease: string;
  durable: boolean;
  directory: boolean;
  openMicrosAgo: number;
  locks: RangeLock[];
}

/** Whom somebody waits for. */
export interface WaitTarget {
  server: number;
  serverName: string;
  /** The smbd there; 0: the server itself, which has to send records. */
  pid: number;
  /** What it holds or has to do, in words: 'holds lease RWH', 'holds 0 to 99 write', 'has to send the records'. */
  what: string;
  /** False names a dead or stuck holder. */
  alive: boolean;
}

/** Somebody who waits: for records to come home, for a break to be answered, or for a byte range. */
export interface WaitReport extends ClientIdentity {
  path: string;
  fileId: string;
  what: 'records' | 'break' | 'range';
  /** 'open', 'lock' … in words, with what was asked for. */
  wants: string;
  waitMicros: number;
  /** As far as known; may be empty. */
  waitsFor: WaitTarget[];
}

/** Answer of `/locks?path=&user=&client=&share=`: the whole pool's holders and waiters. */
export interface LocksAnswer {
  opens: OpenReport[];
  waits: WaitReport[];
  /** Servers that did not answer in time: what they hold is missing here. */
  missing: number[];
  /** More matched than are listed; opens are left out before waits are. */
  truncated: boolean;
}

export const TRACE_KINDS = [
  'open',
  'waiting',
  'home',
  'moved',
  'granted',
  'refused',
  'break-sent',
  'break-done',
  'lock',
  'unlock',
  'close',
] as const;
export type TraceKind = (typeof TRACE_KINDS)[number];

/** Which events a reader wants. */
export interface TraceFilter extends LockFilter {
  /** All when absent. */
  kinds?: readonly TraceKind[];
}

/** One line of `smbpool trace`; `/trace` streams them as JSON, one per line, until the reader leaves. */
export interface TraceEvent extends ClientIdentity {
  /** Wall-clock microseconds since 1970. */
  atMicros: number;
  kind: TraceKind;
  path: string;
  fileId: string;
  /** How long the operation (or this part of it) took; null where that has no meaning. */
  tookMicros: number | null;
  /** NTSTATUS name or number of a refusal; '' otherwise. */
  status: string;
  /** The rest, in words: access and sharing, lease, range, from which server the records came. */
  detail: string;
  /** Events dropped before this one, because the reader or a link was too slow. */
  dropped?: number;
}

/** A file or directory as `smbpool top` counts it; rates are over the last interval. */
export interface HotFile {
  path: string;
  share: string;
  fileId: string;
  opens: number;
  moves: number;
  waits: number;
  waitMedianMicros: number;
  waitP99Micros: number;
  /** Servers that used it in the interval. */
  servers: number[];
  holders: number;
}

/** Answer of `/hot`: counts since the daemon's last turn of the interval (`intervalMicros` long). */
export interface HotAnswer {
  intervalMicros: number;
  files: HotFile[];
  missing: number[];
}
