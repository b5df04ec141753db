/**
 * Persistent databases (secrets, passdb, registry …): the same on all servers, all or nothing, a commit durable on a
 * majority before it is answered, or in a pool of two on the holders that the view names. This class is the origin's
 * side, which carries the commits of local processes to the leader and their answers back, and the switchboard between
 * Member (own files) and LeaderOfDatabase (who has what).
 */
import type { DatabaseId, Incarnation, NodeId } from '../../base/ids.js';
import { termOf } from '../../wire/membership-messages.js';
import { decodePersistentMessage, encodePersistentMessage } from '../../wire/persistent-messages.js';
import type { PersistentMessage } from '../../wire/persistent-messages.js';
import type { CoreContext } from '../context.js';
import type { Input, PersistentRow } from '../effects.js';
import type { View } from '../views.js';
import type { PersistentForGate, Refusal } from '../gate/ports.js';
import { Fragments } from './fragments.js';
import { LeaderOfDatabase } from './leader.js';
import type { LeaderStatus } from './leader.js';
import { COMMITS_WAITING_MAX, COMMIT_WAIT_MICROS_MAX } from './limits.js';
import { Member } from './member.js';
import type { Timer } from '../timers.js';

interface Pending {
  database: DatabaseId;
  rows: PersistentRow[];
  done: (refusal: Refusal) => void;
  timer: Timer;
}

/** A persistent database as people see it on one server. `leader` is filled in on the server that leads. */
export interface PersistentStatus {
  name: string;
  sequence: number | null;
  term: number | null;
  inSync: boolean;
  leader: LeaderStatus | null;
}

export class Persistent implements PersistentForGate {
  private readonly member: Member;
  private readonly leaders = new Map<DatabaseId, LeaderOfDatabase>();
  private readonly fragments = new Fragments();
  /** Commits of local processes, by our number. */
  private readonly pending = new Map<number, Pending>();
  private lastNumber = 0;
  /** Of the view that we installed: who orders commits, and its term. Null before the first view. */
  private led: { by: NodeId; term: number } | null = null;
  /** View.holders of the view that we installed. */
  private holders: readonly NodeId[] = [];
  /** We lead a pool of two, both have everything, and no commit is answered that one of them has not. */
  private allHold = false;
  /** Databases that are being opened: what is in their files is not known yet. */
  private readonly opening = new Set<DatabaseId>();
  /** Commits for databases that are not open here yet, while we lead. */
  private early: { from: NodeId; database: DatabaseId; number: number; rows: PersistentRow[] }[] = [];

  constructor(
    private readonly context: CoreContext,
    /** HoldersFacts.allHold changed; for the engine of the membership. */
    private readonly allHoldChanged: (allHold: boolean) => void,
  ) {
    this.member = new Member(
      context,
      (database, version, failed) => this.sendToLeader({ kind: 'version', database, version, failed }),
      () => this.needs(),
    );
  }

  /** The server that orders commits: the view's leader; before the first view we do not know, and name ourselves. */
  leader(): NodeId {
    return this.led?.by ?? this.context.self;
  }

  private get isLeader(): boolean {
    return this.led?.by === this.context.self;
  }

  /**
   * A view was installed. What its leader says counts from here on, and nothing that another says. `left`: the servers
   * whose run is out.
   */
  install(view: View, left: readonly NodeId[]): void {
    const term = termOf(view.epoch);
    this.holders = view.holders;
    this.setAllHold(false);
    if (this.led?.by === view.leader && this.led.term === term && !left.includes(view.leader)) {
      for (const node of left) for (const leader of this.leaders.values()) leader.peerLeft(node);
      return this.lookWhetherAllHold();
    }
    this.led = { by: view.leader, term };
    for (const leader of this.leaders.values()) leader.close();
    this.leaders.clear();
    this.early = [];
    this.member.leaderChanged();
    if (this.isLeader) for (const database of this.member.ids()) this.lead(database);
    // the new leader recognises a commit that the former one has done already
    for (const [number, { database, rows }] of this.pending) {
      this.sendToLeader({ kind: 'commit', database, number, rows });
    }
  }

  /** As long as it is not known what is in a file, also because it could not be opened, nobody is said to have all. */
  databaseOpening(database: DatabaseId): void {
    this.opening.add(database);
  }

  databaseOpened(database: DatabaseId, name: string): void {
    this.opening.delete(database);
    this.member.open(database, name);
    if (this.isLeader && !this.leaders.has(database)) this.lead(database);
  }

