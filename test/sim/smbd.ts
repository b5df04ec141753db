/**
 * A simulated smbd: one process with one connection to its server's daemon, speaking real packets of the CTDB client
 * protocol and touching the store the way Samba's dbwrap_ctdb does. What it does is written as generators that yield
 * whenever time passes; dying means not being resumed any more, at whatever point it was.
 */
import type { ClientId, DatabaseId, NodeId, RecordKey } from '../../src/base/ids.js';
import { databaseId, keyBytes, keyOf } from '../../src/base/ids.js';
import type { Micros } from '../../src/core/effects.js';
import type { CtdbPacket } from '../../src/wire/ctdb.js';
import { CALL_FLAG, CALL_ID, CONTROL_FLAG, DESTINATION } from '../../src/wire/ctdb.js';
import { decodeCtdbPacket, encodeCtdbPacket } from '../../src/wire/ctdb.js';
import type { CtdbBody } from '../../src/wire/ctdb.js';
import { CONTROL, encodeCheckPidSrvid, encodeTraverseStart, encodeU32 } from '../../src/wire/ctdb-controls.js';
import { decodeRow, encodeScheduleForDeletion } from '../../src/wire/ctdb-records.js';
import { encodeRecordHeader, RECORD_HEADER_BYTES } from '../../src/wire/record-header.js';
import type { RecordHeader } from '../../src/wire/record-header.js';
import { OPEN_FLAG, RING_OP } from '../../src/wire/ring-ops.js';
import {
  encodeBreaksSent, encodeClose, encodeFolderOpenBegin, encodeOpenBegin, encodeOpenCancel, encodeOpenEnd,
  encodeRecalled, encodeResyncBegin,
} from '../support/ring-messages.js';
import { describeData, describeKey } from '../support/describe.js';
import type { Checker } from './checker.js';
import type { ServerWorld, SimulatedServer } from './server.js';
import { usableBySmbd } from './store.js';

/** More rounds than this for one locked access is spinning: the record comes and goes before smbd can use it. */
const ATTEMPTS_MAX = 25;

/** What a process waits for. */
export type Wait =
  | { for: 'time'; micros: Micros }
  | { for: 'chain'; database: DatabaseId; key: RecordKey }
  | { for: 'reply'; requestId: number }
  | { for: 'ready'; operation: bigint }
  /** Anything that comes over the ring for a folder, or its end. */
  | { for: 'news' }
  /** Of the daemon, over the ring, to the question of that number. */
  | { for: 'answer'; op: number; number: bigint }
  | { for: 'rows'; requestId: number };

export type Steps<Result> = Generator<Wait, Result, CtdbPacket | undefined>;

interface Cached {
  sequence: number;
  text: string;
}

/** Where the rows of a traversal go. */
const ROWS_SRVID = 77n;

/** What is under the lock. */
export interface Locked {
  database: DatabaseId;
  key: RecordKey;
  header: RecordHeader;
  text: string;
}

const toText = (data: Uint8Array): string => Buffer.from(data).toString('latin1');

/** What one smbd's module does for a client that caches under leases, in runs in which servers are drained. */
export interface LeaseModule {
  /** Breaks all that lets the client cache writes, and answers. */
  breakAll(number: number): void;
  /** Whatever becomes of the leases on the file is told from now on. */
  watch(file: RecordKey): void;
  /** Tells all opens anew. */
  replay(): void;
  /** Whatever it was to do for the daemon is void. */
  ringLost(): void;
  /** What came for it while the smbd did nothing; null: there is nothing. */
  attend(): Steps<void> | null;
}

/** What the module of a smbd whose client watches folders tells a daemon that is new to it. */
export interface WatchModule {
  /** Who it is, and its trees. */
  greet(): void;
  /** Tells all watches anew. */
  replay(): void;
}

/** What the module of a smbd whose client opens folders does for the daemon. */
export interface FolderModule {
  /** What it has in its slice of the folder goes to the one record. */
  recall(folder: RecordKey, number: bigint): void;
  ringLost(): void;
  attend(): Steps<void> | null;
}

