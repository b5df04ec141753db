/**
 * The adapter over the addon's Pump: local processes' packets, frames and the timer come in once per batch and go out
 * once per batch, through two fixed buffers. Used by PoolHost, and without a gate by the interconnect's tests.
 * Allocates nothing per message but the views it hands out.
 */
import { assert } from '../base/assert.js';
import type { ClientId, Incarnation, NodeId } from '../base/ids.js';
import type { Micros } from '../core/effects.js';
import type { FrameListener, Interconnect } from '../ports/interconnect.js';
import type { SmbdGate, SmbdGateListener } from '../ports/smbd-gate.js';
import type { HomeKind, SmbdRing, SmbdRingListener } from '../ports/smbd-ring.js';
import { RING_COUNTER_NAMES } from '../wire/node-page.js';
import {
  BATCH_HEADER_BYTES,
  BatchWriter,
  IN_CLIENT_CLOSED,
  IN_CLIENT_OPENED,
  IN_CLIENT_PACKET,
  IN_CLIENT_PACKET_LARGE,
  IN_FRAME,
  IN_RING_ATTACHED,
  IN_RING_DETACHED,
  IN_RING_MESSAGE,
  OUT_CLIENT_CLOSE,
  OUT_CLIENT_PACKET,
  OUT_FRAME,
  OUT_HOME_ADD,
  OUT_HOME_REMOVE,
  OUT_LATENCY,
  OUT_RING_END,
  OUT_RING_REPLY,
} from './batch.js';
import { CONTROL } from '../wire/ctdb-controls.js';
import { codeOf, messageOf, PoolError } from './errors.js';
import { loadNative } from './native.js';
import type {
  ChannelOptions, KeptConnection, NativePump, NativeTransport, PumpOptions as NativeOptions,
} from './native.js';

/** Some 5,000 of smbd's usual packets; what does not fit waits for the next batch. Larger packets travel alone. */
const IN_BYTES = 1 << 20;
/** As much again; when it is full it is handed over early. */
const OUT_BYTES = 1 << 20;
/**
 * smbd tells of emptied records, two for each file that is closed, and waits for no answer: a turn for each costs more
 * than the news. So long they wait for something else to be brought along with; well below the time after which
 * records are deleted.
 */
const PATIENCE_MICROS = 2_000;
const INCARNATION_BYTES = 8;
const U32_MAX = 0xffff_ffff;
/** enum RingEnd of native/core/ring_server.h: it wrote what no honest smbd writes. */
const RING_END_BAD = 2;

export interface PumpListener extends SmbdGateListener {
  /** Must be given with `ring`. */
  ring?: SmbdRingListener;
  frame: FrameListener;
  /** Whether news of emptied records may wait a moment; asked at the end of each batch. */
  isPatient?(): boolean;
  /** All input of this batch was given. Answers when to be called again at the latest; Infinity for never. */
  endOfBatch(): Micros;
}

export interface PumpOptions {
  listener: PumpListener;
  /** Without it there is no socket for local processes. */
  socketPath?: string;
  /** Of a process that this one succeeds; the descriptors go over. Clients are read and accepted after `resume`. */
  heirloom?: { streams: number; listener: number; connections: readonly KeptConnection[] };
  /** Without it no VFS module can attach. */
  ring?: RingOptions;
  /** Without it there are no frames. */
  interconnect?: { channel: ChannelOptions; transport: NativeTransport };
}

/** Where a peer is; with raw Ethernet '' and 0: its frames tell. */
export interface PeerPlace {
  address: string;
  port: number;
}

export interface RingOptions {
  socketPath: string;
  /** The node page's file; absent: only in memory. */
  pagePath?: string;
  /** Of this run of the daemon: a whole number of 32 bits, not 0, another one at each start. */
  generation: number;
  self: NodeId;
  /** The page's file is of a process that this one succeeds, and goes on. */
  adoptsPage?: boolean;
}

