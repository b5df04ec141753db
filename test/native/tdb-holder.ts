/**
 * The second process of the tdb tests, a stand-in for smbd: opens a tdb and does what its parent says, one word a
 * message. Started with fork(); never by hand.
 */
import { constants } from 'node:fs';
import { loadNative } from '../../src/host/native.js';
import type { Tdb } from '../../src/host/native.js';

export interface HolderCommand {
  do:
    | 'open' | 'lock' | 'unlock' | 'store' | 'fetch' | 'sequence' | 'transaction' | 'commit'
    | 'hammer' | 'fill' | 'churn';
  path?: string;
  flags?: number;
  key?: string;
  value?: string;
  rounds?: number;
}

let tdb: Tdb | null = null;

/** Adds one to a counter under its chain; spins for the chain as smbd would wait. */
function hammer(file: Tdb, key: Buffer, rounds: number): number {
  for (let i = 0; i < rounds; i++) {
    while (!file.chainlockNonblock(key));
    const value = file.fetch(key) ?? Buffer.alloc(8);
    value.writeBigUInt64LE(value.readBigUInt64LE() + 1n);
    file.store(key, value);
    file.chainunlock(key);
  }
  return rounds;
}

/** Stores so many records, each with a key of its own: the file grows again and again. */
function fill(file: Tdb, value: Buffer, rounds: number): number {
  for (let i = 0; i < rounds; i++) {
    const key = Buffer.from(`${i}`);
    while (!file.chainlockNonblock(key));
    file.store(key, value);
    file.chainunlock(key);
  }
  return rounds;
}

/** Stores records of growing and falling size and deletes them again. Chains that others keep are left out. */
function churn(file: Tdb, name: string, rounds: number): number {
  for (let i = 0; i < rounds; i++) {
    const key = Buffer.from(`${name}${(i >> 1) % 500}`);
    if (!file.chainlockNonblock(key)) continue;
    if (i % 2 === 0) file.store(key, Buffer.alloc(100 + (i % 37) * 10));
    else file.delete(key);
    file.chainunlock(key);
  }
  return rounds;
}

function perform(command: HolderCommand): unknown {
  if (command.do === 'open') {
    const { Tdb: TdbClass } = loadNative();
    tdb = new TdbClass(command.path ?? '', {
      hashSize: 0, tdbFlags: command.flags ?? 0, openFlags: constants.O_RDWR, mode: 0o600,
    });
    return true;
  }
  if (tdb === null) throw new Error('not open');
  const key = Buffer.from(command.key ?? '');
  switch (command.do) {
    case 'lock':
      return tdb.chainlockNonblock(key);
    case 'unlock':
      return tdb.chainunlock(key);
    case 'store':
      return tdb.store(key, Buffer.from(command.value ?? ''));
    case 'fetch':
      return tdb.fetch(key)?.toString() ?? null;
    case 'sequence':
      return tdb.sequenceNumber();
    case 'transaction':
      return tdb.transactionStartNonblock();
    case 'commit':
      return tdb.transactionCommit();
    case 'hammer':
      return hammer(tdb, key, command.rounds ?? 0);
    case 'churn':
      return churn(tdb, command.key ?? '', command.rounds ?? 0);
    case 'fill':
      return fill(tdb, Buffer.from(command.value ?? ''), command.rounds ?? 0);
  }
}

process.on('message', (command: HolderCommand) => {
  try {
    process.send?.({ result: perform(command) ?? null });
  } catch (error) {
    process.send?.({ error: (error as Error).message });
  }
});