export class SimulatedSmbd {
  readonly client: ClientId;
  /** What it is in the middle of, for reports of what is stuck. */
  doing = 'nothing';
  dead = false;
  /** Time from an answer to the next attempt, at most; 0 for always the same. */
  workMicros = 20;
  readonly totals = { operations: 0, migrations: 0, attemptsMax: 0 };
  private steps: Steps<void> | null = null;
  private awaiting: number | null = null;
  private nextRequest = 1;
  private readonly cache = new Map<string, Cached>();
  /** The module's ring, if it has one. */
  private attachment: number | null = null;
  hasModule = false;
  /** Never says that it has broken all. */
  isMute = false;
  /** Its module has the node page, also of a daemon that is gone. */
  seesPage = false;
  leaseModule: LeaseModule | null = null;
  watchModule: WatchModule | null = null;
  folderModule: FolderModule | null = null;
  /** Answers to its opens of folders. */
  private readonly ready = new Map<bigint, number>();
  private awaitsNews = false;
  private lastOperation = 0n;
  /** Those up to here were asked of a daemon that is gone. */
  private lostOperations = 0n;
  private awaitingOperation: bigint | null = null;
  private awaitingAnswer: { op: number; number: bigint } | null = null;
  /** The result in the last such answer; 0 is good. */
  answered = 0;
  /** The traversal whose rows are awaited, and which came. */
  private awaitingRows: number | null = null;
  private rows: { key: RecordKey; text: string }[] = [];
  /** While the process is stopped: what would have made it go on. */
  private postponed: (() => void)[] | null = null;
  private stopWhenLocked: Micros | null = null;
  /** Messages of other processes that it has not looked at, oldest first. */
  private readonly messages: Uint8Array[] = [];
  private readonly listeners = new Map<bigint, (data: Uint8Array) => void>();

  constructor(
    readonly name: string,
    readonly server: SimulatedServer,
    private readonly world: ServerWorld,
    private readonly checker: Checker,
    readonly pid: number,
  ) {
    this.client = server.connect(pid, (packet) => this.whenRunning(() => this.onPacket(packet)));
  }

  /** Another process on the same server, doing things the same way. */
  colleague(name: string): SimulatedSmbd {
    const smbd = new SimulatedSmbd(name, this.server, this.world, this.checker, this.pid + 100);
    smbd.workMicros = this.workMicros;
    return smbd;
  }

  get time(): ServerWorld['time'] {
    return this.world.time;
  }

  get busy(): boolean {
    return this.steps !== null;
  }

  /** Starts doing something; only when it is not busy. */
  run(steps: Steps<void>): void {
    if (this.steps !== null) throw new Error(`${this.name} is busy: ${this.doing}`);
    this.steps = steps;
    this.resume(undefined);
  }

  die(): void {
    this.note(() => 'dies');
    this.dead = true;
    this.steps = null;
    this.server.store.releaseAll(this.name);
    this.server.disconnect(this.client);
    if (this.attachment !== null) this.server.detachRing(this.attachment);
  }

  // --- being stopped, as by SIGSTOP: what it holds it keeps, what it is sent waits

  stop(micros: Micros): void {
    if (this.dead || this.postponed !== null) return;
    this.note(() => 'is stopped');
    this.postponed = [];
    this.world.time.after(micros, () => this.continue());
  }

  /** Stops it as soon as it has locked a record. */
  stopOnceLocked(micros: Micros): void {
    this.stopWhenLocked = micros;
  }

  continue(): void {
    this.stopWhenLocked = null;
    const postponed = this.postponed;
    if (postponed === null) return;
    this.note(() => 'goes on');
    this.postponed = null;
    for (const action of postponed) action();
  }

  private whenRunning(action: () => void): void {
    if (this.postponed === null) action();
    else this.postponed.push(action);
  }

  /** A line in the trace. */
  say(text: string): void {
    this.note(() => text);
  }

  private note(text: () => string): void {
    this.world.trace.add(this.world.time.now, () => `${this.name} ${text()}`);
  }

  private resume(value: CtdbPacket | undefined): void {
    if (this.dead || this.steps === null) return;
    // the module looks at the lease before each operation
    if (this.server.isFenced()) return this.server.whenServing(() => this.whenRunning(() => this.resume(value)));
    const steps = this.steps;
    const next = steps.next(value);
    if (next.done === true) {
      this.steps = null;
      this.doing = 'nothing';
      return this.attend();
    }
    const wait = next.value;
    switch (wait.for) {
      case 'time':
        this.world.time.after(wait.micros, () => this.whenRunning(() => this.resume(undefined)));
        return;
      case 'chain':
        this.server.store.waitForChain(wait.database, wait.key, () => {
          this.world.time.after(1, () => this.whenRunning(() => this.resume(undefined)));
        });
        return;
      case 'reply':
        this.awaiting = wait.requestId;
        return;
      case 'ready':
        this.awaitingOperation = wait.operation;
        if (this.attachment === null) this.goSlowly();
        return;
      case 'news':
        this.awaitsNews = true;
        return;
      case 'answer':
        this.awaitingAnswer = wait;
        if (this.attachment === null) this.goSlowly();
        return;
      case 'rows':
        this.awaitingRows = wait.requestId;
        return;
    }
  }

