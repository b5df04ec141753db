/**
 * Golden scenarios: a text file of commands, each followed by everything that happened because of it, indented. The
 * runner performs the commands on a simulated pool with a perfect wire (100 us a trip) and writes the text anew; a
 * test compares it with the file. With REWRITE=1 the file is replaced: commit only what you understand.
 *
 *   servers N                 start N servers with one smbd each; the pool is complete afterwards
 *   home DB KEY               which server is the record's home
 *   write S DB KEY TEXT       server S's smbd locks the record, writes TEXT and unlocks
 *   delete S DB KEY           locks, stores the empty record, asks for its deletion
 *   read S DB KEY             reads without locking
 *   cached S DB KEY           reads through a cache that is good while the database's sequence number stands still
 *   hold S DB KEY TIME        locks the record and keeps the chain for a while, then unlocks
 *   begin COMMAND             starts one of the above and goes on at once
 *   lose N FROM TO            the next N data frames from server FROM to server TO are lost
 *   kill S                    server S dies for good, with its smbds and its stores; nobody has noticed yet
 *   restart S                 server S's daemon is killed, its smbds go on; a run that continues it starts 1 ms later
 *   view                      the servers that live agree on a view, and all install it at once
 *   advance TIME              lets time pass: 200us, 5ms, 2s
 *   stores                    what the tdbs of all servers hold
 *
 * Databases: locking, brlock, opens (random keys).
 */
import type { DatabaseId, Epoch, Incarnation, NodeId, RecordKey } from '../../src/base/ids.js';
import { nodeId } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import type { Micros } from '../../src/core/effects.js';
import type { Member, View } from '../../src/core/views.js';
import { rendezvousHome } from '../../src/core/records/rendezvous.js';
import { decodeFrame } from '../../src/wire/frame.js';
import { FLAG_HAVE_DELEGATIONS, FLAG_HAVE_READONLY } from '../../src/wire/record-header.js';
import { describeData, describeKey, describeMessage, isDataFrame } from '../support/describe.js';
import { SimulatedTime } from '../support/simulated-time.js';
import { PERFECT_WIRE, SimulatedWire } from '../support/simulated-wire.js';
import { Checker } from './checker.js';
import { makePoolNode } from './nodes.js';
import type { ServerWorld } from './server.js';
import { SimulatedServer } from './server.js';
import { fixedView } from './view-oracle.js';
import type { Steps } from './smbd.js';
import { SimulatedSmbd } from './smbd.js';
import type { SimulatedStore, StoredRecord } from './store.js';
import { Trace } from './trace.js';
import type { Databases } from './workload.js';
import { attachAll } from './workload.js';

const TRIP_MICROS = 100;
const SOCKET_MICROS = 10;
/** A command that is not over after this time is stuck, and the output says so. */
const COMMAND_MICROS_MAX = 5_000_000;
const SETUP_MICROS = 300_000;

type DatabaseName = keyof Databases;

export class Scenario {
  private readonly time = new SimulatedTime();
  private readonly trace = new Trace();
  private readonly wire = new SimulatedWire(this.time, new Prng(1), {
    ...PERFECT_WIRE,
    delayMicrosMin: TRIP_MICROS,
    delayMicrosMax: TRIP_MICROS,
  });
  private readonly stores = new Map<NodeId, SimulatedStore>();
  private readonly names = new Map<DatabaseId, string>();
  private readonly servers: SimulatedServer[] = [];
  private readonly smbds: SimulatedSmbd[] = [];
  private readonly checker = new Checker(
    () => this.time.now,
    this.stores,
    (database) => this.name(database),
  );
  private databases: Databases | null = null;
  private output: string[] = [];
  private startedAt: Micros = 0;
  private listening = false;
  private view: View | null = null;
  private losses: { from: number; to: number; left: number }[] = [];
  private readonly newestSequence = new Map<string, number>();
  private extraSmbds = 0;

  constructor() {
    this.trace.onLine = (at, text) => {
      if (this.listening && !text.includes(' log ')) this.say(at, text);
    };
    this.wire.loseIf = (from, to, body) => isDataFrame(body) && this.takeLoss(from, to);
    this.wire.onSend = (from, to, body, fate) => {
      if (isDataFrame(body)) this.sayFrame(from, to, body, fate === 'lost');
    };
  }

  private name(database: DatabaseId): string {
    return this.names.get(database) ?? String(database);
  }

  private say(at: Micros, text: string): void {
    this.output.push(`${String(at - this.startedAt).padStart(7)} us  ${text}`);
  }

