/**
 * Which faults a chaos run makes: drawn from a seed, so that a seed repeats them in their order. Pure; faults.ts does
 * them. Never more than a minority of the servers is hurt at one time, except now and then for a short while.
 */
import type { Prng } from '../../base/prng.js';

export type FaultKind =
  | 'server killed'
  | 'daemon killed'
  | 'smbds killed'
  | 'main smbd killed'
  | 'daemon stopped'
  | 'server frozen'
  | 'link down'
  | 'interface down'
  | 'hears nobody'
  | 'heard by nobody'
  | 'not heard by one'
  | 'cut off from one'
  | 'frames lost';

export interface Fault {
  kind: FaultKind;
  server: number;
  /** The other server of those that concern a pair. */
  peer: number | null;
  /** After the round's begin. */
  afterMillis: number;
  /** How long; 0 for what is over at once. A killed server is started again after it. */
  millis: number;
  /** Of frames that are lost. */
  percent: number;
}

interface Kind {
  kind: FaultKind;
  weight: number;
  millis: [from: number, to: number];
}

/** Mostly much longer than a lease (300 ms), but shorter ones too: those must not harm anybody either. */
const KINDS: readonly Kind[] = [
  { kind: 'server killed', weight: 5, millis: [200, 4000] },
  { kind: 'daemon killed', weight: 3, millis: [0, 0] },
  { kind: 'smbds killed', weight: 3, millis: [0, 0] },
  { kind: 'main smbd killed', weight: 1, millis: [0, 0] },
  { kind: 'daemon stopped', weight: 4, millis: [100, 4000] },
  { kind: 'server frozen', weight: 4, millis: [100, 5000] },
  { kind: 'link down', weight: 4, millis: [100, 16000] },
  { kind: 'interface down', weight: 2, millis: [100, 5000] },
  // some so long that it is seen whether the others serve meanwhile
  { kind: 'hears nobody', weight: 2, millis: [100, 16000] },
  { kind: 'heard by nobody', weight: 2, millis: [100, 16000] },
  { kind: 'not heard by one', weight: 2, millis: [100, 16000] },
  { kind: 'cut off from one', weight: 2, millis: [100, 16000] },
  { kind: 'frames lost', weight: 3, millis: [500, 5000] },
];

/** How the majority is lost: nothing that has to be started again, unless the pool gives a run up. */
const OF_MANY: readonly FaultKind[] = ['server frozen', 'link down', 'daemon stopped', 'server killed'];
const QUORUM_LOSS_CHANCE = 0.06;
const QUORUM_LOSS_MILLIS: [number, number] = [200, 3000];
/** That smbds of another server are killed at the same time. */
const SMBDS_TOO_CHANCE = 0.25;
/** Faults of one round begin within this time. */
const ROUND_MILLIS = 500;
const PERCENT: [number, number] = [5, 60];
/** Between two rounds, from when all is well again. */
const BETWEEN_MILLIS: [number, number] = [100, 3000];

/** What happens at about one time. */
export interface Round {
  faults: Fault[];
  /** Whether fewer than a majority are left. */
  losesQuorum: boolean;
  /** How long nothing happens before it, when all is well. */
  pauseMillis: number;
}

const between = (prng: Prng, [from, to]: [number, number]): number => from + prng.below(to - from + 1);

function kindOf(prng: Prng): Kind {
  let dice = prng.below(KINDS.reduce((sum, { weight }) => sum + weight, 0));
  const found = KINDS.find(({ weight }) => (dice -= weight) < 0);
  if (found === undefined) throw new RangeError('the dice fell beside the kinds');
  return found;
}

/** `count` different servers. */
function victims(prng: Prng, servers: number, count: number): number[] {
  const left = Array.from({ length: servers }, (_, id) => id);
  return Array.from({ length: count }, () => left.splice(prng.below(left.length), 1)[0] ?? 0);
}

function fault(prng: Prng, kind: FaultKind, server: number, servers: number, millis: number): Fault {
  const isOfPair = kind === 'not heard by one' || kind === 'cut off from one';
  const peer = (server + 1 + prng.below(servers - 1)) % servers;
  const percent = kind === 'frames lost' ? between(prng, PERCENT) : 0;
  return { kind, server, peer: isOfPair ? peer : null, afterMillis: prng.below(ROUND_MILLIS), millis, percent };
}

/** The next round for a pool of so many servers, of which there are two at least. */
export function nextRound(prng: Prng, servers: number): Round {
  const pauseMillis = between(prng, BETWEEN_MILLIS);
  const majority = Math.floor(servers / 2) + 1;
  // of two servers any loss is one of the majority
  const minority = servers - majority;
  if (minority === 0 || prng.chance(QUORUM_LOSS_CHANCE)) {
    const faults = victims(prng, servers, minority + 1).map((server) => {
      return fault(prng, prng.pick(OF_MANY), server, servers, between(prng, QUORUM_LOSS_MILLIS));
    });
    return { faults, losesQuorum: true, pauseMillis };
  }
  const hurt = victims(prng, servers, 1 + prng.below(minority));
  const faults = hurt.map((server) => {
    const { kind, millis } = kindOf(prng);
    return fault(prng, kind, server, servers, between(prng, millis));
  });
  if (prng.chance(SMBDS_TOO_CHANCE)) {
    const other = Array.from({ length: servers }, (_, id) => id).filter((id) => !hurt.includes(id));
    faults.push(fault(prng, 'smbds killed', prng.pick(other), servers, 0));
  }
  return { faults, losesQuorum: false, pauseMillis };
}

const seconds = (millis: number): string => `${(millis / 1000).toFixed(1)} s`;

/** 'server-1: link down for 2.1 s'. */
export function faultWords({ kind, server, peer, millis, percent }: Fault): string {
  const what = {
    'server killed': `all its processes are killed, it is started again after ${seconds(millis)}`,
    'daemon killed': 'smbpoold is killed',
    'smbds killed': 'smbds that serve clients are killed',
    'main smbd killed': 'the smbd that accepts connections is killed',
    'daemon stopped': `smbpoold is stopped for ${seconds(millis)}`,
    'server frozen': `all its processes are stopped for ${seconds(millis)}`,
    'link down': `its link is down for ${seconds(millis)}`,
    'interface down': `its interface is down for ${seconds(millis)}`,
    'hears nobody': `hears no other server for ${seconds(millis)}`,
    'heard by nobody': `is heard by no other server for ${seconds(millis)}`,
    'not heard by one': `is not heard by server-${peer} for ${seconds(millis)}`,
    'cut off from one': `and server-${peer} do not hear each other for ${seconds(millis)}`,
    'frames lost': `${percent} % of the frames from and to it are lost for ${seconds(millis)}`,
  }[kind];
  return kind === 'cut off from one' ? `server-${server} ${what}` : `server-${server}: ${what}`;
}
