/**
 * PROCESS_EXISTS and CHECK_PID_SRVID: is that process of that server still there? From memory where it is certain, else
 * by asking the server. A server that cannot be asked keeps its processes alive: who is gone for good is decided by
 * membership, and a false "dead" would let smbd throw living locks away.
 */
import type { NodeId } from '../../base/ids.js';
import type { CoreContext } from '../context.js';
import { LIVENESS_WAIT_MICROS_MAX } from './forwarding.js';
import type { ControlRequest, Forwarding } from './forwarding.js';
import type { Processes } from './processes.js';

/**
 * A server that keeps starting anew while it is asked is taken at the word of the last answer; after so many, alive.
 */
const ASKS_MAX = 3;

export class LivenessQuestions {
  constructor(
    private readonly context: CoreContext,
    private readonly processes: Processes,
    private readonly forwarding: Forwarding,
  ) {}

  /** `request` is the control as the process asked it, forwarded when memory does not know. */
  ask(
    node: NodeId,
    pid: number,
    srvid: bigint | null,
    request: ControlRequest,
    done: (alive: boolean) => void,
    asked = 0,
  ): void {
    const known = this.processes.isAlive(node, pid, srvid);
    if (known !== 'unknown') {
      this.context.count(`gate.liveness.${known}`);
      return done(known === 'alive');
    }
    if (!this.context.isUp(node) || asked >= ASKS_MAX) {
      this.context.count('gate.liveness.assumed');
      return done(true);
    }
    this.context.count('gate.liveness.asked');
    this.forwarding.ask(node, request, LIVENESS_WAIT_MICROS_MAX, (answer) => {
      if (answer === 'lost') return this.ask(node, pid, srvid, request, done, asked + 1);
      if (answer === 'late') return done(true);
      if (answer.status !== 0 && srvid !== null) this.processes.rememberDead(node, pid, srvid);
      done(answer.status === 0);
    });
  }
}
