/**
 * The addon (native/), typed: the only file that sees it untyped. Each class is documented here; the C++ side only
 * checks and converts. Used by the other files of host/ and by tests. Loading is lazy, so that importing this file does
 * nothing.
 */
import { createRequire } from 'node:module';

/** Values of tdb.h. */
export const TDB_CLEAR_IF_FIRST = 0x1;
export const TDB_NOSYNC = 0x40;
export const TDB_SEQNUM = 0x80;
export const TDB_VOLATILE = 0x100;
export const TDB_DISALLOW_NESTING = 0x400;
export const TDB_INCOMPATIBLE_HASH = 0x800;
export const TDB_MUTEX_LOCKING = 0x1000;

export interface TdbOptions {
  /** Number of hash chains, and with TDB_MUTEX_LOCKING of mutexes. Only counts when the file is made. */
  hashSize: number;
  /** TDB_... */
  tdbFlags: number;
  /** O_... of node:fs constants. */
  openFlags: number;
  mode: number;
}

/**
 * One open tdb. A second open of the same file in this process is refused with EBUSY; it must not be opened and closed
 * by other means either (a plain read, a copy): the process's locks on it would be lost. A tdb opened with
 * TDB_MUTEX_LOCKING is shared with smbd: parse, fetch, store and delete need the chain of exactly that key. Errors are
 * thrown with code ERR_POOL_TDB, after close ERR_POOL_CLOSED.
 */
export interface Tdb {
  /** May be called again. */
  close(): void;
  /** False: another process has the chain. Never waits. At most one chain is held at a time. */
  chainlockNonblock(key: Uint8Array): boolean;
  chainunlock(key: Uint8Array): void;
  /**
   * The same for few and cheap calls: key and value lie in `buffer`, whose first `keyBytes` are for keys. Both
   * functions keep tdb and buffer alive.
   */
  chains(buffer: ArrayBuffer, keyBytes: number): TdbChains;
  /** The length of the value, which is copied to `target` when it fits whole; -1: no such record. */
  parse(key: Uint8Array, target: Uint8Array): number;
  /** The value in a Buffer of its own; null: no such record. */
  fetch(key: Uint8Array): Buffer | null;
  store(key: Uint8Array, value: Uint8Array): void;
  /** Whether there was such a record. */
  delete(key: Uint8Array): boolean;
  sequenceNumber(): number;
  addFlags(flags: number): void;
  /**
   * The records of whole chains from number `chain` on, until at least `recordsMax` were found. `next` is where to go
   * on; hashSize() at the end. Waits for each chain: not for files shared with smbd inside the daemon.
   */
  traverse(chain: number, recordsMax: number): { next: number; records: [Buffer, Buffer][] };
  /**
   * Of a file with mutexes: all records, as {u32 length of the key, u32 length of the value, the first `headerBytes` of
   * the value, key, padding to 4}. Does not wait for a chain that another process keeps: it reads without its lock.
   */
  scanHeaders(headerBytes: number): Buffer;
  /** False: another process is in a transaction. */
  transactionStartNonblock(): boolean;
  /** Waits for readers and for the disk. */
  transactionCommit(): void;
  transactionCancel(): void;
  /** Removes all records. Waits for every chain. */
  wipe(): void;
  hashSize(): number;
}

/** What an action of TdbChains.finish does before it lets go of the chain. */
export const CHAIN_ACTION = { leave: 0, store: 1, delete: 2 } as const;
/** Answers of TdbChains that are no lengths; below these are errors, of which `errorText` knows the meaning. */
export const CHAIN_ABSENT = -1;
export const CHAIN_BUSY = -2;

/** One record at a time, under its chain; nothing is thrown. */
export interface TdbChains {
  /**
   * Takes the chain of the key without waiting and reads the value into the buffer. The value's length, and when that
   * does not fit nothing was read; CHAIN_ABSENT: no such record; CHAIN_BUSY, or an error: the chain is not held.
   */
  begin(keyLength: number): number;
  /** Lets go of the chain in any case. 0, or an error. */
  finish(action: number, keyLength: number, valueLength: number): number;
}

export interface ChannelOptions {
  self: number;
  members: readonly number[];
  /** From 1 to 2^53 - 1; never the same twice for one server and pool key. */
  incarnation: number;
  poolName: string;
  poolKey: Uint8Array;
}

/** The frame, its sender, or that it is a copy of one that another interface brought. */
export type OpenedFrame =
  | { peer: number; incarnation: number; body: Buffer; isAuthentic?: undefined }
  | { peer: number; isAuthentic: boolean; body?: undefined };

