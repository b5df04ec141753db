/** Public addresses on this server's interfaces. Implemented by host/addresses over the addon, and by tests. */
import type { AddressOutcome, AddressPlace, Effect, Micros } from '../core/effects.js';

export interface PublicAddresses {
  /** Never rejects. */
  take(effect: Extract<Effect, { kind: 'address-take' }>): Promise<AddressOutcome>;
  /** Never rejects. */
  release(place: AddressPlace): Promise<AddressOutcome>;
  /** Until when this server may have addresses. */
  setLease(until: Micros): void;
  /** The process ends: nothing may stay. At once, without an answer. */
  removeNow(): void;
}
