/**
 * How frames travel between the servers: raw Ethernet and UDP (host/pump over the addon), and the simulated wire of the
 * tests. Frames may be lost, doubled, delayed and swapped, but what arrives is authentic and was sent to us: the link
 * layer of the core builds reliable streams on it.
 */
import type { Incarnation, NodeId } from '../base/ids.js';

export interface Interconnect {
  /** The longest body of one frame. */
  readonly frameBodyBytesMax: number;
  /** How many frames can wait at the receiver before some are lost. */
  readonly receiveFramesMax: number;
  /** Queues a frame; the body is copied. A body that is empty or too long, or for nobody, is counted and dropped. */
  send(peer: NodeId, body: Uint8Array): void;
  /** Sends what is queued. Never waits: what the system does not take is dropped. */
  flush(): void;
}

/** Called for each authentic frame; the body is valid only during the call. */
export type FrameListener = (peer: NodeId, incarnation: Incarnation, body: Uint8Array) => void;
