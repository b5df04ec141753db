/**
 * Views (docs/decisions/membership.md) and their bytes, which messages and the file of a server's membership share.
 * A run is named once and the former views refer to it by bits, so that a view fits into one frame. Layout (little
 * endian):
 *
 *   u53 epoch, u8 leader, u16 protocol, u8 holders, u8 epochs, u8 runs, u8 former
 *   holders: u8 node each, ascending
 *   epochs: u53 each, ascending: the views in which members joined
 *   runs:   {u8 node, u8 since, u53 incarnation} by node and incarnation; since: number of an epoch above, or 255 for
 *           the last run of a server that is no member, 254 for a run that only former views name
 *   former: {u53 epoch, bits: one for each run, in whole bytes}, ascending
 *   u8 configuration: 0 none, 1 one follows (membership-configuration.ts)
 *   from protocol 2 on, at the end, and only if there are any: u32 renewed (bit n: the former view number n), u8
 *   resumed, {u8 node, u53 resumes}, ascending
 */
import type { ByteReader, ByteWriter } from '../base/bytes.js';
import { DecodeError } from '../base/bytes.js';
import type { Epoch, Incarnation, NodeId } from '../base/ids.js';
import { NODE_COUNT_MAX, nodeId } from '../base/ids.js';
import type { Configuration } from './membership-configuration.js';
import { CONFIGURATION_BYTES, readConfiguration, writeConfiguration } from './membership-configuration.js';
import { RESUMING_PROTOCOL } from './protocol-version.js';

/** One run of one server. */
export interface Run {
  node: NodeId;
  incarnation: Incarnation;
}

export interface Member extends Run {
  /** The view in which this run joined, or took the place of the one that it continues. */
  since: Epoch;
  /** This run continues all runs of its server from this one on (docs/decisions/resuming.md). Absent: it began anew. */
  resumes?: Incarnation;
}

export interface FormerView {
  epoch: Epoch;
  members: Run[];
  /** In this view a run took the place of the one that it continues: all keys were told to their homes anew. */
  isRenewed?: true;
}

/** All lists are ascending: members, holders and past by node, former by epoch. */
export interface View {
  epoch: Epoch;
  leader: NodeId;
  /** What the members may use with each other (docs/decisions/versions.md); each of them speaks it. */
  protocol: number;
  members: Member[];
  /**
   * In a pool of two servers, where a majority of them is both: those that certainly have every answered commit of the
   * persistent databases; each of them has to have the next one. Empty: not known yet, or another pool; a majority of
   * the servers has them.
   */
  holders: NodeId[];
  /** The views before it that some member may still have to make up for; at most FORMER_VIEWS_MAX. */
  former: FormerView[];
  /** Of each server that is no member but was one: its last run, which is over and never joins again. */
  past: Run[];
  /** The pool's servers; absent: nobody ever changed them in the running pool, so each server goes by its own file. */
  configuration?: Configuration;
}

/** What a view of an earlier layout lacks. */
export interface ViewLayout {
  hasProtocol: boolean;
  hasConfiguration: boolean;
}

const VIEW_LAYOUT: ViewLayout = { hasProtocol: true, hasConfiguration: true };

/**
 * Views that a view tells of at most. A member so many behind does not keep up: it is cheaper to let it start anew.
 */
export const FORMER_VIEWS_MAX = 16;

/** A run is 10 bytes, so a view of more runs does not fit into a frame anyway; 254 and 255 mean something else. */
const RUNS_MAX = 253;
const SINCE_PAST = 255;
const SINCE_FORMER = 254;
const HEAD_BYTES = 15;
const TAIL_BYTES = 1;
/** Of views that were saved before there was the field. */
const PROTOCOL_UNTOLD = 1;

const runOrder = (a: Run, b: Run): number => a.node - b.node || a.incarnation - b.incarnation;
const keyOfRun = (run: Run): string => `${run.node}/${run.incarnation}`;

interface Tables {
  epochs: Epoch[];
  runs: (Run & { since: number })[];
  places: Map<string, number>;
}

