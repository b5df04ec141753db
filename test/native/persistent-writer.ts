/**
 * The process that persistent-store.test kills: commits one after the other, four rows each, and tells its parent the
 * number of each once it was answered. Started with fork().
 */
import { databaseId, nodeId } from '../../src/base/ids.js';
import { TdbPersistentStore } from '../../src/host/persistent-store.js';
import { SEQUENCE_KEY } from '../../src/wire/persistent-rows.js';
import { encodeRecord } from '../../src/wire/record-header.js';

const [directory = '', from = '0'] = process.argv.slice(2);
const database = databaseId(1);
const store = new TdbPersistentStore(directory, nodeId(0));
await store.open(database, 'crash.tdb');
for (let sequence = Number(from) + 1; ; sequence++) {
  const data = Buffer.alloc(8);
  data.writeBigUInt64LE(BigInt(sequence));
  const value = encodeRecord({ rsn: sequence, dmaster: 0, flags: 0 }, data);
  const keys = [Buffer.from('left'), Buffer.from('middle'), Buffer.from('right'), SEQUENCE_KEY];
  const result = await store.perform(database, { op: 'apply', rows: keys.map((key) => ({ key, value })) });
  if (!result.ok || result.sequence !== sequence) throw new Error(JSON.stringify(result));
  process.send?.(sequence);
}
