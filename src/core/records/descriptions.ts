/** Answers people who ask where a record is (`smbpool record`): its home knows. Used by records.ts. */
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import type { RecordMessage } from '../../wire/record-messages.js';
import type { CoreContext } from '../context.js';
import type { RecordDescription } from '../effects.js';
import type { Directory } from './directory.js';

/** What descriptions need of the other parts of core/records. */
export interface Described {
  homeOf(database: DatabaseId, key: RecordKey): NodeId;
  databaseName(database: DatabaseId): string | undefined;
  post(to: NodeId, message: RecordMessage): void;
  described(number: number, answer: RecordDescription | { error: string }): void;
}

export class Descriptions {
  constructor(
    private readonly context: CoreContext,
    private readonly directory: Directory,
    private readonly records: Described,
  ) {}

  /** Answered by `described`, possibly within this call. */
  ask(database: DatabaseId, key: RecordKey, number: number): void {
    const home = this.records.homeOf(database, key);
    if (home === this.context.self) {
      this.records.described(number, this.describe(database, key));
    } else if (this.context.isUp(home)) {
      this.records.post(home, { kind: 'describe', database, key, number });
    } else {
      this.records.described(number, { error: `server ${home}, the record's home, cannot be reached` });
    }
  }

  onDescribe(from: NodeId, { database, key, number }: Extract<RecordMessage, { kind: 'describe' }>): void {
    const text = JSON.stringify(this.describe(database, key));
    this.records.post(from, { kind: 'description', number, text });
  }

  onDescription({ number, text }: Extract<RecordMessage, { kind: 'description' }>): void {
    let answer: RecordDescription | { error: string };
    try {
      answer = JSON.parse(text) as RecordDescription;
    } catch {
      answer = { error: 'the answer of the home server is not readable' };
    }
    this.records.described(number, answer);
  }

  private describe(database: DatabaseId, key: RecordKey): RecordDescription {
    const view = this.directory.describe(database, key);
    return {
      database: this.records.databaseName(database) ?? `0x${database.toString(16)}`,
      keyHex: Buffer.from(key, 'latin1').toString('hex'),
      home: this.context.self,
      owner: view?.owner ?? null,
      backup: view?.backup ?? null,
      readers: view?.readers ?? [],
      waiting: view?.waiting ?? [],
      turn: view?.turn ?? 0,
      history: view?.history ?? [],
    };
  }
}
