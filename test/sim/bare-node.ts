/**
 * Links and Records with the smallest gate that serves simulated smbds: attach, migrate, fetch, schedule for deletion.
 * The simulator runs it besides the whole PoolNode, so that a fault can be told to lie in records or in the gate.
 */
import type { ClientId, DatabaseId, Epoch, NodeId } from '../../src/base/ids.js';
import { databaseId, keyOf } from '../../src/base/ids.js';
import type { CoreContext } from '../../src/core/context.js';
import type { Effect, Input, Micros } from '../../src/core/effects.js';
import { Links } from '../../src/core/link/link.js';
import { Records } from '../../src/core/records/records.js';
import type { Member, View } from '../../src/core/views.js';
import { changes } from '../../src/core/views.js';
import { Timers } from '../../src/core/timers.js';
import type { CtdbBody } from '../../src/wire/ctdb.js';
import { CALL_ID, decodeCtdbPacket, encodeCtdbPacket, textOf } from '../../src/wire/ctdb.js';
import { CONTROL } from '../../src/wire/ctdb-controls.js';
import { decodeScheduleForDeletion } from '../../src/wire/ctdb-records.js';
import { ANNOUNCEMENT } from '../support/announcement.js';
import type { NodeOptions, SteppedNode } from './server.js';

export class BareNode implements SteppedNode {
  private readonly timers = new Timers();
  private effects: Effect[] = [];
  private time: Micros = 0;
  private readonly links: Links;
  private readonly records: Records;
  private nextToken = 1;
  private readonly calls = new Map<number, { client: ClientId; requestId: number }>();
  private members: readonly Member[] = [];

  constructor(private readonly options: NodeOptions) {
    const { self, servers, incarnation } = options;
    const members = (): NodeId[] => this.members.map((member) => member.node);
    const context: CoreContext = {
      self,
      servers,
      fileServers: servers,
      get members() {
        return members();
      },
      epoch: 0 as Epoch,
      timers: this.timers,
      now: () => this.time,
      emit: (effect) => void this.effects.push(effect),
      send: (peer, message, mode) => this.links.send(peer, message, mode),
      isUp: (peer) => this.links.isUp(peer),
      speaks: (protocol) => protocol === 1,
      isFenced: () => false,
      log: (level, event, fields = {}) => void this.effects.push({ kind: 'log', level, event, fields }),
      count: () => undefined,
    };
    const peers = servers.filter((server) => server !== self);
    this.links = new Links(
      { self, peers, incarnation, announcement: ANNOUNCEMENT, frameBodyBytesMax: 1400, receiveFramesMax: 512 },
      context,
      {
        deliver: (peer, message) => this.records.onMessage(peer, message),
        peerUp: () => undefined,
        peerDown: (peer) => this.records.peerDown(peer),
        givenUpBy: () => undefined,
        sendFrame: (peer, body) => void this.effects.push({ kind: 'frame-send', peer, body }),
      },
    );
    this.records = new Records(context, incarnation);
    this.records.listen({
      migrated: (token) => this.answer(token, new Uint8Array(0)),
      fetched: (token, data) => this.answer(token, data),
      failed: (token, why) => void this.effects.push(alarm(`call ${token} failed: ${why}`)),
      described: () => undefined,
      recovered: (epoch) => void this.effects.push({ kind: 'recovered', epoch }),
    });
  }

  step(input: Input, now: Micros): Effect[] {
    this.time = Math.max(this.time, now);
    this.timers.run(this.time);
    this.take(input);
    const effects = this.effects;
    this.effects = [];
    return effects;
  }

  deadline(): Micros {
    return this.timers.deadline();
  }

  waiting(): number {
    return this.records.waiting();
  }

  private take(input: Input): void {
    switch (input.kind) {
      case 'client-packet':
        return this.packet(input.client, input.packet);
      case 'client-closed':
        for (const [token, call] of [...this.calls]) {
          if (call.client !== input.client) continue;
          this.calls.delete(token);
          this.records.cancel(token);
        }
        return;
      case 'frame':
        return this.links.onFrame(input.peer, input.incarnation, input.body);
      case 'record-done':
        return this.records.onDone(input.database, input.key, input.op, input.outcome);
      case 'view':
        return this.install(input.view);
      case 'turn-end':
        this.records.flush();
        this.links.flush();
        return;
      default:
        return;
    }
  }

  private install(view: View): void {
    const changed = changes(this.members, view.members);
    this.members = view.members;
    this.links.install(view.epoch, new Map(view.members.map(({ node, incarnation }) => [node, incarnation])));
    this.records.install(view, changed);
  }

  private packet(client: ClientId, bytes: Uint8Array): void {
    const packet = decodeCtdbPacket(bytes);
    if (packet.kind === 'request-control' && packet.opcode === CONTROL.databaseAttach) {
      const name = textOf(packet.data);
      const database = bareDatabaseId(name);
      this.effects.push({ kind: 'database-open', database, name, persistent: false });
      this.records.addDatabase(database, name);
      const data = new Uint8Array(new Uint32Array([database]).buffer);
      this.reply(client, packet.requestId, { kind: 'reply-control', status: 0, data, error: '' });
    } else if (packet.kind === 'request-control' && packet.opcode === CONTROL.scheduleForDeletion) {
      const { database, key } = decodeScheduleForDeletion(packet.data);
      this.records.scheduleDeletion(databaseId(database), keyOf(key));
    } else if (packet.kind === 'request-control') {
      this.reply(client, packet.requestId, { kind: 'reply-control', status: 0, data: new Uint8Array(0), error: '' });
    } else if (packet.kind === 'request-call') {
      const token = this.nextToken++;
      this.calls.set(token, { client, requestId: packet.requestId });
      const key = keyOf(packet.key);
      if (packet.callId === CALL_ID.migrate) this.records.migrate(databaseId(packet.database), key, token);
      else this.records.fetch(databaseId(packet.database), key, token);
    }
  }

  private answer(token: number, data: Uint8Array): void {
    const call = this.calls.get(token);
    if (call === undefined) return;
    this.calls.delete(token);
    this.reply(call.client, call.requestId, { kind: 'reply-call', status: 0, data });
  }

  private reply(client: ClientId, requestId: number, body: CtdbBody): void {
    const header = { generation: 1, destination: 0, source: this.options.self, requestId };
    this.effects.push({ kind: 'client-send', client, packet: encodeCtdbPacket({ ...header, ...body }, true) });
  }
}

function alarm(text: string): Effect {
  return { kind: 'log', level: 'error', event: 'bare-node', fields: { text } };
}

/** Any number that all bare nodes derive alike from the name. */
function bareDatabaseId(name: string): DatabaseId {
  let hash = 5381;
  for (const character of name) hash = (Math.imul(hash, 33) + character.charCodeAt(0)) >>> 0;
  return databaseId(hash);
}
