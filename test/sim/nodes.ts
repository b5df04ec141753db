/** The cores the simulator can run: the whole PoolNode, or links and records with the smallest gate (bare-node). */
import { PoolNode } from '../../src/core/node.js';
import type { View } from '../../src/core/views.js';
import { BareNode } from './bare-node.js';
import type { NodeFactory, NodeOptions, SteppedNode } from './server.js';
import type { Sabotage } from './settings.js';

export type NodeKind = 'pool' | 'bare';

/** A frame that carries some dozen records, and a ring small enough that windows matter. */
const FRAME_BODY_BYTES_MAX = 1400;
const RECEIVE_FRAMES_MAX = 512;
/** How much longer than promised the planted bug keeps records. */
const PINS_TOO_LONG_MICROS = 50_000;

export function makePoolNode(options: NodeOptions, sabotage: Sabotage = 'none'): SteppedNode {
  const node = new PoolNode({
    ...options,
    frameBodyBytesMax: FRAME_BODY_BYTES_MAX,
    receiveFramesMax: RECEIVE_FRAMES_MAX,
    // there are few keys: so that what a view change does in slices is done in several
    sliceSize: 1 + (options.incarnation % 4),
    gate: { addresses: new Map(), pid: 1, wallClockOriginMicros: 0 },
  });
  plant(node, sabotage);
  return {
    step: (input, now) => node.step(input, now),
    deadline: () => node.deadline(),
    waiting: () => node.status().waitingRequests,
    view: () => node.installed,
    fitness: () => node.status().fitness,
  };
}

/** Plants a bug in the core, which the canary tests must find. */
function plant(node: PoolNode, sabotage: Sabotage): void {
  const records = partOf(node, 'records');
  const holdings = partOf(records, 'holdings');
  const pins = partOf(records, 'pins');
  const method = (of: object, name: string): ((...given: unknown[]) => unknown) =>
    (Reflect.get(of, name) as (...given: unknown[]) => unknown).bind(of);
  const changeNotify = partOf(partOf(node, 'gate'), 'changeNotify');
  if (sabotage === 'answer-watches-early') {
    Reflect.set(changeNotify, 'wait', (done: (everywhere: boolean) => void) => done(true));
  }
  if (sabotage === 'serve-before-watches') Reflect.set(changeNotify, 'whenComplete', (done: () => void) => done());
  const recovery = partOf(records, 'recovery');
  if (sabotage === 'claim-nothing') Reflect.set(recovery, 'claim', () => undefined);
  if (sabotage === 'claim-at-once') Reflect.set(recovery, 'awaited', () => []);
  if (sabotage === 'no-mirrors') Reflect.set(partOf(records, 'directory'), 'mirrorSome', () => false);
  plantInResuming(node, records, sabotage);
  plantInDraining(node, sabotage);
  plantInFolders(node, sabotage);
  if (sabotage === 'no-pins') Reflect.set(holdings, 'pin', () => undefined);
  if (sabotage === 'ready-too-early') {
    const answer = method(pins, 'answer');
    Reflect.set(pins, 'collect', (operation: unknown) => answer(operation, true));
  }
  if (sabotage === 'keep-pins') {
    const stays = partOf(holdings, 'stays');
    const pinnedUntil = method(stays, 'pinnedUntil');
    Reflect.set(stays, 'pinnedUntil', (holding: unknown) => {
      const until = pinnedUntil(holding) as number;
      return until === 0 ? 0 : until + PINS_TOO_LONG_MICROS;
    });
  }
}

/** The same in what concerns runs that continue others. */
function plantInResuming(node: PoolNode, records: object, sabotage: Sabotage): void {
  const nothing = (): void => undefined;
  if (sabotage === 'resume-without-records') Reflect.set(records, 'keepRecord', nothing);
  if (sabotage === 'resume-without-erasures') Reflect.set(records, 'keepErasure', nothing);
  if (sabotage === 'kept-clients-untold') {
    const gate = partOf(node, 'gate') as { keepClient(kept: unknown): void };
    const processes = partOf(gate, 'processes') as { clientOpened(client: unknown): void };
    const { keepClient } = gate;
    Reflect.set(gate, 'keepClient', (kept: unknown) => {
      const { clientOpened } = processes;
      processes.clientOpened = nothing;
      keepClient.call(gate, kept);
      processes.clientOpened = clientOpened;
    });
  }
  if (sabotage === 'lose-between-runs') {
    const links = Reflect.get(partOf(node, 'links'), 'links') as object[];
    for (const link of links) Reflect.set(link, 'carries', () => false);
  }
  if (sabotage === 'keep-homes') {
    const homes = partOf(records, 'homes') as { install(view: View): void };
    const install = homes.install.bind(homes);
    Reflect.set(homes, 'install', (view: View) => {
      const members = view.members.map(({ node: of, incarnation, since }) => ({ node: of, incarnation, since }));
      const former = view.former.map(({ epoch, members: runs }) => ({ epoch, members: runs }));
      install({ ...view, members, former });
    });
  }
}

/** The same in what concerns folders. */
function plantInFolders(node: PoolNode, sabotage: Sabotage): void {
  const folders = partOf(node, 'folders');
  if (sabotage === 'leave-unrecalled') Reflect.set(folders, 'mayLeave', () => true);
  if (sabotage === 'delegate-unseen') Reflect.set(folders, 'hasExcluder', () => false);
}

/** The same in what concerns drained servers. */
function plantInDraining(node: PoolNode, sabotage: Sabotage): void {
  const fitness = partOf(node, 'fitness');
  const breaks = partOf(fitness, 'breaks') as { start(done: (() => void) | null): void; stop(): void; context: object };
  const { context } = breaks;
  const start = breaks.start.bind(breaks);
  const stop = breaks.stop.bind(breaks);
  const withoutFlag = (action: () => void): void => {
    breaks.context = Object.create(context, { emit: { value: () => undefined } }) as object;
    action();
    breaks.context = context;
  };
  if (sabotage === 'no-flag-at-start') {
    breaks.start = (done) => (done === null ? withoutFlag(() => start(null)) : start(done));
  }
  if (sabotage === 'keep-flag') breaks.stop = () => withoutFlag(stop);
  if (sabotage === 'drain-before-breaks') {
    breaks.start = (done) => {
      start(null);
      done?.();
    };
  }
  if (sabotage === 'drain-untold') {
    const peerUp = (Reflect.get(fitness, 'peerUp') as (peer: unknown) => void).bind(fitness);
    Reflect.set(fitness, 'peerUp', (peer: unknown) => {
      if (Reflect.get(fitness, 'wished') !== true) peerUp(peer);
    });
  }
  if (sabotage === 'lose-break-all') {
    const operations = partOf(node, 'operations') as { attached(id: number, pid: number): void; breakNumber: unknown };
    const attached = operations.attached.bind(operations);
    operations.attached = (id, pid) => {
      const { breakNumber } = operations;
      operations.breakNumber = null;
      attached(id, pid);
      operations.breakNumber = breakNumber;
    };
  }
}

function partOf(whole: object, name: string): object {
  const part: unknown = Reflect.get(whole, name);
  if (typeof part !== 'object' || part === null) throw new TypeError(`the core has no ${name} to plant a bug in`);
  return part;
}

export function nodeFactory(kind: NodeKind, sabotage: Sabotage = 'none'): NodeFactory {
  return kind === 'pool' ? (options) => makePoolNode(options, sabotage) : (options) => new BareNode(options);
}
