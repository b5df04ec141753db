/**
 * Which servers are heard by both interfaces: for people, since the pool itself does not mind which one brings a frame.
 * One of two that falls silent is a lost redundancy, and somebody has to know. Told what the host saw every now and
 * then; decides nothing else. Used by failovers.ts.
 */
import type { Incarnation, NodeId } from '../../base/ids.js';
import type { Micros, PeerHeard } from '../effects.js';

/** One that is silent for so long, while the other works, has failed. Each pair of servers has frames every 50 ms. */
export const INTERFACE_SILENT_MICROS = 3_000_000;
/** One that brought something in this time works. */
const WORKS_MICROS = 1_000_000;

/** One interface, and the servers that are heard by the other one only. */
export interface Silence {
  /** 0 or 1. */
  interface: number;
  /** Ascending. */
  servers: NodeId[];
  /** Of the first of them: its last frame, or since when it could have come. */
  since: Micros;
  /** When all of them were heard by it again; null: not yet. */
  backAt: Micros | null;
}

interface Peer {
  incarnation: Incarnation;
  at: readonly (Micros | null)[];
  /** Since when it is heard by whatever interface; null: it is not. */
  heardSince: Micros | null;
  /** Of each interface, while it is silent. */
  silences: (Silence | null)[];
}

/** What changed with a look. */
export interface InterfaceChanges {
  fell: Silence[];
  back: Silence[];
}

export class InterfaceWatch {
  private readonly peers = new Map<NodeId, Peer>();

  /** All that the host saw, at this time. */
  look(heard: readonly PeerHeard[], now: Micros): InterfaceChanges {
    for (const one of heard) this.note(one, now);
    const back = this.findBack(now);
    return { fell: this.findFallen(now), back };
  }

  /** What is silent although the other interface works, as of the last look. */
  silent(): Silence[] {
    const found = new Map<number, Silence>();
    for (const [node, { silences, heardSince }] of this.peers) {
      for (const silence of silences) {
        // of who is not heard at all something else is to be said
        if (silence === null || heardSince === null) continue;
        const known = found.get(silence.interface);
        const since = Math.min(silence.since, known?.since ?? Infinity);
        const servers = [...(known?.servers ?? []), node].sort((a, b) => a - b);
        found.set(silence.interface, { interface: silence.interface, servers, since, backAt: null });
      }
    }
    return [...found.values()].sort((a, b) => a.interface - b.interface);
  }

  /** Of the peer's present run, by each interface; empty: it has not two, or was never heard. */
  at(node: NodeId): readonly (Micros | null)[] {
    return this.peers.get(node)?.at ?? [];
  }

  /** The same, of that run only. */
  atOfRun(node: NodeId, incarnation: Incarnation): readonly (Micros | null)[] {
    const peer = this.peers.get(node);
    return peer?.incarnation === incarnation ? peer.at : [];
  }

  /** Whether no other server is heard than these. */
  areAll(servers: readonly NodeId[]): boolean {
    return [...this.peers].every(([node, { heardSince }]) => heardSince === null || servers.includes(node));
  }

  private note({ peer: node, incarnation, at }: PeerHeard, now: Micros): void {
    const known = this.peers.get(node);
    const isHeard = at.some((time) => worksAt(time, now));
    const heardSince = isHeard ? (known?.heardSince ?? now) : null;
    const silences = known?.silences ?? at.map(() => null);
    this.peers.set(node, { incarnation, at, heardSince, silences });
  }

  private findBack(now: Micros): Silence[] {
    const back = new Set<Silence>();
    for (const peer of this.peers.values()) {
      peer.silences = peer.silences.map((silence, index) => {
        if (silence === null || !worksAt(peer.at[index] ?? null, now)) return silence;
        back.add(silence);
        return null;
      });
    }
    const isOver = (silence: Silence): boolean =>
      [...this.peers.values()].every(({ silences }) => !silences.includes(silence));
    const over = [...back].filter(isOver);
    for (const silence of over) silence.backAt = now;
    return over;
  }

  private findFallen(now: Micros): Silence[] {
    const fell: Silence[] = [];
    const interfaces = Math.max(0, ...[...this.peers.values()].map(({ at }) => at.length));
    for (let index = 0; index < interfaces; index++) {
      const silentFor = (limit: Micros): [NodeId, Peer][] => [...this.peers].filter(([, peer]) =>
        peer.silences[index] === null && now - (silentSince(peer, index) ?? now) >= limit);
      if (silentFor(INTERFACE_SILENT_MICROS).length === 0) continue;
      // who has been silent for half of that has the same cause, and goes along: one event, one line
      const found = silentFor(INTERFACE_SILENT_MICROS / 2);
      const since = Math.min(...found.map(([, peer]) => silentSince(peer, index) ?? now));
      const servers = found.map(([node]) => node).sort((a, b) => a - b);
      const silence = { interface: index, servers, since, backAt: null };
      for (const [, peer] of found) peer.silences[index] = silence;
      fell.push(silence);
    }
    return fell;
  }
}

function worksAt(at: Micros | null, now: Micros): boolean {
  return at !== null && now - at < WORKS_MICROS;
}

/** Since when the interface could have brought something and did not; null: the server is not heard at all. */
function silentSince({ at, heardSince }: Peer, index: number): Micros | null {
  return heardSince === null ? null : Math.max(at[index] ?? heardSince, heardSince);
}
