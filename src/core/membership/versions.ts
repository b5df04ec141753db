/**
 * The pool's protocol in the membership (docs/decisions/versions.md): what each server's run speaks, which protocol the
 * next view has, and who cannot be a member because of it.
 */
import type { Incarnation, NodeId } from '../../base/ids.js';
import type { Announcement, ProtocolRange } from '../../wire/protocol-version.js';
import { highestCommon, isWithin, rangeText } from '../../wire/protocol-version.js';
import type { Run, View } from '../../wire/membership-views.js';
import type { MembershipContext } from './port.js';

/** A configured server as the leader knows it. */
export interface KnownServer extends Run {
  /** It was heard lately. */
  isHeard: boolean;
}

export class Versions {
  private readonly known = new Map<NodeId, { incarnation: Incarnation; announcement: Announcement }>();
  private readonly complained = new Set<string>();

  constructor(
    private readonly context: Pick<MembershipContext, 'log' | 'count'>,
    own: Run,
    private readonly announcement: Announcement,
  ) {
    this.announced(own.node, own.incarnation, announcement);
  }

  /** A run says so of itself. */
  announced(node: NodeId, incarnation: Incarnation, announcement: Announcement): void {
    if (incarnation >= (this.known.get(node)?.incarnation ?? 0)) this.known.set(node, { incarnation, announcement });
  }

  /** null: this run did not say yet. */
  speaks({ node, incarnation }: Run): ProtocolRange | null {
    const known = this.known.get(node);
    return known?.incarnation === incarnation ? known.announcement.speaks : null;
  }

  /** Whether our run could be a member of this view, or of one that follows it. */
  canJoin(view: Pick<View, 'protocol'> | null): boolean {
    return view === null || isWithin(this.announcement.speaks, view.protocol);
  }

  /**
   * The protocol of the view that follows `base`: higher if all configured servers, which are given here, can. Members
   * of the base are the runs whose range we know then, and whoever joins is looked at by itself.
   */
  next(base: View | null, configured: readonly KnownServer[]): number {
    const present = base?.protocol ?? this.announcement.speaks.min;
    const isKnown = ({ node, incarnation }: Run): boolean =>
      configured.some((server) => server.node === node && server.incarnation === incarnation);
    if (base !== null && !base.members.every(isKnown)) return present;
    const ranges = configured.map((server) => (server.isHeard ? this.speaks(server) : null));
    if (!ranges.every((range) => range !== null)) return present;
    return Math.max(present, highestCommon(ranges) ?? present);
  }

  /** The leader does not take this run in. */
  refused(run: Run, protocol: number): void {
    const known = this.known.get(run.node);
    if (known === undefined) return;
    const { speaks, release } = known.announcement;
    const action = speaks.max < protocol ? 'upgrade smbpool on it' : 'upgrade smbpool on the others';
    this.complain(`${run.node}/${run.incarnation}`, {
      peer: run.node, release, speaks: rangeText(speaks), pool: protocol, remedy: action,
    });
  }

  /** A view, agreed or on our disk, is one in which our run could not be. */
  cannotJoin({ protocol }: Pick<View, 'protocol'>): void {
    const { speaks, release } = this.announcement;
    const action = speaks.max < protocol
      ? 'install a later release of smbpool on this server, or raise protocolMax in its configuration'
      : 'upgrade smbpool on the other servers';
    this.complain(`own ${protocol}`, { release, speaks: rangeText(speaks), pool: protocol, remedy: action });
  }

  /** Once per cause. */
  private complain(cause: string, fields: Record<string, unknown>): void {
    if (this.complained.has(cause)) return;
    this.complained.add(cause);
    this.context.count('membership.protocol.foreign');
    const meaning = 'a server that does not speak the protocol of the pool is no member and serves nobody';
    this.context.log('warn', 'membership.protocol.foreign', { ...fields, meaning });
  }
}
