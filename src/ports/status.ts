/**
 * What a daemon tells about itself, as it crosses the admin socket in JSON. The daemon fills it from the node and the
 * host; the command line shows it. Plain data only: no branded types, no bigint.
 */

/** One server of the pool as the reporting server sees it. */
export interface ServerStatus {
  id: number;
  name: string;
  address: string;
  /** Whether its link is up; the reporting server itself is always up. */
  up: boolean;
  /** A witness has no smbd: it votes only. */
  role: 'server' | 'witness';
  /**
   * member: the newest agreed view names it. joining: it is heard and the view does not name it yet. out: neither.
   * unknown: this server knows no view yet.
   */
  state: 'member' | 'joining' | 'out' | 'witness' | 'unknown';
  /**
   * What the server says of itself. fit: it should serve new clients. unfit: its checks say no, for these reasons.
   * draining: a person took it out of use. unknown: it did not say, or it is a witness. Absent, as the two below: a
   * daemon that knows of no such thing.
   */
  fitness?: 'fit' | 'unfit' | 'draining' | 'unknown';
  reasons?: string[];
  /** TCP connections of clients to it, and the addresses of some of them; null: not known. */
  clients?: { connections: number; named: string[] } | null;
  /**
   * Of a server that is drained: leases and oplocks that let its clients cache writes still, and some of
   * them in words. While they are being broken it does not say yet that it drains. Absent: none, or it does not tell.
   */
  leases?: { breaking: boolean; left: number; named: string[] };
  /** Since its last frame; null: never heard, or the reporting server itself. */
  silentMicros: number | null;
  /** The release of smbpool there, and the protocols between servers that it speaks; absent: it did not say. */
  release?: string;
  speaks?: { min: number; max: number };
  /** False: it joined and was not heard yet, so majorities do not count it. */
  counts?: boolean;
  /** By each of two interfaces; absent: the server or the reporting one has one. */
  interfaces?: InterfaceHeard[];
}

/** A server as one interface of the reporting server hears it. */
export interface InterfaceHeard {
  /** Of the reporting server: its name, with UDP its address. */
  name: string;
  /** Since the last frame by it; null: none came. */
  silentMicros: number | null;
  /** It fell silent while the other one works. */
  silent: boolean;
}

/** Who belongs to the pool, and until when. */
export interface MembershipReport {
  /** Who agrees on views: the servers themselves, or an etcd cluster. */
  engine: 'embedded' | 'etcd';
  /** Of the engine etcd: when it last answered this server, and why the last request failed, if it did. */
  etcd: { microsSinceAnswer: number | null; failure: string | null } | null;
  /** What this server is in the pool's membership. */
  role: 'leader' | 'follower' | 'candidate' | 'witness';
  /**
   * What the servers speak with each other (docs/decisions/versions.md); null: this server knows no view yet. Absent: a
   * daemon that knows of no such thing.
   */
  protocol?: number | null;
  /** Of the view that this server goes by, a witness of the newest that it knows; 0: none yet. */
  epoch: number;
  members: number[];
  /** Of a pool of two: who certainly has every answered change of accounts and registry. Of others: nobody. */
  holders: number[];
  /** Whom this server follows, or itself; null: nobody leads, as far as it knows. */
  leader: number | null;
  /** How long the leader has led; null: not known. */
  leaderMicros: number | null;
  /** The leader may have led for longer: this server came later. */
  leaderLonger: boolean;
  /** Configured servers, how many must be there, and how many this server hears (itself included). */
  quorum: { configured: number; needed: number; present: number };
  /** valid: this server may serve for so long, and the lease is renewed all the time. fenced: over for so long. */
  lease: { state: 'valid' | 'fenced' | 'none'; micros: number | null };
  /** Of the servers; 0 or absent: nobody changed them since the files were written. */
  configuration?: number;
}

/** The answer to a change of the pool's servers that was done, and to who asks for the list. */
export interface ServersReport {
  /** The number of the agreed configuration; 0: nobody changed the servers since the files were written. */
  configuration: number;
  servers: {
    id: number;
    name: string;
    address: string;
    role: 'server' | 'witness';
    /** False: it joined and was not heard yet, so majorities do not count it. */
    counts: boolean;
  }[];
  /** The block `servers` of the configuration file, as it should be on all servers. */
  lines: string[];
}

