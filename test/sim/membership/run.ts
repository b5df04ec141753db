/**
 * One simulated run of the membership: faults of all kinds for some seconds, then none; the pool must be whole within
 * a bound. Then, without other faults: a member falls silent, comes back, and the leader falls silent; how long the
 * others take to agree on a view without it is measured. Everything follows from the seed.
 */
import type { NodeId } from '../../../src/base/ids.js';
import { nodeId } from '../../../src/base/ids.js';
import { Prng } from '../../../src/base/prng.js';
import type { Micros } from '../../../src/core/effects.js';
import { MEMBERSHIP_LEASE_MICROS, NEW_MEMBER_LEASES } from '../../../src/core/membership/limits.js';
import type { View } from '../../../src/core/views.js';
import { decodeRegister } from '../../../src/wire/membership-register.js';
import type { ConfiguredServer } from '../../../src/wire/membership-state.js';
import { PERFECT_REGISTER, SimulatedRegister } from '../../support/simulated-register.js';
import { SimulatedTime } from '../../support/simulated-time.js';
import { PERFECT_WIRE, SimulatedWire } from '../../support/simulated-wire.js';
import { isWithin } from '../../../src/wire/protocol-version.js';
import { Announcements, RELEASES, announcementOf, otherRelease } from './releases.js';
import { Trace } from '../trace.js';
import type { Violation } from './checker.js';
import { MembershipChecker } from './checker.js';
import type { Settings } from './settings.js';
import type { StationWorld } from './station.js';
import { Station, describeView } from './station.js';

/** After the faults have stopped the pool is whole within this time: promises end, an election, two views. */
export const SETTLE_MICROS_MAX = 3_000_000;
/** The same for a pool some of whose links are cut: that a link of data is silent counts only after a while. */
const CUT_SETTLE_MICROS_MAX = 8_000_000;
const LOOK_MICROS = 10_000;
const WAIT_STEP_MICROS = 1_000;
/** Who has just started may have promised not to vote. */
const VOTES_AFTER_MICROS = 2 * MEMBERSHIP_LEASE_MICROS;
/** A server that is cut off for less than a lease loses nothing. */
const BLINK_MICROS_MAX = 200_000;
const QUIET_MICROS = 500_000;
/** A link that is silent is seen so on the stream of data only after this time. */
const LINK_SILENT_MICROS = 1_000_000;

/** Ways in which a server may be of no use to the others although something of it, or to it, gets through. */
const ONE_WAY = [
  { who: 'member', what: 'hears nobody' },
  { who: 'leader', what: 'hears nobody' },
  { who: 'member', what: 'is heard by nobody' },
  { who: 'leader', what: 'is heard by nobody' },
  { who: 'member', what: 'does not hear the leader' },
  { who: 'member', what: 'is not heard by the leader' },
] as const;

export interface Measured {
  formed: Micros[];
  settled: Micros[];
  memberSilent: Micros[];
  leaderSilent: Micros[];
  leaderCrashed: Micros[];
  /** How long some other server had no lease after that. */
  leaderFenced: Micros[];
  foreign: Micros[];
  memberContinued: Micros[];
  leaderContinued: Micros[];
  /** Links that are cut one way or the other, until those that can serve do. */
  cut: Micros[];
}

/** Nothing measured yet. */
export function noMeasured(): Measured {
  return {
    formed: [],
    settled: [],
    memberSilent: [],
    leaderSilent: [],
    leaderCrashed: [],
    leaderFenced: [],
    foreign: [],
    memberContinued: [],
    leaderContinued: [],
    cut: [],
  };
}

export interface RunResult {
  violations: Violation[];
  trace: Trace;
  measured: Measured;
  agreements: number;
  /** How often the pool's protocol rose. */
  raises: number;
}

class Run {
  private readonly time = new SimulatedTime();
  private readonly prng: Prng;
  private readonly releasePrng: Prng;
  private readonly trace = new Trace();
  private readonly wire: SimulatedWire;
  private readonly register: SimulatedRegister;
  private readonly all: Station[];
  /** For links that are cut, likewise. */
  private readonly cutsPrng: Prng;
  /** For changes of the servers, so that runs without them stay what they were. */
  private readonly serversPrng: Prng;
  private readonly checker: MembershipChecker;
  private readonly measured = noMeasured();
  private troubled = false;