export class Pump implements Interconnect, SmbdGate, SmbdRing {
  readonly frameBodyBytesMax: number;
  readonly receiveFramesMax: number;
  private readonly native: NativePump;
  private readonly listener: PumpListener;
  private readonly inBytes: Uint8Array;
  private readonly inWords: Uint32Array;
  private readonly control: Float64Array;
  private readonly out: BatchWriter;
  private readonly hasRing: boolean;

  /** Opens everything or nothing. @throws PoolError with cause and remedy. */
  constructor(options: PumpOptions) {
    this.listener = options.listener;
    this.hasRing = options.ring !== undefined;
    this.native = openNative(options, (inLength) => this.onBatch(inLength));
    this.inBytes = new Uint8Array(this.native.inBuffer);
    this.inWords = new Uint32Array(this.native.inBuffer);
    this.control = new Float64Array(this.native.controlBuffer);
    this.control[1] = Infinity;
    this.out = new BatchWriter(this.native.outBuffer);
    const { bodyBytesMax, receiveFramesMax } = this.native.describe();
    this.frameBodyBytesMax = bodyBytesMax;
    this.receiveFramesMax = receiveFramesMax;
  }

  send(peer: NodeId, body: Uint8Array): void {
    if (this.out.put(OUT_FRAME, peer, body)) return;
    this.native.route(this.out.take());
    // a body that does not fit an empty buffer is far beyond every frame: let the native side count it as too long
    if (!this.out.put(OUT_FRAME, peer, body)) this.out.put(OUT_FRAME, peer, body.subarray(0, this.out.payloadMax));
  }

  sendPacket(client: ClientId, packet: Uint8Array): void {
    if (this.out.put(OUT_CLIENT_PACKET, client, packet)) return;
    this.native.route(this.out.take());
    if (!this.out.put(OUT_CLIENT_PACKET, client, packet)) this.native.sendPacket(client, packet);
  }

  closeClient(client: ClientId): void {
    if (this.out.put(OUT_CLIENT_CLOSE, client, null)) return;
    this.native.route(this.out.take());
    this.out.put(OUT_CLIENT_CLOSE, client, null);
  }

  sendToRing(attachment: number, op: number, payload: Uint8Array): void {
    this.putRing(OUT_RING_REPLY, attachment, payload, op);
  }

  endRing(attachment: number): void {
    this.putRing(OUT_RING_END, attachment, null, 0);
  }

  setHome(present: boolean, what: HomeKind, key: Uint8Array): void {
    this.putRing(present ? OUT_HOME_ADD : OUT_HOME_REMOVE, 0, key, what);
  }

  recordLatency(histogram: number, micros: Micros): void {
    this.putRing(OUT_LATENCY, histogram, null, Math.min(micros, U32_MAX));
  }

  /** Whether the node page says that this server takes part in its pool. */
  setServing(serving: boolean): void {
    this.native.setServing(serving);
  }

  /** Into the node page: that the loop runs, and the core's counters in the order of wire/node-page. */
  beat(counters: Float64Array): void {
    this.native.beat(counters);
  }

  /** Into the node page: until when this server may serve; a time that is over: not at all. */
  setLease(until: Micros): void {
    // 0 would mean that no lease is in use
    this.native.setLease(Math.max(1, Math.floor(until)));
  }

  /** Into the node page: whether the smbds of this server let clients cache writes no more. */
  setDraining(draining: boolean): void {
    this.native.setDraining(draining);
  }

  /** Into the node page: whether opens that exclude others from a folder have to ask. */
  setSharesFolders(shares: boolean): void {
    this.native.setSharesFolders(shares);
  }

  /** Into the node page; the same code and text share an entry. */
  recordError(code: number, text: string, realtimeMicros: number): void {
    this.native.recordError(code, text, realtimeMicros);
  }

  /** VFS modules attached now. */
  attachments(): number {
    return this.native.describe().attachments;
  }