  private onPacket(bytes: Uint8Array): void {
    if (this.dead) return;
    const packet = decodeCtdbPacket(bytes);
    if (packet.kind === 'message') return this.onMessage(packet.srvid, packet.data);
    // as smbd does: replies to anything else than the present request are dropped
    if (packet.requestId !== this.awaiting) return;
    this.awaiting = null;
    this.resume(packet);
  }

  private onMessage(srvid: bigint, data: Uint8Array): void {
    const listener = this.listeners.get(srvid);
    if (listener !== undefined) return listener(data);
    if (srvid !== ROWS_SRVID) {
      this.messages.push(Uint8Array.prototype.slice.call(data));
      return this.attend();
    }
    const { requestId, key, value } = decodeRow(data);
    if (requestId !== this.awaitingRows) return;
    if (key.length > 0) {
      this.rows.push({ key: keyOf(key), text: toText(value.subarray(RECORD_HEADER_BYTES)) });
      return;
    }
    this.awaitingRows = null;
    this.resume(undefined);
  }

  // --- talking to the daemon

  private send(body: CtdbBody, destination: number = DESTINATION.current): number {
    const requestId = this.nextRequest++;
    const header = { generation: 1, destination, source: 0, requestId };
    this.server.sendPacket(this.client, encodeCtdbPacket({ ...header, ...body }, false));
    return requestId;
  }

  private *exchange(body: CtdbBody, destination?: number): Steps<CtdbPacket> {
    const reply = yield { for: 'reply', requestId: this.send(body, destination) };
    if (reply === undefined) throw new Error('resumed without a reply');
    return reply;
  }

  private *call(database: DatabaseId, key: RecordKey, callId: number, flags: number): Steps<Uint8Array> {
    const data = new Uint8Array(0);
    const what = callId === CALL_ID.migrate ? 'the record' : 'a copy';
    this.note(() => `asks its daemon for ${what}: ${this.world.name(database)}/${describeKey(key)}`);
    const reply = yield* this.exchange({
      kind: 'request-call',
      flags,
      database,
      callId,
      hopCount: 0,
      key: keyBytes(key),
      data,
    });
    if (reply.kind !== 'reply-call' || reply.status !== 0) {
      this.checker.fail('calls-succeed', `${this.name} got ${reply.kind} for ${this.doing}`);
      return data;
    }
    const answer = callId === CALL_ID.migrate ? '' : `: ${describeData(reply.data)}`;
    this.note(() => `is answered${answer}`);
    return Uint8Array.prototype.slice.call(reply.data);
  }

  /** Attaches to a database; returns its id. */
  *attach(name: string): Steps<DatabaseId> {
    this.doing = `attaching ${name}`;
    const control = { kind: 'request-control', srvid: 0n, clientId: 0, flags: 0 } as const;
    const data = Buffer.from(`${name}\0`);
    const reply = yield* this.exchange({ ...control, opcode: CONTROL.databaseAttach, data });
    if (reply.kind !== 'reply-control' || reply.status !== 0) throw new Error(`attach failed: ${reply.kind}`);
    const database = databaseId(Buffer.from(reply.data).readUInt32LE(0));
    const id = Buffer.alloc(4);
    id.writeUInt32LE(database);
    yield* this.exchange({ ...control, opcode: CONTROL.enableSequenceNumber, data: id });
    return database;
  }

  // --- messages of other processes

  /** Wants to hear what is sent to this address. */
  *register(srvid: bigint): Steps<void> {
    const data = new Uint8Array(0);
    yield* this.exchange({
      kind: 'request-control', opcode: CONTROL.registerSrvid, srvid, clientId: 0, flags: 0, data,
    });
  }

  /** What is sent to this address goes there. */
  listen(srvid: bigint, listener: (data: Uint8Array) => void): void {
    this.listeners.set(srvid, listener);
  }

