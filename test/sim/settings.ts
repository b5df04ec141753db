/**
 * What a simulated run is like: how many servers, how bad the wire, how busy the smbds. All of it follows from the
 * seed.
 */
import { Prng } from '../../src/base/prng.js';
import type { Micros } from '../../src/core/effects.js';
import type { WireFaults } from '../support/simulated-wire.js';

/** Faults planted by the canary tests; 'none' in every real run. */
export const SABOTAGES = [
  'none',
  // the store adapter errs
  'forget-delegations',
  'keep-copies',
  'give-old-payload',
  // the core errs with its pins
  'ready-too-early',
  'keep-pins',
  'no-pins',
  // smbd is as it is without the VFS module
  'look-once',
  'tell-once',
  'lose-breaks',
  'keep-locks',
  // what the daemon does to a record does not raise the sequence number
  'quiet-store',
  // watches count when notifyd's log comes; the core answers before they count, or lets clients in before it knows all
  'watch-late',
  'answer-watches-early',
  'serve-before-watches',
  // at a new view the core claims nothing, or does not wait for the others; modules do not heed the lease
  'claim-nothing',
  'claim-at-once',
  'ignore-lease',
  // backups that are lost with their keepers are not made anew
  'no-mirrors',
  // a run that continues another one takes the records for none, forgets what was erased, or does not tell of the
  // processes; the others lose what is sent to them meanwhile, or keep their entries that name the run before
  'resume-without-records',
  'resume-without-erasures',
  'kept-clients-untold',
  'lose-between-runs',
  'keep-homes',
  // a host forgets the wish to drain, or answers before its disk has it; the core sets no flag when it starts, or takes
  // none back, says that it drains before leases are broken, has modules that come later break none, or does not tell
  // servers that come; a module does not tell what became of leases that nobody watched
  'forget-drain',
  'answer-unsaved',
  'no-flag-at-start',
  'keep-flag',
  'drain-before-breaks',
  'lose-break-all',
  'drain-untold',
  'module-tells-no-changes',
  // modules answer a recall before they have moved their entries; the core lets locks leave without one, or takes a
  // delegation up whatever the one record shows
  'answer-recall-early',
  'leave-unrecalled',
  'delegate-unseen',
] as const;
export type Sabotage = (typeof SABOTAGES)[number];

export interface Settings {
  seed: number;
  servers: number;
  smbdsPerServer: number;
  /** Keys that everybody fights for, per database. */
  keys: number;
  activeMicros: Micros;
  /** Pause of a smbd between two operations, at most. */
  thinkMicrosMax: Micros;
  wire: WireFaults;
  /** Time from the start of the daemon to that of a smbd, at most. */
  smbdStartMicrosMax: Micros;
  turnMicrosMax: Micros;
  socketMicrosMax: Micros;
  /** Chance per operation that a smbd keeps the chain for milliseconds. */
  slowHoldProbability: number;
  /** Chance per operation that the smbd dies in the middle of it. */
  deathProbability: number;
  /** How often a server is cut off for a while. */
  partitions: number;
  /** How often a daemon is stuck for a while. */
  stalls: number;
  /** How often a daemon dies, with all smbds of its server, and is started anew with empty files. */
  restarts: number;
  /** How often a daemon is killed while its smbds go on, and another one continues it. */
  resumes: number;
  /** How many of those that die never come back, as far as a majority stays. */
  losses: number;
  /** Servers agree on views themselves; otherwise they come from somebody who knows who lives. */
  membership: boolean;
  /** What that somebody says that all servers speak. */
  protocol: number;
  /** smbds have the VFS module, and open files by way of it. */
  modules: boolean;
  /** How often a smbd is stopped for a while, and perhaps killed then. */
  stops: number;
  /** How often a server's store refuses what it is told, for a while. */
  storeFailures: number;
  /** Processes that only list, listings of all records, databases that are attached late. */
  listings: boolean;
  /** Faults may last for seconds. */
  longFaults: boolean;
  /** Clients cache files under leases. */
  leases: boolean;
  /** Clients watch folders. */
  watches: boolean;
  /** Clients open folders, and how often they exclude others. */
  folders: boolean;
  excludeProbability: number;
  /** How often somebody wants a server drained, or no more. */
  drains: number;
  /** How long a server that is drained waits for leases. */
  drainLeasesMicros: Micros;
  /** Some smbds never say that they heard of it, and some clients let go late. */
  drainsHang: boolean;
  sabotage: Sabotage;
}

