/**
 * REQ_CONTROL: finds out where a control is to be performed (here, at a peer, everywhere), performs what it knows from
 * its table and refuses the rest with -1 and a sentence. Every control that wants an answer gets one. The entries of
 * the table come from smbd-controls (what Samba needs) and tool-controls (what people's tools ask).
 */
import { DecodeError } from '../../base/bytes.js';
import { nodeId } from '../../base/ids.js';
import type { NodeId } from '../../base/ids.js';
import { CONTROL_FLAG, DESTINATION } from '../../wire/ctdb.js';
import type { CtdbPacketOf } from '../../wire/ctdb.js';
import { CONTROL, controlName, decodeCheckPidSrvid, decodeU32 } from '../../wire/ctdb-controls.js';
import { encodeGateMessage } from '../../wire/gate-messages.js';
import { NO_REQUEST } from '../../wire/kept-state.js';
import type { GateMessage } from '../../wire/gate-messages.js';
import type { CoreContext } from '../context.js';
import type { Client, Clients } from './clients.js';
import { CONTROL_WAIT_MICROS_MAX, refused } from './forwarding.js';
import type { ControlAnswer, ControlRequest, Forwarding } from './forwarding.js';
import type { LivenessQuestions } from './liveness.js';
import { isBroadcast } from './messages.js';

/** Numbers of controls that get a counter of their own when they are unknown; CTDB's end at 160. */
const OPCODE_COUNTED_MAX = 255;

/** Controls that change what a run that continues ours must know of the client. */
const CHANGING: ReadonlySet<number> = new Set([
  CONTROL.registerSrvid,
  CONTROL.deregisterSrvid,
  CONTROL.registerNotify,
  CONTROL.deregisterNotify,
  CONTROL.tcpClient,
  CONTROL.traverseStart,
  CONTROL.traverseStartExtended,
]);

/** A control to be performed here. */
export interface ControlCall extends ControlRequest {
  /** Who asked; null when it came from a peer. */
  client: Client | null;
  /** To be called once. */
  answer(answer: ControlAnswer): void;
}

/** Performs a control; may throw DecodeError for bad data. */
export type ControlHandler = (call: ControlCall) => void;
export type ControlTable = ReadonlyMap<number, ControlHandler>;

export class Controls {
  private readonly unknown = new Set<number>();

  constructor(
    private readonly context: CoreContext,
    private readonly clients: Clients,
    private readonly forwarding: Forwarding,
    private readonly liveness: LivenessQuestions,
    private readonly table: ControlTable,
  ) {}

  request(client: Client, packet: CtdbPacketOf<'request-control'>): void {
    const { opcode, srvid, flags, data, destination, requestId } = packet;
    const request: ControlRequest = { opcode, srvid, flags, data };
    const wanted = (flags & CONTROL_FLAG.noReply) === 0;
    const answer = (result: ControlAnswer): void => {
      if (result.status < 0 && result.error !== '') this.noteRefusal(client, request, destination, result.error);
      if (wanted) this.clients.send(client.id, { kind: 'reply-control', ...result }, requestId);
    };
    if (destination === DESTINATION.current || destination === this.context.self) {
      if (CHANGING.has(opcode)) return this.change(client, requestId, { client, opcode, srvid, flags, data, answer });
      // written out, not spread: smbd sends two of these for each file it closes
      return this.perform({ client, opcode, srvid, flags, data, answer });
    }
    if (isBroadcast(destination)) return this.broadcast(client, request, wanted, answer);
    const node = nodeId(destination);
    if (!this.context.servers.includes(node)) return answer(refused(`there is no server ${destination}`));
    this.elsewhere(node, request, wanted, answer);
  }