  /** Asks its daemon whether another process lives, and has the address. */
  *asksWhetherAlive(other: SimulatedSmbd, address: bigint | null): Steps<boolean> {
    const opcode = address === null ? CONTROL.processExists : CONTROL.checkPidSrvid;
    const data = address === null ? encodeU32(other.pid) : encodeCheckPidSrvid(other.pid, address);
    const control = { kind: 'request-control', opcode, srvid: 0n, clientId: 0, flags: 0, data } as const;
    const reply = yield* this.exchange(control, other.server.self);
    if (reply.kind !== 'reply-control') throw new Error(`asked whether a process lives: ${reply.kind}`);
    return reply.status === 0;
  }

  sendMessage(server: NodeId, srvid: bigint, data: Uint8Array): void {
    this.send({ kind: 'message', srvid, data }, server);
  }

  get hasMessages(): boolean {
    return this.messages.length > 0;
  }

  /** The oldest message it has not looked at, or null. */
  nextMessage(): Uint8Array | null {
    return this.messages.shift() ?? null;
  }

  // --- the VFS module: what an open needs, in one batch

  /** Loads the module, which attaches as soon as a daemon runs. */
  loadModule(): void {
    this.hasModule = true;
    this.server.whenRunning(() => {
      if (!this.dead) this.attachModule();
    });
  }

  private attachModule(): void {
    if (this.attachment !== null) return;
    const attachment: number = this.server.attachRing(
      this.pid, (op, payload) => this.onRing(attachment, op, payload), () => this.ringLost(),
    );
    this.attachment = attachment;
    this.watchModule?.greet();
    this.seesPage = this.world.drains !== undefined;
    if (!this.seesPage && this.watchModule === null && this.folderModule === null) return;
    this.sendRing(RING_OP.resyncBegin, encodeResyncBegin(this.lastOperation + 1n));
    this.leaseModule?.replay();
    this.watchModule?.replay();
    this.sendRing(RING_OP.resyncEnd, new Uint8Array(0));
  }

  private onRing(attachment: number, op: number, payload: Uint8Array): void {
    switch (op) {
      case RING_OP.openReady:
        return this.whenRunning(() => this.onOpenReady(payload));
      case RING_OP.breakAll:
        return this.whenRunning(() => {
          // of a daemon that is gone meanwhile
          if (this.attachment === attachment) this.onBreakAll(Buffer.from(payload).readUInt32LE(0));
        });
      case RING_OP.recall:
        return this.whenRunning(() => {
          if (this.attachment === attachment) this.onRecall(payload);
        });
      case RING_OP.watchFile:
        return this.whenRunning(() => this.leaseModule?.watch(keyOf(payload.subarray(0, 24))));
      default:
        return this.whenRunning(() => this.onAnswer(op, payload));
    }
  }

  private onBreakAll(number: number): void {
    if (this.dead || this.isMute) return;
    this.note(() => `is to break all, number ${number}`);
    if (this.leaseModule === null) return this.sendRing(RING_OP.breaksSent, encodeBreaksSent(number, 0));
    this.leaseModule.breakAll(number);
    this.attend();
  }

  private onRecall(payload: Uint8Array): void {
    if (this.dead) return;
    const number = Buffer.from(payload).readBigUInt64LE(24);
    this.note(() => `is told of recall ${number}`);
    if (this.folderModule === null) return this.sendRing(RING_OP.recalled, encodeRecalled(number, 0));
    this.folderModule.recall(keyOf(payload.subarray(0, 24)), number);
    this.hearNews();
    this.attend();
  }

  private hearNews(): void {
    if (!this.awaitsNews) return;
    this.awaitsNews = false;
    this.resume(undefined);
  }

  /** Between two requests of its client it hears what came. */
  private attend(): void {
    if (this.dead || this.steps !== null) return;
    const steps = this.leaseModule?.attend() ?? this.folderModule?.attend() ?? null;
    if (steps !== null) this.run(steps);
  }

  /** Whether the module sees that the server is drained. */
  isServerDrained(): boolean {
    return this.seesPage && this.server.isDrainFlagSet;
  }

  /** The daemon was killed: what was asked over the ring is done the slow way, and the module attaches again. */
  private ringLost(): void {
    this.attachment = null;
    this.leaseModule?.ringLost();
    this.folderModule?.ringLost();
    this.ready.clear();
    this.lostOperations = this.lastOperation;
    const { drains } = this.world;
    if (drains === undefined) this.loadModule();
    else this.server.whenRunning(() => this.world.time.after(drains.attachMicros(), () => this.attachAgain()));
    if (this.awaitingOperation !== null || this.awaitingAnswer !== null) this.goSlowly();
    if (this.awaitsNews) this.world.time.after(1, () => this.whenRunning(() => this.hearNews()));
  }

