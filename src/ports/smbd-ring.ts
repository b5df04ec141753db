/**
 * The shared-memory rings to the VFS modules in the smbds of this server, and the node page that they read, as the
 * host's loop uses them. The adapter is host/pump over the addon; messages are those of native/shared/smbpool_ops.h.
 */
import type { Micros } from '../core/effects.js';

/** 1: a file's records, the key is its 24-byte file id; 2: a lease, the key is client GUID and lease key. */
export type HomeKind = 1 | 2 | 3;

export interface SmbdRing {
  /**
   * Queues a message; it is copied and leaves at the end of the turn, or when the smbd has made room. Too many that it
   * does not read end its attachment. For one that is gone it is dropped.
   */
  sendToRing(attachment: number, op: number, payload: Uint8Array): void;
  /** Ends an attachment; ringDetached follows. The smbd attaches again. */
  endRing(attachment: number): void;
  /** The node page's table of what is here: a hint that smbds look at without asking. */
  setHome(present: boolean, what: HomeKind, key: Uint8Array): void;
  /** Into the node page: until when the smbds of this server may serve; a time that is over: not at all. */
  setLease(until: Micros): void;
  /** Into the node page, at once: whether the smbds here let clients cache writes no more. */
  setDraining(draining: boolean): void;
  /** Into the node page: whether opens that exclude others from a folder have to ask. */
  setSharesFolders(shares: boolean): void;
  /** One sample of a histogram of the node page (enum smbpool_histogram). */
  recordLatency(histogram: number, micros: Micros): void;
}

export interface SmbdRingListener {
  /** `pid` is the kernel's word, not the smbd's. */
  ringAttached(attachment: number, pid: number): void;
  /** Bounds are checked and the bytes copied, nothing else; they are valid only during the call. */
  ringMessage(attachment: number, op: number, payload: Uint8Array): void;
  /** It died, left or was dropped; `bad`: it wrote what no honest smbd writes. Its number is not used again. */
  ringDetached(attachment: number, bad: boolean): void;
}
