/**
 * Controls for another server: carried there, performed by its gate, and the answer carried back. A server that is down
 * answers at once with -1, and nothing waits longer than a named time. Liveness questions have their own rule
 * (processes).
 */
import type { NodeId } from '../../base/ids.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import type { Timer } from '../timers.js';

/** As CTDB's ControlTimeout: a client must not wait for ever. */
export const CONTROL_WAIT_MICROS_MAX = 60_000_000;
/** smbd asks this with a record locked, so the answer must come soon, whatever it is. */
export const LIVENESS_WAIT_MICROS_MAX = 5_000_000;
/** Controls under way to all peers; each belongs to a local process that waits. */
export const CONTROLS_WAITING_MAX = 10_000;

export interface ControlAnswer {
  status: number;
  data: Uint8Array;
  /** Text for people; empty on success. */
  error: string;
}

export const NO_DATA: Uint8Array = new Uint8Array(0);

export function refused(error: string): ControlAnswer {
  return { status: -1, data: NO_DATA, error };
}

export interface ControlRequest {
  opcode: number;
  srvid: bigint;
  flags: number;
  data: Uint8Array;
}

interface Waiting {
  peer: NodeId;
  timer: Timer;
  done: (answer: ControlAnswer | 'lost' | 'late') => void;
}

export class Forwarding {
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;

  constructor(private readonly context: CoreContext) {}

  get size(): number {
    return this.waiting.size;
  }

  /** `done` is called once: with the answer, 'lost' (the server is down or started anew) or 'late'. */
  ask(
    peer: NodeId,
    request: ControlRequest,
    waitMicros: Micros,
    done: (answer: ControlAnswer | 'lost' | 'late') => void,
  ): void {
    if (!this.context.isUp(peer)) return done('lost');
    if (this.waiting.size >= CONTROLS_WAITING_MAX) {
      this.context.count('gate.control.refused.too-many');
      return done('late');
    }
    const number = ++this.last;
    const timer = this.context.timers.at(this.context.now() + waitMicros, () => {
      this.waiting.delete(number);
      this.context.count('gate.control.late');
      this.context.log('warn', 'gate.control.late', { peer, opcode: request.opcode, waitMicros });
      done('late');
    });
    this.waiting.set(number, { peer, timer, done });
    this.context.send(peer, encodeGateMessage({ kind: 'control', number, ...request }));
  }

  /** Without an answer: the sender does not want one. */
  tell(peer: NodeId, request: ControlRequest): void {
    if (!this.context.isUp(peer)) return this.context.count('gate.control.dropped.server-down');
    this.context.send(peer, encodeGateMessage({ kind: 'control', number: 0, ...request }), 'drop');
  }

  onAnswer(from: NodeId, number: number, answer: ControlAnswer): void {
    const waiting = this.waiting.get(number);
    if (waiting === undefined || waiting.peer !== from) return this.context.count('gate.control.answer.unexpected');
    this.waiting.delete(number);
    waiting.timer.cancel();
    waiting.done(answer);
  }

  /** The peer is silent, or what was sent to it was lost. */
  peerLost(peer: NodeId): void {
    for (const [number, waiting] of [...this.waiting]) {
      if (waiting.peer !== peer) continue;
      this.waiting.delete(number);
      waiting.timer.cancel();
      waiting.done('lost');
    }
  }
}
