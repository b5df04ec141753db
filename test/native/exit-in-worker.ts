/**
 * A program that exits with status 3 while a worker of it is in the middle of calls to the addon: for exit.test.ts. Its
 * argument is a path for a database.
 */
import { constants } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { loadNative } from '../../src/host/native.js';

if (isMainThread) {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: process.argv[2] });
  worker.on('message', () => process.exit(3));
} else {
  const { Tdb } = loadNative();
  const openFlags = constants.O_RDWR | constants.O_CREAT;
  const tdb = new Tdb(workerData as string, { hashSize: 0, tdbFlags: 0, openFlags, mode: 0o600 });
  parentPort?.postMessage('busy from now on');
  for (;;) tdb.fetch(Buffer.from('key'));
}