  constructor(private readonly settings: Settings) {
    this.prng = new Prng(settings.seed ^ 0x5eed);
    this.releasePrng = new Prng(settings.seed ^ 0x0ff1ce);
    this.wire = new SimulatedWire(this.time, this.prng, PERFECT_WIRE);
    this.serversPrng = new Prng(settings.seed ^ 0x5e7ce);
    this.cutsPrng = new Prng(settings.seed ^ 0xc075);
    const count = settings.servers + (settings.witness ? 1 : 0);
    const servers = Array.from({ length: count }, (_, node): ConfiguredServer => {
      return { node: nodeId(node), role: node < settings.servers ? 'server' : 'witness', entry: `server ${node}` };
    });
    const spares = Array.from({ length: settings.spares ?? 0 }, (_, place): ConfiguredServer => {
      const node = nodeId(count + place);
      return { node, role: this.serversPrng.chance(0.2) ? 'witness' : 'server', entry: `spare ${node}` };
    });
    const serversOf = (node: NodeId): ConfiguredServer[] => [...servers, ...spares.filter((one) => one.node === node)];
    const nodes = servers.map(({ node }) => node);
    this.checker = new MembershipChecker(() => this.time.now, nodes, () => undefined);
    const { time, wire, prng, releasePrng, trace, checker } = this;
    const announcements = new Announcements();
    const register = new SimulatedRegister(time, new Prng(settings.seed ^ 0xe7cd), (value) => this.committed(value));
    this.register = register;
    const isUp = (node: NodeId): boolean => {
      const station = this.all[node];
      return station !== undefined && station.engine !== null && !station.isStopped;
    };
    const troubled = (): boolean => this.troubled;
    const world: StationWorld = {
      time, wire, prng, releasePrng, trace, checker, settings, serversOf, announcements, register, isUp, troubled,
    };
    this.all = [...servers, ...spares].map(({ node, role }) => new Station(world, node, role));
  }

  /** The pool's servers now, as agreed. */
  private get stations(): Station[] {
    const { counted, joining } = this.checker.servers.newest;
    return this.all.filter(({ self }) => counted.includes(self) || joining.includes(self));
  }

  private get spares(): Station[] {
    return this.all.filter((station) => !this.stations.includes(station));
  }

  simulate(): RunResult {
    try {
      this.play();
    } catch (error) {
      this.checker.fail('no-exception', (error as Error).stack ?? String(error));
    }
    const { trace, measured } = this;
    const { violations, agreements, versions } = this.checker;
    return { violations, trace, measured, agreements, raises: versions.raises };
  }

  private get isOnEtcd(): boolean {
    return this.settings.engine === 'etcd';
  }

  private committed(value: Uint8Array): void {
    const { term, leader, challenge, view } = decodeRegister(value);
    this.note(`register ${this.register.revision}: term ${term} of ${leader?.node}, challenged by ${challenge?.node}, `
      + (view === null ? 'no view' : describeView(view)));
    if (view !== null) this.checker.committed(view);
  }

  private play(): void {
    const isSlowStart = this.prng.chance(0.3);
    for (const station of this.stations) {
      if (isSlowStart) this.time.after(this.prng.below(1_000_000), () => station.start());
      else station.start();
    }
    if (this.prng.chance(0.3)) this.settle(this.measured.formed);
    this.makeTrouble();
    this.settle(this.measured.settled, true);
    if (this.failed) return;
    this.blink();
    this.leaderSleeps();
    if (this.stations.length >= 3) {
      this.silence('member');
      this.silence('leader');
      this.crashLeader();
      for (const shape of ONE_WAY) this.oneWay(shape);
      this.cutLinks();
    }
    if (this.isOnEtcd && this.stations.length === 2) {
      this.silence('member');
      this.crashLeader();
    }
    this.outage();
    this.leaderNaps();
    if (this.isOnEtcd) {
      this.etcdIsAway();
      this.leaderLosesEtcd();
    }
    this.upgradeAll();
    if (this.settings.resumes) {
      this.continued('member');
      this.continued('leader');
    }
    this.goBack();
    this.takeIn();
    this.takeOut();
  }

  /** While nothing else happens: a change of the servers fences nobody, and is done within a bound. */
  private changesTo(what: 'join' | 'leave', station: Station, staying: readonly Station[]): void {
    const { checker, serversPrng: prng, time } = this;
    const before = checker.servers.newest.number;
    const asked = prng.pick(staying);
    this.note(`${what} of ${station.self} while all is well`);
    if (what === 'join') this.askToJoin(asked, station);
    else asked.ask('leave', { node: station.self, role: station.role });
    const isLeader = station === this.leader();
    const until = time.now + SETTLE_MICROS_MAX;
    while (checker.servers.newest.number === before && time.now < until && !this.failed) {
      time.advance(LOOK_MICROS);
      // who leads is taken out by whoever is elected in its place
      if (isLeader) continue;
      this.expectServing(staying, what);
    }
    if (checker.servers.newest.number === before) checker.fail('changes-are-agreed', `${what} of ${station.self}`);
  }

  private expectServing(stations: readonly Station[], what: string): void {
    for (const station of stations) {
      if (station.role === 'witness' || station.trueTime(station.engine!.status().leaseUntil) > this.time.now) continue;
      this.checker.fail('changes-fence-nobody', `${station.self} has no lease during ${what}`);
    }
  }

