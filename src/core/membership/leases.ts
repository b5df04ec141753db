/**
 * Time in the membership (docs/decisions/membership.md, leases): the leader's authority, what it grants of it to each
 * member, and a member's own lease. Clocks of different servers are never compared: each time that is sent comes back
 * to whoever read it from its clock.
 */
import type { NodeId } from '../../base/ids.js';
import type { Micros } from '../effects.js';
import { shortened, stretched } from './limits.js';

export interface Grant {
  /** sentAt of the newest answer of the member, by its clock; 0: no lease is granted. */
  echo: Micros;
  remaining: Micros;
}

export const NO_GRANT: Grant = { echo: 0, remaining: 0 };

/** The leader's side. */
export class Authority {
  /** By server: the newest heartbeat of ours that it answered. */
  private readonly answered = new Map<NodeId, Micros>();
  private readonly newestAnswers = new Map<NodeId, { sentAt: Micros; receivedAt: Micros }>();
  /** By server: when all that was granted to it, by whomever, is over by any clock. */
  private readonly overAt = new Map<NodeId, Micros>();
  private authorityUntil: Micros = -Infinity;

  constructor(
    private readonly leaseMicros: Micros,
    /** A majority of whose answers renews it; null: none does, `confirmed` does. */
    private readonly counted: (() => readonly NodeId[]) | null,
  ) {}

  /** By our clock; never goes back. */
  get until(): Micros {
    return this.authorityUntil;
  }

  /** Our own heartbeat counts as answered by us. */
  sent(self: NodeId, now: Micros): void {
    this.answered.set(self, now);
    this.renew();
  }

  onAnswer(from: NodeId, answer: { echo: Micros; sentAt: Micros }, now: Micros): void {
    this.answered.set(from, Math.max(answer.echo, this.answered.get(from) ?? 0));
    if (answer.sentAt > (this.newestAnswers.get(from)?.sentAt ?? 0)) {
      this.newestAnswers.set(from, { sentAt: answer.sentAt, receivedAt: now });
    }
    this.renew();
  }

  /** The server runs anew: its clock may have begun anew as well. What its former run promised still counts. */
  onNewRun(node: NodeId): void {
    this.newestAnswers.delete(node);
  }

  private renew(): void {
    if (this.counted === null) return;
    const counted = this.counted();
    const times = counted.map((node) => this.answered.get(node) ?? -Infinity).sort((a, b) => b - a);
    const answeredByMajority = times[Math.floor(counted.length / 2)];
    if (answeredByMajority !== undefined) this.confirmed(answeredByMajority);
  }

  /** What was asked at this time was answered: we lead, and whoever wants to follow us waits for a lease from now. */
  confirmed(askedAt: Micros): void {
    this.authorityUntil = Math.max(this.authorityUntil, askedAt + this.leaseMicros);
  }

  /** What a heartbeat sent now to the member says of its lease, noted as given. */
  grant(node: NodeId, now: Micros): Grant {
    const newest = this.newestAnswers.get(node);
    const remaining = this.authorityUntil - now;
    if (newest === undefined || remaining <= 0) return NO_GRANT;
    this.overAt.set(node, Math.max(this.leaseOverAt(node), newest.receivedAt + stretched(remaining)));
    return { echo: newest.sentAt, remaining };
  }

  /** A former leader may have given it a lease that lasts until then. */
  inherited(node: NodeId, until: Micros): void {
    this.overAt.set(node, Math.max(this.leaseOverAt(node), until));
  }

  /** The server gave its lease back, and takes none any more. */
  release(node: NodeId): void {
    this.overAt.delete(node);
  }

  /** When the server's lease is over whatever its clock says, if nothing more is granted. */
  leaseOverAt(node: NodeId): Micros {
    return this.overAt.get(node) ?? -Infinity;
  }
}

/** Our own right to serve. */
export class OwnLease {
  until: Micros = 0;
  private isGivenBack = false;

  constructor(private readonly changed: (until: Micros) => void) {}

  /** A heartbeat granted it to us; nothing that comes late can prolong it. Returns false if it makes no sense. */
  onGrant({ echo, remaining }: Grant, now: Micros): boolean {
    if (echo === 0) return true;
    if (echo > now) return false;
    this.extend(echo + shortened(remaining));
    return true;
  }

  extend(until: Micros): void {
    if (until <= this.until || this.isGivenBack) return;
    this.until = until;
    this.changed(until);
  }

  /** For good. The host must have ended all that it allows. */
  giveBack(): void {
    this.isGivenBack = true;
    this.until = 0;
    this.changed(0);
  }
}