function tablesOf(view: View): Tables {
  const epochs = [...new Set(view.members.map(({ since }) => since))].sort((a, b) => a - b);
  const byKey = new Map<string, Run & { since: number }>();
  for (const { members } of view.former) {
    for (const run of members) byKey.set(keyOfRun(run), { ...run, since: SINCE_FORMER });
  }
  for (const run of view.past) byKey.set(keyOfRun(run), { ...run, since: SINCE_PAST });
  for (const { node, incarnation, since } of view.members) {
    byKey.set(keyOfRun({ node, incarnation }), { node, incarnation, since: epochs.indexOf(since) });
  }
  const runs = [...byKey.values()].sort(runOrder);
  return { epochs, runs, places: new Map(runs.map((run, place) => [keyOfRun(run), place])) };
}

/** How many bytes writeView makes of it; Infinity if it has more runs than the layout can name. */
export function viewBytes(view: View): number {
  const { epochs, runs } = tablesOf(view);
  if (runs.length > RUNS_MAX) return Infinity;
  const bitBytes = Math.ceil(runs.length / 8);
  const tail = TAIL_BYTES + (view.configuration === undefined ? 0 : CONFIGURATION_BYTES);
  const lists = view.holders.length + 8 * epochs.length + 10 * runs.length + view.former.length * (8 + bitBytes);
  return HEAD_BYTES + lists + tail + resumedBytes(view);
}

/** Whether it says of runs that they continue, or continued, others: releases at protocol 1 cannot read that. */
export function namesResumed({ members, former }: View): boolean {
  return members.some(({ resumes }) => resumes !== undefined) || former.some(({ isRenewed }) => isRenewed === true);
}

function resumedBytes(view: View): number {
  return namesResumed(view) ? 5 + 9 * view.members.filter(({ resumes }) => resumes !== undefined).length : 0;
}

export function writeView(writer: ByteWriter, view: View): void {
  const { epochs, runs, places } = tablesOf(view);
  writer.u53(view.epoch).u8(view.leader).u16(view.protocol).u8(view.holders.length);
  writer.u8(epochs.length).u8(runs.length).u8(view.former.length);
  for (const node of view.holders) writer.u8(node);
  for (const epoch of epochs) writer.u53(epoch);
  for (const { node, since, incarnation } of runs) writer.u8(node).u8(since).u53(incarnation);
  for (const { epoch, members } of view.former) {
    const bits = new Uint8Array(Math.ceil(runs.length / 8));
    for (const run of members) {
      const place = places.get(keyOfRun(run))!;
      bits[place >> 3]! |= 1 << (place & 7);
    }
    writer.u53(epoch).raw(bits);
  }
  writer.u8(view.configuration === undefined ? 0 : 1);
  if (view.configuration !== undefined) writeConfiguration(writer, view.configuration);
  if (namesResumed(view)) writeResumed(writer, view);
}

function writeResumed(writer: ByteWriter, { former, members }: View): void {
  const renewed = former.reduce((bits, { isRenewed }, i) => bits | (isRenewed === true ? 1 << i : 0), 0);
  const resumed = members.filter((member) => member.resumes !== undefined);
  writer.u32(renewed >>> 0).u8(resumed.length);
  for (const { node, resumes } of resumed) writer.u8(node).u53(resumes!);
}

function readResumed(reader: ByteReader, former: FormerView[], members: Member[]): void {
  const renewed = reader.u32();
  if (former.length < 32 && renewed >>> former.length !== 0) throw new DecodeError('view-renewed');
  former.forEach((before, i) => {
    if ((renewed & (1 << i)) !== 0) before.isRenewed = true;
  });
  let last = -1;
  const count = reader.u8();
  if (count === 0 && renewed === 0) throw new DecodeError('view-resumed-none');
  for (let left = count; left > 0; left--) {
    const node = readNode(reader);
    const resumes = reader.u53() as Incarnation;
    const member = members.find((one) => one.node === node);
    if (node <= last || member === undefined) throw new DecodeError('view-resumed');
    if (resumes === 0 || resumes >= member.incarnation) throw new DecodeError('view-resumes');
    member.resumes = resumes;
    last = node;
  }
}

