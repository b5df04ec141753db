/**
 * What smbds know of each other in runs in which daemons are killed while their smbds go on: each has an address, asks
 * whether others live, and tells them something. Checked: nobody who lives is called dead, and what is told to somebody
 * who lives arrives, at least once, unless the teller's own daemon was killed just then.
 */
import type { Micros } from '../../src/core/effects.js';
import type { Shared } from './shared.js';
import type { SimulatedServer } from './server.js';
import type { SimulatedSmbd, Steps } from './smbd.js';

/** A daemon that was killed so soon after it took a message may not have brought it across a bad wire. */
const UNDER_WAY_MICROS = 3_000_000;

interface Told {
  number: number;
  from: SimulatedSmbd;
  to: SimulatedSmbd;
  at: Micros;
  heard: number;
}

export class Neighbours {
  readonly totals = { asked: 0, told: 0, heard: 0, twice: 0 };
  private readonly living = new Map<SimulatedSmbd, bigint>();
  private readonly told: Told[] = [];

  constructor(
    private readonly fail: (rule: string, text: string) => void,
    /** Others have taken over what it had. */
    private readonly isLost: (server: SimulatedServer) => boolean,
    /** Servers have met so long after both have started; what is said before is lost, as it may be. */
    private readonly metMicros: Micros,
  ) {}

  *begin(smbd: SimulatedSmbd): Steps<void> {
    const srvid = 1_000_000_000n + BigInt(smbd.pid);
    yield* smbd.register(srvid);
    smbd.listen(srvid, (data) => this.heard(smbd, Buffer.from(data).readUInt32LE(0)));
    this.living.set(smbd, srvid);
  }

  died(smbd: SimulatedSmbd): void {
    this.living.delete(smbd);
  }

  /** Asks for, or tells something to, somebody who lives. */
  *meet({ prng }: Shared, smbd: SimulatedSmbd): Steps<void> {
    const [other, srvid] = prng.pick([...this.living]);
    if (prng.chance(0.5)) return this.tell(smbd, other, srvid);
    this.totals.asked++;
    // before it joins a server has no living processes for the others
    const wasMember = smbd.server.knowsMember(other.server.self);
    const isAlive = yield* smbd.asksWhetherAlive(other, prng.chance(0.5) ? srvid : null);
    if (isAlive || !wasMember || !this.living.has(other) || this.isGone(other)) return;
    this.fail('living-is-not-dead', `${smbd.name} hears that ${other.name}, which lives, is dead`);
  }

  private isGone({ server }: SimulatedSmbd): boolean {
    return server.dead || this.isLost(server);
  }

  private tell(from: SimulatedSmbd, to: SimulatedSmbd, srvid: bigint): void {
    const number = this.told.length;
    const at = from.time.now;
    if (at < Math.max(from.server.startedAt, to.server.startedAt) + this.metMicros) return;
    this.totals.told++;
    this.told.push({ number, from, to, at, heard: 0 });
    const data = Buffer.alloc(4);
    data.writeUInt32LE(number);
    from.say(`tells ${to.name} number ${number}`);
    from.sendMessage(to.server.self, srvid, data);
  }

  private heard(smbd: SimulatedSmbd, number: number): void {
    const told = this.told[number];
    if (told?.to !== smbd) return this.fail('message-is-for-us', `${smbd.name} hears number ${number}`);
    smbd.say(`hears number ${number}`);
    told.heard++;
    this.totals.heard++;
    if (told.heard > 1) this.totals.twice++;
  }

  /** All is quiet. */
  finish(): void {
    for (const { number, from, to, at, heard } of this.told) {
      if (heard > 0 || !this.living.has(to) || !this.living.has(from) || this.isGone(to) || this.isGone(from)) continue;
      const { killedAt } = from.server;
      if (from.server !== to.server && killedAt >= at && killedAt < at + UNDER_WAY_MICROS) continue;
      this.fail('message-arrives', `number ${number} of ${from.name} to ${to.name}, sent at ${at}, was never heard`);
    }
  }
}