  /** Outside a batch: sends what is queued. Inside one it happens by itself at the end. */
  flush(): void {
    this.native.flush(this.out.take());
  }

  /** Outside a batch: sets the timer with the next flush. */
  setDeadline(deadline: Micros): void {
    this.control[1] = deadline;
  }

  counters(): Record<string, number> {
    const values = this.native.ringCounters() ?? [];
    const ring = Object.fromEntries(RING_COUNTER_NAMES.map((name, index) => [`ring.${name}`, values[index] ?? 0]));
    return { ...this.native.counters(), ...ring };
  }

  /** What is known of a peer: see NativePump. */
  peer(peer: NodeId): ReturnType<NativePump['peer']> {
    return this.native.peer(peer);
  }

  /**
   * Frames to the peer go by this interface from here on; with UDP to that address.
   * @throws Error when the address is none.
   */
  setPeer(peer: NodeId, way: number, place: PeerPlace): void {
    this.native.setPeer(peer, way, place.address, place.port);
  }

  /** Our own, by interface. */
  addresses(): string[] {
    return this.native.describe().addresses;
  }

  /** See NativePump; these are for a successor. */
  keepState(client: ClientId, state: Uint8Array): boolean {
    return this.native.keepState(client, state);
  }

  keepGlobal(state: Uint8Array): boolean {
    return this.native.keepGlobal(state);
  }

  keepErasure(database: number, key: Uint8Array, turn: number): void {
    this.native.keepErasure(database, key, turn);
  }

  kept(): ReturnType<NativePump['kept']> {
    return this.native.kept();
  }

  heirloom(): NonNullable<ReturnType<NativePump['heirloom']>> {
    const heirloom = this.native.heirloom();
    assert(heirloom !== null, 'there is a socket for local processes');
    return heirloom;
  }

  resume(): void {
    this.native.resume();
  }

  setStandby(link: number): void {
    this.native.setStandby(link);
  }

  tellStandby(message: Uint8Array): void {
    this.native.tellStandby(message);
  }

  abandon(): void {
    this.native.abandon();
  }

  close(): void {
    this.native.close();
  }

  private onBatch(inLength: number): number {
    const words = this.inWords;
    let at = 0;
    while (at < inLength) {
      const word = at >>> 2;
      const length = words[word + 2]!;
      const kind = words[word]!;
      const id = words[word + 1]!;
      if (kind >= IN_RING_ATTACHED) this.takeRing(kind, id, words[word + 3]!, at + BATCH_HEADER_BYTES, length);
      else this.take(kind, id, at + BATCH_HEADER_BYTES, length);
      at += BATCH_HEADER_BYTES + ((length + 7) & ~7);
    }
    this.control[1] = this.listener.endOfBatch();
    this.control[2] = this.listener.isPatient?.() === true ? PATIENCE_MICROS : 0;
    return this.out.take();
  }

  private putRing(kind: number, id: number, payload: Uint8Array | null, detail: number): void {
    if (!this.hasRing || this.out.put(kind, id, payload, detail)) return;
    this.native.route(this.out.take());
    // everything of the ring is far smaller than an empty buffer
    this.out.put(kind, id, payload, detail);
  }

  private take(kind: number, id: number, start: number, length: number): void {
    switch (kind) {
      case IN_CLIENT_PACKET:
        return this.listener.clientPacket(id as ClientId, this.inBytes.subarray(start, start + length));
      case IN_FRAME: {
        const word = start >>> 2;
        const incarnation = this.inWords[word]! + this.inWords[word + 1]! * 0x1_0000_0000;
        const body = this.inBytes.subarray(start + INCARNATION_BYTES, start + length);
        return this.listener.frame(id as NodeId, incarnation as Incarnation, body);
      }
      case IN_CLIENT_OPENED:
        return this.listener.clientOpened(id as ClientId, this.inWords[start >>> 2]!);
      case IN_CLIENT_CLOSED:
        return this.listener.clientClosed(id as ClientId);
      case IN_CLIENT_PACKET_LARGE:
        return this.listener.clientPacket(id as ClientId, this.native.takeLarge(id));
    }
  }

