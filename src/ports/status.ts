/**
 * What a daemon tells about itself, as it crosses the admin socket in JSON. The daemon fills it from the node and the
 * host; the command line shows it. Plain data only: no branded types, no bigint.
 */

/** One server of the pool as the reporting server sees it. */
export interface ServerStatus {
  id: number;
  name: string;
  address: string;
  /** Whether it was heard of lately; the reporting server itself is always up. */
  up: boolean;
}

/** The reliable stream to one other server. Times are microseconds, counts are since the daemon started. */
export interface LinkReport {
  peer: number;
  up: boolean;
  /** Smoothed round trip; null before the first measurement. */
  rttMicros: number | null;
  rttMicrosMin: number | null;
  framesSent: number;
  framesReceived: number;
  retransmitted: number;
  /** Messages waiting to be sent or acknowledged. */
  queuedBytes: number;
  /** The peer's incarnation; null before its first frame. */
  incarnation: number | null;
}

export interface DatabaseReport {
  name: string;
  id: number;
  persistent: boolean;
  /** Records this server owns, and keys it is home of. */
  recordsOwned: number;
  directoryEntries: number;
  /** Records that came here from another server since the daemon started. */
  moves: number;
}

/** How long something took, over the last samples. */
export interface WaitReport {
  name: string;
  count: number;
  medianMicros: number;
  p99Micros: number;
  maxMicros: number;
}

export interface StatusReport {
  poolName: string;
  self: number;
  name: string;
  version: string;
  pid: number;
  incarnation: number;
  epoch: number;
  uptimeMicros: number;
  transport: string;
  servers: ServerStatus[];
  links: LinkReport[];
  databases: DatabaseReport[];
  /** Processes connected to the CTDB client socket. */
  clients: number;
  waits: WaitReport[];
  counters: Record<string, number>;
}

/** Where a record is and where it has been, as its home knows it. Times are microseconds ago. */
export interface RecordReport {
  database: string;
  keyHex: string;
  home: number;
  /** null: nobody has the record; it does not exist. */
  owner: number | null;
  backup: number | null;
  readers: number[];
  waiting: number[];
  turn: number;
  /** Newest last. */
  history: { owner: number; turn: number; microsAgo: number }[];
}
