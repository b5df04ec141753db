/**
 * Garbage for the membership: spoiled messages and files against their decoders, and an engine whose peers are
 * authentic but talk nonsense. Only DecodeError may be thrown by a decoder, nothing by the engine, and what was decoded
 * encodes to the same value.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import type { Prng } from '../../src/base/prng.js';
import type { Effect } from '../../src/core/effects.js';
import { Membership } from '../../src/core/membership/membership.js';
import { Timers } from '../../src/core/timers.js';
import type { MembershipContent, MembershipMessage } from '../../src/wire/membership-messages.js';
import {
  EPOCHS_PER_TERM, decodeMembershipMessage, encodeMembershipMessage, epochOf,
} from '../../src/wire/membership-messages.js';
import type { RegisterState } from '../../src/wire/membership-register.js';
import { decodeRegister, encodeRegister } from '../../src/wire/membership-register.js';
import type { SavedMembership } from '../../src/wire/membership-state.js';
import { decodeSaved, encodeSaved } from '../../src/wire/membership-state.js';
import { isWithin } from '../../src/wire/protocol-version.js';
import type { Run, View } from '../../src/wire/membership-views.js';
import { FORMER_VIEWS_MAX, viewBytes } from '../../src/wire/membership-views.js';
import { SEED, fuzz, spoil } from '../support/fuzzing.js';

console.log(`seed ${SEED}`);

function decodes<T>(decode: (bytes: Uint8Array) => T, bytes: Uint8Array): T | null {
  try {
    return decode(bytes);
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

function randomRuns(prng: Prng): Run[] {
  const nodes = [0, 1, 2, 3, 63].filter(() => prng.chance(0.6));
  return nodes.map((node) => ({ node: nodeId(node), incarnation: incarnation(1 + prng.below(3)) }));
}

/** A sound view of this term. */
function randomView(prng: Prng, term: number): View {
  const n = 20 + prng.below(3);
  const runs = randomRuns(prng);
  const members = (runs.length > 0 ? runs : [{ node: nodeId(0), incarnation: incarnation(1) }]).map((run) => {
    return { ...run, since: epoch(prng.pick([1, 2, epochOf(term, n)])) };
  });
  const former = Array.from({ length: prng.below(FORMER_VIEWS_MAX + 1) }, (_, i) => {
    return { epoch: epochOf(term, i + 1), members: randomRuns(prng) };
  });
  const past = randomRuns(prng).filter(({ node }) => !members.some((member) => member.node === node));
  const holders = [0, 1, 63].filter(() => prng.chance(0.3)).map(nodeId);
  const protocol = prng.pick([1, 1, 1, 2, 0xffff]);
  return { epoch: epochOf(term, n), leader: prng.pick(members).node, protocol, members, holders, former, past };
}

function randomMessage(prng: Prng): MembershipMessage {
  const term = prng.pick([1, 1, 2, 3, prng.u32()]);
  const number = (): number => prng.pick([0, 1, prng.u32(), EPOCHS_PER_TERM + 1, 2 ** 52]);
  const flag = prng.chance(0.5);
  const view = prng.chance(0.7) ? randomView(prng, term) : null;
  const remaining = prng.pick([0, 300_000, 0xffff_ffff]);
  const content = prng.pick<MembershipContent>([
    { kind: 'hello', answerWanted: flag, accepted: number() },
    { kind: prng.pick(['pre-vote', 'vote'] as const), accepted: number(), sentAt: number() },
    {
      kind: prng.pick(['pre-vote-answer', 'vote-answer'] as const), granted: flag, accepted: number(), echo: number(),
      view,
    },
    { kind: 'heartbeat', sentAt: number(), agreed: view?.epoch ?? number(), echo: number(), remaining, view },
    {
      kind: 'answer', willing: flag, released: !flag && prng.chance(0.5), isBlank: prng.chance(0.5), echo: number(),
      sentAt: number(), accepted: number(), installed: number(), recovered: number(),
      unheard: randomRuns(prng).map(({ node }) => node),
    },
  ]);
  return { ...content, to: incarnation(prng.pick([5, 5, 5, 0, 4])), term };
}

test('messages come back as they were', () => {
  fuzz((prng) => {
    const message = randomMessage(prng);
    assert.deepEqual(decodeMembershipMessage(encodeMembershipMessage(message)), message);
  }, 1);
});

test('spoiled messages', () => {
  fuzz((prng) => {
    const good = encodeMembershipMessage(randomMessage(prng));
    const bytes = prng.chance(0.1) ? prng.bytes(prng.below(200)) : spoil(prng, good);
    const message = decodes(decodeMembershipMessage, bytes);
    if (message !== null) assert.deepEqual(decodeMembershipMessage(encodeMembershipMessage(message)), message);
  });
});

