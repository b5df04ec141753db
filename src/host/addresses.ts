/**
 * Puts public addresses on this server's interfaces and removes them, through the addon, in libuv's threads. What is
 * there gets a lifetime, so that the kernel removes it when this process is stopped, stuck or dead. Used by PoolHost;
 * decides nothing: that is core/addresses.
 */
import { writeFileSync } from 'node:fs';
import type { AddressOutcome, AddressPlace, Effect, Micros } from '../core/effects.js';
import type { Log } from '../ports/log.js';
import type { PublicAddresses } from '../ports/public-addresses.js';
import { codeOf, messageOf } from './errors.js';
import { loadNative } from './native.js';

/** The core renews every second. Shorter than the kernel's own tick of a second would not be kept. */
const LIFETIME_SECONDS = 3;

export class InterfaceAddresses implements PublicAddresses {
  private readonly native = loadNative();
  /** What may be on an interface. */
  private readonly taken = new Map<string, AddressPlace>();
  private readonly underWay = new Set<Promise<unknown>>();
  private leaseUntil: Micros = 0;
  private saidThatConnectionsStay = false;

  /**
   * Removes what an earlier run left, before anything else can happen, but for what this run continues to have.
   * `onTaken` hears all that may be on an interface whenever that changes.
   */
  constructor(
    places: readonly AddressPlace[],
    private readonly log: Log,
    kept: readonly string[] = [],
    private readonly onTaken: (addresses: string[]) => void = () => undefined,
  ) {
    for (const name of new Set(places.map((place) => place.interface))) this.prepare(name);
    for (const place of places) {
      if (kept.includes(place.address)) this.taken.set(place.address, place);
      else if (this.remove(place)) log.log('warn', 'address.stale-removed', { ...place });
    }
  }

  take({ announce, tickle, ...where }: Extract<Effect, { kind: 'address-take' }>): Promise<AddressOutcome> {
    const place = placeOf(where);
    if (!this.taken.has(place.address)) {
      this.taken.set(place.address, place);
      this.onTaken([...this.taken.keys()]);
    }
    return this.tracked(async () => {
      try {
        const lease = { lifetimeSeconds: LIFETIME_SECONDS, deadlineMicros: this.leaseUntil };
        const why = await this.native.takeAddress({ ...place, ...lease, announce, tickle });
        const remedy = 'the address serves, but neighbours and clients may notice late; see why the interface refuses';
        if (why !== '') this.log.log('warn', 'address.announce-failed', { ...place, why, remedy });
        return { result: 'done' };
      } catch (error) {
        return codeOf(error) === 'ECANCELED' ? { result: 'late' } : { result: 'failed', why: messageOf(error) };
      }
    });
  }

  release(where: AddressPlace): Promise<AddressOutcome> {
    const place = placeOf(where);
    return this.tracked(async () => {
      try {
        const { ended, why } = await this.native.releaseAddress(place);
        this.taken.delete(place.address);
        this.onTaken([...this.taken.keys()]);
        this.log.log('info', 'address.released', { address: place.address, connectionsEnded: ended });
        if (why !== '') this.connectionsStay(why);
        return { result: 'done' };
      } catch (error) {
        return { result: 'failed', why: messageOf(error) };
      }
    });
  }

  setLease(until: Micros): void {
    this.leaseUntil = until;
  }

  removeNow(): void {
    for (const place of this.taken.values()) this.remove(place);
  }

  /** Nothing is taken after it. */
  async stop(): Promise<void> {
    this.leaseUntil = 0;
    this.removeNow();
    await Promise.all(this.underWay);
    this.removeNow();
  }

  private tracked(work: () => Promise<AddressOutcome>): Promise<AddressOutcome> {
    const done = work();
    this.underWay.add(done);
    void done.then(() => this.underWay.delete(done));
    return done;
  }

  private remove(place: AddressPlace): boolean {
    try {
      return this.native.removeAddress(placeOf(place));
    } catch (error) {
      const remedy = 'smbpoold needs CAP_NET_ADMIN; remove the address by hand: ip addr del';
      this.log.log('error', 'address.remove-failed', { ...place, why: messageOf(error), remedy });
      return false;
    }
  }

  /** Without it an interface loses all addresses of a network with the first of them. */
  private prepare(name: string): void {
    try {
      writeFileSync(`/proc/sys/net/ipv4/conf/${name}/promote_secondaries`, '1');
    } catch (error) {
      const remedy = 'check "interface" of "addresses" in the configuration, and that the interface is there';
      this.log.log('error', 'address.interface', { interface: name, why: messageOf(error), remedy });
    }
  }

  private connectionsStay(why: string): void {
    if (this.saidThatConnectionsStay) return;
    this.saidThatConnectionsStay = true;
    const remedy = 'smbd ends them itself when it is told; a kernel with CONFIG_INET_DIAG_DESTROY ends them at once';
    this.log.log('warn', 'address.connections-stay', { why, remedy });
  }
}

/** An effect's fields without the others. */
function placeOf({ address, prefixLength, interface: name }: AddressPlace): AddressPlace {
  return { address, prefixLength, interface: name };
}
