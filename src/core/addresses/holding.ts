/**
 * A member's side: the addresses that this server has, brings up and lets go. Has nothing but what the newest table of
 * its view gives it, and only while the lease is valid. One effect at a time for each address; its outcome is an input.
 */
import { assert } from '../../base/assert.js';
import type { Connection } from '../../wire/address-messages.js';
import type { CoreContext } from '../context.js';
import type { AddressOutcome, AddressPlace, Micros } from '../effects.js';
import type { Timer } from '../timers.js';
import { ANNOUNCE_AGAIN_MICROS, REFUSED_MICROS, RENEW_MICROS, RETRY_MICROS } from './limits.js';

export interface HoldingEvents {
  /** What we may have, or could not take, is another. */
  changed(): void;
  /** It is on the interface now, and was not before. */
  taken(address: string): void;
  /** It is being taken: whose connections are to be tickled? */
  lost(address: string): Connection[];
  /** It is gone, or was to go: our processes must not serve it any more. */
  released(address: string): void;
}

interface Slot {
  readonly place: AddressPlace;
  /** The table gives it to us. */
  wanted: boolean;
  /** It is, or may be, on the interface. */
  present: boolean;
  /** It is there by the lease of the run that we continue. */
  isKept: boolean;
  inFlight: 'take' | 'release' | null;
  /** What failed is not tried before. */
  retryAt: Micros;
  refusedUntil: Micros;
  takenAt: Micros;
  /** How many announcements were made again. */
  announced: number;
  tickle: Connection[];
  timer: Timer | null;
}

export class Holding {
  private readonly slots = new Map<string, Slot>();

  constructor(
    private readonly context: CoreContext,
    places: readonly AddressPlace[],
    private readonly events: HoldingEvents,
  ) {
    const flags = { wanted: false, present: false, isKept: false };
    const empty = { ...flags, inFlight: null, retryAt: 0, refusedUntil: 0, takenAt: 0 };
    for (const place of places) {
      this.slots.set(place.address, { place, ...empty, announced: 0, tickle: [], timer: null });
    }
  }

  /** The run that we continue had put it on the interface: it stays unless a table, or the end of a lease, says no. */
  kept(address: string): void {
    const slot = this.slots.get(address);
    if (slot === undefined) return;
    slot.wanted = slot.present = slot.isKept = true;
    slot.announced = ANNOUNCE_AGAIN_MICROS.length;
  }

  /** The lease that allowed it is over by now. */
  endKept(): void {
    for (const slot of this.slots.values()) slot.isKept = false;
    this.settle();
  }

  /** What a table gives us. */
  want(addresses: ReadonlySet<string>): void {
    for (const [address, slot] of this.slots) slot.wanted = addresses.has(address);
    this.settle();
  }

  /** After a table, or when the lease ended or came back. */
  settle(): void {
    for (const slot of this.slots.values()) this.settleOne(slot);
  }

  has(): string[] {
    return this.those((slot) => slot.wanted || slot.present || slot.inFlight !== null);
  }

  refused(): string[] {
    return this.those((slot) => slot.refusedUntil > this.context.now());
  }

  isHere(address: string): boolean {
    const slot = this.slots.get(address);
    return slot?.present === true && slot.wanted;
  }

  onDone(address: string, what: 'take' | 'release', outcome: AddressOutcome): void {
    const slot = this.slots.get(address);
    assert(slot?.inFlight === what, `the ${what} of ${address} was asked for`);
    slot.inFlight = null;
    if (outcome.result === 'failed') this.failed(slot, what, outcome.why);
    else if (outcome.result === 'late') this.later(slot, this.context.now() + RETRY_MICROS);
    else if (what === 'take') this.taken(slot);
    else {
      slot.present = false;
      this.tellHost('address-released', slot.place);
    }
    if (what === 'release') this.events.released(address);
    this.settleOne(slot);
    this.events.changed();
  }

