/** What a simulated run of the membership is like, drawn from its seed. */
import { Prng } from '../../../src/base/prng.js';
import type { Micros } from '../../../src/core/effects.js';
import type { EngineName } from '../../../src/core/membership/port.js';
import type { RegisterFaults } from '../../support/simulated-register.js';
import { PERFECT_REGISTER } from '../../support/simulated-register.js';
import type { WireFaults } from '../../support/simulated-wire.js';

/** Bugs that can be planted, to see that the checker finds them. */
export const SABOTAGES = [
  'none',
  'vote-unsaved',
  'accept-unsaved',
  'no-lease-wait',
  'no-promise',
  'inherited-ignored',
  'lease-from-receipt',
  'forget-promise',
  'old-term-counts',
  'no-pre-vote',
  'judge-asleep',
  // one that is heard is not silent; a candidate that cannot win says no to one that can
  'heard-is-enough',
  'goes-before-all',
  // the protocol
  'take-everybody',
  'ask-members-only',
  'protocol-falls',
  'foreign-stands',
  // a run that continues another one is left out like any that runs anew; or joins though that one is out
  'resumed-is-anew',
  'resumes-what-is-over',
  // the servers of the pool
  'majority-of-the-file',
  'authority-of-the-file',
  'forgets-the-servers',
  'two-servers-at-once',
  // of the engine etcd
  'no-challenge-wait',
  'challenge-ignored',
  'overtaken-answers',
  'proposal-dropped',
  'hears-one-way',
] as const;
export type Sabotage = (typeof SABOTAGES)[number];

export interface Settings {
  seed: number;
  engine: EngineName;
  /** Of the engine etcd, while there are faults. */
  register: RegisterFaults;
  sabotage: Sabotage;
  /** Servers, without the witness. */
  servers: number;
  witness: boolean;
  wire: WireFaults;
  /** How far clocks run fast or slow. */
  speedDeviation: number;
  /** Chance that a server crashes at any one effect. */
  crashProbability: number;
  /** How often something happens to the whole: a cut, a pause, a crash; mean time between two. */
  troubleMicros: Micros;
  saveMicrosMax: Micros;
  /** Chance that a save takes up to a second, and that one fails. */
  slowSaveProbability: number;
  failedSaveProbability: number;
  faultMicros: Micros;
  /** The servers' release at first; null: nobody upgrades anything, and all have the first. */
  release: number | null;
  /** Servers are killed, and other runs continue theirs. */
  resumes: boolean;
  /** Servers that are not in the pool at first, and may be taken in; null: the pool's servers are never changed. */
  spares: number | null;
}

const OF_PROTOCOL = new Set<Sabotage>(['take-everybody', 'ask-members-only', 'protocol-falls', 'foreign-stands']);

const OF_SERVERS = new Set<Sabotage>([
  'majority-of-the-file', 'authority-of-the-file', 'forgets-the-servers', 'two-servers-at-once',
]);

const CRASHES_AT_VOTES = { servers: 3, witness: false, crashProbability: 0.01, saveMicrosMax: 50_000 };

/** Drawn from numbers of its own: whatever has nothing to do with releases stays what it was. */
function releaseOf(seed: number, sabotage: Sabotage): number | null {
  const prng = new Prng(seed ^ 0x7e1ea5e);
  if (OF_PROTOCOL.has(sabotage)) return prng.pick([1, 1, 2]);
  return sabotage === 'none' ? prng.pick([null, null, 1, 1, 1, 2]) : null;
}

/** Likewise. Pools whose servers change are never upgraded: one thing that is said to people at a time. */
function sparesOf(seed: number, sabotage: Sabotage): number | null {
  const prng = new Prng(seed ^ 0x5a7e5);
  if (OF_SERVERS.has(sabotage)) return prng.pick([1, 2, 2]);
  return sabotage === 'none' && prng.chance(0.4) ? prng.pick([1, 2, 2]) : null;
}