/** Throws DecodeError for anything that is no sound view. */
export function readView(reader: ByteReader, { hasProtocol, hasConfiguration } = VIEW_LAYOUT): View {
  const epoch = readEpoch(reader);
  const leader = readNode(reader);
  const protocol = hasProtocol ? reader.u16() : PROTOCOL_UNTOLD;
  if (protocol === 0) throw new DecodeError('view-protocol');
  const holderCount = reader.u8();
  const epochCount = reader.u8();
  const runCount = reader.u8();
  const formerCount = reader.u8();
  if (runCount > RUNS_MAX) throw new DecodeError('view-runs', String(runCount));
  if (formerCount > FORMER_VIEWS_MAX) throw new DecodeError('view-former', String(formerCount));
  const holders: NodeId[] = [];
  for (let i = 0; i < holderCount; i++) {
    const node = readNode(reader);
    if (node <= (holders.at(-1) ?? -1)) throw new DecodeError('view-holders-order');
    holders.push(node);
  }
  const epochs: Epoch[] = [];
  for (let i = 0; i < epochCount; i++) {
    const since = readEpoch(reader);
    if (since > epoch || since <= (epochs.at(-1) ?? 0)) throw new DecodeError('view-since-order');
    epochs.push(since);
  }
  const members: Member[] = [];
  const past: Run[] = [];
  const runs: Run[] = [];
  for (let i = 0; i < runCount; i++) readRun(reader, { epochs, runs, members, past });
  const former: FormerView[] = [];
  for (let i = 0; i < formerCount; i++) {
    const before = readFormer(reader, runs);
    const isInOrder = before.epoch < epoch && before.epoch > (former.at(-1)?.epoch ?? 0);
    if (!isInOrder) throw new DecodeError('view-former-order');
    former.push(before);
  }
  onePerNode(members);
  onePerNode(past);
  const nodes = new Set(members.map(({ node }) => node));
  if (!nodes.has(leader)) throw new DecodeError('view-leader');
  if (past.some(({ node }) => nodes.has(node))) throw new DecodeError('view-past');
  const configured = hasConfiguration ? reader.u8() : 0;
  if (configured > 1) throw new DecodeError('view-configuration');
  const configuration = configured === 1 ? readConfiguration(reader) : null;
  if (protocol >= RESUMING_PROTOCOL && reader.remaining > 0) readResumed(reader, former, members);
  const view = { epoch, leader, members, holders, protocol, former, past };
  if (configuration === null) return view;
  const { counted, joining, witnesses } = configuration;
  const mayBeMember = (node: NodeId): boolean => {
    return (counted.includes(node) || joining.includes(node)) && !witnesses.includes(node);
  };
  if (!members.every(({ node }) => mayBeMember(node))) throw new DecodeError('view-member-unconfigured');
  return { ...view, configuration };
}

function readRun(reader: ByteReader, into: { epochs: Epoch[]; runs: Run[]; members: Member[]; past: Run[] }): void {
  const node = readNode(reader);
  const sincePlace = reader.u8();
  const incarnation = reader.u53() as Incarnation;
  if (incarnation === 0) throw new DecodeError('view-incarnation');
  const run: Run = { node, incarnation };
  const last = into.runs.at(-1);
  if (last !== undefined && runOrder(last, run) >= 0) throw new DecodeError('view-run-order');
  into.runs.push(run);
  if (sincePlace === SINCE_FORMER) return;
  if (sincePlace === SINCE_PAST) {
    into.past.push(run);
    return;
  }
  const since = into.epochs[sincePlace];
  if (since === undefined) throw new DecodeError('view-since');
  into.members.push({ ...run, since });
}

function readFormer(reader: ByteReader, runs: readonly Run[]): FormerView {
  const epoch = readEpoch(reader);
  const bits = reader.view8(Math.ceil(runs.length / 8));
  const members = runs.filter((_, place) => (bits[place >> 3]! & (1 << (place & 7))) !== 0);
  const spare = runs.length % 8;
  if (spare !== 0 && bits[bits.length - 1]! >> spare !== 0) throw new DecodeError('view-former-bits');
  onePerNode(members);
  return { epoch, members: members.map(({ node, incarnation }) => ({ node, incarnation })) };
}

function onePerNode(runs: readonly Run[]): void {
  for (let i = 1; i < runs.length; i++) {
    if (runs[i]!.node === runs[i - 1]!.node) throw new DecodeError('view-two-runs');
  }
}

function readEpoch(reader: ByteReader): Epoch {
  const epoch = reader.u53();
  if (epoch === 0) throw new DecodeError('view-epoch');
  return epoch as Epoch;
}

function readNode(reader: ByteReader): NodeId {
  const node = reader.u8();
  if (node >= NODE_COUNT_MAX) throw new DecodeError('view-node', String(node));
  return nodeId(node);
}