  /** What it changes is kept before it is answered; asked again by way of the next run, it was done. */
  private change(client: Client, requestId: number, call: ControlCall): void {
    const { opcode, srvid } = call;
    const { repeated } = client;
    const isSame = repeated.opcode === opcode && repeated.srvid === srvid;
    const wasDone = isSame && repeated.requestId === requestId && requestId !== 0;
    client.repeated = NO_REQUEST;
    if (wasDone) return call.answer({ status: 0, data: new Uint8Array(0), error: '' });
    client.lastRequest = { requestId, opcode, srvid };
    const answer = (result: ControlAnswer): void => {
      this.clients.keep(client);
      call.answer(result);
    };
    this.perform({ ...call, answer });
  }

  private noteRefusal(client: Client, request: ControlRequest, destination: number, why: string): void {
    this.context.count('gate.control.refused');
    const control = controlName(request.opcode);
    this.context.log('debug', 'gate.control.refused', { pid: client.pid, control, destination, why });
  }

  private broadcast(
    client: Client,
    request: ControlRequest,
    wanted: boolean,
    answer: (answer: ControlAnswer) => void,
  ): void {
    // many answers to one request have no meaning in the protocol
    if (wanted) return answer(refused('a control to all servers must not ask for an answer'));
    for (const node of this.context.members) if (node !== this.context.self) this.forwarding.tell(node, request);
    this.perform({ client, ...request, answer });
  }

  private elsewhere(
    node: NodeId,
    request: ControlRequest,
    wanted: boolean,
    answer: (answer: ControlAnswer) => void,
  ): void {
    const question = livenessQuestion(request);
    if (question === 'bad') return answer(refused('the data has a wrong size'));
    if (question !== null) {
      const done = (alive: boolean): void => answer({ status: alive ? 0 : -1, data: new Uint8Array(0), error: '' });
      return this.liveness.ask(node, question.pid, question.srvid, request, done);
    }
    if (!wanted) return this.forwarding.tell(node, request);
    this.forwarding.ask(node, request, CONTROL_WAIT_MICROS_MAX, (result) => {
      if (result === 'lost') answer(refused(`server ${node} is down`));
      else if (result === 'late') answer(refused(`server ${node} did not answer in time`));
      else answer(result);
    });
  }

  /** A peer carries a control of one of its processes to us. */
  onControl(from: NodeId, message: Extract<GateMessage, { kind: 'control' }>): void {
    const { number, opcode, srvid, flags, data } = message;
    const wanted = (flags & CONTROL_FLAG.noReply) === 0;
    this.perform({
      client: null,
      opcode,
      srvid,
      flags,
      data,
      answer: (answer) => {
        if (wanted) this.context.send(from, encodeGateMessage({ kind: 'control-answer', number, ...answer }));
      },
    });
  }

  private perform(call: ControlCall): void {
    const handler = this.table.get(call.opcode);
    if (handler === undefined) return this.refuseUnknown(call);
    this.context.count(`gate.control.${controlName(call.opcode)}`);
    try {
      handler(call);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.context.count(`gate.control.data.${error.reason}`);
      call.answer(refused(`the data is not understood: ${error.message}`));
    }
  }

  private refuseUnknown(call: ControlCall): void {
    const { opcode } = call;
    this.context.count(`gate.control.unknown.${opcode <= OPCODE_COUNTED_MAX ? opcode : 'other'}`);
    if (opcode <= OPCODE_COUNTED_MAX && !this.unknown.has(opcode)) {
      this.unknown.add(opcode);
      this.context.log('info', 'gate.control.unknown', { opcode, pid: call.client?.pid ?? null });
    }
    call.answer(refused(`control ${opcode} is not offered by smbpool`));
  }
}

/** null: not a question about a process. */
function livenessQuestion(request: ControlRequest): { pid: number; srvid: bigint | null } | 'bad' | null {
  try {
    if (request.opcode === CONTROL.processExists) return { pid: decodeU32(request.data) | 0, srvid: null };
    if (request.opcode === CONTROL.checkPidSrvid) return decodeCheckPidSrvid(request.data);
    return null;
  } catch (error) {
    if (error instanceof DecodeError) return 'bad';
    throw error;
  }
}