  private attachAgain(): void {
    if (!this.dead && this.attachment === null) this.loadModule();
  }

  /** Nobody is there who could answer over the ring. */
  private goSlowly(): void {
    this.awaitingOperation = null;
    this.awaitingAnswer = null;
    this.answered = 1;
    this.world.time.after(1, () => this.whenRunning(() => this.resume(undefined)));
  }

  private onAnswer(op: number, payload: Uint8Array): void {
    const number = Buffer.from(payload).readBigUInt64LE(0);
    if (this.dead || this.awaitingAnswer?.op !== op || this.awaitingAnswer.number !== number) return;
    this.awaitingAnswer = null;
    this.answered = Buffer.from(payload).readUInt32LE(8);
    this.note(() => `is answered ${op} for ${number}: ${this.answered === 0 ? 'yes' : 'no'}`);
    this.resume(undefined);
  }

  private onOpenReady(payload: Uint8Array): void {
    if (this.dead) return;
    if (this.folderModule !== null) {
      this.ready.set(Buffer.from(payload).readBigUInt64LE(0), Buffer.from(payload).readUInt32LE(8));
      return this.hearNews();
    }
    if (Buffer.from(payload).readBigUInt64LE(0) !== this.awaitingOperation) return;
    this.awaitingOperation = null;
    this.note(() => `hears that its open ${Buffer.from(payload).readUInt32LE(8) === 0 ? 'is ready' : 'gave up'}`);
    this.resume(undefined);
  }


  /** Begins an open of a file, or of a stream of `base`; returns its number. */
  beginOpen(file: RecordKey, base: RecordKey | null, wantsReply: boolean): bigint {
    const operation = ++this.lastOperation;
    const names = [file, ...(base === null ? [] : [base])].map(describeKey).join(' and ');
    this.note(() => `begins open ${operation} of ${names}${wantsReply ? '' : ', and does not wait'}`);
    this.sendRing(RING_OP.openBegin, encodeOpenBegin(operation, file, base, wantsReply));
    return operation;
  }

  // --- opens of folders

  get isAttached(): boolean {
    return this.attachment !== null;
  }

  /** Whether opens of the folder go by our slice: only with the page of the daemon that we are attached to. */
  isDelegated(folder: RecordKey): boolean {
    return this.attachment !== null && !this.server.down && this.server.delegated.has(folder);
  }

  /** Null: there is nobody to ask. */
  beginFolderOpen(folder: RecordKey, flags: number): bigint | null {
    if (this.attachment === null) return null;
    const operation = ++this.lastOperation;
    this.note(() => `asks for open ${operation} of ${describeKey(folder)}, flags ${flags}`);
    this.sendRing(RING_OP.openBegin, encodeFolderOpenBegin(operation, folder, flags | OPEN_FLAG.wantsReply));
    return operation;
  }

  /** The answer to it (READY), -1 if whoever was asked is gone; null: there is none yet. */
  readyResult(operation: bigint): number | null {
    const result = this.ready.get(operation);
    if (result === undefined) return this.attachment === null || operation <= this.lostOperations ? -1 : null;
    this.ready.delete(operation);
    return result;
  }

  endFolderOpen(operation: bigint, key: RecordKey): void {
    this.note(() => `ends open ${operation}`);
    this.sendRing(RING_OP.openEnd, encodeOpenEnd(operation, key, 1));
  }

  endOpen(operation: bigint, file: RecordKey): void {
    this.note(() => `ends open ${operation}`);
    this.sendRing(RING_OP.openEnd, encodeOpenEnd(operation, file, 1));
    this.sendRing(RING_OP.close, encodeClose(file, operation));
  }

  cancelOpen(operation: bigint): void {
    this.note(() => `cancels open ${operation}`);
    this.sendRing(RING_OP.openCancel, encodeOpenCancel(operation));
  }

  sendRing(op: number, payload: Uint8Array): void {
    if (this.attachment !== null) this.server.sendRing(this.attachment, op, payload);
  }

  // --- records, as dbwrap_ctdb does them

