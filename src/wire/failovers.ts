/**
 * What a server tells people of the changes of its pool that it saw: the shapes that cross the admin socket in JSON.
 * Plain data only. Times are microseconds since 1970 by the clock of the server that tells.
 */

/** In the order in which they usually come; which of them a server sees depends on whether it leads. */
export type FailoverStep =
  /** Of a server that is out with this change. */
  | 'last-frame'
  /** The same by one of two interfaces. */
  | 'last-frame-by'
  /** The server that leads, or stands for election, will leave it out. */
  | 'suspected'
  /** Seen by the leader only: no clock lets it serve any more. */
  | 'lease-over'
  | 'proposed'
  /** A majority has agreed, and this server goes by it. */
  | 'installed'
  /** All members go by it: nothing that was given before is under way any more. */
  | 'settled'
  /** This server has told all homes that are new to a key what it has of it. */
  | 'claims-sent'
  /** All members have told so: this server answers for all keys whose home it is. */
  | 'recovered';

export interface StepReport {
  what: FailoverStep;
  /** Whose frame, suspicion or lease; null for steps of the pool. */
  server: number | null;
  /** last-frame-by: the interface of the server that tells. */
  interface?: string;
  atMicros: number;
}

export type CauseKind =
  | 'silent'
  /** It is heard, but does not answer: it hears nobody. */
  | 'unresponsive'
  | 'anew'
  /** Its run continues the one before: nothing of it was lost. */
  | 'resumed'
  | 'joined'
  | 'unheard'
  | 'unwilling'
  | 'behind'
  | 'unconfigured'
  | 'removed'
  /** Somebody else left it out, and this server does not know why. */
  | 'left-out'
  /** Another server leads, or the same one anew. */
  | 'leader'
  /** All servers can use a later protocol with each other, and do. */
  | 'protocol';

export interface CauseReport {
  what: CauseKind;
  server: number;
  /** In words. */
  text: string;
  /** What a person could do; null: nothing. */
  remedy: string | null;
}

/** Counted on the server that tells. */
export interface FailoverRecords {
  /** Records that it has something of and whose home is another run now. */
  newHomes: number;
  claimsSent: number;
  claimsReceived: number;
  /** Keys whose home it is and that somebody waited for: of these all told it before their other claims. */
  claimedFirst: number;
  /** Of keys whose home it is: those whose owner is gone and that came back from a backup or a copy. */
  restored: number;
  /** The same, and nobody had a backup or copy. */
  lost: number;
}

/** A view that took the place of another one. */
export interface ViewChangeReport {
  kind: 'view';
  epoch: number;
  leader: number;
  members: number[];
  left: number[];
  joined: number[];
  causes: CauseReport[];
  /** In the order of their times. */
  steps: StepReport[];
  records: FailoverRecords;
  /** Another view came before all members had recovered. */
  overtaken: boolean;
}

/** A time without a lease: this server opened and changed nothing. */
export interface FencedReport {
  kind: 'fenced';
  atMicros: number;
  /** null: still. */
  renewedAtMicros: number | null;
  text: string;
  remedy: string | null;
}

/** One of two interfaces that fell silent while the other worked. */
export interface InterfaceReport {
  kind: 'interface';
  /** Of the server that tells. */
  interface: string;
  /** Who was not heard by it. */
  servers: number[];
  atMicros: number;
  /** null: still. */
  backAtMicros: number | null;
  text: string;
  remedy: string;
}

export type PoolEventReport = ViewChangeReport | FencedReport | InterfaceReport;

export interface FailoversReport {
  self: number;
  servers: { id: number; name: string }[];
  /** Oldest first; bounded, since the daemon started. */
  events: PoolEventReport[];
}
