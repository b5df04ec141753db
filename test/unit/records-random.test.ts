/**
 * Random work on the records of a few servers against a simple model: one writer, no version lost, nobody waits for
 * ever, nothing stays. Also while servers start anew, die for good, join, and learn of views late or not of all.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import { RecordsPool } from '../support/records-pool.js';
import { DATABASES, LOCKING, OPENS, empty, fetch, migrate } from '../support/records-use.js';

const RUNS = Number(process.env['RUNS'] ?? 40);
const STEPS = 3_000;
/** In later steps nothing new is asked for, and nobody dies. */
const BUSY_STEPS = 2_000;

test('random work: no version is lost, nobody waits for ever, nothing stays', () => {
  eachSeed((seed) => new RandomRun(seed, false).run());
});

test('random work with servers that come and go: one writer, survivors keep their records, nobody waits', () => {
  eachSeed((seed) => new RandomRun(seed, true).run());
});

function eachSeed(run: (seed: number) => void): void {
  const first = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e9));
  console.log(`seed ${first}`);
  for (let seed = first; seed < first + RUNS; seed++) run(seed);
}

interface Want {
  server: number;
  key: RecordKey;
  token: number;
  mode: 'read' | 'write';
  database: DatabaseId;
}

class RandomRun {
  private readonly prng: Prng;
  private readonly pool: RecordsPool;
  private readonly story: string;
  private readonly keys = Array.from({ length: 4 }, (_, i) => `k${i}` as RecordKey);
  private readonly versions = new Map<string, number>();
  private readonly highest = new Map<string, number>();
  private waiting: Want[] = [];
  /** Random keys: made once, looked up elsewhere only when all know of them, never used after their end. */
  private readonly made: RecordKey[] = [];
  private announced: RecordKey[] = [];
  private readonly used = new Set<RecordKey>();
  /** Records whose last version died with its owner: any that was handed over may come back. */
  private readonly lost = new Set<string>();

  constructor(
    seed: number,
    private readonly isMoving: boolean,
  ) {
    this.story = `seed ${seed}`;
    this.prng = new Prng(seed);
    const count = 1 + this.prng.below(isMoving ? 5 : 4);
    const absent = isMoving && this.prng.chance(0.3) ? this.prng.below(this.minority(count) + 1) : 0;
    const protocol = 1 + this.prng.below(2);
    this.pool = new RecordsPool(count, DATABASES, count - absent, protocol, 1 + this.prng.below(4));
  }

  private minority(count: number): number {
    return Math.floor((count - 1) / 2);
  }

  run(): void {
    const { pool } = this;
    for (let step = 0; step < STEPS; step++) {
      this.step(step < BUSY_STEPS);
      this.useAnswered();
      if (pool.busyWires().length === 0 && pool.behind().length === 0) this.noteAnnounced();
      checkOwners(pool, this.story);
      checkCounts(pool, this.story);
    }
    for (const server of pool.servers) server.heldChains.clear();
    pool.installAll();
    for (let i = 0; i < 400 && this.waiting.length > 0; i++) {
      pool.advance(5_000);
      this.useAnswered();
    }
    assert.deepEqual(this.waiting, [], `${this.story}: all were answered`);
    assert.deepEqual(pool.errors, [], this.story);
    this.emptyAll(LOCKING, this.keys);
    this.emptyAll(OPENS, this.made);
    pool.advance(30_000_000);
    for (const server of pool.servers) {
      // A backup may stay that no home knows of: no smbd uses it, and the next move overwrites or drops it.
      const left = [...server.store].filter(([, record]) => !this.isMoving || record.dmaster === server.id);
      assert.deepEqual(left, [], `${this.story}: nothing stays`);
    }
  }

  private step(isBusy: boolean): void {
    const { pool, prng } = this;
    const dice = prng.below(10);
    if (dice < 2 && isBusy) this.ask();
    else if (dice < 7) {
      const wires = pool.busyWires();
      if (wires.length > 0) pool.deliver(prng.pick(wires));
    } else if (dice < 9) pool.passTime(prng.below(1500));
    else if (this.isMoving && isBusy && prng.chance(0.03)) this.changeServers();
    else if (pool.behind().length > 0) pool.install(prng.pick(pool.behind()));
    else if (prng.chance(0.3)) this.holdOrFreeChain();
  }

  private ask(): void {
    const { pool, prng } = this;
    const server = prng.pick(pool.servers).id;
    const database = prng.chance(0.8) ? LOCKING : OPENS;
    const mode = prng.chance(0.6) || database === OPENS ? 'write' : 'read';
    const key = database === OPENS ? this.randomKey() : prng.pick(this.keys);
    // a smbd asks only for what it cannot use
    const record = pool.find(server, database, key);
    if (record?.dmaster === server && record.flags === 0) return;
    const token = (mode === 'write' ? migrate : fetch)(pool, server, key, database);
    this.waiting.push({ server, key, token, mode, database });
  }