/** What a batch of runs has besides what the seed says. */
export interface Extras {
  /** Daemons may die. */
  restarts?: boolean;
  modules?: boolean;
  /** Daemons are killed while their smbds go on. */
  resumes?: boolean;
  /** smbds are stopped, stores refuse, listings run, faults may last. */
  rough?: boolean;
  /** Clients cache files under leases. */
  leases?: boolean;
  /** Clients watch folders. */
  watches?: boolean;
  /** Clients open folders. */
  folders?: boolean;
  /** Servers agree on views themselves. */
  membership?: boolean;
  /** Servers are drained. */
  drains?: boolean;
  /** Without `membership` and `resumes`, which needs 2; not given: by the seed. */
  protocol?: number;
  sabotage?: Sabotage;
}

/** The settings that belong to a seed. */
export function settingsOf(seed: number, extras: Extras = {}): Settings {
  const prng = new Prng(seed);
  const bad = prng.chance(0.5);
  const settings: Settings = {
    seed,
    servers: prng.pick([1, 2, 2, 3, 3, 3, 3, 4, 5]),
    smbdsPerServer: 1 + prng.below(4),
    keys: 1 + prng.below(4),
    activeMicros: 100_000 + prng.below(200_000),
    thinkMicrosMax: prng.pick([0, 200, 2_000, 5_000]),
    wire: {
      lossProbability: bad ? prng.pick([0, 0.02, 0.1, 0.3]) : 0,
      duplicateProbability: bad ? prng.pick([0, 0.05, 0.3]) : 0,
      reorderProbability: bad ? prng.pick([0, 0.1, 0.5]) : 0,
      reorderMicrosMax: 1_000,
      delayMicrosMin: prng.pick([10, 50]),
      delayMicrosMax: prng.pick([60, 300, 2_000]),
    },
    smbdStartMicrosMax: prng.pick([0, 1_000, 100_000]),
    turnMicrosMax: prng.pick([0, 20, 200]),
    socketMicrosMax: prng.pick([5, 50]),
    slowHoldProbability: prng.pick([0, 0.01, 0.05]),
    deathProbability: prng.pick([0, 0, 0.01]),
    partitions: prng.pick([0, 0, 0, 1, 2]),
    stalls: prng.pick([0, 0, 1, 3]),
    restarts: extras.restarts === true ? prng.pick([0, 1, 2]) : 0,
    losses: extras.restarts === true ? prng.pick([0, 0, 1]) : 0,
    resumes: 0,
    membership: false,
    protocol: extras.protocol ?? 1 + (seed % 2),
    modules: extras.modules ?? false,
    stops: 0,
    storeFailures: 0,
    listings: false,
    longFaults: false,
    leases: extras.leases ?? false,
    watches: extras.watches ?? false,
    folders: false,
    excludeProbability: 0,
    drains: 0,
    drainLeasesMicros: 0,
    drainsHang: false,
    sabotage: extras.sabotage ?? 'none',
  };
  const rough = extras.rough === true ? roughen(settings, prng) : settings;
  const agreed = extras.membership === true ? withMembership(rough, prng) : rough;
  const resumed = extras.resumes === true ? withResumes(agreed, prng) : agreed;
  const drained = extras.drains === true ? withDrains(resumed, prng) : resumed;
  return extras.folders === true ? withFolders(drained, prng) : drained;
}

