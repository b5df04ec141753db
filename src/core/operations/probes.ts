/**
 * Proves that all servers see the same files under one share: each tells the others the volume id and the inode of the
 * share's root; a server that sees something else must not serve the share, because the same file would have two ids
 * and two sets of locks. Used by operations.ts.
 */
import type { NodeId } from '../../base/ids.js';
import { encodeWitnessMessage } from '../../wire/witness-messages.js';
import type { CoreContext } from '../context.js';

export interface Probe {
  share: string;
  volume: bigint;
  rootInode: bigint;
}

/** Shares remembered per server. */
const SHARES_MAX = 1024;

export class Probes {
  private readonly own = new Map<string, Probe>();
  private readonly others = new Map<NodeId, Map<string, Probe>>();

  constructor(private readonly context: CoreContext) {}

  /** A client connects to a share here. Returns why it must not, or null. */
  connect(probe: Probe, nameOf: (peer: NodeId) => string): string | null {
    const known = this.own.get(probe.share);
    if (known === undefined || !isSame(known, probe)) {
      if (this.own.size < SHARES_MAX) this.own.set(probe.share, probe);
      for (const peer of this.context.members) if (peer !== this.context.self) this.send(peer, probe);
    }
    for (const [peer, shares] of this.others) {
      const other = shares.get(probe.share);
      if (other === undefined || isSame(other, probe)) continue;
      this.context.count('witness.probe.refused');
      const difference = `${nameOf(peer)} sees ${words(other)}, this server ${words(probe)}`;
      const refusal = `share ${probe.share}: ${difference}: ${REMEDY}`;
      this.context.log('error', 'share-differs', { share: probe.share, peer, remedy: refusal });
      return refusal;
    }
    return null;
  }

  heard(from: NodeId, probe: Probe): void {
    let shares = this.others.get(from);
    if (shares === undefined) this.others.set(from, (shares = new Map<string, Probe>()));
    if (shares.size < SHARES_MAX || shares.has(probe.share)) shares.set(probe.share, probe);
    const own = this.own.get(probe.share);
    if (own === undefined || isSame(own, probe)) return;
    this.context.log('error', 'share-differs', {
      share: probe.share,
      peer: from,
      remedy: 'the two servers see different files under one share name: mount the same file system on both',
    });
  }

  tell(peer: NodeId): void {
    for (const probe of this.own.values()) this.send(peer, probe);
  }

  private send(peer: NodeId, { share, volume, rootInode }: Probe): void {
    this.context.send(peer, encodeWitnessMessage({ kind: 'probe', share, volume, rootInode }), 'drop');
  }
}

function isSame(a: Probe, b: Probe): boolean {
  return a.volume === b.volume && a.rootInode === b.rootInode;
}

function words({ volume, rootInode }: Probe): string {
  return `volume ${volume}, root inode ${rootInode}`;
}

const REMEDY = 'mount the same file system on both and give the share the same "smbpool:volume id"';
