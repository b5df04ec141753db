/**
 * Frames of the membership, in either engine: decodes them, tells new runs of a peer, answers those that are for
 * another run of ours, and sends. Whatever is wrong with a frame is counted, and logged once for each cause.
 */
import { DecodeError } from '../../base/bytes.js';
import type { Incarnation, NodeId } from '../../base/ids.js';
import type { MembershipContent, MembershipMessage } from '../../wire/membership-messages.js';
import { decodeMembershipMessage, encodeMembershipMessage } from '../../wire/membership-messages.js';
import type { Run } from '../../wire/membership-views.js';
import type { Peer, Peers } from './peers.js';
import type { EngineName, MembershipContext, MembershipEvents } from './port.js';

export interface MailOptions {
  incarnation: Incarnation;
  resumes?: Incarnation | undefined;
  engine: EngineName;
}

export interface MailPorts {
  term(): number;
  /** The epoch that we may say to have. */
  accepted(): number;
  /** The first frame of a run of the peer. */
  newRun(peer: Peer): void;
  take(peer: Peer, message: MembershipMessage): void;
  /** A server that is none of ours says something. Returns it if it is one from now on. */
  stranger?(run: Run, message: MembershipMessage): Peer | null;
}

const MEANINGS: Record<string, string> = {
  'other-engine': 'membership.engine is another on that server: it must be the same on all servers of a pool',
};

export class Mail {
  private readonly refusalsLogged = new Set<string>();

  constructor(
    private readonly context: MembershipContext,
    private readonly options: MailOptions,
    private readonly peers: Peers,
    private readonly events: Pick<MembershipEvents, 'send'>,
    private readonly ports: MailPorts,
  ) {}

  onFrame(from: NodeId, incarnation: Incarnation, body: Uint8Array): void {
    let peer = this.peers.get(from);
    if (peer !== undefined && incarnation < peer.incarnation) return this.refuse(from, 'incarnation-old');
    let message: MembershipMessage;
    try {
      message = decodeMembershipMessage(body, this.options.engine);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return this.refuse(from, error.reason);
    }
    peer ??= this.ports.stranger?.({ node: from, incarnation }, message) ?? undefined;
    if (peer === undefined) return this.refuse(from, 'unknown-peer');
    if (this.peers.heard(peer, incarnation, this.context.now(), message.resumes)) this.ports.newRun(peer);
    if (message.to !== this.options.incarnation) {
      this.hello(peer, false);
      return;
    }
    this.ports.take(peer, message);
  }

  refuse(peer: NodeId, reason: string): void {
    this.context.count(`membership.frame.refused.${reason}`);
    if (this.refusalsLogged.has(reason)) return;
    this.refusalsLogged.add(reason);
    const level = reason === 'incarnation-old' || reason === 'unknown-peer' ? 'debug' : 'warn';
    const meaning = MEANINGS[reason];
    const note = 'logged once per cause';
    this.context.log(level, 'membership.frame.refused', { peer, reason, ...(meaning ? { meaning } : {}), note });
  }

  send(peer: Run, content: MembershipContent, term = this.ports.term()): void {
    const { resumes } = this.options;
    const message = { ...content, to: peer.incarnation, term, ...(resumes === undefined ? {} : { resumes }) };
    this.events.send(peer.node, encodeMembershipMessage(message, this.options.engine));
  }

  /** A run that continues another one is missed already. */
  helloFromSuccessor(): void {
    if (this.options.resumes !== undefined) for (const peer of this.peers.all) this.hello(peer, false);
  }

  hello(peer: Peer, answerWanted: boolean): void {
    this.send(peer, { kind: 'hello', answerWanted, accepted: this.ports.accepted() });
  }
}