/** Something that a person should know, and what to do about it. */
export interface ProblemReport {
  what:
    | 'no-quorum'
    | 'no-etcd'
    | 'fenced'
    | 'servers-out'
    /** Of two servers only one has every change of accounts and registry. */
    | 'only-holder'
    /** This server is none of the pool's. */
    | 'outside'
    /** The file names other servers than the pool has. */
    | 'servers-differ'
    /** A server was taken in and was not heard yet. */
    | 'servers-joining'
    | 'unfit'
    | 'draining'
    | 'interface-silent'
    /** A server speaks other protocols than the pool's. */
    | 'foreign-release'
    /** The pool could use a later protocol, but for this. */
    | 'upgrade-held';
  text: string;
  remedy: string;
}

/** The process that goes on when this one dies. */
export interface StandbyReport {
  /** As configured. */
  on: boolean;
  pid: number | null;
  /** It would take over now. */
  ready: boolean;
  /** Why not; null: it is ready. */
  why: string | null;
  /** Its memory when it was ready; null: not known yet. */
  residentKib: number | null;
  /** Standbys that this process started. */
  started: number;
  /** Since the last plain start. */
  takeovers: number;
  /** ISO 8601; null: none. */
  lastTakeover: string | null;
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
  /** Data frames sent again: what the network lost, and what was only late (a busy server acknowledges late). */
  retransmitted: number;
  /** Data frames received again. */
  duplicates: number;
  /** Times that a frame came with others missing before it: what the network lost on the way here, or swapped. */
  gaps: number;
  /** Frames dropped although authentic: malformed, or of another epoch or incarnation. */
  refused: number;
  /** How often the peer fell silent. */
  downs: number;
  /** Messages waiting to be sent or acknowledged. */
  queuedBytes: number;
  /** The peer's incarnation; null before its first frame. */
  incarnation: number | null;
}

export interface DatabaseReport {
  name: string;
  id: number;
  persistent: boolean;
  /** Records this server owns, and keys it is home of; 0 for persistent databases, which every server has whole. */
  recordsOwned: number;
  directoryEntries: number;
  /** Read-only copies of records that other servers own. */
  copies: number;
  /** Records that came here from another owner since the daemon started. */
  moves: number;
}

/** A persistent database as this server holds it. */
export interface PersistentReport {
  name: string;
  /** Which content the file holds; null until it was read. Counted up by one with each commit. */
  sequence: number | null;
  /** Which run of the leader ordered it. */
  term: number | null;
  /** Whether it is what a majority of the servers holds. */
  inSync: boolean;
  /** On the server that leads: how far it is, who holds the newest content, commits not answered yet. */
  leader: { phase: string; holders: number[]; waiting: number } | null;
}

/** What the VFS modules of this server's smbds have told, now. All 0 where no share has the module. */
export interface ModulesReport {
  /** smbds that have it attached. */
  attachments: number;
  opens: number;
  /** Opens that wait for records, or for somebody else's oplock or lease to be given up. */
  waits: number;
  /** Opens under way, whose records are held here until they end. */
  operations: number;
  /** Folders that their clients watch (change notify). */
  watches: number;
}

/** How long local processes waited, since the daemon started; quantiles are at most an eighth too high. */
export interface WaitReport {
  name: string;
  count: number;
  medianMicros: number;
  p99Micros: number;
  maxMicros: number;
}

/** Whether the daemon's loop comes before everything ordinary on its machine. */
export interface RealtimeReport {
  on: boolean;
  /** Null when it is on. */
  why: string | null;
  /** How often the guard took it away from a loop that ran without rest. */
  lost: number;
}

/** A public address, as the reporting server knows it. */
export interface AddressReport {
  address: string;
  prefixLength: number;
  /** Of the reporting server. */
  interface: string;
  /** null: nobody has it now. */
  holder: number | null;
  holderName: string | null;
  /** What the holder says of itself, as in ServerStatus; null: nobody has it. Absent: an older daemon. */
  holderFitness?: ServerStatus['fitness'] | null;
  /** How long the reporting server has known that. */
  sinceMicros: number;
  /** Of clients, as far as smbds told. */
  connections: number;
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
  /** Absent: a daemon that knows of no such thing. */
  realtime?: RealtimeReport;
  servers: ServerStatus[];
  membership: MembershipReport;
  /** The worst first; none: all is well. */
  problems: ProblemReport[];
  /** Members that have not installed the newest view yet; keys with a new home wait for them. */
  awaiting: number[];
  /** Absent: a daemon that knows of no such thing. */
  standby?: StandbyReport;
  links: LinkReport[];
  databases: DatabaseReport[];
  persistent: PersistentReport[];
  /** Processes connected to the CTDB client socket. */
  clients: number;
  modules: ModulesReport;
  /** Requests of those processes for records that are not answered yet. */
  waitingRequests: number;
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
