/**
 * Links: reliable, in-order streams of messages to all peers over frames that may be lost, doubled, late and swapped,
 * with hellos, heartbeats and the verdict on who is up. Used by PoolNode, which brings frames and the end of each turn
 * and performs sendFrame. Sealing lies below (host); what messages mean lies above (records, gate). Reads no clock and
 * trusts no byte of a frame.
 */
import { assert } from '../../base/assert.js';
import { DecodeError } from '../../base/bytes.js';
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import { epoch as toEpoch, incarnation as toIncarnation } from '../../base/ids.js';
import type { Frame } from '../../wire/frame.js';
import { decodeFrame } from '../../wire/frame.js';
import type { Announcement } from '../../wire/protocol-version.js';
import type { SendMode } from '../context.js';
import type { Micros } from '../effects.js';
import {
  HEARTBEAT_INTERVAL_MICROS,
  HELLO_INTERVAL_MICROS,
  MESSAGE_BYTES_MAX,
  SILENCE_MICROS_MAX,
  WINDOW_FRAMES_MAX,
} from './limits.js';
import type { LinkContext, LinkEvents, LinkStatus } from './peer.js';
import type { PeerLinkOptions } from './peer.js';
import { PeerLink } from './peer.js';

export type { LinkContext, LinkEvents, LinkStatus } from './peer.js';

export interface LinkOptions {
  self: NodeId;
  peers: readonly NodeId[];
  /** Of this run of ours; above 0 and higher than in every earlier run. */
  incarnation: Incarnation;
  /** What we tell every peer of ourselves. */
  announcement: Announcement;
  /** Largest body of one frame, before sealing. */
  frameBodyBytesMax: number;
  /** Frames the receive ring holds; the windows of all peers together take at most half of it. */
  receiveFramesMax: number;
}

export class Links {
  private readonly peers = new Map<NodeId, PeerLink>();
  /** The same, for what is done at the end of every turn. */
  private links: readonly PeerLink[] = [];
  private readonly abouts: PeerLinkOptions[] = [];
  private tickDueAt: Micros = 0;
  private epoch = toEpoch(0);

  constructor(
    private readonly options: LinkOptions,
    private readonly context: LinkContext,
    private readonly events: LinkEvents,
  ) {
    assert(options.incarnation > 0, 'an incarnation is above 0');
    this.setPeers(options.peers);
    context.timers.at(0, () => this.onTick());
  }

  /** The peers are these from here on. Links to others are dropped: they must not be members. */
  setPeers(peers: readonly NodeId[]): void {
    const { options } = this;
    const share = Math.floor(options.receiveFramesMax / 2 / Math.max(1, peers.length));
    const window = Math.max(1, Math.min(WINDOW_FRAMES_MAX, share));
    const { incarnation, announcement, frameBodyBytesMax } = options;
    const epoch = (): Epoch => this.epoch;
    for (const peer of this.peers.keys()) if (!peers.includes(peer)) this.peers.delete(peer);
    for (const peer of peers) {
      assert(peer !== options.self, 'no link to ourselves');
      if (this.peers.has(peer)) continue;
      const about = { peer, incarnation, announcement, epoch, frameBodyBytesMax, window };
      this.abouts.push(about);
      this.peers.set(peer, new PeerLink(about, this.context, this.events));
    }
    for (const about of this.abouts) about.window = window;
    this.links = [...this.peers.values()];
  }

  /**
   * A view was installed. Runs that are not among its members are given up: nothing of theirs is taken any more, what
   * waits for them is dropped, and they hear that they must end.
   */
  install(epoch: Epoch, runs: ReadonlyMap<NodeId, Incarnation>, resumed: readonly NodeId[] = []): void {
    this.epoch = epoch;
    for (const [peer, link] of this.peers) {
      link.setMember(runs.get(peer) ?? toIncarnation(0), resumed.includes(peer));
    }
  }

  /**
   * Queues a message (kept, not copied: the caller must not change it). Returns false when it will not travel: the mode
   * loses it or the peer is no member (core/context), the message is larger than MESSAGE_BYTES_MAX, or the queue
   * overflowed (then this run of the peer is given up). All are counted.
   */
  send(peer: NodeId, message: Uint8Array, mode: SendMode = 'wait'): boolean {
    const link = this.peers.get(peer);
    // it was taken out of the pool
    if (link === undefined) {
      this.context.count('link.message.dropped');
      return false;
    }
    assert(message.length > 0, 'a message has a type');
    if (message.length > MESSAGE_BYTES_MAX) {
      this.context.count('link.message.too-large');
      this.context.log('error', 'link.message.too-large', { peer, bytes: message.length, bytesMax: MESSAGE_BYTES_MAX });
      return false;
    }
    const isReached = mode === 'drop' ? link.up : mode !== 'met' || link.isMet;
    if (!isReached && !link.isBetween) {
      this.context.count('link.message.dropped');
      return false;
    }
    return link.push(message, mode === 'ride');
  }

  /** Takes an authentic frame. Whatever is wrong with its body is counted, never thrown. */
  onFrame(peer: NodeId, incarnation: Incarnation, body: Uint8Array): void {
    const link = this.peers.get(peer);
    if (link === undefined) {
      this.context.count('link.frame.refused.unknown-peer');
      return;
    }
    let frame: Frame;
    try {
      frame = decodeFrame(body);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      link.refuse(error.reason, true);
      return;
    }
    link.onFrame(incarnation, frame);
  }

  /** End of a turn: makes frames of what was queued and sends them. */
  flush(): void {
    for (const link of this.links) link.flush();
  }

  isUp(peer: NodeId): boolean {
    if (peer === this.options.self) return true;
    const link = this.peers.get(peer);
    return link !== undefined && link.up && link.isMember;
  }

  /** Servers that are silent, or were never heard. */
  unheard(): NodeId[] {
    return [...this.peers].filter(([, link]) => !link.up).map(([peer]) => peer);
  }

  /** Whether the peer said that it heard a frame which we sent within this time, as far as we know by now. */
  isHeardBy(peer: NodeId, withinMicros: Micros): boolean {
    const link = this.peers.get(peer);
    if (link === undefined || !link.up) return false;
    // what it heard is told with its next heartbeat, of our last one
    return this.context.now() - link.echoedAt < withinMicros + 2 * HEARTBEAT_INTERVAL_MICROS;
  }

  status(): LinkStatus[] {
    return [...this.peers.values()].map((link) => link.status());
  }

  /** Judges silence and sends heartbeats or hellos. */
  private onTick(): void {
    const now = this.context.now();
    // if we ourselves were asleep, frames wait unread: nobody may be judged by the time we slept
    const sleptMicros = this.tickDueAt === 0 ? 0 : now - this.tickDueAt;
    for (const link of this.peers.values()) {
      if (sleptMicros >= HEARTBEAT_INTERVAL_MICROS) link.lastHeardAt = Math.min(now, link.lastHeardAt + sleptMicros);
      if (link.up && now - link.lastHeardAt >= SILENCE_MICROS_MAX) link.goDown('silent');
      if (link.up) link.sendHeartbeat();
      else if (now - link.lastHelloAt >= HELLO_INTERVAL_MICROS) link.sendHello();
    }
    this.tickDueAt = now + HEARTBEAT_INTERVAL_MICROS;
    this.context.timers.at(this.tickDueAt, () => this.onTick());
  }
}