  /** Locks the chain with the record usable for writing. */
  *lock(database: DatabaseId, key: RecordKey): Steps<Locked> {
    const { store, self } = this.server;
    for (let attempt = 1; ; attempt++) {
      while (!store.tryChain(database, key, this.name)) yield { for: 'chain', database, key };
      const record = store.get(database, key);
      if (record !== null && usableBySmbd(record.header, self, 'write')) {
        this.totals.attemptsMax = Math.max(this.totals.attemptsMax, attempt);
        const text = toText(record.data);
        this.checker.lockedRead(this.name, database, key, text);
        if (this.stopWhenLocked !== null) this.stop(this.stopWhenLocked);
        this.stopWhenLocked = null;
        return { database, key, header: record.header, text };
      }
      store.unlockChain(database, key, this.name);
      if (attempt === ATTEMPTS_MAX) {
        this.checker.fail('no-spinning', `${this.name} tried ${attempt} times: ${this.doing}`, describeKey(key));
      }
      this.totals.migrations++;
      yield* this.call(database, key, CALL_ID.migrate, CALL_FLAG.immediateMigration);
      yield { for: 'time', micros: 1 + this.world.prng.below(this.workMicros) };
    }
  }

  /** Writes under the lock, with the header as it was found. */
  store(locked: Locked, text: string): void {
    const { database, key, header } = locked;
    this.checker.written(database, key, text);
    this.server.store.put(database, key, header, Buffer.from(text, 'latin1'), `${this.name} writes`);
    this.note(() => `writes ${this.world.name(database)}/${describeKey(key)} ${describeData(Buffer.from(text))}`);
    locked.text = text;
  }

  unlock(locked: Locked): void {
    this.server.store.unlockChain(locked.database, locked.key, this.name);
  }

  /** Stores an empty record and tells the daemon, which is how smbd deletes. */
  delete(locked: Locked): void {
    this.store(locked, '');
    const { database, key, header } = locked;
    const data = encodeScheduleForDeletion(database, encodeRecordHeader(header), keyBytes(key));
    const flags = CONTROL_FLAG.noReply;
    this.send({ kind: 'request-control', opcode: CONTROL.scheduleForDeletion, srvid: 0n, clientId: 0, flags, data });
  }

  /** Asks for all records of a database, as smbstatus does. */
  *traverse(database: DatabaseId): Steps<void> {
    this.doing = 'listing all records';
    const since = this.world.time.now;
    const requestId = this.nextRequest++;
    const data = encodeTraverseStart({ database, requestId, srvid: ROWS_SRVID, withEmpty: false }, false);
    const flags = CONTROL_FLAG.noReply;
    this.rows = [];
    this.send({ kind: 'request-control', opcode: CONTROL.traverseStart, srvid: 0n, clientId: 0, flags, data });
    yield { for: 'rows', requestId };
    for (const { key, text } of this.rows) this.checker.fetched(this.name, database, key, text, since);
  }

  /**
   * Reads without locking: the local record if it is usable, else what the daemon says. `mayWrite`: a record that is
   * here is written from inside the read, under the chain that the read holds.
   */
  *parse(database: DatabaseId, key: RecordKey, mayWrite = false): Steps<string> {
    const { store, self } = this.server;
    // a parse takes the chain for reading, which with mutexes is the same lock
    while (store.holderOf(database, key) !== undefined) yield { for: 'chain', database, key };
    const record = store.get(database, key);
    if (record !== null && usableBySmbd(record.header, self, 'read')) {
      const text = toText(record.data);
      this.checker.fetched(this.name, database, key, text, this.world.time.now);
      if (mayWrite && !usableBySmbd(record.header, self, 'write')) {
        const label = `${this.world.name(database)}/${describeKey(key)}`;
        this.checker.fail('no-asking-under-the-chain', `${this.name} reads ${label} and must ask to write it`, label);
      }
      return text;
    }
    const since = this.world.time.now;
    const flags = record === null ? 0 : CALL_FLAG.wantReadonly;
    const data = yield* this.call(database, key, CALL_ID.fetch, flags);
    const text = toText(data);
    this.checker.fetched(this.name, database, key, text, since);
    return text;
  }

  /**
   * A read through a cache that is good while the database's sequence number stands still. Samba's share_mode_lock.c
   * asks for the number before it reads, its brlock.c afterwards, `later` if it does not run at once: a copy that goes
   * meanwhile stays in the cache.
   */
  *readCached(database: DatabaseId, key: RecordKey, later: Micros | null = null): Steps<string> {
    const id = `${database}/${key}`;
    const before = this.server.store.sequence(database);
    const cached = this.cache.get(id);
    if (cached?.sequence === before) {
      this.checker.cachedRead(this.name, database, key, cached.text);
      return cached.text;
    }
    const text = yield* this.parse(database, key);
    if (later !== null) yield { for: 'time', micros: later };
    this.cache.set(id, { sequence: later === null ? before : this.server.store.sequence(database), text });
    return text;
  }
}