test('a view has as many bytes as viewBytes says', () => {
  fuzz((prng) => {
    const view = randomView(prng, 1);
    const times = { sentAt: 1, echo: 0, remaining: 0 };
    const head = { kind: 'heartbeat', ...times, agreed: 0, to: incarnation(1), term: 1 } as const;
    const bytes = encodeMembershipMessage({ ...head, view }).length;
    assert.equal(bytes - encodeMembershipMessage({ ...head, view: null }).length, viewBytes(view));
  }, 1);
});

test('spoiled files are refused, whole ones come back', () => {
  fuzz((prng) => {
    const term = prng.below(9);
    const state: SavedMembership = {
      term,
      votedFor: prng.pick([null, nodeId(0), nodeId(63)]),
      accepted: prng.chance(0.7) ? randomView(prng, term) : null,
      servers: [0, 1, 63].map((node) => ({ node: nodeId(node), role: prng.pick(['server', 'witness'] as const) })),
    };
    const good = encodeSaved(state);
    assert.deepEqual(decodeSaved(good), state);
    const bad = spoil(prng, good);
    if (!Buffer.from(bad).equals(good)) assert.equal(decodes(decodeSaved, bad), null);
  });
});

test('spoiled values of etcd are refused, whole ones come back', () => {
  fuzz((prng) => {
    const term = prng.below(9);
    const run = (): Run => ({ node: nodeId(prng.pick([0, 1, 63])), incarnation: incarnation(1 + prng.below(9)) });
    const challenger = run();
    const state: RegisterState = {
      term,
      leader: prng.chance(0.7) ? run() : null,
      challenge: prng.chance(0.5) ? { ...challenger, hears: [challenger.node] } : null,
      view: prng.chance(0.7) ? randomView(prng, term) : null,
    };
    const good = encodeRegister(state);
    assert.deepEqual(decodeRegister(good), state);
    const bad = spoil(prng, good);
    if (!Buffer.from(bad).equals(good)) assert.equal(decodes(decodeRegister, bad), null);
  });
});

/** An engine of three servers, whose peers the test plays. Its disk answers at once, or not. */
class Victim {
  private now = 1_000_000;
  private readonly timers = new Timers();
  private readonly tokens: number[] = [];
  readonly engine: Membership;

  constructor(private readonly prng: Prng) {
    const context = {
      now: () => this.now,
      timers: this.timers,
      emit: (effect: Effect) => {
        if (effect.kind === 'membership-save') this.tokens.push(effect.token);
      },
      log: () => undefined,
      count: () => undefined,
    };
    const servers = [0, 1, 2].map((node) => ({ node: nodeId(node), role: 'server' as const }));
    const speaks = prng.pick([{ min: 1, max: 1 }, { min: 1, max: 2 }, { min: 2, max: 2 }]);
    const announcement = { speaks, release: '' };
    const options = { self: nodeId(0), incarnation: incarnation(5), announcement, servers, saved: null };
    const times = { heartbeatMicros: 40_000, leaseMicros: 300_000 };
    let epochBefore = 0;
    let leaseBefore = 0;
    this.engine = new Membership(context, { ...options, ...times }, {
      view: (view) => {
        assert.ok(view.epoch > epochBefore, 'views ascend');
        assert.ok(isWithin(speaks, view.protocol), 'views speak what we speak');
        epochBefore = view.epoch;
      },
      lease: (until) => {
        assert.ok(until > leaseBefore, 'the lease ascends');
        leaseBefore = until;
      },
      removed: () => undefined,
      send: (_, body) => void decodeMembershipMessage(body),
    });
  }

  frame(body: Uint8Array): void {
    this.now += this.prng.below(30_000);
    this.timers.run(this.now);
    this.engine.onFrame(nodeId(1 + this.prng.below(3)), incarnation(this.prng.pick([3, 3, 3, 4])), body);
    while (this.tokens.length > 0 && this.prng.chance(0.8)) {
      this.engine.onSaved(this.tokens.shift()!, this.prng.chance(0.9));
    }
    if (this.prng.chance(0.1)) {
      const peer = nodeId(1 + this.prng.below(3));
      const min = 1 + this.prng.below(2);
      const announcement = { speaks: { min, max: min + this.prng.below(2) }, release: '' };
      this.engine.announced(peer, incarnation(this.prng.pick([3, 4])), announcement);
    }
    this.engine.status();
  }
}

test('peers that are authentic and talk nonsense', () => {
  fuzz((prng) => {
    const victim = new Victim(prng);
    for (let i = 0; i < 40; i++) {
      const good = encodeMembershipMessage(randomMessage(prng));
      victim.frame(prng.pick([good, good, good, spoil(prng, good), prng.bytes(prng.below(20))]));
    }
  });
});
