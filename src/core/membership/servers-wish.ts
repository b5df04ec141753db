/**
 * A person's wish for another list of servers, at the server that was asked: told to whoever leads, again and again,
 * until an agreed view has it, the leader refuses it, or it takes too long. Frames may be lost and leaders may change,
 * so nothing is concluded from what was sent: only an agreed configuration says that it is done.
 */
import type { MembershipContent, MembershipMessageOf, ServersChange } from '../../wire/membership-messages.js';
import type { Micros } from '../effects.js';
import type { ServerList } from './configuration.js';
import type { Refused } from './changing-servers.js';
import { isDone } from './changing-servers.js';
import type { Leading } from './leading.js';
import { CHANGE_MICROS } from './limits.js';
import type { Peer } from './peers.js';
import type { ChangeResult, MembershipContext, MembershipEvents } from './port.js';

export interface WishPorts {
  /** null: we do not lead. */
  leading(): Leading | null;
  /** Whom we follow; null: nobody. */
  leader(): Peer | null;
  send(peer: Peer, content: MembershipContent): void;
}

export class ServersWish {
  private open: { change: ServersChange; until: Micros; refused: Refused | null } | null = null;

  constructor(
    private readonly context: MembershipContext,
    private readonly events: Pick<MembershipEvents, 'changeAnswered'>,
    private readonly ports: WishPorts,
  ) {}

  wish(change: ServersChange): void {
    if (this.open !== null) return this.events.changeAnswered?.({ why: 'busy', about: [this.open.change.server.node] });
    this.open = { change, until: this.context.now() + CHANGE_MICROS, refused: null };
    this.tell();
  }

  /** Each heartbeat. `agreed`: the servers of the newest agreed view that we know. */
  pursue(agreed: ServerList | null): void {
    const { open } = this;
    if (open === null) return;
    if (agreed !== null && isDone(open.change, agreed)) return this.end('done');
    if (this.context.now() >= open.until) return this.end(open.refused ?? { why: 'late', about: [] });
    this.tell();
  }

  private tell(): void {
    const { open } = this;
    if (open === null) return;
    const leading = this.ports.leading();
    if (leading === null) {
      const leader = this.ports.leader();
      if (leader !== null) this.ports.send(leader, { kind: 'change', ...open.change });
      return;
    }
    const refused = leading.change(open.change);
    if (refused !== null) this.onRefused(refused);
  }

  /** A leader cannot do it now, or never. */
  private onRefused({ why, about }: Refused): void {
    const { open } = this;
    if (open === null) return;
    open.refused = { why, about };
    // commits and other changes are soon done
    if (why !== 'busy' && why !== 'accounts') this.end({ why, about });
  }

  private end(result: ChangeResult): void {
    this.open = null;
    this.events.changeAnswered?.(result);
  }

  /** Another server asks us, whom it takes for the leader. */
  asked(peer: Peer, { what, number, server }: ServersChange): void {
    const refused = this.ports.leading()?.change({ what, number, server }) ?? null;
    if (refused !== null) this.ports.send(peer, { kind: 'change-refused', number, node: server.node, ...refused });
  }

  refused({ number, node, why, about }: MembershipMessageOf<'change-refused'>): void {
    const { open } = this;
    if (open === null || open.change.number !== number || open.change.server.node !== node) return;
    this.onRefused({ why, about });
  }
}