  private sayFrame(from: NodeId, to: NodeId, body: Uint8Array, lost: boolean): void {
    const frame = decodeFrame(body);
    if (frame.kind !== 'data') return;
    const path = `${from}>${to}`;
    const again = frame.sequence <= (this.newestSequence.get(path) ?? 0);
    if (!again) this.newestSequence.set(path, frame.sequence);
    if (!this.listening) return;
    const marks = `${again ? ' (again)' : ''}${lost ? ' (lost)' : ''}`;
    for (const record of frame.records) {
      const text = describeMessage(record.bytes, (database) => this.name(database));
      this.say(this.time.now, `${from} -> ${to}  ${text}${marks}`);
    }
  }

  private takeLoss(from: NodeId, to: NodeId): boolean {
    const loss = this.losses.find((candidate) => candidate.from === from && candidate.to === to && candidate.left > 0);
    if (loss === undefined) return false;
    loss.left--;
    return true;
  }

  /** Performs one command and returns what happened, a line each. Throws an Error for a command it does not know. */
  perform(command: string): string[] {
    const words = command.split(/\s+/);
    this.output = [];
    this.startedAt = this.time.now;
    this.listening = words[0] !== 'servers';
    if (words[0] === 'begin') this.begin(words.slice(1));
    else if (!this.performPlain(words)) this.finish(this.begin(words));
    this.listening = false;
    for (const violation of this.checker.violations.splice(0)) {
      this.output.push(`BROKEN ${violation.rule}: ${violation.text}`);
    }
    return this.output;
  }

  private performPlain(words: string[]): boolean {
    const [verb, first, second, third] = words;
    switch (verb) {
      case 'servers':
        this.start(Number(first));
        return true;
      case 'home':
        this.sayHome(first as DatabaseName, (second ?? '') as RecordKey);
        return true;
      case 'lose':
        this.losses.push({ left: Number(first), from: Number(second), to: Number(third) });
        return true;
      case 'kill':
        this.kill(Number(first));
        return true;
      case 'restart':
        this.restart(Number(first));
        return true;
      case 'view':
        this.agree();
        return true;
      case 'advance':
        this.time.advance(parseTime(first ?? ''));
        return true;
      case 'stores':
        this.sayStores();
        return true;
      default:
        return false;
    }
  }

  private start(count: number): void {
    const members = Array.from({ length: count }, (_, i) => nodeId(i));
    const world: ServerWorld = {
      time: this.time,
      wire: this.wire,
      prng: new Prng(1),
      trace: this.trace,
      alarm: (server, what) => this.checker.fail('no-alarm', `server ${server}: ${what}`),
      name: (database) => this.name(database),
      turnMicrosMax: 0,
      socketMicrosMax: 0,
    };
    for (const self of members) {
      const incarnation = 1 as Incarnation;
      const server = new SimulatedServer({ self, servers: members, incarnation }, world, makePoolNode);
      server.socketMicrosFixed = SOCKET_MICROS;
      server.store.onOpen = (database, name) => void this.names.set(database, shortName(name));
      server.store.onChange = (database, key, why) => this.checker.storeChanged(self, database, key, why);
      this.servers.push(server);
      this.stores.set(self, server.store);
      const smbd = new SimulatedSmbd(`smbd ${self}`, server, world, this.checker, 1000 + self);
      smbd.workMicros = 0;
      this.smbds.push(smbd);
      smbd.run(this.attach(smbd));
    }
    this.view = fixedView(this.servers);
    for (const server of this.servers) server.input({ kind: 'view', view: this.view });
    this.time.advance(SETUP_MICROS);
  }

  private kill(number: number): void {
    const server = this.servers[number];
    if (server === undefined || server.dead) throw new Error(`no server "${number}"`);
    this.checker.serverDied(server.self);
    this.stores.delete(server.self);
    this.smbds[number]?.die();
    server.die();
  }

  private restart(number: number): void {
    const server = this.servers[number];
    if (server === undefined || server.dead) throw new Error(`no server "${number}"`);
    const incarnation = (server.options.incarnation + 1) as Incarnation;
    server.successor = () => ({ afterMicros: 1_000, options: () => ({ ...server.options, incarnation }) });
    server.killNow();
    // streams from and to the next run begin anew
    for (const path of [...this.newestSequence.keys()]) {
      if (path.split('>').includes(`${number}`)) this.newestSequence.delete(path);
    }
    this.time.advance(1_000 + 10 * TRIP_MICROS);
  }

  /** Those that live, by the view before: all of them know that one. */
  private agree(): void {
    const before = this.view;
    if (before === null) throw new Error('"servers" was not said yet');
    const epoch = (before.epoch + 1) as Epoch;
    const members = before.members.filter(({ node }) => this.stores.has(node)).map((member): Member => {
      const { incarnation, resumes } = this.servers[member.node]!.options;
      if (incarnation === member.incarnation || resumes === undefined) return member;
      return { node: member.node, incarnation, since: epoch, resumes };
    });
    const former = [{ epoch: before.epoch, members: before.members }];
    const view: View = { epoch, leader: members[0]!.node, members, protocol: 1, holders: [], former, past: [] };
    this.view = view;
    for (const server of this.servers) if (!server.dead) server.input({ kind: 'view', view });
    this.time.advance(10 * TRIP_MICROS);
  }

