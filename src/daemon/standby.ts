/**
 * A standby: a second smbpoold that has everything loaded and holds what must outlive the active one, and goes on in
 * its place when that dies (docs/decisions/standby.md). Made by main with the option that standby-link.ts names.
 * Decides only whether to take over.
 */
import { closeSync, readFileSync, writeSync } from 'node:fs';
import { databaseIdOf } from '../base/jenkins.js';
import { nodeId } from '../base/ids.js';
import type { Incarnation } from '../base/ids.js';
import type { Inheritance } from '../host/keeping.js';
import { messageOf } from '../host/errors.js';
import { loadNative, STANDBY_CLOSED, STANDBY_OPENED } from '../host/native.js';
import type { KeptConnection, StandbyEnd } from '../host/native.js';
import { TdbPersistentStore } from '../host/persistent-store.js';
import { TdbRecordStore } from '../host/record-store.js';
import { parseConfig } from './config.js';
import type { Config } from './config.js';
import { nextIncarnation } from './incarnation.js';
import { installedSamba } from './samba-release.js';
import { isCrashLoop, STANDBY_FD, TAKEOVERS_MAX, TAKEOVERS_WITHIN_MS } from './standby-link.js';
import type { ActiveSays, StandbySays } from './standby-link.js';

/** A process that was killed is gone within milliseconds; one that dumps its core is not. */
const END_MILLIS_MAX = 60_000;

/** With it a daemon goes on in place of another one. */
export interface Succession {
  config: Config;
  configText: string;
  inheritance: Inheritance;
  incarnation: Incarnation;
  samba: string | undefined;
  /** Descriptors of the locks of the directories. */
  locks: number[];
  /** Of the chain, this one included. */
  takeovers: number[];
  /** When the end of the active one was noticed, as performance.now. */
  noticedAt: number;
  /** After so long the active one was gone altogether. */
  waitedMicros: number;
}

/** Why it ends without a takeover; null: in order. */
export type StandbyEndReason = string | null;

/**
 * Stands by until the active daemon ends.
 * @returns how to go on, or why not to.
 */
export function standBy(
  config: Config,
  activePid: number,
  rehearse: (config: Config, known: Pick<Succession, 'incarnation' | 'samba'>) => void,
): Promise<Succession | StandbyEndReason> {
  return new Promise((resolve) => new Standby(config, activePid, rehearse, resolve).start());
}

class Standby {
  private readonly connections = new Map<number, KeptConnection>();
  private readonly records: TdbRecordStore;
  private readonly persistent: TdbPersistentStore;
  readonly samba = installedSamba();
  readonly incarnation: Incarnation;
  private link: StandbyEnd | null = null;
  private told: Extract<ActiveSays, { say: 'told' }> | null = null;
  private ending: 'stop' | 'anew' | null = null;
  private broken: string | null = null;

  constructor(
    private config: Config,
    private readonly activePid: number,
    private readonly rehearse: (config: Config, known: Pick<Succession, 'incarnation' | 'samba'>) => void,
    private readonly resolve: (how: Succession | StandbyEndReason) => void,
  ) {
    const { directories, self } = config;
    this.records = new TdbRecordStore(directories.volatile, nodeId(self.id));
    this.persistent = new TdbPersistentStore(directories.persistent, nodeId(self.id));
    // taken now: what is durable needs the disk, which may keep us waiting
    this.incarnation = nextIncarnation(directories.persistent, Date.now());
  }

  start(): void {
    const { StandbyEnd: StandbyEndClass } = loadNative();
    const onMessage = (kind: number, id: number, slot: number, payload: Buffer, fd: number): void => {
      if (kind === STANDBY_OPENED) return this.opened({ id, slot, fd });
      if (kind === STANDBY_CLOSED) return this.closed(id);
      this.hear(JSON.parse(payload.toString('utf8')) as ActiveSays);
    };
    this.link = new StandbyEndClass(STANDBY_FD.link, this.activePid, onMessage, () => this.onGone());
    this.say({ say: 'up' });
  }