function withFolders(settings: Settings, prng: Prng): Settings {
  return {
    ...settings,
    activeMicros: Math.max(settings.activeMicros, 400_000 + prng.below(400_000)),
    folders: true,
    excludeProbability: prng.pick([0.01, 0.05, 0.2]),
    protocol: Math.max(settings.protocol, prng.pick([2, 3, 3, 3])),
  };
}

function withResumes(settings: Settings, prng: Prng): Settings {
  const activeMicros = Math.max(settings.activeMicros, 300_000 + prng.below(500_000));
  return { ...settings, activeMicros, resumes: prng.pick([1, 2, 3, 6]), protocol: 2 };
}

/** What clients do between two questions must not take long: there are many questions. */
function withDrains(settings: Settings, prng: Prng): Settings {
  const drainsHang = prng.chance(0.3);
  return {
    ...settings,
    activeMicros: Math.max(settings.activeMicros, 300_000 + prng.below(500_000)),
    thinkMicrosMax: Math.max(settings.thinkMicrosMax, prng.pick([200, 2_000, 10_000])),
    drains: prng.pick([2, 4, 8, 16]),
    drainLeasesMicros: prng.pick(drainsHang ? [0, 100_000, 500_000] : [100_000, 500_000, 3_000_000]),
    drainsHang,
  };
}

function roughen(settings: Settings, prng: Prng): Settings {
  const longFaults = prng.chance(0.15);
  return {
    ...settings,
    stops: prng.pick([0, 1, 3, 6]),
    storeFailures: prng.pick([0, 0, 1, 2]),
    listings: prng.chance(0.7),
    longFaults,
    restarts: settings.restarts * prng.pick([1, 1, 2, 4]),
    ...(longFaults ? { activeMicros: 4_000_000, thinkMicrosMax: 20_000 } : {}),
  };
}

/** A lease is long, so these runs are too, and their smbds take their time. */
function withMembership(settings: Settings, prng: Prng): Settings {
  const { activeMicros, thinkMicrosMax } = settings;
  return {
    ...settings,
    membership: true,
    activeMicros: Math.max(activeMicros, 800_000 + prng.below(2_000_000)),
    thinkMicrosMax: Math.max(thinkMicrosMax, prng.pick([2_000, 10_000, 20_000])),
  };
}

/** One line for people. */
export function describeSettings(settings: Settings): string {
  const { wire } = settings;
  const percent = (share: number): string => `${Math.round(share * 100)} %`;
  return [
    `${settings.servers} servers with ${settings.smbdsPerServer} smbds`,
    `${settings.keys} keys`,
    `loss ${percent(wire.lossProbability)}`,
    `doubled ${percent(wire.duplicateProbability)}`,
    `swapped ${percent(wire.reorderProbability)}`,
    `delay ${wire.delayMicrosMin}-${wire.delayMicrosMax} us`,
    `${settings.partitions} partitions`,
    `${settings.stalls} stalls`,
    `${settings.restarts} restarts`,
    ...(settings.resumes > 0 ? [`${settings.resumes} resumes`] : []),
    ...(settings.losses > 0 ? [`${settings.losses} for good`] : []),
    ...(settings.stops > 0 ? [`${settings.stops} stops`] : []),
    ...(settings.storeFailures > 0 ? [`${settings.storeFailures} store failures`] : []),
    ...(settings.listings ? ['listings'] : []),
    ...(settings.longFaults ? ['long faults'] : []),
    ...(settings.membership ? ['with membership'] : []),
    ...(settings.modules ? ['with modules'] : []),
    ...(settings.leases ? ['with leases'] : []),
    ...(settings.watches ? ['with watches'] : []),
    ...(settings.folders ? [`with folders, ${percent(settings.excludeProbability)} exclude`] : []),
    ...(settings.drains > 0 ? [`${settings.drains} drains within ${settings.drainLeasesMicros / 1000} ms`] : []),
    ...(settings.drainsHang ? ['some hang'] : []),
    `deaths ${percent(settings.deathProbability)}`,
    ...(settings.sabotage === 'none' ? [] : [`sabotage ${settings.sabotage}`]),
  ].join(', ');
}
