/**
 * Clients that watch folders, and change things in them, with their smbds: what these tell notifyd and, by the VFS
 * module, the daemon.
 */
import type { NodeId } from '../../src/base/ids.js';
import type { Micros } from '../../src/core/effects.js';
import { RING_OP, TREE_FLAG } from '../../src/wire/ring-ops.js';
import type { ServerId, WatchChange } from '../../src/wire/samba-messages.js';
import { decodeSambaMessage, encodeWatchChange } from '../../src/wire/samba-messages.js';
import { encodeHello, encodeNotifyBegin, encodeNotifyEnd, encodeTreeConnect } from '../support/ring-messages.js';
import type { SimulatedNotifyd, ToldOfChange } from './notifyd.js';
import { decodeTold } from './notifyd.js';
import type { Shared } from './shared.js';
import type { SimulatedSmbd, Steps, WatchModule } from './smbd.js';
import type { WatchChecker } from './watch-checker.js';

const FOLDERS = ['/srv/a', '/srv/b'];
const WATCHES_MAX = 4;
/** A datagram to notifyd. */
const LOCAL_MICROS_MAX = 50;
/** Late watches count by then: notifyd's own log came, and a server that was away asked for what it missed. */
const LATE_MICROS = 3_000_000;
const REST_LOOKS = 20;
const REST_LOOK_MICROS = 100_000;
/** encodeTreeConnect's. */
const TREE = 1n;

/** What the watching smbds of a run have in common. */
export class WatchWorld {
  readonly notifyds = new Map<NodeId, SimulatedNotifyd>();
  private readonly byPid = new Map<bigint, WatchingSmbd>();
  private lastWatch = 0;
  private lastChange = 0;

  constructor(
    readonly checker: WatchChecker,
    readonly after: (micros: Micros, action: () => void) => void,
    /** Whether every server can be reached by all others just now. */
    readonly isWhole: () => boolean,
    /** Without our module: watches count when notifyd's log comes. */
    readonly isStock: boolean,
    /** Whether no daemon was replaced just now: then notifyds ask each other anew what is watched. */
    readonly isCalm: () => boolean,
  ) {}

  nextWatch(): number {
    return ++this.lastWatch;
  }

  nextChange(): number {
    return ++this.lastChange;
  }

  add(pid: number, smbd: WatchingSmbd): void {
    this.byPid.set(BigInt(pid), smbd);
  }

  /** A datagram of a notifyd. */
  tellLocal(pid: bigint, told: ToldOfChange): void {
    this.after(LOCAL_MICROS_MAX, () => this.byPid.get(pid)?.hears(told));
  }
}

class WatchingSmbd implements WatchModule {
  private readonly world: WatchWorld;
  private readonly id: ServerId;
  private readonly watches = new Map<bigint, { number: number; change: WatchChange }>();
  private nextHandle = 1n;
  private lastLocal: Micros = 0;
  private isConnected = false;

  constructor(
    private readonly shared: Shared,
    private readonly smbd: SimulatedSmbd,
  ) {
    if (shared.watches === null) throw new Error('this run has no watches');
    this.world = shared.watches;
    this.id = { pid: BigInt(smbd.pid), task: 0, vnn: smbd.server.self, unique: BigInt(smbd.pid) };
    this.world.add(smbd.pid, this);
  }

  *start(): Steps<void> {
    this.smbd.doing = 'connecting a tree';
    yield* this.smbd.register(this.id.pid);
    this.smbd.watchModule = this;
    this.smbd.loadModule();
    this.smbd.sendRing(RING_OP.treeConnect, encodeTreeConnect('pool', 'bob', '/srv', TREE_FLAG.wantsReply));
    yield { for: 'answer', op: RING_OP.treeReady, number: TREE };
    this.isConnected = true;
  }

  greet(): void {
    this.smbd.sendRing(RING_OP.hello, encodeHello('g'.repeat(16), '10.0.0.1:1', 'pc', this.id));
    if (!this.isConnected) return;
    this.smbd.sendRing(RING_OP.treeConnect, encodeTreeConnect('pool', 'bob', '/srv', TREE_FLAG.replay));
  }

  replay(): void {
    if (this.world.isStock) return;
    for (const { number, change } of this.watches.values()) {
      this.smbd.sendRing(RING_OP.notifyBegin, encodeNotifyBegin(BigInt(number), change, false));
    }
  }