  private takeIn(): void {
    const { settings, serversPrng: prng } = this;
    if (this.failed || settings.spares === null || this.spares.length === 0) return;
    const spare = prng.pick(this.spares);
    const staying = this.stations;
    if (spare.engine === null && prng.chance(0.5)) spare.recall();
    if (spare.engine !== null) {
      this.time.advance(SETTLE_MICROS_MAX);
      if (!spare.engine.status().isOutside) this.checker.fail('outsiders-are-told', `server ${spare.self}`);
    }
    this.changesTo('join', spare, staying);
    this.time.advance(prng.below(1_000_000));
    this.expectServing(staying, 'waiting for who joins');
    this.settle([]);
  }

  private takeOut(): void {
    const { settings, serversPrng: prng } = this;
    if (this.failed || settings.spares === null) return;
    this.time.advance(NEW_MEMBER_LEASES * MEMBERSHIP_LEASE_MICROS);
    const servers = this.stations.filter(({ role }) => role === 'server');
    const station = prng.pick(this.stations);
    if (servers.length === 1 && station.role === 'server') return;
    const staying = this.stations.filter((other) => other !== station);
    const isDead = prng.chance(0.5) && 2 * staying.length > this.stations.length;
    if (isDead) {
      station.retire();
      this.time.advance(2 * SETTLE_MICROS_MAX);
    }
    this.changesTo('leave', station, staying);
    this.settle([]);
    if (isDead) station.recall();
    this.time.advance(SETTLE_MICROS_MAX);
    if (this.failed) return;
    if (station.engine?.status().isOutside !== true) this.checker.fail('outsiders-are-told', `server ${station.self}`);
    this.settle([]);
  }

  /** Killed, and continued within a fraction of a lease: its run goes on, and nobody else's ends. */
  private continued(who: 'member' | 'leader'): void {
    const station = this.pickWhenCalm(who, this.releasePrng);
    if (station === null) return;
    const wanted = this.stations.map(({ self, incarnation }) => {
      return `${self}/${incarnation + (self === station.self ? 1 : 0)}`;
    });
    const from = this.time.now;
    this.note(`${who} ${station.self} is killed and continued`);
    station.kill(5_000 + this.releasePrng.below(60_000));
    const serves = (): boolean =>
      station.engine !== null && station.trueTime(station.engine.status().leaseUntil) > this.time.now;
    while (!serves() && this.time.now - from < SETTLE_MICROS_MAX) this.time.advance(1_000);
    (who === 'leader' ? this.measured.leaderContinued : this.measured.memberContinued).push(this.time.now - from);
    this.settle([]);
    this.expectRuns('continued-runs-go-on', wanted.join(' '));
    const member = this.checker.newest?.members.find(({ node }) => node === station.self);
    if (!this.failed && member?.resumes === undefined) this.checker.fail('view-says-who-continues', `${station.self}`);
  }

  /** All are fenced until it is back, and nobody is left out for it. */
  private etcdIsAway(): void {
    if (this.failed) return;
    this.time.advance(QUIET_MICROS);
    const before = this.runs();
    this.note('etcd is away');
    this.register.isAway = true;
    this.time.advance(2 * MEMBERSHIP_LEASE_MICROS + this.prng.below(10 * MEMBERSHIP_LEASE_MICROS));
    for (const station of this.stations) {
      const { leaseUntil } = station.engine!.status();
      if (station.trueTime(leaseUntil) > this.time.now) this.checker.fail('no-lease-without-etcd', `${station.self}`);
    }
    this.register.isAway = false;
    this.note('etcd is back');
    this.settle([]);
    this.expectRuns('etcd-away-leaves-nobody-out', before);
  }

  /** Another takes the lead, and leaves nobody out. */
  private leaderLosesEtcd(): void {
    if (this.failed || this.stations.length < 2) return;
    this.time.advance(NEW_MEMBER_LEASES * MEMBERSHIP_LEASE_MICROS);
    const before = this.runs();
    const leader = this.leader();
    this.note(`${leader.self} does not reach etcd`);
    this.register.setCut([leader.self]);
    this.time.advance(5 * MEMBERSHIP_LEASE_MICROS);
    const leads = this.others(leader.self).filter(({ engine }) => engine?.status().role === 'leader');
    if (leads.length !== 1) this.checker.fail('another-leads', `${leads.length} others lead`);
    this.settle([]);
    this.register.setCut([]);
    this.time.advance(QUIET_MICROS);
    this.settle([]);
    this.expectRuns('etcd-lost-by-one-leaves-nobody-out', before);
  }

  private get failed(): boolean {
    return this.checker.violations.length > 0;
  }

  // --- faults

