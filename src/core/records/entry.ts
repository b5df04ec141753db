/**
 * What a home knows of one record, and what it is doing about it. Plain data; directory.ts and mirrors.ts change it.
 */
import type { DatabaseId, NodeId, RecordKey, Turn } from '../../base/ids.js';
import { turn as toTurn } from '../../base/ids.js';
import type { AccessMode, Micros } from '../effects.js';

/** What the home is doing for the asker at the head of the queue. */
export interface Operation {
  /** Who gets the record; with 'restore' and 'forget' nobody new does. */
  node: NodeId;
  /** The asker's run, for its answer; 0 where nobody asked. */
  run: number;
  mode: AccessMode | 'restore' | 'forget';
  /** revoking: readers are asked to drop their copies; moving: the asker's 'have' is awaited. */
  phase: 'revoking' | 'moving' | 'restoring';
  awaiting: readonly NodeId[];
  /** The turn of the messages sent in this phase; answers of another turn are stale. */
  turn: Turn;
}

/** A former owner, and the turn in which it gave the record away. */
export interface Backup {
  keeper: NodeId;
  turn: Turn;
}

export interface Entry {
  database: DatabaseId;
  key: RecordKey;
  owner: NodeId | null;
  /** The turn with which the owner owns it. */
  ownerTurn: Turn;
  /** The turn in which it became the owner, as far as we know: it may have been given later ones. */
  ownedSince: Turn;
  /** The highest turn used for this key. */
  turn: Turn;
  /**
   * Former owners whose tdbs keep the payload as they handed it over, the newest first: one; two while the newest is
   * being restored, so that its keeper is never the only one to have the record; all, unsorted, while claims come.
   */
  backups: Backup[];
  /** The owner died with the record: it is restored from a reader's copy or the backup before anything else. */
  lost: boolean;
  /** Gave or was given the record when the other died: may have the newest content, or may get it still. */
  maybe: NodeId | null;
  /** In the order in which they came. */
  readers: readonly NodeId[];
  current: Operation | null;
  queue: { node: NodeId; run: number; mode: AccessMode }[];
  history: { owner: NodeId; turn: number; at: Micros }[];
  /** Claims are still to come, or have come and nothing was decided yet. */
  isRebuilt: boolean;
  /** It is in `unrestored`, and to be restored. */
  isUnrestored: boolean;
  /** Its owner erased it while claims were still to come: it is to end, whatever else is claimed. */
  isErased: boolean;
  /** Perhaps its owner alone has it, because others were lost: it is in `bare`, or will be when it is not busy. */
  bare: 'no' | 'queued' | 'busy';
  /** The backup that its owner was told to send, not answered for yet: to whom, by which turn it owned it. */
  mirror: { to: NodeId; turn: Turn } | null;
  /** How many of the runs that left it has forgotten: see Directory.catchUp. */
  departures: number;
}

/** @param departures how many runs have left so far: it names none of them */
export function newEntry(database: DatabaseId, key: RecordKey, departures: number): Entry {
  return {
    database,
    key,
    owner: null,
    ownerTurn: toTurn(0),
    ownedSince: toTurn(0),
    turn: toTurn(0),
    backups: [],
    lost: false,
    maybe: null,
    readers: NO_NODES,
    current: null,
    queue: [],
    history: [],
    isRebuilt: false,
    isUnrestored: false,
    isErased: false,
    bare: 'no',
    mirror: null,
    departures,
  };
}

export const NO_NODES: readonly NodeId[] = [];

/** Whether the entry names the server in any way: most name only one of many. */
export function isNamed(entry: Entry, node: NodeId): boolean {
  const { owner, backups, maybe, mirror, readers, current, queue } = entry;
  if (owner === node || maybe === node || mirror?.to === node || readers.includes(node)) return true;
  if (backups.some(({ keeper }) => keeper === node)) return true;
  if (current !== null && (current.node === node || current.awaiting.includes(node))) return true;
  return queue.some((ask) => ask.node === node);
}

export function withNode(nodes: readonly NodeId[], node: NodeId): readonly NodeId[] {
  return nodes.includes(node) ? nodes : [...nodes, node];
}

export function withoutNode(nodes: readonly NodeId[], node: NodeId): readonly NodeId[] {
  return nodes.includes(node) ? nodes.filter((other) => other !== node) : nodes;
}

/** Whether somebody keeps what others had in it when its owner became the owner; of older ones nobody knows. */
export function hasBackup({ backups, ownedSince }: Entry): boolean {
  return backups.some(({ turn }) => turn >= ownedSince);
}

/** Returns whether it kept one. */
export function forgetBackup(entry: Entry, keeper: NodeId): boolean {
  if (!entry.backups.some((backup) => backup.keeper === keeper)) return false;
  entry.backups = entry.backups.filter((backup) => backup.keeper !== keeper);
  return true;
}
