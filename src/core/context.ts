/**
 * What each part of the core may use: the time of the current step, effects, timers, peers and counters. One object per
 * PoolNode, handed to every part; parts know each other only through the narrow interfaces they take in their
 * constructors.
 */
import type { Epoch, NodeId } from '../base/ids.js';
import type { Effect, LogLevel, Micros } from './effects.js';
import type { Timers } from './timers.js';

export type SendMode = 'wait' | 'drop' | 'met' | 'ride';

export interface CoreContext {
  readonly self: NodeId;
  /** The pool's servers, ascending, ourselves included. They may change. */
  readonly servers: readonly NodeId[];
  /** Those that keep databases and count, ascending: not witnesses, nor who is just joining. Of the installed view. */
  readonly fileServers: readonly NodeId[];
  /** The members of the view that we installed, ascending, ourselves included; none before the first view. */
  readonly members: readonly NodeId[];
  /** Of the view that we installed; 0 before the first. */
  readonly epoch: Epoch;
  readonly timers: Timers;
  /** The time of the current step. */
  now(): Micros;
  emit(effect: Effect): void;
  /**
   * Queues a message for a peer; it travels reliably and in order with the other messages to that peer, in a frame made
   * at the end of the turn. The first byte is the message type (wire/*-messages). To ourselves it must not be used.
   * While the peer is not reached the message waits. The mode 'drop' loses it then (returns false); 'met' loses it only
   * when the present run of the peer was never reached, so it is for processes of that run. With 'ride' nobody waits
   * for it: it travels with the next message or acknowledgement, or a few milliseconds later. To a server that is no
   * member it is lost.
   */
  send(peer: NodeId, message: Uint8Array, mode?: SendMode): boolean;
  /** Whether the peer is a member and has been heard of lately; ourselves always. */
  isUp(peer: NodeId): boolean;
  /**
   * The gate of what came with a protocol after the first: whether all members may be sent it
   * (docs/decisions/versions.md). What came with it is understood always.
   */
  speaks(protocol: number): boolean;
  /** Our lease ran out: nothing may be answered or given on which others rely. */
  isFenced(): boolean;
  log(level: LogLevel, event: string, fields?: Record<string, unknown>): void;
  /** Adds to a named counter; names are dotted, whole words: 'record.moved', 'client.packet.refused.truncated'. */
  count(name: string, by?: number): void;
}
