/**
 * Whom a server votes for, and a candidate's count of votes. Votes are once for each term and on disk before they are
 * told; who has answered a leader's heartbeat votes for nobody until its promise is over.
 */
import type { NodeId } from '../../base/ids.js';
import type { Configuration } from '../../wire/membership-configuration.js';
import type { Micros } from '../effects.js';
import { isMajority } from './configuration.js';
import { stretched } from './limits.js';
import type { Saving } from './saving.js';

export interface Candidate {
  node: NodeId;
  term: number;
  accepted: number;
}

export class Voting {
  private votedAt: Micros = -Infinity;

  constructor(
    private readonly saving: Saving,
    private readonly promiseMicros: Micros,
    /** Until when we vote for nobody. */
    private boundUntil: Micros,
  ) {}

  get promisedUntil(): Micros {
    return this.boundUntil;
  }

  isBound(now: Micros): boolean {
    return now < this.boundUntil;
  }

  /** We answer a leader's heartbeat, now. */
  promise(now: Micros): void {
    this.bind(now + stretched(this.promiseMicros));
  }

  bind(until: Micros): void {
    this.boundUntil = Math.max(this.boundUntil, until);
  }

  /** Whether we would vote for it. Who just voted for another gives that one the time to begin. */
  wouldVote(candidate: Candidate, now: Micros): boolean {
    if (this.isBound(now) || candidate.term <= this.saving.term) return false;
    if (candidate.accepted < this.saving.acceptedEpoch) return false;
    return this.saving.votedFor === candidate.node || now - this.votedAt >= this.promiseMicros;
  }

  /** Decides on a vote and notes it, with the candidate's term, to be told when it is on disk. */
  vote(candidate: Candidate, now: Micros): boolean {
    const { saving } = this;
    if (this.isBound(now) || candidate.term < saving.term || candidate.accepted < saving.acceptedEpoch) return false;
    const votedFor = candidate.term === saving.term ? saving.votedFor : null;
    if (votedFor !== null && votedFor !== candidate.node) return false;
    if (votedFor === null) saving.change({ term: candidate.term, votedFor: candidate.node });
    this.votedAt = now;
    return true;
  }
}

/** One attempt to be elected: first would they, then do they. */
export class Candidacy {
  phase: 'pre-vote' | 'vote' = 'pre-vote';
  private granted = new Set<NodeId>();
  private refused = new Set<NodeId>();
  private readonly answered = new Set<NodeId>();

  constructor(
    readonly term: number,
    /** Names this attempt in the answers to pre-votes. */
    readonly startedAt: Micros,
    /** Of the view that the candidate accepted. */
    private readonly configuration: Configuration,
  ) {}

  answer(node: NodeId, granted: boolean): void {
    this.answered.add(node);
    if (granted) this.granted.add(node);
    else if (!this.granted.has(node)) this.refused.add(node);
  }

  hasAnswered(node: NodeId): boolean {
    return this.granted.has(node);
  }

  get isWon(): boolean {
    return isMajority(this.configuration, (node) => this.granted.has(node));
  }

  get isLost(): boolean {
    return !isMajority(this.configuration, (node) => !this.refused.has(node));
  }

  /** Whatever they said: a majority and the candidate hear each other. */
  get isAnswered(): boolean {
    return isMajority(this.configuration, (node) => this.answered.has(node));
  }

  startVote(): void {
    this.phase = 'vote';
    this.granted = new Set();
    this.refused = new Set();
  }
}
