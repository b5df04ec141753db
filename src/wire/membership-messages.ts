/**
 * Messages by which servers agree on views (docs/decisions/membership.md). Each is the body of one frame, which may be
 * lost, doubled and late: none is acknowledged or sent again, the next one says it all once more. Used by
 * core/membership only. The first byte tells them from the bodies of links (frame.ts). Layout (little endian):
 *
 *   0 u8  type     16 hello, 17 pre-vote, 18 pre-vote-answer, 19 vote, 20 vote-answer, 21 heartbeat, 22 answer,
 *                  23 servers, 24 outside, 25 change, 26 change-refused
 *   1 u8  flags    hello: 1 an answer is wanted; answers to votes: 1 granted, 2 a view follows; heartbeat: 1 a view
 *                  follows; answer: 1 willing to be a member, 2 serves no more and gives its lease back, 4 blank, 8
 *                  lacks what was written of the servers of the view; change: 1 join, else leave;
 *                  all: 64 the sender's run continues others; 128 its engine is etcd, and refused by the other engine
 *   2 u53 to       the receiver's incarnation as the sender knows it; 0 when it does not
 *  10 u53 term     the sender's; in a pre-vote the one it would stand in
 *  18 with flag 64: u53 resumes, the first run that the sender's run continues; what follows comes behind it
 *  18 hello:            u53 accepted (epoch on disk, 0: none)
 *     pre-vote, vote:   u53 accepted, u53 sentAt
 *     their answers:    u53 accepted, u53 echo (sentAt of the question), the accepted view if the asker's is older
 *     heartbeat:        u53 sentAt, u53 agreed (epoch, 0: none yet in this term), u53 echo (sentAt of the newest answer
 *                       of the receiver; 0: no lease), u32 remaining (microseconds of the authority), view
 *     answer:           u53 echo (sentAt of the heartbeat), u53 sentAt, u53 accepted, u53 installed, u53 recovered,
 *                       u64 unheard (bit n: server n)
 *     servers:          u32 digest (of which all they are), servers (membership-configuration.ts)
 *     outside:          the newest agreed view: the receiver is none of its servers
 *     change:           u32 number (of the configuration that it changes), one server (of one that leaves without text)
 *     change-refused:   u32 number, u8 node, u8 why (REFUSALS), u64 about (bit n: server n)
 */
import type { ByteReader } from '../base/bytes.js';
import { ByteWriter, DecodeError } from '../base/bytes.js';
import { unreachable } from '../base/assert.js';
import type { Epoch, Incarnation, NodeId } from '../base/ids.js';
import { NODE_COUNT_MAX, nodeId } from '../base/ids.js';
import type { ConfiguredServer } from './membership-configuration.js';
import { bitsOf, readBits, readServer, readServers, serverBytes, writeServer, writeServers }
  from './membership-configuration.js';
import type { View } from './membership-views.js';
import { readView, viewBytes, writeView } from './membership-views.js';
import { decodeTyped, kindsByType } from './typed-message.js';

/** The first bytes of these bodies; the bodies of links have lower ones. */
export const MEMBERSHIP_TYPE_MIN = 16;
export const MEMBERSHIP_TYPE_MAX = 26;

/** An epoch is term * 2^20 + n and below 2^53. */
export const EPOCHS_PER_TERM = 2 ** 20;
export const TERM_MAX = 2 ** 33 - 1;

/** A view larger than this is not proposed: with the rest of a heartbeat it must fit into one frame of 1428 bytes. */
export const VIEW_BYTES_MAX = 1_340;

export type MembershipContent =
  | { kind: 'hello'; answerWanted: boolean; accepted: number }
  | { kind: 'pre-vote' | 'vote'; accepted: number; sentAt: number }
  | { kind: 'pre-vote-answer' | 'vote-answer'; granted: boolean; accepted: number; echo: number; view: View | null }
  | { kind: 'heartbeat'; sentAt: number; agreed: number; echo: number; remaining: number; view: View | null }
  | {
      kind: 'answer';
      willing: boolean;
      /** When it started, its disk remembered no view. */
      isBlank: boolean;
      /** The run serves no more and never will: nobody need wait for the end of its lease. Never with `willing`. */
      released: boolean;
      echo: number;
      sentAt: number;
      accepted: number;
      installed: number;
      recovered: number;
      unheard: NodeId[];
      /** It cannot accept the view of the heartbeat, because it does not know what was written of its servers. */
      lacksServers?: boolean;
    }
  | { kind: 'servers'; digest: number; servers: ConfiguredServer[] }
  | { kind: 'outside'; view: View }
  | ({ kind: 'change' } & ServersChange)
  | { kind: 'change-refused'; number: number; node: NodeId; why: ChangeRefusal; about: NodeId[] };

