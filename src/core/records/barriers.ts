/**
 * Barriers: proof that everything that each peer sent before this moment has arrived, of those that are up and those
 * that we are still to meet. Streams are in order, so one question and its answer per peer is enough. Who is silent is
 * not waited for, and who is to be met no longer than until a view leaves it out. Used by core/records before a logon's
 * record is granted.
 */
import type { NodeId } from '../../base/ids.js';
import type { CoreContext } from '../context.js';

export class Barriers {
  private counter = 0;
  private readonly waiting = new Map<number, { peers: Set<NodeId>; then: () => void }>();

  /** @param isAwaited members that we have not met in this view: they will be up, or out of it */
  constructor(
    private readonly context: CoreContext,
    private readonly isAwaited: (peer: NodeId) => boolean,
  ) {}

  /** Runs `then` when all peers that are up, or will be, have answered; at once when there are none. */
  pass(ask: (number: number, peer: NodeId) => void, then: () => void): void {
    const { context } = this;
    const isAsked = (peer: NodeId): boolean => context.isUp(peer) || this.isAwaited(peer);
    const peers = new Set(context.members.filter((peer) => peer !== context.self && isAsked(peer)));
    if (peers.size === 0) {
      then();
      return;
    }
    const number = ++this.counter;
    this.waiting.set(number, { peers, then });
    for (const peer of peers) ask(number, peer);
  }

  passed(peer: NodeId, number: number): void {
    const barrier = this.waiting.get(number);
    if (barrier === undefined) return;
    barrier.peers.delete(peer);
    if (barrier.peers.size > 0) return;
    this.waiting.delete(number);
    barrier.then();
  }

  /** A peer that is not there has nothing under way to us that we could wait for. */
  peerGone(peer: NodeId): void {
    for (const number of [...this.waiting.keys()]) this.passed(peer, number);
  }
}