/** The same pool on the engine etcd, which needs no witness. */
function onEtcd(settings: Settings): Settings {
  const prng = new Prng(settings.seed ^ 0xe7cd);
  const register = {
    lossProbability: prng.pick([0, 0, 0.05, 0.3]),
    delayMicrosMax: prng.pick([500, 3_000, 20_000, 80_000]),
    slowProbability: prng.pick([0, 0, 0.02, 0.1]),
  };
  return { ...settings, engine: 'etcd', witness: false, register, spares: null };
}

export function settingsOf(
  seed: number,
  sabotage: Sabotage = 'none',
  engine: EngineName = 'embedded',
  resumes = false,
): Settings {
  const drawn = embeddedSettings(seed, sabotage);
  const settings = resumes ? { ...drawn, resumes, release: 2, spares: null } : drawn;
  return engine === 'etcd' ? onEtcd(settings) : settings;
}

function embeddedSettings(seed: number, sabotage: Sabotage): Settings {
  const prng = new Prng(seed);
  const servers = prng.pick([1, 2, 2, 3, 3, 3, 3, 4, 5, 5]);
  const spares = sparesOf(seed, sabotage);
  const isRough = prng.chance(0.5);
  const delayMicrosMax = prng.pick([100, 1_000, 10_000, 50_000]);
  // needs three crashes around votes: rare in ordinary runs
  if (sabotage === 'goes-before-all') {
    return { ...embeddedSettings(seed, 'none'), sabotage, release: null, spares: null, servers: 5, witness: true };
  }
  if (sabotage === 'vote-unsaved') {
    return { ...embeddedSettings(seed, 'none'), sabotage, release: null, spares: null, ...CRASHES_AT_VOTES };
  }
  return {
    seed,
    engine: 'embedded',
    register: PERFECT_REGISTER,
    sabotage,
    servers,
    witness: servers === 2 ? prng.chance(0.7) : prng.chance(0.15),
    wire: {
      lossProbability: isRough ? prng.pick([0, 0.01, 0.1, 0.3]) : 0,
      duplicateProbability: isRough ? prng.pick([0, 0.05, 0.3]) : 0,
      reorderProbability: isRough ? prng.pick([0, 0.1, 0.5]) : 0,
      reorderMicrosMax: prng.pick([1_000, 50_000, 400_000]),
      delayMicrosMin: 30,
      delayMicrosMax,
    },
    speedDeviation: prng.pick([0, 0.0049, 0.0049]),
    crashProbability: prng.pick([0, 0, 0.0005, 0.003]),
    troubleMicros: prng.pick([150_000, 400_000, 1_000_000]),
    saveMicrosMax: prng.pick([500, 5_000, 50_000]),
    slowSaveProbability: prng.pick([0, 0, 0.02, 0.1]),
    failedSaveProbability: prng.pick([0, 0, 0.02]),
    faultMicros: prng.pick([3_000_000, 6_000_000]),
    release: spares === null ? releaseOf(seed, sabotage) : null,
    spares,
    resumes: false,
  };
}

export function describeSettings(settings: Settings): string {
  const { servers, witness, wire, speedDeviation, crashProbability, saveMicrosMax, sabotage, release } = settings;
  return [
    ...(settings.engine === 'etcd' ? [`etcd ${JSON.stringify(settings.register)}`] : []),
    `${servers} servers${witness ? ' and a witness' : ''}`,
    `loss ${wire.lossProbability}, doubled ${wire.duplicateProbability}, swapped ${wire.reorderProbability}`,
    `delay ${wire.delayMicrosMax} us, clocks ${speedDeviation}, crashes ${crashProbability}, disk ${saveMicrosMax} us`,
    ...(settings.resumes ? ['runs are continued'] : []),
    ...(settings.spares === null ? [] : [`${settings.spares} spares`]),
    ...(release === null ? [] : [`upgrades from release ${release}`]),
    ...(sabotage === 'none' ? [] : [`planted: ${sabotage}`]),
  ].join(', ');
}
