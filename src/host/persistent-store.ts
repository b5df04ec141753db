/**
 * The persistent databases: passes work to a thread of its own (persistent-worker.ts), because durable transactions
 * wait for the disk. Called by the host's loop, which gets the outcome as a later input.
 */
import { mkdirSync, readdirSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { DatabaseId, NodeId } from '../base/ids.js';
import type { PersistentOp, PersistentRow } from '../core/effects.js';
import type { OpenedDatabase, PersistentResult, PersistentStore } from '../ports/record-store.js';
import { PoolError } from './errors.js';
import type { PersistentReply, PersistentRequest } from './persistent-messages.js';
import { databasePath } from './record-store.js';

type Unnumbered<T> = T extends { id: number } ? Omit<T, 'id'> : never;

export class TdbPersistentStore implements PersistentStore {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, (reply: PersistentReply) => void>();
  private lastId = 0;
  private closed = false;

  constructor(
    private readonly directory: string,
    private readonly self: NodeId,
  ) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.worker = new Worker(new URL('./persistent-worker.js', import.meta.url));
    this.worker.on('message', (reply: PersistentReply) => {
      const done = this.waiting.get(reply.id);
      this.waiting.delete(reply.id);
      done?.(reply);
    });
    // the worker answers what goes wrong; an exception in it is a bug, and an uncaught exception here too
    this.worker.on('error', (error) => {
      throw error;
    });
  }

  /** Names of the databases that have a file here. */
  existing(): string[] {
    const ending = `.${this.self}`;
    const files = readdirSync(this.directory).filter((file) => file.endsWith(`.tdb${ending}`));
    return files.map((file) => file.slice(0, -ending.length)).sort();
  }

  async open(database: DatabaseId, name: string): Promise<OpenedDatabase> {
    const path = databasePath(this.directory, name, this.self);
    const reply = await this.ask({ kind: 'open', database, path });
    if (reply.kind === 'opened') return reply.opened;
    throw new PoolError('ERR_POOL_DATABASE', reply.kind === 'refused' ? reply.why : 'the databases are closed');
  }

  async perform(database: DatabaseId, work: PersistentOp): Promise<PersistentResult> {
    const copied = work.op === 'read' ? work : { ...work, rows: work.rows.map(copyRow) };
    const reply = await this.ask({ kind: 'work', database, work: copied });
    return reply.kind === 'worked' ? reply.result : { ok: false, why: 'the databases are closed' };
  }

  async close(): Promise<void> {
    if (this.closed) return;
    const exited = new Promise<void>((resolve) => this.worker.once('exit', () => resolve()));
    const asked = this.ask({ kind: 'close' });
    this.closed = true;
    await asked;
    await exited;
  }

  private ask(request: Unnumbered<PersistentRequest>): Promise<PersistentReply> {
    const id = ++this.lastId;
    if (this.closed) return Promise.resolve({ id, kind: 'closed' });
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.worker.postMessage({ ...request, id });
    });
  }
}

/** A view would take the whole buffer behind it along. */
function copyRow({ key, value }: PersistentRow): PersistentRow {
  return { key: new Uint8Array(key), value: new Uint8Array(value) };
}