  private makeTrouble(): void {
    const { settings, time, prng } = this;
    this.troubled = true;
    this.wire.faults = settings.wire;
    this.register.faults = settings.register;
    const end = time.now + settings.faultMicros;
    while (time.now < end && !this.failed) {
      time.advance(1 + prng.below(2 * settings.troubleMicros));
      if (settings.release !== null && this.releasePrng.chance(0.5)) this.changeRelease();
      else if (this.isOnEtcd && prng.chance(0.25)) this.oneTroubleOfEtcd();
      else if (settings.spares !== null && this.serversPrng.chance(0.4)) this.changeServers();
      else this.oneTrouble();
    }
    this.troubled = false;
    this.register.faults = PERFECT_REGISTER;
    this.register.isAway = false;
    this.register.setCut([]);
    this.trace.add(time.now, () => 'faults stop');
    this.wire.faults = PERFECT_WIRE;
    this.wire.heal();
    if (settings.release !== null) this.finishUpgrade();
    for (const station of this.all) {
      station.hearsNot([]);
      station.willing = true;
      station.input(() => station.engine?.setWilling(true));
    }
  }

  private oneTroubleOfEtcd(): void {
    const { prng, register } = this;
    register.isAway = prng.chance(0.2);
    const cut = this.stations.filter(() => prng.chance(0.3)).map(({ self }) => self);
    register.setCut(cut);
    this.note(`etcd ${register.isAway ? 'is away' : `is not reached by ${cut.join(' ')}`}`);
  }

  private oneTrouble(): void {
    const { prng, wire, stations } = this;
    const station = prng.pick(stations);
    const other = prng.pick(stations);
    if (this.settings.resumes && this.releasePrng.chance(0.3)) return station.kill(station.killMicros());
    switch (prng.below(11)) {
      case 0:
        return station.crash(prng.chance(0.5) ? 1 + prng.below(5_000) : null);
      case 1:
        return station.stop(1_000 + prng.below(prng.pick([100_000, 800_000])));
      case 2:
        this.note(`${station.self} is cut off`);
        return wire.isolate(station.self, this.all.map(({ self }) => self));
      case 3:
        this.note(`cut ${station.self} > ${other.self}`);
        return wire.cut(station.self, other.self);
      case 4:
        return this.split();
      case 5:
        this.note(`${station.self} does not hear ${other.self} on the link`);
        return station.hearsNot(prng.chance(0.5) ? [] : [other.self]);
      case 6:
        station.willing = prng.chance(0.5);
        this.note(`${station.self} is ${station.willing ? '' : 'un'}willing`);
        return station.input(() => station.engine?.setWilling(station.willing));
      case 8:
        return station.leave();
      case 7:
        return this.loseThePromiser(station, other);
      default:
        this.note('the wire is whole');
        return wire.heal();
    }
  }

  /** A person takes a server in or out, or does what people do with those that are out. */
  private changeServers(): void {
    const { serversPrng: prng, stations, spares } = this;
    const asked = prng.pick(stations);
    const spare = spares.length === 0 ? null : prng.pick(spares);
    if (spare !== null && prng.chance(0.3)) {
      this.note(`${spare.self}, which is none of the pool, is ${spare.engine === null ? 'started' : 'stopped'}`);
      return spare.engine === null ? spare.recall() : spare.retire();
    }
    if (spare !== null && prng.chance(0.6)) return this.askToJoin(asked, spare);
    const station = prng.pick(stations);
    if (prng.chance(0.3)) {
      this.note(`${station.self} is dead, and taken out`);
      station.crash(MEMBERSHIP_LEASE_MICROS + prng.below(2_000_000));
    }
    asked.ask('leave', { node: station.self, role: station.role });
  }

  private askToJoin(asked: Station, { self, role }: Station): void {
    asked.ask('join', { node: self, role, entry: `spare ${self}` });
  }

  /** Who is in the pool is started; who is not is left as it is. */
  private startServers(): void {
    for (const station of this.stations) if (station.engine === null) station.recall();
  }

  private changeRelease(): void {
    const station = this.releasePrng.pick(this.stations);
    const release = otherRelease(station.release, this.releasePrng);
    station.install(release, this.releasePrng.chance(0.7) ? 1 + this.releasePrng.below(50_000) : null);
  }

  /** The highest protocol that anybody wrote down: servers that cannot speak it have to be upgraded. */
  private protocolAnywhere(): number {
    return Math.max(1, ...this.stations.map((station) => station.protocolOnDisk));
  }

  /** People end what they began: all get the newest release that they wanted, but sometimes one is forgotten. */
  private finishUpgrade(): void {
    const protocol = this.protocolAnywhere();
    const release = Math.min(RELEASES, protocol + this.releasePrng.below(2));
    const forgotten = this.releasePrng.chance(0.3) ? this.releasePrng.pick(this.stations) : null;
    for (const station of this.stations) {
      const wanted = station === forgotten ? protocol : release;
      if (station.release !== wanted) station.install(wanted, 1_000);
    }
  }

  /** A raise that was under way when its release was chosen leaves a server foreign: its status says so. */
  private heedStatus(): void {
    if (this.settings.release === null) return;
    const protocol = this.protocolAnywhere();
    for (const station of this.stations) {
      if (!isWithin(announcementOf(station.release).speaks, protocol)) station.install(protocol, 1_000);
    }
  }

