/**
 * What a simulated host keeps beyond the end of a run (docs/decisions/resuming.md): what the core had it keep, and each
 * client's packets that are not settled: a request until its answer is on its way, any other packet until the end of
 * the turn that took it.
 */
import type { ClientId, DatabaseId, NodeId } from '../../src/base/ids.js';
import { turn } from '../../src/base/ids.js';
import type { Effect, Input, KeptInput } from '../../src/core/effects.js';
import { ERASURES_KEPT_MAX } from '../../src/core/effects.js';
import { CONTROL_FLAG, decodeCtdbPacket, peekHeader } from '../../src/wire/ctdb.js';
import type { SimulatedStore } from './store.js';

interface Unsettled {
  packet: Uint8Array;
  /** null: nobody waits for an answer. */
  requestId: number | null;
  /** It is in the queue of the run; and it was taken from there. */
  given: boolean;
  taken: boolean;
}

interface KeptClient {
  pid: number;
  state: Uint8Array;
  unsettled: Unsettled[];
}

export class Kept {
  private readonly clients = new Map<ClientId, KeptClient>();
  private readonly databases = new Map<DatabaseId, { name: string; state: Uint8Array }>();
  private erasures: Extract<KeptInput, { kind: 'erasure-kept' }>[] = [];

  opened(client: ClientId, pid: number): void {
    this.clients.set(client, { pid, state: new Uint8Array(0), unsettled: [] });
  }

  closed(client: ClientId): void {
    this.clients.delete(client);
  }

  /** A packet came whole. Returns the input for the core; null if it is not to be given now. */
  arrived(client: ClientId, packet: Uint8Array, give: boolean): Input | null {
    const kept = this.clients.get(client);
    if (kept === undefined) return null;
    const copy = Uint8Array.prototype.slice.call(packet);
    const unsettled = { packet: copy, requestId: answerOf(packet), given: give, taken: false };
    kept.unsettled.push(unsettled);
    return give ? inputOf(client, unsettled) : null;
  }

  /** All that was not given to this run, in order. */
  notGiven(): Input[] {
    const inputs: Input[] = [];
    for (const [client, { unsettled }] of this.clients) {
      for (const one of unsettled) {
        if (!one.given) inputs.push(inputOf(client, one));
        one.given = true;
      }
    }
    return inputs;
  }

  /** Effects that are of interest here. */
  performed(effect: Effect): void {
    switch (effect.kind) {
      case 'client-keep': {
        const client = this.clients.get(effect.client);
        if (client !== undefined) client.state = effect.state;
        return;
      }
      case 'database-keep':
        this.databases.set(effect.database, { name: effect.name, state: effect.state });
        return;
      case 'erasure-keep': {
        const { database, key, turn: of } = effect;
        this.erasures.push({ kind: 'erasure-kept', database, key, turn: of });
        if (this.erasures.length > ERASURES_KEPT_MAX) this.erasures.shift();
        return;
      }
      case 'client-send':
        return this.answered(effect.client, effect.packet);
      default:
    }
  }

  private answered(client: ClientId, packet: Uint8Array): void {
    const kept = this.clients.get(client);
    const header = peekHeader(packet);
    if (kept === undefined || header === null || header.requestId === 0) return;
    kept.unsettled = kept.unsettled.filter(({ requestId }) => requestId !== header.requestId);
  }

  /** All that was given is taken. */
  turnBegins(): void {
    for (const { unsettled } of this.clients.values()) for (const one of unsettled) one.taken = one.given;
  }

  /** What wants no answer is settled with all that it caused. */
  turnEnded(): void {
    for (const kept of this.clients.values()) {
      kept.unsettled = kept.unsettled.filter(({ requestId, taken }) => !taken || requestId !== null);
    }
  }

  /** The run was killed: the next one gets all of it again. */
  runEnded(): void {
    for (const { unsettled } of this.clients.values()) for (const one of unsettled) one.given = one.taken = false;
  }

  /** For the run that continues the one that ended. */
  inputs(store: SimulatedStore, self: NodeId): KeptInput[] {
    const inputs: KeptInput[] = [];
    for (const [database, { name, state }] of this.databases) {
      if (!store.has(database)) continue;
      const path = `/sim/${name}.${self}`;
      inputs.push({ kind: 'database-kept', database, name, path, flags: 0x1441, state });
    }
    for (const { database, key } of store.keys()) {
      const { header, data } = store.get(database, key)!;
      const { dmaster, rsn, flags } = header;
      const isEmpty = data.length === 0;
      inputs.push({ kind: 'record-kept', database, key, dmaster: dmaster as NodeId, turn: turn(rsn), flags, isEmpty });
    }
    inputs.push(...this.erasures);
    for (const [client, { pid, state }] of this.clients) inputs.push({ kind: 'client-kept', client, pid, state });
    return inputs;
  }
}

function inputOf(client: ClientId, { packet }: Unsettled): Input {
  // the receiver's bytes are overwritten after the step
  return { kind: 'client-packet', client, packet: Uint8Array.prototype.slice.call(packet) };
}

function answerOf(bytes: Uint8Array): number | null {
  const packet = decodeCtdbPacket(bytes);
  if (packet.kind === 'message') return null;
  if (packet.kind === 'request-control' && (packet.flags & CONTROL_FLAG.noReply) !== 0) return null;
  return packet.requestId;
}