/** A person wants one server more in the pool, or one less. */
export interface ServersChange {
  what: 'join' | 'leave';
  /** The configuration that the person saw; 0: of the files. */
  number: number;
  server: ConfiguredServer;
}

/**
 * Why a leader does not change the servers.
 * - changed: the configuration is another one by now.
 * - busy: another change is under way.
 * - there, unknown: the server is in the pool already, or is not.
 * - last: nobody would be left that can lead.
 * - majority: too few of those that would be left are heard; `about` are not.
 * - accounts: not all that are here have every commit of the persistent databases, or not enough are here.
 * - engine: the engine does not do it.
 */
export const REFUSALS = ['changed', 'busy', 'there', 'unknown', 'last', 'majority', 'accounts', 'engine'] as const;
export type ChangeRefusal = (typeof REFUSALS)[number];

/** Which engine the message is of; they must never take each other's. */
export type MessageEngine = 'embedded' | 'etcd';

export type MembershipMessage = MembershipContent & {
  to: Incarnation;
  term: number;
  /** The sender's run continues all runs of its server from this one on. Absent: it began anew. */
  resumes?: Incarnation;
};
export type MembershipMessageOf<Kind extends MembershipContent['kind']> = MembershipMessage & { kind: Kind };

const TYPES = {
  hello: 16,
  'pre-vote': 17,
  'pre-vote-answer': 18,
  vote: 19,
  'vote-answer': 20,
  heartbeat: 21,
  answer: 22,
  servers: 23,
  outside: 24,
  change: 25,
  'change-refused': 26,
} as const satisfies Record<MembershipContent['kind'], number>;

const KINDS = kindsByType(TYPES);

const FLAG_ANSWER_VIEW = 2;
const FLAG_RELEASED = 2;
const FLAG_BLANK = 4;
const FLAG_RESUMES = 0x40;
const FLAG_LACKS_SERVERS = 8;
const FLAG_ETCD = 0x80;

/** The flags that each kind may have; 1 means something else in each. */
const FLAGS_KNOWN: Record<MembershipContent['kind'], number> = {
  hello: 1, 'pre-vote': 0, 'pre-vote-answer': 3, vote: 0, 'vote-answer': 3, heartbeat: 1, answer: 15,
  servers: 0, outside: 0, change: 1, 'change-refused': 0,
};

function flagsOf(message: MembershipMessage): number {
  switch (message.kind) {
    case 'hello':
      return message.answerWanted ? 1 : 0;
    case 'pre-vote-answer':
    case 'vote-answer':
      return (message.granted ? 1 : 0) | (message.view === null ? 0 : FLAG_ANSWER_VIEW);
    case 'heartbeat':
      return message.view === null ? 0 : 1;
    case 'answer':
      return (message.willing ? 1 : 0) | (message.released ? FLAG_RELEASED : 0) | (message.isBlank ? FLAG_BLANK : 0)
        | (message.lacksServers === true ? FLAG_LACKS_SERVERS : 0);
    case 'change':
      return message.what === 'join' ? 1 : 0;
    default:
      return 0;
  }
}