  /** The highest that all configured servers speak. */
  private protocolWanted(): number {
    return Math.min(...this.stations.map(({ release }) => release));
  }

  /** Two do not hear each other for a while; then a third, on whom one of them relies, forgets all but its disk. */
  private loseThePromiser(a: Station, b: Station): void {
    this.note(`cut ${a.self} - ${b.self}`);
    this.wire.cut(a.self, b.self);
    this.wire.cut(b.self, a.self);
    this.time.after(2 * MEMBERSHIP_LEASE_MICROS, () => {
      if (!this.troubled) return;
      for (const station of this.stations) if (station !== a && station !== b) station.crash(1_000);
    });
  }

  private note(text: string): void {
    this.trace.add(this.time.now, () => text);
  }

  private split(): void {
    const sides = this.stations.map(() => this.prng.chance(0.5));
    const oneWay = this.prng.chance(0.3);
    this.note(`cut into ${sides.map((side) => (side ? 'a' : 'b')).join('')}${oneWay ? ', one way' : ''}`);
    for (const [i, a] of this.stations.entries()) {
      for (const [j, b] of this.stations.entries()) {
        if (sides[i] !== sides[j] && (!oneWay || sides[i] === true)) this.wire.cut(a.self, b.self);
      }
    }
  }

  // --- after the faults

  /** Why the pool is not whole: one leader, one view of all servers, everybody installed it and may serve. */
  private broken(): string | null {
    const view = this.checker.newest;
    if (view === null) return 'no view';
    for (const { self, role, engine, incarnation, isStopped, isLeaving } of this.stations) {
      if (engine === null || isStopped || isLeaving) return `${self} is not up`;
      if (role === 'witness') continue;
      const status = engine.status();
      if (view.members.find(({ node }) => node === self)?.incarnation !== incarnation) return `${self} is no member`;
      if (status.view?.epoch !== view.epoch) return `${self} did not install the newest view`;
    }
    for (const station of this.stations) {
      if (station.role === 'witness') continue;
      if (station.trueTime(station.engine!.status().leaseUntil) <= this.time.now) return `${station.self} has no lease`;
    }
    const leaders = this.stations.filter(({ engine }) => engine?.status().role === 'leader');
    if (leaders.length !== 1 || leaders[0]!.self !== view.leader) return `${leaders.length} lead`;
    if (this.stations.some(({ isAsked }) => isAsked)) return 'a change of the servers is under way';
    const { joining } = this.checker.servers.newest;
    if (joining.length > 0) return `${joining.join()} does not count yet`;
    if (view.protocol !== this.protocolWanted()) return `protocol ${view.protocol}, not ${this.protocolWanted()}`;
    if (leaders[0]!.engine!.status().leaving.length > 0) return 'somebody is about to be left out';
    return null;
  }

  private settle(into: Micros[], heedsStatus = false): void {
    const from = this.time.now;
    // what the last fault left: a process stopped or dead for up to 1.5 s, a save of up to 1 s
    const bound = SETTLE_MICROS_MAX + 1_500_000;
    let ready = from;
    while (this.broken() !== null) {
      if (this.failed) return;
      if (heedsStatus) this.heedStatus();
      if (this.settings.spares !== null) this.startServers();
      const isUp = this.stations.every(({ engine, isStopped, isLeaving }) => {
        return engine !== null && !isStopped && !isLeaving;
      });
      if (!isUp) ready = this.time.now;
      if (this.time.now - from > bound) {
        this.checker.fail('settles', `${this.broken()} after ${(this.time.now - from) / 1000} ms`);
        return;
      }
      this.time.advance(LOOK_MICROS);
    }
    into.push(Math.max(0, this.time.now - ready));
  }

  private leader(): Station {
    return this.stations.find(({ engine }) => engine?.status().role === 'leader')!;
  }

  private others(node: NodeId): Station[] {
    return this.stations.filter(({ self, role }) => self !== node && role === 'server');
  }

  private cutOff(station: Station): void {
    this.wire.isolate(station.self, this.all.map(({ self }) => self));
  }

  /** A server that is cut off or stopped for less than a lease changes nothing at all. */
  private blink(): void {
    const leader = this.leader();
    const candidates = this.others(leader.self);
    if (candidates.length === 0 || this.stations.length < 3) return;
    // what was said before the faults stopped is heard and done with
    this.time.advance(QUIET_MICROS);
    const { term } = leader.engine!.status();
    const view = this.checker.newest;
    const station = this.prng.pick(candidates);
    this.note(`${station.self} blinks`);
    if (this.prng.chance(0.5)) this.cutOff(station);
    else station.stop(1 + this.prng.below(BLINK_MICROS_MAX));
    this.time.advance(1 + this.prng.below(BLINK_MICROS_MAX));
    this.wire.heal();
    this.time.advance(QUIET_MICROS);
    this.expectSame(term, 'after a blink');
    if (this.checker.newest !== view) this.checker.fail('blink-changes-nothing', `${station.self} was left out`);
  }

