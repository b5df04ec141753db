/** The simulated wire behind the interconnect's port, so that the contract suite can hold it to the same promises. */
import type { Incarnation, NodeId } from '../../src/base/ids.js';
import type { Interconnect } from '../../src/ports/interconnect.js';
import type { SimulatedWire } from './simulated-wire.js';

export class SimulatedInterconnect implements Interconnect {
  readonly frameBodyBytesMax = 1428;
  readonly receiveFramesMax = 2048;
  private readonly queue: { peer: NodeId; body: Uint8Array }[] = [];

  constructor(
    private readonly wire: SimulatedWire,
    private readonly self: NodeId,
    private readonly incarnation: Incarnation,
  ) {}

  send(peer: NodeId, body: Uint8Array): void {
    if (body.length === 0 || body.length > this.frameBodyBytesMax) return;
    this.queue.push({ peer, body: new Uint8Array(body) });
  }

  flush(): void {
    for (const { peer, body } of this.queue) this.wire.send(this.self, this.incarnation, peer, body);
    this.queue.length = 0;
  }
}
