/**
 * What must survive a crash: term, vote and accepted view. Changed here at once, told to others only when it is on
 * disk: whoever changes it gives what is to be said to whenSaved. One save is under way at a time; the next takes all
 * that changed meanwhile.
 */
import type { NodeId } from '../../base/ids.js';
import type { SavedMembership } from '../../wire/membership-state.js';
import type { View } from '../../wire/membership-views.js';
import { SAVE_AGAIN_MICROS, SAVE_WAITING_MAX } from './limits.js';
import type { MembershipContext } from './port.js';

export class Saving {
  private version = 0;
  private savedVersion = 0;
  private token = 0;
  private underWay: { token: number; version: number; state: SavedMembership } | null = null;
  private waiting: { version: number; action: () => void }[] = [];
  private isRetrying = false;
  /** As it is on disk for certain. */
  private durable: SavedMembership;

  constructor(
    private readonly context: MembershipContext,
    private wanted: SavedMembership,
  ) {
    this.durable = wanted;
  }

  get term(): number {
    return this.wanted.term;
  }
  get votedFor(): NodeId | null {
    return this.wanted.votedFor;
  }
  get accepted(): View | null {
    return this.wanted.accepted;
  }
  get acceptedEpoch(): number {
    return this.wanted.accepted?.epoch ?? 0;
  }
  get durableTerm(): number {
    return this.durable.term;
  }
  get durableEpoch(): number {
    return this.durable.accepted?.epoch ?? 0;
  }

  change(change: Partial<SavedMembership>): void {
    this.wanted = { ...this.wanted, ...change };
    this.version++;
    this.saveNext();
  }

  /**
   * Runs the action when all changes made so far are on disk; at once if they are. While a disk hangs, heartbeats come
   * without end: of very many actions the oldest is dropped, whose election or heartbeat is over by then.
   */
  whenSaved(action: () => void): void {
    if (this.savedVersion === this.version) return action();
    this.waiting.push({ version: this.version, action });
    if (this.waiting.length > SAVE_WAITING_MAX) this.waiting.shift();
  }

  onSaved(token: number, ok: boolean): void {
    if (this.underWay?.token !== token) {
      this.context.count('membership.save.unknown');
      return;
    }
    const { version, state } = this.underWay;
    this.underWay = null;
    if (!ok) return this.again();
    this.durable = state;
    this.savedVersion = version;
    const due = this.waiting.filter((entry) => entry.version <= version);
    this.waiting = this.waiting.filter((entry) => entry.version > version);
    this.saveNext();
    for (const { action } of due) action();
  }

  private again(): void {
    this.context.count('membership.save.failed');
    this.isRetrying = true;
    this.context.timers.at(this.context.now() + SAVE_AGAIN_MICROS, () => {
      this.isRetrying = false;
      this.saveNext();
    });
  }

  private saveNext(): void {
    if (this.underWay !== null || this.isRetrying || this.savedVersion === this.version) return;
    this.token++;
    this.underWay = { token: this.token, version: this.version, state: this.wanted };
    this.context.emit({ kind: 'membership-save', token: this.token, state: this.wanted });
  }
}