  private takeRing(kind: number, attachment: number, detail: number, start: number, length: number): void {
    const { ring } = this.listener;
    switch (kind) {
      case IN_RING_ATTACHED:
        return ring?.ringAttached(attachment, detail);
      case IN_RING_MESSAGE:
        return ring?.ringMessage(attachment, detail, this.inBytes.subarray(start, start + length));
      case IN_RING_DETACHED:
        return ring?.ringDetached(attachment, detail === RING_END_BAD);
    }
  }
}

function openNative(options: PumpOptions, onBatch: (inLength: number) => number): NativePump {
  const { Pump: NativePumpClass } = loadNative();
  const { socketPath, interconnect, ring, heirloom } = options;
  const gate = { patientControl: CONTROL.scheduleForDeletion, ...(heirloom === undefined ? {} : { heirloom }) };
  try {
    return new NativePumpClass({
      inBytes: IN_BYTES,
      outBytes: OUT_BYTES,
      ...(interconnect ?? {}),
      ...(socketPath === undefined ? {} : { gate: { path: socketPath, ...gate } }),
      ...(ring === undefined ? {} : { ring: nativeRing(ring) }),
      onBatch,
    });
  } catch (error) {
    throw explain(error, options);
  }
}

function nativeRing(options: RingOptions): NonNullable<NativeOptions['ring']> {
  const { socketPath, pagePath = '', generation, self, adoptsPage = false } = options;
  return { path: socketPath, pagePath, generation, node: self, adoptsPage };
}

/** The addon says what it was doing and what the system answered; people need to know what to do. */
function explain(error: unknown, { socketPath, interconnect, ring }: PumpOptions): unknown {
  const code = codeOf(error);
  const message = messageOf(error);
  const options = { cause: error };
  const transport = interconnect?.transport;
  const ports = transport?.kind === 'udp' ? transport.ways.map(({ port }) => port).join(', ') : '';
  if (/ring (socket|server)|node page|ready map/.test(message)) {
    const paths = [ring?.socketPath, ring?.pagePath].filter((path) => path !== undefined).join(' and ');
    const taken = 'another smbpoold serves there: stop it, or use another path';
    const remedy = code === 'EADDRINUSE' ? taken : 'check these paths and their directories';
    return new PoolError('ERR_POOL_RING', `${message} (${paths}): ${remedy}`, options);
  }
  if (message.includes('packet socket') && (code === 'EPERM' || code === 'EACCES')) {
    const remedy = 'start smbpoold as root or give it CAP_NET_RAW, or use the udp transport';
    return new PoolError('ERR_POOL_CAPABILITY', `raw Ethernet frames need CAP_NET_RAW: ${remedy}`, options);
  }
  if (transport?.kind === 'ethernet' && /interface|ring/.test(message)) {
    const remedy = 'name an existing Ethernet interface of this server';
    return new PoolError('ERR_POOL_INTERFACE', `${message}: ${remedy}`, options);
  }
  if (transport?.kind === 'udp' && /UDP|address|peers|datagram/.test(message)) {
    const remedy = 'give this server a free address and port of its own, and each peer a numeric address';
    return new PoolError('ERR_POOL_ADDRESS', `${message} (port ${ports}): ${remedy}`, options);
  }
  if (code === 'EADDRINUSE') {
    const remedy = 'another smbpoold or ctdbd serves there: stop it, or use another path';
    return new PoolError('ERR_POOL_SOCKET_IN_USE', `the socket ${socketPath ?? ''} is in use: ${remedy}`, options);
  }
  if (message.includes('socket')) {
    return new PoolError('ERR_POOL_SOCKET', `${message}: check the path and its directory`, options);
  }
  return error;
}
