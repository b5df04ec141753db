/** Bugs planted in the membership, which the checker must find: each undoes one rule that safety or liveness needs. */
import type { NodeId } from '../../../src/base/ids.js';
import type { Micros } from '../../../src/core/effects.js';
import { names } from '../../../src/core/membership/composition.js';
import type { ServerList, ServerLists } from '../../../src/core/membership/configuration.js';
import { left } from '../../../src/core/membership/configuration.js';
import type { KnownServer, Versions } from '../../../src/core/membership/versions.js';
import type { View } from '../../../src/core/views.js';
import type { Configuration } from '../../../src/wire/membership-configuration.js';
import { RELEASES } from './releases.js';
import type { Sabotage } from './settings.js';

type Method = (...given: unknown[]) => unknown;

function partOf(whole: object, name: string): object {
  const part: unknown = Reflect.get(whole, name);
  if (typeof part !== 'object' || part === null) throw new TypeError(`the membership has no ${name} to plant a bug in`);
  return part;
}

function methodOf(whole: object, name: string): Method {
  const method: unknown = Reflect.get(whole, name);
  if (typeof method !== 'function') throw new TypeError(`no ${name} to plant a bug in`);
  return method.bind(whole) as Method;
}

export function plant(engine: object, sabotage: Sabotage): void {
  if (sabotage === 'none' || plantInEtcd(engine, sabotage)) return;
  if (sabotage === 'heard-is-enough') return plantInPeers(partOf(engine, 'peers'));
  const voting = (): object => partOf(engine, 'voting');
  const saving = partOf(engine, 'saving');
  const ownLease = partOf(partOf(engine, 'own'), 'lease');
  switch (sabotage) {
    case 'resumed-is-anew': {
      const peers = partOf(engine, 'peers') as { all: { resumes: number }[] };
      for (const peer of peers.all) Object.defineProperty(peer, 'resumes', { get: () => 0, set: () => undefined });
      return;
    }
    case 'resumes-what-is-over':
      Reflect.set(partOf(engine, 'own'), 'isOverIn', () => false);
      return;
    case 'vote-unsaved': {
      const onVote = methodOf(engine, 'onVote');
      const whenSaved = methodOf(saving, 'whenSaved');
      Reflect.set(engine, 'onVote', (...given: unknown[]) => {
        Reflect.set(saving, 'whenSaved', (action: () => void) => action());
        onVote(...given);
        Reflect.set(saving, 'whenSaved', whenSaved);
      });
      return;
    }
    case 'accept-unsaved':
      Reflect.set(saving, 'whenSaved', (action: () => void) => action());
      return;
    case 'no-promise':
      Reflect.set(voting(), 'promise', () => undefined);
      return;
    case 'forget-promise':
      Reflect.set(voting(), 'boundUntil', -Infinity);
      return;
    case 'inherited-ignored':
      Reflect.set(engine, 'inheritedMicros', -Infinity);
      return;
    case 'lease-from-receipt': {
      const extend = methodOf(ownLease, 'extend');
      Reflect.set(ownLease, 'onGrant', ({ echo, remaining }: { echo: Micros; remaining: Micros }, now: Micros) => {
        if (echo !== 0) extend(now + remaining);
        return true;
      });
      return;
    }
    case 'no-pre-vote': {
      const stand = methodOf(engine, 'stand');
      Reflect.set(engine, 'stand', (dueAt: Micros) => {
        stand(dueAt);
        const candidacy: unknown = Reflect.get(engine, 'candidacy');
        if (typeof candidacy !== 'object' || candidacy === null) return;
        if (Reflect.get(candidacy, 'phase') === 'vote') return;
        Reflect.set(candidacy, 'granted', new Set(Array.from({ length: 64 }, (_, node) => node)));
        methodOf(engine, 'maybeWin')();
      });
      return;
    }
    case 'judge-asleep':
      Reflect.set(partOf(engine, 'peers'), 'slept', () => undefined);
      return;
    case 'goes-before-all':
      Reflect.defineProperty(engine, 'isUnanswered', { get: () => false, set: () => undefined });
      return;
    case 'take-everybody':
    case 'ask-members-only':
    case 'protocol-falls':
    case 'foreign-stands':
      return plantInVersions(partOf(engine, 'versions'), sabotage);
    case 'majority-of-the-file':
    case 'authority-of-the-file':
    case 'forgets-the-servers':
    case 'two-servers-at-once':
      return plantInServers(engine, sabotage);
    default:
      plantInLeader(engine, sabotage === 'no-lease-wait');
  }
}

function plantInPeers(peers: object): void {
  const heard = methodOf(peers, 'heard');
  Reflect.set(peers, 'heard', (peer: { silentFrom: Micros; unansweredFrom: Micros }, ...given: unknown[]) => {
    const isAnew = heard(peer, ...given);
    peer.unansweredFrom = peer.silentFrom;
    return isAnew;
  });
}