  private lead(database: DatabaseId): void {
    const leader = new LeaderOfDatabase(
      database,
      this.member.name(database),
      this.led?.term ?? 0,
      this.context,
      (to, message) => this.send(to, message),
      (done) => this.member.read(database, done),
      (has) => this.isEnough(has),
    );
    this.leaders.set(database, leader);
    leader.askAll();
    const early = this.early.filter((commit) => commit.database === database);
    this.early = this.early.filter((commit) => commit.database !== database);
    for (const { from, number, rows } of early) leader.commit(from, number, rows);
  }

  /**
   * Whether all of these servers together have, or will have, every answered commit: in a pool of two the holders that
   * the view names, and both of them from when we are about to name both; else a majority of those that keep databases.
   */
  private isEnough(has: (node: NodeId) => boolean): boolean {
    const { fileServers } = this.context;
    if (this.allHold) return fileServers.every(has);
    if (this.holders.length > 0) return this.holders.every(has);
    return fileServers.filter(has).length * 2 > fileServers.length;
  }

  /** What isEnough asks, in words, for people. */
  private needs(): { where: string; missing: readonly NodeId[] } {
    const isAlone = this.holders.length === 1;
    const needed = isAlone ? this.holders : this.context.fileServers;
    const where = isAlone ? `server ${this.holders.join()}, which alone has every commit` : 'a majority of the servers';
    return { where, missing: needed.filter((node) => !this.context.isUp(node)) };
  }

  /**
   * In a pool of two that does not name both as holders: do both have everything? Each tells us its databases before
   * the versions in them (Gate announces them at first contact), so none is missed.
   */
  private lookWhetherAllHold(): void {
    const { fileServers, members } = this.context;
    if (!this.isLeader || this.allHold || fileServers.length !== 2 || this.holders.length === 2) return;
    if (this.opening.size > 0 || this.leaders.size === 0) return;
    const areThere = fileServers.every((node) => members.includes(node) && this.context.isUp(node));
    if (areThere && [...this.leaders.values()].every((leader) => leader.allHave(fileServers))) this.setAllHold(true);
  }

  /**
   * We lead, and every answered commit is in the files of all members that count; these are enough for the next one. A
   * server may be taken out or begin to count only then: after that step any majority still has every commit, after a
   * second one perhaps not.
   */
  isSettled(): boolean {
    const { fileServers, members } = this.context;
    if (!this.isLeader || this.opening.size > 0) return false;
    const present = fileServers.filter((node) => members.includes(node) && this.context.isUp(node));
    if (!this.isEnough((node) => present.includes(node))) return false;
    return [...this.leaders.values()].every((leader) => leader.allHave(present));
  }

  private setAllHold(allHold: boolean): void {
    if (allHold === this.allHold) return;
    this.allHold = allHold;
    this.allHoldChanged(allHold);
  }

  whenInSync(database: DatabaseId, done: (refusal: Refusal) => void): void {
    this.member.whenInSync(database, done);
  }

  readRows(database: DatabaseId, done: (rows: PersistentRow[] | string) => void): void {
    this.member.read(database, done);
  }

  sequence(database: DatabaseId): number {
    return this.member.version(database)?.sequence ?? 0;
  }

  commit(database: DatabaseId, rows: PersistentRow[], done: (refusal: Refusal) => void): void {
    const number = ++this.lastNumber;
    const timer = this.context.timers.at(this.context.now() + COMMIT_WAIT_MICROS_MAX, () => {
      this.pending.delete(number);
      this.context.count('persistent.commit.late');
      const name = this.member.name(database);
      const { where, missing } = this.needs();
      const remedy = `a commit needs the leading server and ${where}: start smbpoold where it is missing`;
      this.context.log('error', 'persistent.commit-late', { database: name, leader: this.led?.by, missing, remedy });
      done('not enough servers took the commit in time');
    });
    const pending: Pending = { database, rows, done, timer };
    this.pending.set(number, pending);
    this.context.count('persistent.commit.asked');
    // before the first view there is nobody to send it to
    this.sendToLeader({ kind: 'commit', database, number, rows });
  }

  /** A message of a peer (types 64 to 95). Throws DecodeError. */
  onMessage(from: NodeId, bytes: Uint8Array): void {
    const message = decodePersistentMessage(bytes);
    if (message.kind !== 'fragment') return this.take(from, message);
    const whole = this.fragments.add(from, message);
    if (whole === null) return;
    const inner = decodePersistentMessage(whole);
    if (inner.kind !== 'fragment') this.take(from, inner);
  }