  private tellHost(event: 'address-taken' | 'address-released', place: AddressPlace): void {
    const { address, prefixLength, interface: name } = place;
    this.context.emit({ kind: 'event', event, fields: { address: `${address}/${prefixLength}`, interface: name } });
  }

  private those(accept: (slot: Slot) => boolean): string[] {
    return [...this.slots.values()].filter(accept).map(({ place }) => place.address);
  }

  private settleOne(slot: Slot): void {
    if (slot.inFlight !== null) return;
    if (slot.isKept) {
      // the former run's lease goes on
      if (this.context.isFenced()) return;
      slot.isKept = false;
      this.later(slot, this.context.now());
    }
    const wanted = slot.wanted && !this.context.isFenced();
    if (wanted === slot.present) return;
    const now = this.context.now();
    if (now < slot.retryAt) return this.later(slot, slot.retryAt);
    if (wanted) return this.take(slot);
    slot.timer?.cancel();
    slot.inFlight = 'release';
    this.context.count('address.released');
    this.context.log('info', 'address.release', { address: slot.place.address, fenced: this.context.isFenced() });
    this.context.emit({ kind: 'address-release', ...slot.place });
  }

  private take(slot: Slot): void {
    const { address } = slot.place;
    slot.tickle = this.events.lost(address);
    slot.takenAt = this.context.now();
    slot.announced = 0;
    this.context.count('address.taken');
    this.context.log('info', 'address.take', { address, interface: slot.place.interface, tickled: slot.tickle.length });
    this.emitTake(slot, true);
  }

  private emitTake(slot: Slot, announce: boolean): void {
    slot.inFlight = 'take';
    const tickle = announce ? slot.tickle : [];
    this.context.emit({ kind: 'address-take', ...slot.place, announce, tickle });
  }

  private taken(slot: Slot): void {
    const isNew = !slot.present;
    slot.present = true;
    slot.refusedUntil = 0;
    if (isNew) {
      this.events.taken(slot.place.address);
      this.tellHost('address-taken', slot.place);
    }
    const again = ANNOUNCE_AGAIN_MICROS[slot.announced];
    this.later(slot, again === undefined ? this.context.now() + RENEW_MICROS : slot.takenAt + again);
  }

  /** The time has come to try again, to announce again, or to say that it stays. */
  private onTimer(slot: Slot): void {
    slot.timer = null;
    if (slot.inFlight !== null) return;
    const stays = slot.present && slot.wanted && !this.context.isFenced();
    if (!stays) return this.settleOne(slot);
    const announce = slot.announced < ANNOUNCE_AGAIN_MICROS.length;
    this.emitTake(slot, announce);
    slot.announced += 1;
    if (!announce) slot.tickle = [];
  }

  private failed(slot: Slot, what: 'take' | 'release', error: string): void {
    const now = this.context.now();
    const { address } = slot.place;
    const isRenewal = what === 'take' && slot.present;
    // a renewal that failed must not keep it from being let go
    if (!isRenewal) slot.retryAt = now + RETRY_MICROS;
    if (what === 'take' && !isRenewal) {
      slot.refusedUntil = now + REFUSED_MICROS;
      this.context.timers.at(slot.refusedUntil, () => this.events.changed());
    }
    this.context.count(`address.${what}.failed`);
    const ipv6 = address.includes(':') ? ', has IPv6 (its disable_ipv6 is 0)' : '';
    const remedy =
      what === 'take'
        ? `see that the interface exists${ipv6} and is up, and that smbpoold has CAP_NET_ADMIN; another may have it`
        : `remove it by hand: ip addr del ${address}/${slot.place.prefixLength} dev ${slot.place.interface}`;
    this.context.log('error', `address.${what}-failed`, { ...slot.place, why: error, remedy });
    this.later(slot, now + RETRY_MICROS);
  }

  private later(slot: Slot, at: Micros): void {
    slot.timer?.cancel();
    slot.timer = this.context.timers.at(at, () => this.onTimer(slot));
  }
}
