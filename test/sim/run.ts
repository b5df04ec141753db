/**
 * One simulated run: builds a pool from its settings, lets smbds work while faults happen, stops the faults, waits
 * until everything is answered, deletes every record and looks whether anything is left. Everything follows from the
 * seed.
 */
import type { DatabaseId, Incarnation, NodeId, RecordKey } from '../../src/base/ids.js';
import { nodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import type { Micros, RecordOp } from '../../src/core/effects.js';
import { databaseIdOf } from '../../src/base/jenkins.js';
import { SimulatedTime } from '../support/simulated-time.js';
import { PERFECT_WIRE, SimulatedWire } from '../support/simulated-wire.js';
import { describeFrame, describeKey, isDataFrame } from '../support/describe.js';
import type { Violation } from './checker.js';
import { Checker } from './checker.js';
import { FolderChecker } from './folder-checker.js';
import { FolderWorld, openFolders, simulatedExcluder } from './folders.js';
import { LeaseChecker } from './lease-checker.js';
import { LeaseWorld } from './lease-world.js';
import { leaseKey } from './leases.js';
import { PinChecker } from './pin-checker.js';
import type { NodeFactory, NodeOptions, ServerWorld, Successor } from './server.js';
import { SimulatedServer } from './server.js';
import type { Settings } from './settings.js';
import { SimulatedSmbd } from './smbd.js';
import type { SimulatedStore } from './store.js';
import { Trace } from './trace.js';
import type { Shared } from './shared.js';
import { MEMBERSHIP_HEARTBEAT_MICROS, MEMBERSHIP_LEASE_MICROS } from '../../src/core/membership/limits.js';
import type { View } from '../../src/core/views.js';
import { isSameRun } from '../../src/core/views.js';
import type { MembershipSettings } from '../../src/core/node.js';
import type { Announcement } from '../../src/wire/protocol-version.js';
import { FOLDERS_PROTOCOL, RESUMING_PROTOCOL } from '../../src/wire/protocol-version.js';
import type { SavedMembership } from '../../src/wire/membership-state.js';
import { announcementOf } from './membership/releases.js';
import { DrainWorld } from './drains.js';
import { Neighbours } from './neighbours.js';
import { ViewOracle } from './view-oracle.js';
import { WatchChecker } from './watch-checker.js';
import { WatchWorld, watch } from './watches.js';
import { SimulatedNotifyd } from './notifyd.js';
import { deleteAll, live, look } from './workload.js';

/** After the faults have stopped everything must be answered within this time. */
const SETTLE_MICROS_MAX = 20_000_000;
/** A daemon that was stuck runs again, links that went down are up again, and all that waited has been sent. */
const ANNOUNCE_MICROS = 2_000_000;
/** For backups that were lost to be made anew. */
const MIRROR_MICROS = 500_000;
/** After the last deletion nothing may be left after this time (core/records/deletions lingers up to 5 s per look). */
const EMPTY_MICROS_MAX = 30_000_000;
/** Steps of virtual time after which it is looked whether all is done. */
const LOOK_MICROS = 200_000;
/** Records once stored empty are looked at again after this time (core/records/deletions), even if long gone. */
const LOOKS_AGAIN_MICROS = 7_000_000;
/** Ticks in a quiet second: twenty heartbeats, and some slack for a straggler. */
const QUIET_TICKS_MAX = 25;
/** The engine of membership has heartbeats of its own. */
const MEMBERSHIP_TICKS_MAX = 100;

/** Where a kill may tear apart what belongs together. */
const KILLED_AT = ['erase', 'erase', 'give', 'take', 'share', 'discard'] as const;

/** From the start of a daemon until it has met the others, over a good wire and a bad one. */
const MET_MICROS = 30_000;
const BADLY_MET_MICROS = 300_000;

/** A run is short. */
const FOLDER_TERMS = { opens: 3, often: 8_000, rest: 10_000, calm: 300_000, exclude: 1_000_000 };
const FOLDER_USERS_PER_SERVER = 2;
const FOLDER_USER_INDEX = 70;

const WATCHERS_PER_SERVER = 2;
/** Apart from those of the other smbds. */
const WATCHER_INDEX = 50;
/** smbd serves when its notifyd does. */
const WATCHER_START_MICROS = 500;
/** Beyond it a server may seem silent although it is not. */
const WATCHES_LOSS_MAX = 0.1;

export interface RunResult {
  violations: Violation[];
  trace: Trace;
  /** One line of numbers. */
  summary: string;
}

class Run {
  private readonly time = new SimulatedTime();
  private readonly prng: Prng;
  private readonly trace = new Trace();
  private readonly wire: SimulatedWire;
  private readonly servers: SimulatedServer[] = [];
  private readonly checker: Checker;
  private readonly leaseChecker: LeaseChecker;
  private readonly watchChecker: WatchChecker;
  private readonly folderChecker: FolderChecker;
  private readonly drains: DrainWorld | null;
  private readonly stores = new Map<NodeId, SimulatedStore>();
  private readonly names = new Map<DatabaseId, string>();
  private readonly shared: Shared;
  private readonly smbds = new Set<SimulatedSmbd>();
  private readonly totals = { operations: 0, migrations: 0, attemptsMax: 0, deaths: 0, restarts: 0, resumed: 0 };
  private readonly world: ServerWorld;
  /** Servers that died and do not come back. */
  private lost = 0;
  private readonly oracle: ViewOracle | null;
  /** What each server's disk has of the membership. */
  private readonly disks = new Map<NodeId, SavedMembership>();
  private readonly runs = new Map<Incarnation, SimulatedServer>();
  /** Runs that were members of a view, and those that are out. */
  private newestEpoch = 0;
  private protocol = 0;
  private protocolMin = Infinity;
  /** Servers that have the next release; each new run of a server that had not gets it. */
  private readonly upgraded = new Set<NodeId>();
  private readonly releasePrng: Prng;
  private readonly buried = new Set<SimulatedServer>();
  private readonly members = new Set<Incarnation>();
  private readonly out = new Set<Incarnation>();
  private readonly restarts: (() => void)[] = [];
  private nextIncarnation = 1;
  private nextPid = 1000;
  private faultsOver = false;

  constructor(
    private readonly settings: Settings,
    private readonly makeNode: NodeFactory,
  ) {
    this.prng = new Prng(settings.seed ^ 0x5eed);
    this.releasePrng = new Prng(settings.seed ^ 0x7e1ea5e);
    this.wire = new SimulatedWire(this.time, this.prng, settings.wire);
    this.checker = new Checker(
      () => this.time.now,
      this.stores,
      (database) => this.name(database),
      (server) => this.servers[server]?.isFenced() ?? true,
    );
    const { sabotage } = settings;
    this.leaseChecker = new LeaseChecker((rule, text, file) => this.checker.fail(rule, text, describeKey(file)));
    this.watchChecker = new WatchChecker((rule, text) => this.checker.fail(rule, text));
    this.folderChecker = new FolderChecker((text, folder) => {
      this.checker.fail('folders-exclude', text, describeKey(folder));
    });
    this.drains = settings.drains > 0 ? this.makeDrains() : null;
    const stock = {
      looksOnce: sabotage === 'look-once',
      tellsOnce: sabotage === 'tell-once',
      losesBreaks: sabotage === 'lose-breaks',
    };
    this.shared = {
      settings,
      prng: this.prng,
      opens: [],
      used: new Map(),
      version: 0,
      late: new Set(),
      leases: settings.leases ? new LeaseWorld(this.leaseChecker, stock) : null,
      watches: settings.watches ? this.watchWorld() : null,
      neighbours: settings.resumes > 0 ? this.makeNeighbours() : null,
      folders: settings.folders ? new FolderWorld(this.folderChecker, sabotage === 'answer-recall-early') : null,
      drains: this.drains,
    };
    this.world = {
      time: this.time,
      wire: this.wire,
      prng: this.prng,
      trace: this.trace,
      alarm: (server, what) => this.checker.fail('no-alarm', `server ${server}: ${what}`),
      name: (database) => this.name(database),
      turnMicrosMax: settings.turnMicrosMax,
      socketMicrosMax: settings.socketMicrosMax,
      drains: this.drains ?? undefined,
    };
    const { servers, protocol } = settings;
    this.oracle = settings.membership ? null : new ViewOracle(this.time, this.prng, servers, protocol);
    this.wire.onSend = (from, to, body, fate) => {
      if (!isDataFrame(body)) return;
      this.trace.add(this.time.now, () => {
        const lines = describeFrame(body, (database) => this.name(database));
        return `${from} -> ${to} ${fate === 'sent' ? '' : `(${fate}) `}${lines.join(' | ')}`;
      });
    };
  }

  private drainOptions(): { drainLeasesMicros?: Micros } {
    const { drains, drainLeasesMicros } = this.settings;
    return drains > 0 ? { drainLeasesMicros } : {};
  }

  private folderOptions(): Partial<NodeOptions> {
    if (!this.settings.folders) return {};
    return { sharesFolders: true, folderTerms: FOLDER_TERMS, hasExcluder: simulatedExcluder };
  }

  private makeDrains(): DrainWorld {
    const { settings, time, trace, servers } = this;
    const fail = (rule: string, text: string): void => this.checker.fail(rule, text);
    return new DrainWorld({ settings, time, prng: new Prng(settings.seed ^ 0xd4a1), trace, servers, fail });
  }

  private makeNeighbours(): Neighbours {
    const fail = (rule: string, text: string): void => this.checker.fail(rule, text);
    const { partitions, longFaults, wire } = this.settings;
    const isWireGood = wire.lossProbability + wire.duplicateProbability + wire.reorderProbability === 0;
    const metMicros = partitions > 0 || longFaults ? Infinity : isWireGood ? MET_MICROS : BADLY_MET_MICROS;
    return new Neighbours(fail, (server) => this.buried.has(server), metMicros);
  }

  private watchWorld(): WatchWorld {
    const { wire, partitions, longFaults, sabotage } = this.settings;
    const isWireGood = wire.lossProbability <= WATCHES_LOSS_MAX && partitions === 0 && !longFaults;
    const isWhole = (): boolean => isWireGood && this.servers.every((server) => !server.stuckLately());
    const after = (micros: Micros, action: () => void): void => void this.time.after(micros, action);
    const isCalm = (): boolean => !this.servers.some((server) => server.replacedLately());
    return new WatchWorld(this.watchChecker, after, isWhole, sabotage === 'watch-late', isCalm);
  }

  private name(database: DatabaseId): string {
    return this.names.get(database) ?? database.toString(16);
  }

  /** Starts a server's daemon, with empty files, and its smbds. */
  private makeServer(self: NodeId, members: readonly NodeId[]): void {
    const { settings } = this;
    const incarnation = (this.nextIncarnation++) as Incarnation;
    const announcement = this.announcementOf(this.releaseOf(self));
    const more = { ...this.drainOptions(), ...this.folderOptions(), ...this.membershipOf(self, members) };
    const options = { self, servers: members, incarnation, announcement, ...more };
    const server = new SimulatedServer(options, this.world, this.makeNode);
    server.onView = (view) => this.viewInstalled(view);
    server.onKilled = () => {
      this.watchChecker.serverDied(self);
      const ours = new Set([...this.smbds].filter((smbd) => smbd.server === server).map(({ name }) => name));
      this.leaseChecker.daemonKilled((name) => ours.has(name));
    };
    server.onSaved = (state) => void this.disks.set(self, state);
    server.onDeath = () => this.serverDied(server, members);
    server.successor = () => this.successorOf(server);
    server.onResumed = () => {
      this.totals.resumed++;
      this.runs.set(server.options.incarnation, server);
      if (settings.modules) server.pins = this.watchPins(server);
      this.oracle?.resumed();
    };
    server.store.onChange = (database, key, why) => this.checker.storeChanged(self, database, key, why);
    server.store.onOpen = (database, name) => void this.names.set(database, name);
    server.store.sabotage = sabotageOf(settings, this.prng);
    if (settings.sabotage === 'quiet-store') server.store.quiet = () => true;
    if (settings.modules) server.pins = this.watchPins(server);
    this.servers[self] = server;
    server.ignoresLease = settings.sabotage === 'ignore-lease';
    this.runs.set(incarnation, server);
    this.oracle?.started(server);
    this.stores.set(self, server.store);
    if (this.shared.watches !== null) this.makeNotifyd(server, this.shared.watches);
    if (this.shared.folders !== null) this.makeFolderUsers(server);
    // smbd comes up some time after the daemon; until then the databases are not open here
    for (let i = 0; i < settings.smbdsPerServer + (settings.listings ? 1 : 0); i++) {
      this.time.after(this.prng.below(settings.smbdStartMicrosMax + 1), () => {
        if (!server.dead && !this.faultsOver) this.makeSmbd(server, i);
      });
    }
  }

  /** Mostly within a fraction of a lease; now and then the others give it up before. */
  private successorOf({ self, options }: SimulatedServer): Successor {
    const { prng } = this;
    const isSlow = this.settings.membership && prng.chance(0.15);
    return {
      afterMicros: isSlow ? prng.below(1_500_000) : 1_000 + prng.below(prng.chance(0.5) ? 5_000 : 80_000),
      options: () => {
        const incarnation = (this.nextIncarnation++) as Incarnation;
        return { ...options, incarnation, ...this.membershipOf(self, options.servers) };
      },
    };
  }

  /** Some begin with the next release, the others get it when they start anew. */
  private releaseOf(self: NodeId): number {
    if (!this.settings.membership) return 1;
    const isFirst = this.servers[self] === undefined;
    if (!isFirst || this.releasePrng.chance(this.settings.resumes > 0 ? 0.95 : 0.6)) this.upgraded.add(self);
    return this.upgraded.has(self) ? 2 : 1;
  }

  /** The newer of the two releases speaks what the run is about. */
  private announcementOf(release: number): Announcement {
    const announcement = announcementOf(release);
    if (release === 1) return announcement;
    return { ...announcement, speaks: { min: 1, max: this.protocolMax } };
  }

  private get protocolMax(): number {
    return this.settings.folders ? FOLDERS_PROTOCOL : RESUMING_PROTOCOL;
  }

  private checkProtocol(protocol: number): void {
    if (protocol < this.protocol) this.checker.fail('protocol-never-falls', `${this.protocol}, then ${protocol}`);
    this.protocol = protocol;
    this.protocolMin = Math.min(this.protocolMin, protocol);
    if (!this.settings.membership || protocol === 1 || this.upgraded.size === this.settings.servers) return;
    this.checker.fail('rises-when-all-can', `${protocol}, and only ${this.upgraded.size} servers speak it`);
  }

  /** It has risen when nothing keeps it from that. */
  private checkUpgraded(): void {
    const { membership, servers } = this.settings;
    const isHeld = this.upgraded.size < servers || this.servers.some(({ dead }) => dead);
    if (!membership || isHeld || this.protocol === this.protocolMax) return;
    this.checker.fail('upgrade-ends', `protocol ${this.protocol}`);
  }

  private membershipOf(self: NodeId, members: readonly NodeId[]): { membership?: MembershipSettings } {
    if (!this.settings.membership) return {};
    const servers = members.map((node) => ({ node, role: 'server' as const }));
    return {
      membership: {
        servers,
        heartbeatMicros: MEMBERSHIP_HEARTBEAT_MICROS,
        leaseMicros: MEMBERSHIP_LEASE_MICROS,
        saved: this.disks.get(self) ?? null,
      },
    };
  }

  /** Some server has installed the view. Whoever it leaves out must not serve any more: its records are taken over. */
  private viewInstalled({ epoch, members, former, protocol }: View): void {
    // one that was stuck installs what others have left behind
    if (epoch <= this.newestEpoch) return;
    this.newestEpoch = epoch;
    this.checkProtocol(protocol);
    const text = (): string => members.map(({ node, incarnation }) => `${node}#${incarnation}`).join(' ');
    for (const list of [...former.map((view) => view.members), members]) {
      for (const { incarnation } of list) this.members.add(incarnation);
    }
    for (const incarnation of this.members) {
      if (this.out.has(incarnation) || members.some((member) => member.incarnation === incarnation)) continue;
      this.out.add(incarnation);
      const server = this.runs.get(incarnation);
      if (server === undefined || server.dead) continue;
      const heir = members.find(({ node }) => node === server.self);
      // it is continued by one that the view names
      if (heir !== undefined && isSameRun({ node: server.self, incarnation }, heir)) continue;
      this.trace.add(this.time.now, () => `view ${epoch}: ${text()} leaves ${server.self}#${incarnation} out`);
      if (this.settings.membership && !server.isFenced()) {
        this.checker.fail('no-server-without-lease', `server ${server.self} serves, and view ${epoch} is without it`);
      }
      this.lostToPool(server);
    }
  }

  /** It died, or others take over what it had. */
  private lostToPool(server: SimulatedServer): void {
    if (this.buried.has(server)) return;
    this.buried.add(server);
    this.checker.serverDied(server.self);
    this.leaseChecker.excuse((smbd, file) => this.leaseIsLost(smbd, file));
    this.folderChecker.excuse((folder) => this.checker.mayBeGone(databaseIdOf('locking.tdb'), folder));
    // it serves no more: what its clients still read nobody answers for
    for (const smbd of this.smbds) {
      if (smbd.server !== server) continue;
      this.leaseChecker.died(smbd.name);
      this.shared.folders?.died(smbd.name);
      this.drains?.checker.died(smbd.name);
    }
    if (this.stores.get(server.self) === server.store) this.stores.delete(server.self);
  }

  /** It comes with the server's smbds, just before those whose clients watch. */
  private makeNotifyd(server: SimulatedServer, watches: WatchWorld): void {
    this.time.after(this.prng.below(this.settings.smbdStartMicrosMax + 1), () => {
      if (server.dead || this.faultsOver) return;
      const tellLocal = watches.tellLocal.bind(watches);
      watches.notifyds.set(
        server.self,
        new SimulatedNotifyd(server, this.world, this.prng, this.nextPid++, tellLocal),
      );
      for (let i = 0; i < WATCHERS_PER_SERVER; i++) {
        this.time.after(WATCHER_START_MICROS + this.prng.below(10_000), () => {
          if (!server.dead && !this.faultsOver) this.makeSmbd(server, WATCHER_INDEX + i, watch);
        });
      }
    });
  }

  private makeFolderUsers(server: SimulatedServer): void {
    for (let i = 0; i < FOLDER_USERS_PER_SERVER; i++) {
      this.time.after(this.prng.below(this.settings.smbdStartMicrosMax + 1), () => {
        if (!server.dead && !this.faultsOver) this.makeSmbd(server, FOLDER_USER_INDEX + i, openFolders);
      });
    }
  }

  private watchPins(server: SimulatedServer): PinChecker {
    // a run that continues another one gives nothing before it has its lease
    const { wire, partitions, stalls, restarts, resumes, stops, storeFailures } = this.settings;
    const isWireGood = wire.lossProbability + wire.duplicateProbability + wire.reorderProbability === 0;
    const label = (database: DatabaseId, key: RecordKey): string => `${this.name(database)}/${describeKey(key)}`;
    return new PinChecker(
      server.self,
      server.store,
      () => this.time.now,
      isWireGood && partitions + stalls + restarts + resumes + stops + storeFailures === 0,
      label,
      (rule, text, record) => this.checker.fail(rule, text, record),
    );
  }

  /** A daemon died: so do its smbds; after a while it is started anew. */
  private serverDied(server: SimulatedServer, members: readonly NodeId[]): void {
    const { settings } = this;
    this.lostToPool(server);
    this.oracle?.died(server);
    this.watchChecker.serverDied(server.self);
    this.shared.watches?.notifyds.delete(server.self);
    this.leaseChecker.excuse((smbd, file) => this.leaseIsLost(smbd, file));
    for (const smbd of [...this.smbds]) {
      if (smbd.server !== server) continue;
      this.kill(smbd);
    }
    this.totals.restarts++;
    const start = (): void => {
      if (this.servers[server.self] === server) this.makeServer(server.self, members);
    };
    if (settings.losses > this.lost && settings.servers > 2) {
      this.lost += 1;
      return;
    }
    this.restarts.push(start);
    this.time.after(this.prng.below(this.prng.chance(0.3) ? 1_500_000 : 50_000), start);
  }

  private leaseIsLost(smbd: string, file: RecordKey): boolean {
    const [locking, leases] = ['locking.tdb', 'leases.tdb'].map(databaseIdOf) as [DatabaseId, DatabaseId];
    return this.checker.mayBeGone(locking, file) || this.checker.mayBeGone(leases, leaseKey(file, smbd));
  }

  private makeSmbd(server: SimulatedServer, index: number, chosen?: typeof live): void {
    const smbd = new SimulatedSmbd(`smbd${server.self}.${index}`, server, this.world, this.checker, this.nextPid++);
    this.smbds.add(smbd);
    if (this.drains?.isMute() === true) {
      smbd.isMute = true;
      this.drains.mutes.add(smbd.name);
    }
    const life = chosen ?? (index % 100 === this.settings.smbdsPerServer ? look : live);
    smbd.run(life(this.shared, smbd, () => this.faultsOver));
    const { deathProbability, thinkMicrosMax } = this.settings;
    if (deathProbability === 0) return;
    const lifeMicros = this.prng.below((thinkMicrosMax + 200) / deathProbability);
    this.time.after(lifeMicros, () => {
      if (this.faultsOver || smbd.dead) return;
      this.totals.deaths++;
      this.kill(smbd);
      this.time.after(this.prng.below(5_000), () => {
        if (!this.faultsOver && !server.dead) this.makeSmbd(server, index + 100, chosen);
      });
    });
  }

  private kill(smbd: SimulatedSmbd): void {
    this.bury(smbd);
    this.shared.leases?.died(smbd);
    this.shared.folders?.died(smbd.name);
    this.shared.neighbours?.died(smbd);
    this.drains?.checker.died(smbd.name);
    this.watchChecker.died(smbd.name);
    smbd.die();
  }

  private bury(smbd: SimulatedSmbd): void {
    this.smbds.delete(smbd);
    this.totals.operations += smbd.totals.operations;
    this.totals.migrations += smbd.totals.migrations;
    this.totals.attemptsMax = Math.max(this.totals.attemptsMax, smbd.totals.attemptsMax);
    // its opens stay, as those of a crashed smbd do, until somebody comes back for them
  }

  private scheduleFaults(): void {
    const { settings, prng, time } = this;
    const members = this.servers.map((server) => server.self);
    for (let i = 0; i < settings.partitions; i++) {
      time.after(prng.below(settings.activeMicros), () => {
        const victim = prng.pick(members);
        this.trace.add(time.now, () => `server ${victim} is cut off`);
        this.checker.cut();
        if (prng.chance(0.7)) this.wire.isolate(victim, members);
        else for (const other of members) if (other !== victim) this.wire.cut(victim, other);
        const length = this.longFault() ?? (prng.chance(0.3) ? 1_000_000 + prng.below(500_000) : prng.below(100_000));
        time.after(length, () => {
          this.wire.heal();
          this.checker.healed();
        });
      });
    }
    for (let i = 0; i < settings.restarts; i++) {
      time.after(prng.below(settings.activeMicros), () => prng.pick(this.servers).dieAfter(prng.below(40)));
    }
    for (let i = 0; i < settings.resumes; i++) {
      time.after(prng.below(settings.activeMicros), () => {
        const victim = prng.pick(this.servers);
        if (prng.chance(0.5)) victim.killAt(prng.pick(KILLED_AT));
        else victim.killAfter(prng.below(60));
        // the one that continues it, too, perhaps before it is a member
        if (prng.chance(0.3)) time.after(prng.below(100_000), () => victim.killAfter(prng.below(60)));
      });
    }
    for (let i = 0; i < settings.stalls; i++) {
      time.after(prng.below(settings.activeMicros), () => {
        prng.pick(this.servers).stuckUntil = time.now + prng.below(prng.chance(0.2) ? 1_500_000 : 50_000);
      });
    }
    for (let i = 0; i < settings.stops; i++) time.after(prng.below(settings.activeMicros), () => this.stopOne());
    for (let i = 0; i < settings.storeFailures; i++) {
      time.after(prng.below(settings.activeMicros), () => {
        const { store } = prng.pick(this.servers);
        store.failing = () => prng.chance(0.7);
        time.after(prng.below(50_000), () => (store.failing = null));
      });
    }
  }

  /** A smbd stops, perhaps with a record locked; it goes on after a while, or is killed as it stands. */
  private stopOne(): void {
    const { prng } = this;
    const candidates = [...this.smbds].filter((smbd) => !smbd.dead);
    if (candidates.length === 0) return;
    const smbd = prng.pick(candidates);
    const micros = this.longFault() ?? prng.below(prng.chance(0.2) ? 1_000_000 : 30_000);
    if (prng.chance(0.7)) smbd.stopOnceLocked(micros);
    else smbd.stop(micros);
    if (!prng.chance(0.3)) return;
    this.time.after(Math.floor(micros / 2), () => {
      if (this.faultsOver || smbd.dead) return;
      this.totals.deaths++;
      this.kill(smbd);
    });
  }

  private longFault(): Micros | null {
    return this.settings.longFaults && this.prng.chance(0.3) ? 2_000_000 + this.prng.below(1_000_000) : null;
  }

  private broken(): boolean {
    return this.checker.violations.length > 0;
  }

  /** Lets time pass in small steps until `done`, or something broke; false if `max` passed before. */
  private until(max: Micros, done: () => boolean): boolean {
    const end = this.time.now + max;
    while (this.time.now < end) {
      if (this.broken() || done()) return true;
      this.advance(Math.min(LOOK_MICROS, end - this.time.now));
    }
    return done();
  }

  private advance(micros: Micros): void {
    const end = this.time.now + micros;
    while (!this.broken() && this.time.step(end)) {
      // each step runs one action
    }
    if (!this.broken()) this.time.advance(end - this.time.now);
  }

  run(): RunResult {
    try {
      this.phases();
    } catch (error) {
      this.checker.fail('no-exception', error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    return { violations: this.checker.violations, trace: this.trace, summary: this.summary() };
  }

  private phases(): void {
    const members = Array.from({ length: this.settings.servers }, (_, i) => nodeId(i));
    for (const self of members) this.makeServer(self, members);
    this.scheduleFaults();
    this.drains?.schedule();
    this.until(this.settings.activeMicros, () => false);
    this.stopFaults();
    if (!this.until(SETTLE_MICROS_MAX, () => this.idle())) this.failStuck('after the faults stopped');
    if (this.broken()) return;
    this.checkBackups();
    if (this.broken()) return;
    for (const server of this.living()) server.pins?.finish();
    this.leaseChecker.finish();
    this.watchChecker.finish();
    this.shared.neighbours?.finish();
    if (!this.finishDrains()) return;
    for (const notifyd of this.shared.watches?.notifyds.values() ?? []) notifyd.end();
    for (const smbd of [...this.smbds]) this.bury(smbd);
    // the deleters know of random keys from us, not from a client that logged on: let all announcements arrive first
    this.advance(ANNOUNCE_MICROS);
    this.deleteEverything();
    if (!this.until(SETTLE_MICROS_MAX, () => this.idle())) this.failStuck('while deleting');
    this.until(EMPTY_MICROS_MAX, () => [...this.stores.values()].every((store) => store.isEmpty()));
    if (this.broken()) return;
    this.checker.storesEmpty(this.totals.restarts > 0);
    this.checkQuiet();
  }

  /** What losses took from the records' safety is made up for. */
  private checkBackups(): void {
    const { restarts, resumes } = this.settings;
    const living = this.living();
    if (restarts + resumes === 0 || living.length < 2) return;
    this.advance(MIRROR_MICROS);
    if (this.protocolMin >= 2) this.checker.backupsExist(living.map(({ self }) => self));
  }

  /** False: something broke. */
  private finishDrains(): boolean {
    const finale = this.drains?.finale();
    for (let next = finale?.next(true); next?.done === false; ) {
      const { max, done } = next.value;
      const isDone = this.until(max, done);
      if (this.broken()) return false;
      next = finale?.next(isDone);
    }
    if (finale !== undefined && !this.until(SETTLE_MICROS_MAX, () => this.idle())) this.failStuck('after drains');
    return !this.broken();
  }

  private stopFaults(): void {
    this.trace.add(this.time.now, () => 'faults stop');
    this.faultsOver = true;
    this.wire.heal();
    this.wire.faults = PERFECT_WIRE;
    for (const server of this.servers) {
      server.goOn();
      server.dieAfter(Infinity);
      server.store.failing = null;
    }
    for (const smbd of this.smbds) smbd.continue();
    for (const start of this.restarts) start();
  }

  private living(): SimulatedServer[] {
    return this.servers.filter((server) => !server.dead);
  }

  private idle(): boolean {
    return [...this.smbds].every((smbd) => !smbd.busy) && this.living().every((server) => server.waiting() === 0);
  }

  private failStuck(when: string): void {
    for (const smbd of this.smbds) {
      if (smbd.busy) this.checker.fail('every-request-answered', `${smbd.name} is stuck ${when}: ${smbd.doing}`);
    }
    for (const server of this.living()) {
      const waiting = server.waiting();
      if (waiting === 0) continue;
      this.checker.fail('nothing-waits', `server ${server.self} has ${waiting} requests waiting ${when}`);
    }
  }

  private deleteEverything(): void {
    const living = this.living();
    const perServer = living.map((): { database: DatabaseId; key: RecordKey }[] => []);
    for (const used of this.shared.used.values()) this.prng.pick(perServer).push(used);
    living.forEach((server, i) => {
      const smbd = new SimulatedSmbd(`deleter${i}`, server, this.world, this.checker, this.nextPid++);
      this.smbds.add(smbd);
      smbd.run(deleteAll(this.shared, smbd, perServer[i]!));
    });
  }

  /** Nothing but heartbeats happens any more: no forgotten timer, no message sent again and again. */
  private checkQuiet(): void {
    this.advance(LOOKS_AGAIN_MICROS);
    const before = this.servers.map((server) => server.counters.ticks);
    this.advance(1_000_000);
    this.checkUpgraded();
    this.servers.forEach((server, i) => {
      const ticks = server.counters.ticks - before[i]!;
      const most = QUIET_TICKS_MAX + (this.settings.membership ? MEMBERSHIP_TICKS_MAX : 0);
      if (ticks > most) this.checker.fail('quiet-in-the-end', `server ${i} ticks ${ticks} times a second`);
    });
  }

  private leaseSummary(): string[] {
    if (!this.settings.leases) return [];
    const { opens, writes, breaks } = this.leaseChecker.totals;
    return [`${opens} opens with leases`, `${writes} writes of files`, `${breaks} breaks`];
  }

  private drainSummary(): string[] {
    return this.drains?.summary() ?? [];
  }

  private folderSummary(): string[] {
    if (!this.settings.folders) return [];
    const { inSlices, inOne, excluded, refused, moved } = this.folderChecker.totals;
    return [
      `${inSlices} opens by slices, ${inOne} by the one record, ${excluded} excluded, ${refused} refused`,
      `${moved} moved`,
    ];
  }

  private watchSummary(): string[] {
    if (!this.settings.watches) return [];
    const { watches, changes, told, twice } = this.watchChecker.totals;
    return [`${watches} watches`, `${changes} changes in folders, told ${told} times, ${twice} of them again`];
  }

  private resumeSummary(): string[] {
    const { neighbours } = this.shared;
    if (neighbours === null) return [];
    const { asked, told, heard, twice } = neighbours.totals;
    return [`${this.totals.resumed} resumed`, `${asked} asked`, `${told} told, ${heard} heard, ${twice} again`];
  }

  private pinSummary(): string[] {
    if (!this.settings.modules) return [];
    let [batches, ready, longest] = [0, 0, 0];
    for (const { pins } of this.servers) {
      batches += pins?.totals.batches ?? 0;
      ready += pins?.totals.ready ?? 0;
      longest = Math.max(longest, pins?.totals.longestMicros ?? 0);
    }
    return [`${batches} batches (${ready} ready, at most after ${Math.round(longest / 1000)} ms)`];
  }

  private summary(): string {
    for (const smbd of [...this.smbds]) this.bury(smbd);
    const { operations, migrations, attemptsMax, deaths, restarts } = this.totals;
    const { writes, cachedReads, fetches } = this.checker.totals;
    return [
      `${operations} operations`,
      `${writes} writes`,
      `${migrations} migrations (at most ${attemptsMax} tries)`,
      `${fetches} fetches`,
      `${cachedReads} cached reads`,
      ...this.leaseSummary(),
      ...this.watchSummary(),
      ...this.folderSummary(),
      ...this.drainSummary(),
      `${deaths} deaths`,
      `${restarts} restarts`,
      ...this.resumeSummary(),
      `protocol ${this.protocol}`,
      `${this.wire.totals.sent} frames`,
      ...this.pinSummary(),
    ].join(', ');
  }
}

/** The planted bugs of the canary tests in the store: which operations the store adapter gets wrong. */
function sabotageOf(settings: Settings, prng: Prng): ((op: RecordOp) => boolean) | null {
  switch (settings.sabotage) {
    case 'forget-delegations':
      return (op) => op.op === 'share' && prng.chance(0.2);
    case 'keep-copies':
      return (op) => op.op === 'discard' && prng.chance(0.2);
    case 'give-old-payload':
      return (op) => op.op === 'take' && op.copyOf === null && op.data.length > 0 && prng.chance(0.1);
    default:
      return null;
  }
}

/** Runs the simulation that belongs to these settings. */
export function simulate(settings: Settings, makeNode: NodeFactory): RunResult {
  return new Run(settings, makeNode).run();
}