/** Seals and opens frames without a network; for tests. */
export interface FrameChannel {
  /** The frame, or null when `peer` is no other member or the body is empty or too long. */
  seal(peer: number, body: Uint8Array): Buffer | null;
  /** As if it came by this interface, 0 or 1. Null: refused; counters() tells why. */
  open(frame: Uint8Array, interface_?: number): OpenedFrame | null;
  counters(): Record<string, number>;
}

/** One interface, and to whom frames go there. */
export interface EthernetWay {
  interface: string;
  peers: readonly number[];
}

export interface UdpWay {
  address: string;
  port: number;
  peers: readonly { id: number; address: string; port: number }[];
}

/** One way to the other servers or two; each frame goes by all that lead to its receiver. */
export type NativeTransport =
  | { kind: 'ethernet'; ways: readonly EthernetWay[] }
  | {
      kind: 'udp';
      ways: readonly UdpWay[];
      /** The longest datagram, without IP and UDP headers. */
      datagramBytesMax: number;
    };

export interface PumpOptions {
  inBytes: number;
  outBytes: number;
  /** With both, frames are sent and received. */
  channel?: ChannelOptions;
  transport?: NativeTransport;
  /** Limits default to those of native/core/gate.h. */
  gate?: {
    path: string;
    clientsMax?: number;
    packetBytesMax?: number;
    inputBytesMax?: number;
    outputBytesMax?: number;
    /** The control that may wait for company when it asks for no answer. */
    patientControl?: number;
    /** Of a process that this one succeeds; the descriptors go over. Nothing is read before `resume`. */
    heirloom?: { streams: number; listener: number; connections: readonly KeptConnection[] };
  };
  /** Where smbds attach; `pagePath` is the node page's file, '' keeps it in memory. `generation`: 32 bits, not 0. */
  ring?: { path: string; pagePath: string; generation: number; node: number; adoptsPage?: boolean };
  /**
   * Called for each batch with the length of what lies in inBuffer; answers the length of what it wrote to outBuffer.
   * What it throws becomes an uncaught exception of the process.
   */
  onBatch(inLength: number): number;
}

/**
 * Sockets, frames and one timer behind one descriptor; see native/core/pump.h and src/host/batch.ts for the buffers.
 */
export interface NativePump {
  readonly inBuffer: ArrayBuffer;
  readonly outBuffer: ArrayBuffer;
  /**
   * Three doubles: the time of the current batch, the deadline of the timer (Infinity: none), and how long packets
   * that may wait for company do so. Microseconds.
   */
  readonly controlBuffer: ArrayBuffer;
  /** Performs the first `outLength` bytes of outBuffer, which may then be filled again. */
  route(outLength: number): void;
  /** Outside a batch: like route, and sends what is queued and sets the timer. */
  flush(outLength: number): void;
  /** For a packet too large for outBuffer. */
  sendPacket(client: number, packet: Uint8Array): void;
  /** The packet announced in the current batch as too large for inBuffer. */
  takeLarge(client: number): Buffer;
  counters(): Record<string, number>;
  /**
   * Its newest incarnation, 0 until known; by each interface where its frames come from, '' until known, and when the
   * last authentic one of that incarnation came, in microseconds of CLOCK_MONOTONIC, at most 50 ms too early; 0: none.
   */
  peer(id: number): { incarnation: number; interfaces: { address: string; heardAt: number }[] };
  /** Frames to this peer go by this interface from here on; with UDP to that address, else the address is ''. */
  setPeer(id: number, interface_: number, address: string, port: number): void;
  /** Whether the node page says that this server takes part in its pool. Without a ring: nothing. */
  setServing(serving: boolean): void;
  /** Into the node page: the time, and the core's counters. Without a ring, this and the next two do nothing. */
  beat(counters: Float64Array): void;
  /** Into the node page: until when this server may serve, in microseconds of CLOCK_MONOTONIC; 0: for ever. */
  setLease(untilMicros: number): void;
  /** Whether the node page says that clients may cache no writes. Without a ring: nothing. */
  setDraining(draining: boolean): void;
  setSharesFolders(shares: boolean): void;
  /** Into the node page, where errors of the same code and text share an entry. */
  recordError(code: number, text: string, realtimeMicros: number): void;
  /** As in enum smbpool_node_counter; null without a ring. */
  ringCounters(): number[] | null;
  describe(): {
    bodyBytesMax: number; receiveFramesMax: number; addresses: string[]; clients: number; attachments: number;
  };
  /** Of the connections taken over from another process, those that are there still. */
  kept(): { client: number; pid: number; state: Buffer }[];
  /** For a successor, in memory that outlives this process. False: no such client, or more than 4 MiB. */
  keepState(client: number, state: Uint8Array): boolean;
  /** The same for the daemon as a whole. False: more than 30 KiB. */
  keepGlobal(state: Uint8Array): boolean;
  /** Appends to a log of which the newest 4096 stay. */
  keepErasure(database: number, key: Uint8Array, turn: number): void;
  /**
   * What a successor needs: descriptors, which stay the pump's, and what was kept; `erasures` as in host/keeping. Null
   * without a socket for local processes.
   */
  heirloom(): { streams: number; listener: number; state: Buffer; erasures: Buffer } | null;
  /** Outside a batch, once, after a heirloom was given: clients are read and accepted from now on. */
  resume(): void;
  /** Takes the descriptor of a standby's link, and tells all connections there; -1: there is no standby any more. */
  setStandby(link: number): void;
  /** At most 64 KiB; without a standby nothing happens. */
  tellStandby(message: Uint8Array): void;
  /** A successor goes on: close() and the end of the process leave sockets, page and connections as they are. */
  abandon(): void;
  /** May be called again, and inside onBatch. */
  close(): void;
}

