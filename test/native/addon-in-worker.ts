/** The worker of tdb.test: uses the addon and leaves a tdb and a pump open behind it. */
import { constants } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { loadNative } from '../../src/host/native.js';

const { directory, round } = workerData as { directory: string; round: number };
const { Tdb, Pump } = loadNative();
const tdb = new Tdb(join(directory, `worker-${round}.tdb`), {
  hashSize: 101, tdbFlags: 0, openFlags: constants.O_RDWR | constants.O_CREAT, mode: 0o600,
});
tdb.store(Buffer.from('key'), Buffer.from('value'));
const pump = new Pump({
  inBytes: 65_536, outBytes: 65_536, gate: { path: join(directory, `worker-${round}.socket`) }, onBatch: () => 0,
});
parentPort?.postMessage(tdb.fetch(Buffer.from('key'))?.toString() === 'value' ? 'stored' : 'lost');
// the first ends by closing, the second in the middle, the third is terminated
if (round === 0) pump.close();
if (round === 1) setTimeout(() => process.exit(0), 20);