  *act(): Steps<void> {
    this.hearMessages();
    const what = this.shared.prng.below(10);
    if (what < 5) this.change(this.shared.prng.pick(FOLDERS), false);
    else if (what < 8 && this.watches.size < WATCHES_MAX) yield* this.watch();
    else if (this.watches.size > 0) this.end();
    this.smbd.doing = 'thinking';
    yield { for: 'time', micros: 1 + this.shared.prng.below(20_000) };
  }

  /** Faults are over: what is changed from now on is told to all, late or not. */
  *lastChanges(): Steps<void> {
    yield { for: 'time', micros: LATE_MICROS };
    for (const folder of FOLDERS) this.change(folder, true);
    for (let i = 0; i < REST_LOOKS; i++) {
      this.smbd.doing = 'hearing the rest';
      yield { for: 'time', micros: REST_LOOK_MICROS };
      this.hearMessages();
    }
  }

  private local(action: (notifyd: SimulatedNotifyd) => void): void {
    const { prng } = this.shared;
    const { time } = this.smbd;
    const arrival = Math.max(this.lastLocal + 1, time.now + 1 + prng.below(LOCAL_MICROS_MAX));
    this.lastLocal = arrival;
    const notifyd = this.world.notifyds.get(this.smbd.server.self);
    time.after(arrival - time.now, () => notifyd && action(notifyd));
  }

  private *watch(): Steps<void> {
    const { smbd, world } = this;
    const folder = this.shared.prng.pick(FOLDERS);
    const handle = this.nextHandle++;
    const number = world.nextWatch();
    const bytes = new Uint8Array(Buffer.from(folder));
    const change = { since: new Uint8Array(16), filter: 1, subdirFilter: 0, handle, folder: bytes };
    smbd.doing = `watching ${folder}`;
    smbd.say(`watches ${folder} as ${number}`);
    this.watches.set(handle, { number, change });
    this.local((notifyd) => notifyd.watches(this.id, encodeWatchChange(change)));
    let everywhere = true;
    if (!world.isStock) {
      smbd.sendRing(RING_OP.notifyBegin, encodeNotifyBegin(BigInt(number), change));
      yield { for: 'answer', op: RING_OP.notifyReady, number: BigInt(number) };
      everywhere = smbd.answered === 0;
    }
    world.checker.answered(number, smbd.name, folder, everywhere && world.isWhole() && world.isCalm());
  }

  private end(): void {
    const { smbd, world } = this;
    const [handle, { number, change }] = this.shared.prng.pick([...this.watches]);
    smbd.say(`does not watch ${number} any more`);
    this.watches.delete(handle);
    world.checker.ended(number);
    const ended = encodeWatchChange({ ...change, filter: 0, subdirFilter: 0 });
    this.local((notifyd) => notifyd.watches(this.id, ended));
    if (!world.isStock) smbd.sendRing(RING_OP.notifyEnd, encodeNotifyEnd(BigInt(number)));
  }

  private change(folder: string, all: boolean): void {
    const change = this.world.nextChange();
    this.smbd.say(`makes change ${change} in ${folder}`);
    if (this.world.isCalm()) this.world.checker.changed(change, folder, this.smbd.server.self, all);
    this.local((notifyd) => notifyd.changed(folder, change));
  }

  private hearMessages(): void {
    for (let data = this.smbd.nextMessage(); data !== null; data = this.smbd.nextMessage()) {
      this.hears(decodeTold(decodeSambaMessage(data).payload));
    }
  }

  hears({ handle, change }: ToldOfChange): void {
    const watch = this.smbd.dead ? undefined : this.watches.get(handle);
    if (watch === undefined) return;
    this.smbd.say(`is told of change ${change}, watching as ${watch.number}`);
    this.world.checker.told(watch.number, change);
  }
}

/** The life of a smbd whose client watches folders and changes what is in them. */
export function* watch(shared: Shared, smbd: SimulatedSmbd, stop: () => boolean): Steps<void> {
  const client = new WatchingSmbd(shared, smbd);
  yield* client.start();
  while (!stop()) {
    yield* client.act();
    smbd.totals.operations++;
  }
  yield* client.lastChanges();
}