/** A client's connection, as an active daemon hands it to its standby. */
export interface KeptConnection {
  id: number;
  slot: number;
  fd: number;
}

/** What a standby hears. */
export const STANDBY_OPENED = 1;
export const STANDBY_CLOSED = 2;
export const STANDBY_SAY = 3;

/** The standby's end of the link to the active daemon. */
export interface StandbyEnd {
  /** Whether the active process has ended with all its threads; waits for that. */
  waitForEnd(millis: number): boolean;
  close(): void;
}

/**
 * Real-time priority of the loop; the process has it or has it not (native/core/realtime.h). Errors have the system's
 * code, as EPERM.
 */
export interface NativeRealtime {
  /** For the calling thread, which is the loop's, and for the threads that work for it. All or nothing. */
  realtimeStart(helpers: readonly number[]): void;
  /** About once a second: tells the guard that the loop comes round. `active`: the guard did not take it away. */
  realtimeLook(): { active: boolean; demotions: number; stuckMicros: number };
  realtimeStop(): void;
}

/** Where a public address belongs. */
export interface NativeAddress {
  interface: string;
  address: string;
  prefixLength: number;
}

export interface NativeTake extends NativeAddress {
  /** After so long the kernel removes it by itself. */
  lifetimeSeconds: number;
  /** Later than this (CLOCK_MONOTONIC) it is not done: ECANCELED. */
  deadlineMicros: number;
  announce: boolean;
  tickle: readonly { server: string; serverPort: number; client: string; clientPort: number }[];
}

export interface Native extends NativeRealtime {
  /** In a thread. What could not be announced, or ''; rejects when the address is not there. */
  takeAddress(options: NativeTake): Promise<string>;
  /**
   * In a thread. Removes the address and ends its connections; `why` says what kept these from being ended. Rejects
   * when the address is still there.
   */
  releaseAddress(place: NativeAddress): Promise<{ wasThere: boolean; ended: number; why: string }>;
  /** At once. Whether it was there. */
  removeAddress(place: NativeAddress): boolean;
  /** Takes the descriptor. `fd` is that of a connection with STANDBY_OPENED, otherwise -1. */
  StandbyEnd: new (
    link: number,
    activePid: number,
    onMessage: (kind: number, id: number, slot: number, payload: Buffer, fd: number) => void,
    onGone: () => void,
  ) => StandbyEnd;
  /** Two connected ends; they are closed in children that are not given them. */
  standbyPair(): [number, number];
  Tdb: new (path: string, options: TdbOptions) => Tdb;
  Pump: new (options: PumpOptions) => NativePump;
  FrameChannel: new (options: ChannelOptions) => FrameChannel;
  /**
   * The process that has the tdb at `path` open with mutexes or CLEAR_IF_FIRST; 0: nobody. EBUSY for files that this
   * process has open itself.
   */
  probeTdbUser(path: string): number;
  /** Microseconds of CLOCK_MONOTONIC. */
  now(): number;
  /** What an error of TdbChains means. */
  tdbErrorText(result: number): string;
}

let loaded: Native | undefined;

/** Loads the addon, which `npm run build` makes. */
export function loadNative(): Native {
  if (loaded === undefined) {
    const require = createRequire(import.meta.url);
    // `bindings` looks for build/Release/smbpool.node from the package's root up
    const bindings = require('bindings') as (name: string) => any;
    loaded = bindings('smbpool') as Native;
  }
  return loaded;
}