  private randomKey(): RecordKey {
    const isOld = this.prng.chance(0.5) && this.announced.length > 0;
    const key = isOld ? this.prng.pick(this.announced) : (`random ${this.made.length}` as RecordKey);
    if (isOld) {
      this.announced = this.announced.filter((other) => other !== key);
      this.used.add(key);
    } else this.made.push(key);
    return key;
  }

  private noteAnnounced(): void {
    const isNew = (key: RecordKey): boolean =>
      this.versions.get(`${OPENS}/${key}`) === 1 && !this.announced.includes(key) && !this.used.has(key);
    this.announced.push(...this.made.filter(isNew));
  }

  private holdOrFreeChain(): void {
    const server = this.prng.pick(this.pool.servers);
    if (server.heldChains.size > 0) server.heldChains.clear();
    else server.heldChains.add(`${LOCKING}/${this.prng.pick(this.keys)}`);
  }

  // --- servers that come and go

  /** One starts anew, is lost for good, or joins; whoever has not installed the view before this one skips it. */
  private changeServers(): void {
    const { pool, prng } = this;
    const absent = pool.configured.filter((id) => !pool.isAlive(id));
    if (absent.length > 0 && prng.chance(0.3)) return pool.join(prng.pick(absent));
    const { id } = prng.pick(pool.servers);
    const canLose = absent.length < this.minority(pool.configured.length);
    this.noteLost(id);
    this.waiting = this.waiting.filter(({ server }) => server !== id);
    const surviving = (underWay: number): number => prng.below(underWay + 1);
    if (canLose && prng.chance(0.5)) pool.lose(id, surviving);
    else pool.restart(id, surviving);
  }

  private noteLost(id: number): void {
    for (const [name, record] of this.pool.server(id).store) {
      // What was on its way to the dead server comes back from the giver; what was on its way from it may be lost.
      const { dmaster } = record;
      const to = this.pool.isAlive(dmaster) ? this.pool.server(dmaster).store.get(name) : undefined;
      if (dmaster === id || to?.dmaster !== dmaster) this.lost.add(name);
    }
    for (const key of this.made) this.lost.add(`${OPENS}/${key}`);
  }

  // --- what smbds do with what they got

  private useAnswered(): void {
    this.waiting = this.waiting.filter((want) => {
      const isHeld = this.pool.server(want.server).heldChains.has(`${want.database}/${want.key}`);
      return isHeld || !this.use(want);
    });
  }

  private use(want: Want): boolean {
    const { server, database, key } = want;
    if (!this.pool.server(server).answers.has(want.token)) return false;
    if (want.mode === 'read') return true;
    const name = `${database}/${key}`;
    const record = this.pool.find(server, database, key);
    if (record?.dmaster !== server || record.flags !== 0) {
      want.token = migrate(this.pool, server, key, database);
      return false;
    }
    const found = Number(record.data || '0');
    const highest = this.highest.get(name) ?? 0;
    if (this.lost.has(name)) assert.ok(found <= highest, `${this.story}: ${name} was written once`);
    else assert.equal(found, this.versions.get(name) ?? 0, `${this.story}: ${name} is the last version`);
    this.lost.delete(name);
    const ends = database === OPENS ? this.versions.get(name) !== undefined : this.prng.chance(0.2);
    const version = ends ? 0 : found + 1;
    this.versions.set(name, version);
    this.highest.set(name, Math.max(version, highest));
    if (version === 0) empty(this.pool, server, key, database);
    else record.data = String(version);
    return true;
  }

  private emptyAll(database: DatabaseId, keys: RecordKey[]): void {
    const { id } = this.pool.servers[0]!;
    for (const key of keys) {
      migrate(this.pool, id, key, database);
      this.pool.advance(20_000);
      empty(this.pool, id, key, database);
    }
  }
}

/** At most one server may write a record, and while one may, nobody else may read it. */
function checkOwners(pool: RecordsPool, story: string): void {
  const writable = new Map<string, number>();
  const usable = new Map<string, number[]>();
  for (const server of pool.servers) {
    for (const [name, record] of server.store) {
      const owns = record.dmaster === server.id;
      if (owns && record.flags === 0) {
        assert.equal(writable.get(name), undefined, `${story}: two writers of ${name}`);
        writable.set(name, server.id);
      }
      if (owns || record.flags !== 0) usable.set(name, [...(usable.get(name) ?? []), server.id]);
    }
  }
  for (const [name] of writable) {
    assert.equal(usable.get(name)?.length, 1, `${story}: a reader beside the writer of ${name}`);
  }
}

/** What the servers tell of themselves is what they have. */
function checkCounts(pool: RecordsPool, story: string): void {
  for (const server of pool.servers) {
    for (const [database, { owned }] of server.records.status()) {
      assert.equal(owned, server.records.ownedKeys(database).length, `${story}: records that server ${server.id} owns`);
    }
  }
}