  private *attach(smbd: SimulatedSmbd): Steps<void> {
    this.databases = yield* attachAll(smbd);
  }

  private database(name: string | undefined): DatabaseId {
    const database = this.databases?.[name as DatabaseName];
    if (database === undefined) throw new Error(`no database "${name}", or "servers" was not said yet`);
    return database;
  }

  /** Starts a command of a smbd and returns the smbd; one that is busy gets a colleague. */
  private begin(words: string[]): SimulatedSmbd {
    const [verb = '', server = '', databaseName, key = '', last = ''] = words;
    const database = this.database(databaseName);
    let smbd = this.smbds[Number(server)];
    if (smbd === undefined) throw new Error(`no server "${server}"`);
    if (smbd.busy) smbd = smbd.colleague(`smbd ${server}${'bcdefgh'[this.extraSmbds++] ?? 'x'}`);
    const steps = stepsOf(verb, smbd, database, key as RecordKey, last);
    smbd.doing = words.join(' ');
    smbd.run(steps);
    return smbd;
  }

  private finish(smbd: SimulatedSmbd): void {
    const end = this.time.now + COMMAND_MICROS_MAX;
    while (smbd.busy && this.time.step(end)) {
      // each step runs one action
    }
    if (smbd.busy) this.output.push(`STUCK after ${COMMAND_MICROS_MAX / 1000} ms`);
    // what it set off may still be under way: a few trips more
    this.time.advance(5 * TRIP_MICROS);
  }

  private sayHome(name: DatabaseName, key: RecordKey): void {
    const home = rendezvousHome(this.database(name), key, [...this.stores.keys()]);
    this.output.push(`${name}/${describeKey(key)} has its home on server ${home}`);
  }

  private sayStores(): void {
    for (const [node, store] of this.stores) {
      for (const { database, key } of store.keys()) {
        const record = store.get(database, key)!;
        const what = describeStored(record, node);
        this.output.push(`server ${node}  ${this.name(database)}/${describeKey(key)}  ${what}`);
      }
    }
    if (this.output.length === 0) this.output.push('nothing');
  }
}

function* stepsOf(verb: string, smbd: SimulatedSmbd, database: DatabaseId, key: RecordKey, last: string): Steps<void> {
  switch (verb) {
    case 'write':
    case 'delete':
    case 'hold': {
      const record = yield* smbd.lock(database, key);
      smbd.say(`has the lock and reads ${describeData(Buffer.from(record.text))}`);
      if (verb === 'hold') yield { for: 'time', micros: parseTime(last) };
      else if (verb === 'write') smbd.store(record, last);
      else smbd.delete(record);
      smbd.unlock(record);
      if (verb === 'hold') smbd.say('unlocks');
      return;
    }
    case 'read':
      smbd.say(`reads ${describeData(Buffer.from(yield* smbd.parse(database, key)))}`);
      return;
    case 'cached':
      smbd.say(`reads ${describeData(Buffer.from(yield* smbd.readCached(database, key)))}`);
      return;
    default:
      throw new Error(`no command "${verb}"`);
  }
}

function describeStored({ header, data }: StoredRecord, node: NodeId): string {
  const text = describeData(data);
  if (header.dmaster === node) {
    const shared = (header.flags & FLAG_HAVE_DELEGATIONS) === 0 ? '' : ', copies given';
    return `owned${shared}, turn ${header.rsn}, ${text}`;
  }
  const isCopy = (header.flags & FLAG_HAVE_READONLY) !== 0;
  return `${isCopy ? 'copy of' : 'backup, given to'} ${header.dmaster}, turn ${header.rsn}, ${text}`;
}

function shortName(name: string): string {
  if (name === 'smbXsrv_open_global.tdb') return 'opens';
  if (name === 'smbXsrv_session_global.tdb') return 'sessions';
  return name.replace(/\.tdb$/, '');
}

/** '200us', '5ms' or '2s' as microseconds. */
function parseTime(text: string): Micros {
  const match = /^(\d+)(us|ms|s)$/.exec(text);
  if (match === null) throw new Error(`"${text}" is no time: write 200us, 5ms or 2s`);
  return Number(match[1]) * (match[2] === 's' ? 1_000_000 : match[2] === 'ms' ? 1000 : 1);
}

/** Runs the commands of a scenario's text and returns the text with what happened now. */
export function replay(text: string): string {
  const scenario = new Scenario();
  const result: string[] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('  ')) continue;
    result.push(line);
    if (line === '' || line.startsWith('#')) continue;
    for (const output of scenario.perform(line)) result.push(`  ${output}`);
  }
  return result.join('\n');
}