function plantInVersions(
  versions: object,
  sabotage: 'take-everybody' | 'ask-members-only' | 'protocol-falls' | 'foreign-stands',
): void {
  const next = methodOf(versions, 'next') as Versions['next'];
  switch (sabotage) {
    case 'take-everybody':
      Reflect.set(versions, 'speaks', () => ({ min: 1, max: RELEASES }));
      return;
    case 'ask-members-only':
      Reflect.set(versions, 'next', (base: View | null, servers: KnownServer[]) =>
        next(base, servers.filter((server) => base === null || names(base, server))));
      return;
    case 'protocol-falls':
      Reflect.set(versions, 'next', (base: View | null, servers: KnownServer[]) =>
        next(base === null ? null : { ...base, protocol: 1 }, servers));
      return;
    case 'foreign-stands':
      Reflect.set(versions, 'canJoin', () => true);
  }
}

/** What each does wrong with the servers of the pool. */
function plantInServers(
  engine: object,
  sabotage:
    'majority-of-the-file' | 'authority-of-the-file' | 'forgets-the-servers' | 'two-servers-at-once',
): void {
  const lists = partOf(engine, 'lists') as ServerLists;
  const file = (): Configuration => lists.of(undefined)!.configuration;
  const lead = methodOf(engine, 'lead');
  Reflect.set(engine, 'lead', (...given: unknown[]) => {
    lead(...given);
    const leading: unknown = Reflect.get(engine, 'leading');
    if (typeof leading !== 'object' || leading === null) return;
    const agreement = partOf(leading, 'agreement');
    const changing = partOf(leading, 'changing');
    const nextServers = methodOf(changing, 'next') as (...of: unknown[]) => ServerList | null;
    switch (sabotage) {
      case 'majority-of-the-file':
        Reflect.set(partOf(agreement, 'ports'), 'configurationOf', file);
        return;
      case 'authority-of-the-file':
        Reflect.set(agreement, 'counted', () => file().counted);
        return;
      case 'forgets-the-servers':
        Reflect.defineProperty(leading, 'list', {
          get: () => lists.of((Reflect.get(leading, 'proposal') as View | null)?.configuration),
        });
        return;
      case 'two-servers-at-once':
        Reflect.set(changing, 'next', (...of: unknown[]) => {
          const next = nextServers(...of);
          const members = of[1] as readonly { node: NodeId }[];
          const isMember = (other: NodeId): boolean => members.some(({ node: member }) => member === other);
          const node = next?.configuration.counted.find((other) => !isMember(other));
          if (next === null || node === undefined) return next;
          const { configuration, servers } = left(next, node);
          return { configuration: { ...configuration, number: next.configuration.number }, servers };
        });
        return;
    }
  });
}

function plantInLeader(engine: object, isLeaseWait: boolean): void {
  const lead = methodOf(engine, 'lead');
  Reflect.set(engine, 'lead', (...given: unknown[]) => {
    const candidateView: unknown = Reflect.get(partOf(engine, 'saving'), 'accepted');
    lead(...given);
    const leading: unknown = Reflect.get(engine, 'leading');
    if (typeof leading !== 'object' || leading === null) return;
    if (isLeaseWait) {
      Reflect.set(partOf(leading, 'authority'), 'leaseOverAt', () => -Infinity);
    } else if (candidateView !== null) {
      // what an earlier leader proposed is taken for agreed without being proposed again
      methodOf(engine, 'install')(candidateView);
    }
  });
}

/** Whether it is a bug of the engine on etcd. */
function plantInEtcd(engine: object, sabotage: Sabotage): boolean {
  switch (sabotage) {
    case 'no-challenge-wait': {
      const act = methodOf(engine, 'act');
      Reflect.set(engine, 'act', () => {
        const challenge: unknown = Reflect.get(engine, 'challenge');
        if (typeof challenge === 'object' && challenge !== null) Reflect.set(challenge, 'since', -Infinity);
        act();
      });
      return true;
    }
    case 'challenge-ignored': {
      const goOn = methodOf(engine, 'goOnLeading');
      Reflect.set(engine, 'goOnLeading', (leading: unknown, state: object, askedAt: Micros) =>
        goOn(leading, { ...state, challenge: null }, askedAt));
      return true;
    }
    case 'overtaken-answers': {
      const register = partOf(engine, 'register');
      const learn = methodOf(register, 'learn');
      Reflect.set(register, 'learn', (known: unknown, askedAt: Micros) => {
        Reflect.set(register, 'knownAt', -Infinity);
        return learn(known, askedAt);
      });
      return true;
    }
    case 'proposal-dropped': {
      // what failed is given up, and may be done all the same
      const register = partOf(engine, 'register');
      const onFailure = methodOf(register, 'onFailure');
      Reflect.set(register, 'onFailure', (why: unknown, asked: unknown) => {
        const proposal: unknown = Reflect.get(engine, 'proposal');
        const leading: unknown = Reflect.get(engine, 'leading');
        if (typeof leading === 'object' && leading !== null && proposal !== null) {
          Reflect.set(engine, 'proposal', null);
          Reflect.set(leading, 'proposal', Reflect.get(leading, 'agreed'));
        }
        onFailure(why, asked);
      });
      return true;
    }
    // planted in what the links tell
    case 'hears-one-way':
      return true;
    default:
      return false;
  }
}