  private take(from: NodeId, message: Exclude<PersistentMessage, { kind: 'fragment' }>): void {
    const { database } = message;
    switch (message.kind) {
      case 'commit': {
        const leader = this.leaders.get(database);
        if (leader !== undefined) return leader.commit(from, message.number, message.rows);
        return this.keepEarly(from, message);
      }
      case 'version':
        this.leaders.get(database)?.onVersion(from, message.version, message.failed);
        return this.lookWhetherAllHold();
      case 'content':
        return this.leaders.get(database)?.onContent(from, message.rows, message.failed);
      default:
        if (from === this.led?.by) return this.takeFromLeader(message);
        this.context.count('persistent.message.refused.not-leader');
    }
  }

  /** We lead but have not opened the database yet: we have just started. */
  private keepEarly(from: NodeId, message: Extract<PersistentMessage, { kind: 'commit' }>): void {
    const { database, number, rows } = message;
    if (this.isLeader && this.early.length < COMMITS_WAITING_MAX) {
      this.early.push({ from, database, number, rows });
      return;
    }
    const refusal = 'the leading server does not have the database';
    this.send(from, { kind: 'commit-done', database, number, refusal });
  }

  private takeFromLeader(
    message: Exclude<PersistentMessage, { kind: 'fragment' | 'commit' | 'version' | 'content' }>,
  ): void {
    const { database } = message;
    switch (message.kind) {
      case 'commit-done':
        return this.finish(message.number, message.refusal === '' ? null : message.refusal);
      case 'query': {
        const version = this.member.version(database);
        if (version !== null) this.sendToLeader({ kind: 'version', database, version, failed: '' });
        return;
      }
      case 'apply':
        return this.member.apply(database, message.previous, message.version, message.rows);
      case 'replace':
        return this.member.replace(database, message.version, message.rows);
      case 'fetch':
        return this.member.read(database, (rows) => {
          const failed = typeof rows === 'string' ? rows : '';
          const content = typeof rows === 'string' ? [] : rows;
          this.sendToLeader({ kind: 'content', database, rows: content, failed });
        });
      case 'in-sync':
        return this.member.inSync(database, message.version);
    }
  }

  private finish(number: number, refusal: Refusal): void {
    const pending = this.pending.get(number);
    if (pending === undefined) return this.context.count('persistent.commit-done.unexpected');
    this.pending.delete(number);
    pending.timer.cancel();
    pending.done(refusal);
  }

  onDone(input: Omit<Extract<Input, { kind: 'persistent-done' }>, 'kind'>): void {
    this.member.onDone(input.token, input.result);
  }

  /** First contact with this run of the peer, or what was sent to it was lost. */
  peerUp(peer: NodeId, _incarnation: Incarnation): void {
    this.fragments.forget(peer);
    this.early = this.early.filter((commit) => commit.from !== peer);
    for (const leader of this.leaders.values()) leader.peerUp(peer);
    if (peer !== this.led?.by) return;
    for (const database of this.member.ids()) {
      const version = this.member.version(database);
      if (version !== null) this.send(peer, { kind: 'version', database, version, failed: '' });
    }
    // the leader recognises a commit that it has done already
    for (const [number, { database, rows }] of this.pending) {
      this.send(peer, { kind: 'commit', database, number, rows });
    }
  }

  peerDown(peer: NodeId): void {
    for (const leader of this.leaders.values()) leader.peerDown(peer);
  }

  status(): PersistentStatus[] {
    return this.member.ids().map((database) => {
      const version = this.member.version(database);
      const leader = this.leaders.get(database)?.status();
      return {
        name: this.member.name(database),
        sequence: version?.sequence ?? null,
        term: version?.term ?? null,
        inSync: this.member.isInSync(database),
        leader: leader ?? null,
      };
    });
  }

  private sendToLeader(message: PersistentMessage): void {
    if (this.led !== null) this.send(this.led.by, message);
  }

  /** To ourselves a message takes the next step: nothing calls back into the middle of what sent it. */
  private send(to: NodeId, message: PersistentMessage): void {
    if (message.kind === 'fragment') return;
    if (to === this.context.self) {
      this.context.timers.at(this.context.now(), () => this.take(to, message));
      return;
    }
    for (const part of this.fragments.split(encodePersistentMessage(message))) this.context.send(to, part);
  }
}
