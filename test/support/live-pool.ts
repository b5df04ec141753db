/**
 * Engines of the membership in real time, for the contract that both keep: frames go through memory, the register is a
 * real one. Watches from outside that no run serves that is not in the newest view that anybody installed.
 */
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import type { Incarnation, NodeId } from '../../src/base/ids.js';
import { incarnation, nodeId } from '../../src/base/ids.js';
import type { Effect, Micros } from '../../src/core/effects.js';
import { EtcdMembership } from '../../src/core/membership/etcd.js';
import { MEMBERSHIP_HEARTBEAT_MICROS, MEMBERSHIP_LEASE_MICROS } from '../../src/core/membership/limits.js';
import { Membership } from '../../src/core/membership/membership.js';
import type { EngineName, MembershipEngine, MembershipStatus } from '../../src/core/membership/port.js';
import { Timers } from '../../src/core/timers.js';
import type { View } from '../../src/core/views.js';
import type { PoolRegister } from '../../src/ports/pool-register.js';
import type { SavedMembership } from '../../src/wire/membership-state.js';
import { ANNOUNCEMENT } from './announcement.js';
import { eventually } from './native-helpers.js';

export const L = MEMBERSHIP_LEASE_MICROS;
/** Looks a hundred times a second; nothing of the engines hangs on it. */
const TURN_MS = 2;

export interface LiveOptions {
  engine: EngineName;
  servers: number;
  /** Of the engine etcd: one of its own for each run. */
  register?: (node: NodeId) => PoolRegister;
}

export class LiveServer {
  engine: MembershipEngine | null = null;
  incarnation = 0 as Incarnation;
  readonly views: View[] = [];
  readonly removals: View[] = [];
  leaseUntil: Micros = 0;
  /** Neither sends nor hears. */
  isCut = false;
  private saved: SavedMembership | null = null;
  private timers = new Timers();
  private timer: NodeJS.Timeout | undefined;
  private register: PoolRegister | undefined;
  private time: Micros = 0;

  constructor(
    private readonly pool: LivePool,
    readonly node: NodeId,
  ) {}

  start(): void {
    const { options, all } = this.pool;
    this.incarnation = incarnation(this.incarnation + 1);
    this.views.length = 0;
    this.removals.length = 0;
    this.timers = new Timers();
    this.register = options.register?.(this.node);
    this.time = now();
    const run = this.incarnation;
    const context = {
      now: () => this.time,
      timers: this.timers,
      emit: (effect: Effect) => this.perform(effect, run),
      log: () => undefined,
      count: () => undefined,
    };
    const times = { heartbeatMicros: MEMBERSHIP_HEARTBEAT_MICROS, leaseMicros: L };
    const servers = all.map(({ node }) => ({ node, role: 'server' as const }));
    const Engine = options.engine === 'etcd' ? EtcdMembership : Membership;
    this.engine = new Engine(
      context,
      { self: this.node, incarnation: run, announcement: ANNOUNCEMENT, servers, saved: this.saved, ...times },
      {
        view: (view) => {
          this.views.push(view);
          this.pool.installed(view);
          setTimeout(() => this.input((engine) => engine.recovered(view.epoch)), 5);
        },
        lease: (until) => {
          this.leaseUntil = until;
          this.pool.check('lease');
        },
        removed: (view) => {
          this.removals.push(view);
          this.pool.installed(view);
        },
        send: (peer, body) => this.pool.carry(this, peer, body.slice()),
      },
    );
    this.timer = setInterval(() => this.input(() => undefined), TURN_MS);
  }

  /** Ends without a word. What its lease allows may go on. */
  kill(): void {
    clearInterval(this.timer);
    this.engine = null;
    this.register?.close();
  }

  input(work: (engine: MembershipEngine) => void): void {
    if (this.engine === null) return;
    const { engine } = this;
    this.time = now();
    this.timers.run(this.time);
    // as the links of a real server tell
    engine.setHeard(this.pool.all.filter((one) => one.engine !== null && !one.isCut).map(({ node }) => node));
    if (this.engine === engine) work(engine);
  }

  status(): MembershipStatus {
    assert.ok(this.engine !== null, `server ${this.node} runs`);
    return this.engine.status(now());
  }

  get hasLease(): boolean {
    return this.leaseUntil > now();
  }

  private perform(effect: Effect, run: Incarnation): void {
    const answer = (work: (engine: MembershipEngine) => void): void => {
      if (run === this.incarnation) this.input(work);
    };
    if (effect.kind === 'membership-save') {
      this.saved = effect.state;
      setTimeout(() => answer((engine) => engine.onSaved(effect.token, true)), 1);
      return;
    }
    assert.ok(effect.kind === 'register-request' && this.register !== undefined, effect.kind);
    void this.register.request(effect.request, effect.deadlineMicros).then((result) => {
      answer((engine) => engine.onRegister(effect.token, result));
    });
  }
}

export class LivePool {
  readonly all: LiveServer[];
  newest: View | null = null;
  /** What must never be, as it was seen. */
  readonly violations: string[] = [];

  constructor(readonly options: LiveOptions) {
    this.all = Array.from({ length: options.servers }, (_, node) => new LiveServer(this, nodeId(node)));
  }

  carry(from: LiveServer, to: NodeId, body: Uint8Array): void {
    const receiver = this.all[to]!;
    const run = from.incarnation;
    setTimeout(() => {
      if (from.isCut || receiver.isCut) return;
      receiver.input((engine) => {
        // as its links heard before
        engine.announced(from.node, run, ANNOUNCEMENT);
        engine.onFrame(from.node, run, body);
      });
    }, 1);
  }

  installed(view: View): void {
    if (view.epoch <= (this.newest?.epoch ?? 0)) return;
    this.newest = view;
    this.check('view');
  }

  /** All of it happens in one process, by one clock. */
  check(when: string): void {
    for (const { node, incarnation: run, leaseUntil } of this.all) {
      const isIn = this.newest?.members.some((member) => member.node === node && member.incarnation === run) ?? true;
      const more = leaseUntil - now();
      if (!isIn && more > 0) this.violations.push(`${when}: ${node}/${run} may serve ${more} us longer`);
    }
    // embedded, a new leader may be elected while the one before has some left
    if (this.options.engine === 'embedded') return;
    const authorities = this.all.flatMap(({ engine }) => engine?.status(now()).authorityUntil ?? []);
    if (authorities.filter((until) => until > now()).length > 1) this.violations.push(`${when}: two lead`);
  }

  stop(): void {
    for (const server of this.all) server.kill();
  }

  leader(): LiveServer | undefined {
    return this.all.find(({ engine, isCut }) => !isCut && engine?.status(now()).role === 'leader');
  }

  /** These are the members, all have installed the view and may serve. */
  async whole(servers: readonly LiveServer[] = this.all, timeoutMs = 8_000): Promise<View> {
    const nodes = servers.map(({ node }) => node).join();
    await eventually(`members are ${nodes}`, () => servers.every((server) => {
      const view = server.engine?.status(now()).view;
      const runs = view?.members.map(({ node, incarnation: run }) => this.all[node]!.incarnation === run && node);
      return runs?.join() === nodes && view?.epoch === this.newest?.epoch && server.hasLease;
    }), timeoutMs);
    return this.newest!;
  }
}

function now(): Micros {
  return Math.floor(performance.now() * 1000);
}
