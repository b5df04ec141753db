/** When each server was heard last, whatever it sent: by its present run and by the one before. Facts only. */
import type { Incarnation, NodeId } from '../../base/ids.js';
import type { Micros } from '../effects.js';

interface Heard {
  incarnation: Incarnation;
  at: Micros;
  /** Of the run before. */
  formerAt: Micros | null;
}

export class LastFrames {
  private readonly servers = new Map<NodeId, Heard>();

  /** An authentic frame. */
  heard(server: NodeId, incarnation: Incarnation, now: Micros): void {
    const known = this.servers.get(server);
    if (known === undefined) {
      this.servers.set(server, { incarnation, at: now, formerAt: null });
    } else if (incarnation > known.incarnation) {
      known.formerAt = known.at;
      known.incarnation = incarnation;
      known.at = now;
    } else if (incarnation === known.incarnation) known.at = now;
  }

  /** null: never. */
  at(server: NodeId): Micros | null {
    return this.servers.get(server)?.at ?? null;
  }

  /** Of this run of the server. */
  ofRun(server: NodeId, incarnation: Incarnation): Micros | null {
    const known = this.servers.get(server);
    if (known === undefined) return null;
    return known.incarnation > incarnation ? known.formerAt : known.at;
  }

  /** Whether a later run of it was heard. */
  isAnew(server: NodeId, incarnation: Incarnation): boolean {
    return (this.servers.get(server)?.incarnation ?? 0) > incarnation;
  }
}