export function encodeMembershipMessage(message: MembershipMessage, engine: MessageEngine = 'embedded'): Uint8Array {
  const view = 'view' in message ? message.view : null;
  const writer = new ByteWriter(88 + (view === null ? 0 : viewBytes(view)));
  const { resumes } = message;
  const flags = flagsOf(message) | (engine === 'etcd' ? FLAG_ETCD : 0) | (resumes === undefined ? 0 : FLAG_RESUMES);
  writer.u8(TYPES[message.kind]).u8(flags).u53(message.to).u53(message.term);
  if (resumes !== undefined) writer.u53(resumes);
  switch (message.kind) {
    case 'hello':
      writer.u53(message.accepted);
      break;
    case 'pre-vote':
    case 'vote':
      writer.u53(message.accepted).u53(message.sentAt);
      break;
    case 'pre-vote-answer':
    case 'vote-answer':
      writer.u53(message.accepted).u53(message.echo);
      if (message.view !== null) writeView(writer, message.view);
      break;
    case 'heartbeat':
      writer.u53(message.sentAt).u53(message.agreed).u53(message.echo).u32(message.remaining);
      if (message.view !== null) writeView(writer, message.view);
      break;
    case 'answer':
      writer.u53(message.echo).u53(message.sentAt).u53(message.accepted).u53(message.installed);
      writer.u53(message.recovered).u64(bitsOf(message.unheard));
      break;
    case 'servers':
      writer.u32(message.digest);
      writeServers(writer, message.servers);
      break;
    case 'outside':
      writeView(writer, message.view);
      break;
    case 'change':
      writer.u32(message.number);
      writeServer(writer, message.server);
      break;
    case 'change-refused':
      writer.u32(message.number).u8(message.node).u8(REFUSALS.indexOf(message.why)).u64(bitsOf(message.about));
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** Throws DecodeError for anything that encodeMembershipMessage would not have made for this engine. */
export function decodeMembershipMessage(bytes: Uint8Array, engine: MessageEngine = 'embedded'): MembershipMessage {
  return decodeTyped(bytes, KINDS, (reader, kind): MembershipMessage => {
    const allFlags = reader.u8();
    const isOfEtcd = (allFlags & FLAG_ETCD) !== 0;
    if (isOfEtcd !== (engine === 'etcd')) throw new DecodeError('other-engine');
    const flags = allFlags & ~(FLAG_ETCD | FLAG_RESUMES);
    if ((flags & ~FLAGS_KNOWN[kind]) !== 0) throw new DecodeError('unknown-flags');
    const to = reader.u53() as Incarnation;
    const term = readTerm(reader);
    const resumes = (allFlags & FLAG_RESUMES) === 0 ? null : (reader.u53() as Incarnation);
    if (resumes === 0) throw new DecodeError('resumes-nothing');
    const content = readContent(reader, kind, flags, term);
    return { ...content, to, term, ...(resumes === null ? {} : { resumes }) };
  });
}

/** A term; one whose epochs would not be below 2^53 is refused. */
export function readTerm(reader: ByteReader): number {
  const term = reader.u53();
  if (term > TERM_MAX) throw new DecodeError('term-too-large');
  return term;
}

function readContent(
  reader: ByteReader,
  kind: MembershipContent['kind'],
  flags: number,
  term: number,
): MembershipContent {
  const flag = (flags & 1) !== 0;
  switch (kind) {
    case 'hello':
      return { kind, answerWanted: flag, accepted: reader.u53() };
    case 'pre-vote':
    case 'vote':
      return { kind, accepted: reader.u53(), sentAt: reader.u53() };
    case 'pre-vote-answer':
    case 'vote-answer': {
      const accepted = reader.u53();
      const echo = reader.u53();
      const view = (flags & FLAG_ANSWER_VIEW) === 0 ? null : readView(reader);
      if (view !== null && termOf(view.epoch) > term) throw new DecodeError('answer-view-term');
      return { kind, granted: flag, accepted, echo, view };
    }
    case 'heartbeat': {
      const sentAt = reader.u53();
      const agreed = reader.u53();
      const echo = reader.u53();
      const remaining = reader.u32();
      const view = flag ? readView(reader) : null;
      // a leader proposes under its own term only
      if (view !== null && termOf(view.epoch) !== term) throw new DecodeError('heartbeat-view-term');
      return { kind, sentAt, agreed, echo, remaining, view };
    }
    case 'answer': {
      const echo = reader.u53();
      const sentAt = reader.u53();
      const accepted = reader.u53();
      const installed = reader.u53();
      const recovered = reader.u53();
      const released = (flags & FLAG_RELEASED) !== 0;
      if (flag && released) throw new DecodeError('answer-released-and-willing');
      const isBlank = (flags & FLAG_BLANK) !== 0;
      const unheard = readBits(reader);
      const answer = { kind, willing: flag, released, isBlank, echo, sentAt, accepted, installed, recovered, unheard };
      return (flags & FLAG_LACKS_SERVERS) === 0 ? answer : { ...answer, lacksServers: true };
    }
    case 'servers':
      return { kind, digest: reader.u32(), servers: readServers(reader) };
    case 'outside':
      return { kind, view: readView(reader) };
    case 'change':
      return { kind, what: flag ? 'join' : 'leave', number: reader.u32(), server: readServer(reader) };
    case 'change-refused': {
      const number = reader.u32();
      const node = reader.u8();
      const why = REFUSALS[reader.u8()];
      if (node >= NODE_COUNT_MAX || why === undefined) throw new DecodeError('change-refused');
      return { kind, number, node: nodeId(node), why, about: readBits(reader) };
    }
  }
}

/** The servers in as many messages as they need. */
export function serversMessages(digest: number, servers: readonly ConfiguredServer[]): MembershipContent[] {
  const parts: ConfiguredServer[][] = [[]];
  let bytes = 0;
  for (const server of servers) {
    if (bytes + serverBytes(server) > VIEW_BYTES_MAX) {
      parts.push([]);
      bytes = 0;
    }
    bytes += serverBytes(server);
    parts.at(-1)!.push(server);
  }
  return parts.map((part) => ({ kind: 'servers', digest, servers: part }));
}

/** The term under which a view was proposed. */
export function termOf(epoch: number): number {
  return Math.floor(epoch / EPOCHS_PER_TERM);
}

/** The epoch of a leader's proposal number `n`. */
export function epochOf(term: number, n: number): Epoch {
  return (term * EPOCHS_PER_TERM + n) as Epoch;
}

export { bitsOf, readBits } from './membership-configuration.js';