  /** Of two servers that need each other, one that slept must not leave the other out for its own silence. */
  private leaderSleeps(): void {
    // on etcd one of two takes over from the other
    if (this.failed || this.stations.length !== 2 || this.isOnEtcd) return;
    const before = this.runs();
    const micros = MEMBERSHIP_LEASE_MICROS + this.prng.below(2 * MEMBERSHIP_LEASE_MICROS);
    // one that has just joined is waited for so long anyway
    if (micros % 2 === 1) this.time.advance(NEW_MEMBER_LEASES * MEMBERSHIP_LEASE_MICROS);
    this.leader().stop(micros);
    this.time.advance(3 * MEMBERSHIP_LEASE_MICROS);
    this.settle([]);
    this.expectRuns('sleepers-leave-nobody-out', before);
  }

  private expectSame(term: number, when: string): void {
    const is = Math.max(...this.stations.map(({ engine }) => engine?.status().term ?? 0));
    if (is !== term) this.checker.fail('returning-changes-no-leader', `term ${term} became ${is} ${when}`);
  }

  /** Until a view that does not name the run is agreed and somebody may serve under it. */
  private waitWithout(lost: { node: NodeId; incarnation: number }, into: Micros[]): void {
    const from = this.time.now;
    const isOut = (view: View | null): boolean =>
      view !== null && !view.members.some((run) => run.node === lost.node && run.incarnation === lost.incarnation);
    const serves = (station: Station): boolean =>
      isOut(station.engine?.status().view ?? null)
      && station.trueTime(station.engine!.status().leaseUntil) > this.time.now;
    let fenced = 0;
    while (!this.others(lost.node).some(serves)) {
      if (!this.others(lost.node).every((station) => this.isLeased(station))) fenced += WAIT_STEP_MICROS;
      if (this.time.now - from > SETTLE_MICROS_MAX) {
        this.checker.fail('silent-are-left-out', `${lost.node} is still in after ${SETTLE_MICROS_MAX / 1000} ms`);
        return;
      }
      this.time.advance(WAIT_STEP_MICROS);
    }
    into.push(this.time.now - from);
    if (into !== this.measured.leaderSilent && into !== this.measured.leaderCrashed) return;
    this.measured.leaderFenced.push(fenced);
    const canVote = this.stations.every(({ self, startedAt }) => {
      return self === lost.node || from - startedAt > VOTES_AFTER_MICROS;
    });
    if (fenced > 0 && canVote && this.isQuickVoting) {
      this.checker.fail('a-lost-leader-fences-nobody', `others had no lease for ${fenced / 1000} ms`);
    }
  }

  private isLeased(station: Station): boolean {
    const { engine } = station;
    return engine !== null && station.trueTime(engine.status().leaseUntil) > this.time.now;
  }

  /** Votes and a view are on disk, and agreed, well before the leases of the leader before are over. */
  private get isQuickVoting(): boolean {
    const { saveMicrosMax, slowSaveProbability, failedSaveProbability } = this.settings;
    return !this.isOnEtcd && saveMicrosMax <= 5_000 && slowSaveProbability === 0 && failedSaveProbability === 0;
  }

  /** Whom something is to happen to, when nobody is new any more: a new member is waited for longer. */
  private pickWhenCalm(who: 'member' | 'leader', prng: Prng): Station | null {
    if (this.failed) return null;
    this.time.advance(NEW_MEMBER_LEASES * MEMBERSHIP_LEASE_MICROS + prng.below(100_000));
    const leader = this.leader();
    const candidates = who === 'leader' ? [leader] : this.others(leader.self);
    return candidates.length === 0 ? null : prng.pick(candidates);
  }

  private silence(who: 'member' | 'leader'): void {
    const station = this.pickWhenCalm(who, this.prng);
    if (station === null) return;
    const { term } = this.leader().engine!.status();
    this.note(`${who} ${station.self} falls silent`);
    this.cutOff(station);
    const into = who === 'leader' ? this.measured.leaderSilent : this.measured.memberSilent;
    if (this.others(station.self).length > 0) {
      this.waitWithout({ node: station.self, incarnation: station.incarnation }, into);
    }
    this.time.advance(this.prng.below(2 * MEMBERSHIP_LEASE_MICROS));
    if (who === 'member') this.expectSame(term, 'while a member was away');
    this.wire.heal();
    this.settle([]);
    if (who === 'member' && !this.failed) this.expectSame(term, 'when a member returned');
  }

