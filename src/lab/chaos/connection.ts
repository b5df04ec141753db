/**
 * One SMB client of a chaos run: connects to any server, and again when its connection is lost or it gave up waiting.
 * Every request is bounded: a server that is well must answer it, and of one that is not the client goes away after a
 * while.
 */
import type { Prng } from '../../base/prng.js';
import type { Lab } from '../lab.js';
import { LAB_PASSWORD, LAB_USER, SHARE } from '../layout.js';
import { pause } from '../run.js';
import type { Answer } from '../smb-client.js';
import { SmbClient } from '../smb-client.js';
import type { Outages } from './outages.js';
import { machineSeconds } from './outages.js';

/** A request to a server that has been well all that time is stuck: smbd itself waits 35 s for a client's break. */
export const STUCK_SECONDS = 20;
/** How long clients have patience with a server that is hurt: from, to. Some outlast most faults. */
const PATIENCE_SECONDS: [number, number] = [1.5, 12];
const CONNECT_MILLIS_MAX = 8_000;
const AGAIN_MILLIS = 300;
const LOOK_MILLIS = 100;
/** That a client whose connection was lost comes back to the same server. */
const SAME_SERVER_CHANCE = 0.5;
/** What a server answers that is well, beside OK: somebody else has the file. */
const USUAL = ['OK', 'SHARING_VIOLATION', 'LOCK_NOT_GRANTED', 'FILE_LOCK_CONFLICT', 'CANCELLED'];

/** The connection ended, or the client gave up: what was asked last may have been done, or not. */
export class ConnectionLost extends Error {}

export interface World {
  lab: Lab;
  outages: Outages;
  /** Told of what must not happen. */
  violated: (what: string) => void;
  /** What was answered how often. */
  count: (status: string) => void;
  isOver: () => boolean;
}

export class Connection {
  private client: SmbClient | null = null;
  private server: number;
  private turnedAt = machineSeconds();
  losses = 0;

  constructor(
    readonly name: string,
    private readonly world: World,
    private readonly prng: Prng,
    server: number,
  ) {
    this.server = server;
  }

  /** Who it is, for people. */
  get words(): string {
    return `${this.name} at server-${this.server}`;
  }

  /** For how long, in seconds, it has been with a server that is well. */
  get wellFor(): number {
    return Math.min(machineSeconds() - this.turnedAt, this.world.outages.wellFor(this.server));
  }

  /** Asks, connecting first if need be. Throws ConnectionLost. */
  async ask(what: string, send: (client: SmbClient) => Promise<Answer>): Promise<Answer> {
    const client = this.client ?? (await this.connect());
    const sent = machineSeconds();
    const answer = send(client);
    // when nobody waits for it any more
    answer.catch(() => undefined);
    const patience = this.patience(what, sent);
    try {
      const answered = await Promise.race([answer, patience.over]);
      this.world.count(answered.status);
      // a fault may have come and gone meanwhile
      const isWell = this.world.outages.wellFor(this.server) > machineSeconds() - sent;
      if (isWell && !USUAL.includes(answered.status)) {
        this.world.violated(`${this.words}: ${what} was refused with ${answered.status} by a server that is well`);
      }
      return answered;
    } catch (error) {
      this.leave();
      throw new ConnectionLost(`${what}: ${String(error)}`);
    } finally {
      patience.stop();
    }
  }

  /** Rejects when there is no point in waiting any longer. */
  private patience(what: string, sent: number): { over: Promise<never>; stop: () => void } {
    const [least, most] = PATIENCE_SECONDS;
    const patience = least + (this.prng.below(1000) / 1000) * (most - least);
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<never>((_, reject) => {
      timer = setInterval(() => {
        const waited = machineSeconds() - sent;
        const well = this.world.outages.wellFor(this.server);
        if (Math.min(waited, well) > STUCK_SECONDS) {
          this.world.violated(`${this.words}: no answer to ${what} for ${waited.toFixed(0)} s, and the server is well`);
          reject(new Error('stuck'));
        } else if (well < waited && waited > patience) {
          reject(new Error('gave up'));
        }
      }, LOOK_MILLIS);
    });
    over.catch(() => undefined);
    return { over, stop: () => clearInterval(timer) };
  }

  private async connect(): Promise<SmbClient> {
    const { lab } = this.world;
    const from = machineSeconds();
    for (let tries = 0; ; tries++) {
      if (this.world.isOver()) throw new ConnectionLost('the run is over');
      try {
        const { address } = lab.server(this.server);
        const [user, password] = [LAB_USER, LAB_PASSWORD];
        this.client = await SmbClient.connect(address, user, password, SHARE, undefined, CONNECT_MILLIS_MAX);
        return this.client;
      } catch {
        const waited = machineSeconds() - from;
        if (Math.min(waited, this.world.outages.wellFor(this.server)) > STUCK_SECONDS) {
          this.world.violated(`${this.words}: no connection for ${waited.toFixed(0)} s, and the server is well`);
          throw new ConnectionLost('no connection');
        }
        await pause(AGAIN_MILLIS);
        this.moveOn();
      }
    }
  }

  private moveOn(): void {
    if (this.prng.chance(SAME_SERVER_CHANCE)) return;
    this.server = this.prng.below(this.world.lab.options.servers);
    this.turnedAt = machineSeconds();
  }

  private leave(): void {
    this.losses++;
    this.close();
    this.moveOn();
  }

  /** Ends the connection, as a client does that goes away. */
  close(): void {
    this.client?.close();
    this.client = null;
  }
}
