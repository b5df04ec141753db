/**
 * All servers of a pool run one release of Samba: the records they share have its layout. Each says which it has when
 * it meets another; of two that differ, the one that started later ends, so that a new server never stops a pool.
 */
import type { Incarnation, NodeId } from '../../base/ids.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import type { CoreContext } from '../context.js';

export class Releases {
  private readonly runs = new Map<NodeId, Incarnation>();

  constructor(
    private readonly context: CoreContext,
    private readonly samba: string | undefined,
    private readonly incarnation: Incarnation,
  ) {}

  peerUp(peer: NodeId, incarnation: Incarnation): void {
    this.runs.set(peer, incarnation);
    const { samba } = this;
    if (samba !== undefined) this.context.send(peer, encodeGateMessage({ kind: 'release', samba }));
  }

  heard(peer: NodeId, samba: string): void {
    if (this.samba === undefined || samba === this.samba) return;
    this.context.count('gate.release.differs');
    if ((this.runs.get(peer) ?? 0) > this.incarnation) return;
    this.context.emit({
      kind: 'start-anew',
      reason: `this server has Samba ${this.samba}, but server ${peer} of the pool has Samba ${samba}`,
      remedy: 'run one release of Samba on all servers of a pool: the records they share have its layout',
    });
  }
}