  /** Frames get through in one direction only: whoever cannot serve with the others is left out like a silent one. */
  private oneWay({ who, what }: (typeof ONE_WAY)[number]): void {
    const station = this.pickWhenCalm(who, this.cutsPrng);
    if (station === null) return;
    const leader = this.leader();
    const { term } = leader.engine!.status();
    this.note(`${who} ${station.self} ${what}`);
    for (const { self } of this.all) {
      if (self === station.self || (what.includes('leader') && self !== leader.self)) continue;
      if (what.includes('not hear') || what === 'hears nobody') this.wire.cut(self, station.self);
      else this.wire.cut(station.self, self);
    }
    const lost = { node: station.self, incarnation: station.incarnation };
    if (this.others(station.self).length > 0) this.waitWithout(lost, this.measured.cut);
    this.time.advance(this.cutsPrng.below(4 * MEMBERSHIP_LEASE_MICROS));
    if (who === 'member' && !this.isOnEtcd) this.expectSame(term, `while a member ${what}`);
    this.wire.heal();
    this.settle([]);
  }

  /** Links are cut at random, one way or both, and stay so: those that can serve together do, and go on doing so. */
  private cutLinks(): void {
    if (this.failed) return;
    const { cutsPrng: prng, wire, time } = this;
    time.advance(NEW_MEMBER_LEASES * MEMBERSHIP_LEASE_MICROS);
    const share = prng.pick([0.1, 0.2, 0.4]);
    const isBothWays = prng.chance(0.3);
    for (const { self } of this.all) {
      for (const { self: other } of this.all) {
        if (self === other || (isBothWays && self > other) || !prng.chance(share)) continue;
        this.note(`cut ${self} > ${other}${isBothWays ? ', both ways' : ''}`);
        wire.cut(self, other);
        if (isBothWays) wire.cut(other, self);
      }
    }
    time.after(LINK_SILENT_MICROS, () => this.hearWhatIsHeard());
    if (this.hasHub) {
      const from = time.now;
      while (this.unserved() !== null && time.now - from < CUT_SETTLE_MICROS_MAX) time.advance(LOOK_MICROS);
      const why = this.unserved();
      if (why !== null) this.checker.fail('cut-pools-serve', why);
      this.measured.cut.push(time.now - from);
      // who was left out starts anew and may try to come back for a moment
      time.advance(SETTLE_MICROS_MAX);
      this.expectStays();
    }
    wire.heal();
    this.hearWhatIsHeard();
    this.settle([]);
  }

  private expectStays(): void {
    const view = this.checker.newest;
    const until = this.time.now + SETTLE_MICROS_MAX;
    while (this.time.now < until && !this.failed) {
      this.time.advance(LOOK_MICROS);
      const why = this.checker.newest === view ? this.unserved() : 'another view was agreed';
      if (why !== null) this.checker.fail('cut-pools-go-on', why);
    }
  }

  private hearWhatIsHeard(): void {
    for (const station of this.stations) {
      station.hearsNot(this.others(station.self).map(({ self }) => self).filter((other) => {
        return this.wire.isCut(other, station.self);
      }));
    }
  }

  private isBetween(a: NodeId, b: NodeId): boolean {
    return a === b || !(this.wire.isCut(a, b) || this.wire.isCut(b, a));
  }

  /** Somebody could lead: it and a majority hear each other. */
  private get hasHub(): boolean {
    const all = this.stations;
    return all.some(({ self, role }) => {
      return role === 'server' && 2 * all.filter((other) => this.isBetween(self, other.self)).length > all.length;
    });
  }

  /** Why a pool with cut links does not serve as it should: all members serve, and hear each other. */
  private unserved(): string | null {
    const members = this.checker.newest?.members ?? [];
    for (const { node, incarnation } of members) {
      const station = this.all[node]!;
      if (station.incarnation !== incarnation) return `${node} is a member, and runs anew`;
      if (!this.isLeased(station)) return `${node} is a member without a lease`;
      const unheard = members.find((other) => !this.isBetween(node, other.node));
      if (unheard !== undefined) return `${node} and ${unheard.node} do not hear each other, and are members`;
    }
    return members.length === 0 ? 'no members' : null;
  }

  /** The switch is away for a while and comes back: all are alive, so nobody is left out for the silence of all. */
  private outage(): void {
    // on etcd one of two goes on alone, and whose network it is nobody knows
    if (this.failed || (this.isOnEtcd && this.stations.length === 2)) return;
    this.time.advance(NEW_MEMBER_LEASES * MEMBERSHIP_LEASE_MICROS);
    const before = this.runs();
    this.note('the switch is away');
    for (const station of this.stations) this.cutOff(station);
    this.time.advance(3 * MEMBERSHIP_LEASE_MICROS + this.prng.below(10 * MEMBERSHIP_LEASE_MICROS));
    const others = (node: NodeId): NodeId[] => this.others(node).map(({ self }) => self);
    for (const station of this.stations) station.hearsNot(others(station.self));
    this.wire.heal();
    this.note('the switch is back');
    // the links are heard again a little later than the membership
    for (const station of this.stations) this.time.after(this.prng.below(500_000), () => station.hearsNot([]));
    this.settle([]);
    this.expectRuns('outage-leaves-nobody-out', before);
  }