  private say(what: StandbySays): void {
    try {
      writeSync(STANDBY_FD.says, `${JSON.stringify(what)}\n`);
    } catch {
      // the active one is gone, which the link tells
    }
  }

  private opened(connection: KeptConnection): void {
    this.closed(connection.id);
    this.connections.set(connection.id, connection);
  }

  private closed(id: number): void {
    const connection = this.connections.get(id);
    if (connection !== undefined && connection.fd >= 0) closeSync(connection.fd);
    this.connections.delete(id);
  }

  private hear(said: ActiveSays): void {
    switch (said.say) {
      case 'told':
        this.told = said;
        for (const name of said.databases) this.open(name);
        this.takeConfig(said.config);
        if (this.broken !== null) return;
        // code that ran once is compiled: all of it counts in the milliseconds of a takeover
        this.rehearse(this.config, this);
        return this.say({ say: 'ready', residentKib: Math.round(process.memoryUsage.rss() / 1024) });
      case 'database':
        return this.open(said.name);
      default:
        this.ending = said.say;
    }
  }

  /** What is on disk may be newer than what the active one goes by. */
  private takeConfig(text: string): void {
    const { file, self } = this.config;
    if (text === configText(this.config)) return;
    try {
      this.config = parseConfig(file, text, { server: self.name });
    } catch (error) {
      this.fail(`the configuration cannot be read: ${messageOf(error)}`);
    }
  }

  /** While the active one has it open: nobody who opens it is the first then, who would empty it. */
  private open(name: string): void {
    try {
      const database = databaseIdOf(name);
      this.records.open(database, name);
      // for the second time it will take a fraction
      this.records.scan(database);
    } catch (error) {
      this.fail(`${name} cannot be opened: ${messageOf(error)}`);
    }
  }

  /** Ends at once, for the active one to know that it has no standby, and to start another one. */
  private fail(why: string): void {
    this.broken ??= why;
    this.resolve(this.broken);
  }

  private onGone(): void {
    const noticedAt = performance.now();
    if (this.ending === 'stop') return this.resolve(null);
    this.hurry();
    const refusal = this.refusal();
    if (refusal !== null) return this.resolve(refusal);
    const takeovers = [...(this.told?.takeovers ?? []), Date.now()];
    const { streams, listener, locks } = STANDBY_FD;
    this.resolve({
      config: this.config,
      configText: this.told?.config ?? '',
      inheritance: {
        streams,
        listener,
        connections: [...this.connections.values()],
        records: this.records,
        persistent: this.persistent,
      },
      incarnation: this.incarnation,
      samba: this.samba,
      locks: Array.from({ length: this.told?.locks ?? 0 }, (_, index) => locks + index),
      takeovers,
      noticedAt,
      waitedMicros: Math.round((performance.now() - noticedAt) * 1000),
    });
  }

  /** Until the daemon sees to its priority, with guard and all: a busy machine must not cost the lease. */
  private hurry(): void {
    if (!this.config.realtime) return;
    try {
      loadNative().realtimeStart([]);
    } catch {
      // the daemon says it, and what to do
    }
  }

  private refusal(): string | null {
    if (this.ending === 'anew') return 'the active smbpoold starts anew, and its run cannot be continued';
    if (this.told === null) return 'the active smbpoold ended before this standby knew everything';
    if (this.broken !== null) return this.broken;
    if (isCrashLoop(this.told.takeovers, Date.now())) {
      const seconds = TAKEOVERS_WITHIN_MS / 1000;
      return `the active one died again after ${TAKEOVERS_MAX} takeovers within ${seconds} s: a plain start follows`;
    }
    if (this.link?.waitForEnd(END_MILLIS_MAX) !== true) return 'the active smbpoold closed its link and does not end';
    return null;
  }
}

/** As it is in the file now. */
export function configText({ file }: Pick<Config, 'file'>): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