  /** A leader that sleeps for less than a lease finds answers waiting: it reads them before it judges. */
  private leaderNaps(): void {
    if (this.failed || this.stations.length < 3) return;
    const leader = this.leader();
    const victim = this.others(leader.self)[0];
    if (victim === undefined) return;
    this.time.advance(NEW_MEMBER_LEASES * MEMBERSHIP_LEASE_MICROS);
    const before = this.runs();
    this.note(`some answers of ${victim.self} are lost, then the leader naps`);
    this.wire.cut(victim.self, leader.self);
    this.time.advance(0.35 * MEMBERSHIP_LEASE_MICROS);
    leader.stop(0.75 * MEMBERSHIP_LEASE_MICROS);
    this.wire.heal();
    this.time.advance(2 * MEMBERSHIP_LEASE_MICROS);
    this.settle([]);
    this.expectRuns('naps-leave-nobody-out', before);
  }

  private runs(): string {
    return this.stations.map(({ self, incarnation }) => `${self}/${incarnation}`).join(' ');
  }

  private expectRuns(rule: string, before: string): void {
    if (!this.failed && this.runs() !== before) this.checker.fail(rule, `${before} became ${this.runs()}`);
  }

  /** Server after server gets the next release: the protocol is as before until the last, and rises then. */
  private upgradeAll(): void {
    if (this.failed || this.settings.release === null) return;
    const before = this.checker.newest!.protocol;
    for (const station of this.stations) {
      if (station.release === RELEASES || station.release > before) continue;
      station.install(before + 1, 1 + this.releasePrng.below(100_000));
      this.settle([]);
      if (this.failed) return;
    }
  }

  /** One gets the release of before, which does not speak the pool's protocol: it is out, and the others go on. */
  private goBack(): void {
    if (this.failed || this.settings.release === null) return;
    const { protocol } = this.checker.newest!;
    const servers = this.stations.filter(({ role }) => role === 'server');
    if (protocol === 1 || servers.length === 1) return;
    const station = this.releasePrng.pick(servers);
    const { release } = station;
    const old = { node: station.self, incarnation: station.incarnation as number };
    station.install(protocol - 1, 10_000);
    this.waitWithout(old, this.measured.foreign);
    this.time.advance(SETTLE_MICROS_MAX);
    if (this.failed) return;
    if (this.checker.newest!.members.some(({ node }) => node === station.self)) {
      this.checker.fail('foreign-are-out', `server ${station.self}`);
    }
    for (const other of this.others(station.self)) {
      const until = other.engine?.status().leaseUntil ?? 0;
      if (other.trueTime(until) > this.time.now) continue;
      this.checker.fail('others-go-on', `server ${other.self} does not serve without ${station.self}`);
    }
    station.install(release, 10_000);
    this.settle([]);
  }

  private crashLeader(): void {
    if (this.failed) return;
    this.time.advance(this.prng.below(100_000));
    const leader = this.leader();
    const lost = { node: leader.self, incarnation: leader.incarnation as number };
    leader.crash(this.prng.pick([10_000, 1_000_000]));
    if (this.others(lost.node).length > 0) this.waitWithout(lost, this.measured.leaderCrashed);
    this.settle([]);
  }
}

export function simulate(settings: Settings): RunResult {
  return new Run(settings).simulate();
}

/** "median 0 ms, max 0 ms of 0". */
export function describeTimes(times: readonly Micros[]): string {
  if (times.length === 0) return 'none';
  const sorted = [...times].sort((a, b) => a - b);
  const ms = (micros: Micros): string => (micros / 1000).toFixed(0);
  const at = (share: number): string => ms(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!);
  return `median ${at(0.5)} ms, 99% ${at(0.99)} ms, max ${ms(sorted.at(-1)!)} ms (${sorted.length} times)`;
}

export function describeMeasured(measured: Measured): string[] {
  return [
    `a pool formed: ${describeTimes(measured.formed)}`,
    `whole again after faults: ${describeTimes(measured.settled)}`,
    `a silent member to others serving without it: ${describeTimes(measured.memberSilent)}`,
    `a silent leader to others serving without it: ${describeTimes(measured.leaderSilent)}`,
    `a crashed leader to others serving without its run: ${describeTimes(measured.leaderCrashed)}`,
    `a killed member until the run that continues it serves: ${describeTimes(measured.memberContinued)}`,
    `a killed leader until the run that continues it serves: ${describeTimes(measured.leaderContinued)}`,
    `links cut, one way or both, to those that can serving: ${describeTimes(measured.cut)}`,
    `others without a lease then: ${describeTimes(measured.leaderFenced)}`,
    `a server that went back a release to others serving without it: ${describeTimes(measured.foreign)}`,
  ];
}
