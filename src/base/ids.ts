/**
 * The identities of the pool, branded so that two numbers or two strings of different meaning cannot be mixed up.
 * Used everywhere; holds no behaviour beyond conversion.
 */

declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** A server of the pool, counted from 0; CTDB's and Samba's "pnn" or "vnn". */
export type NodeId = Branded<number, 'NodeId'>;
/** A database, named by the hash of its name (see wire/ctdb). Unsigned 32 bits. */
export type DatabaseId = Branded<number, 'DatabaseId'>;
/** One connection of a local process to the daemon's socket. Never reused within one run of a daemon. */
export type ClientId = Branded<number, 'ClientId'>;
/** The key of a record: its bytes, one character (0 to 255) each, so that it can be a Map key. */
export type RecordKey = Branded<string, 'RecordKey'>;
/**
 * Orders the owners of a record: each move gets a higher turn from the record's home. Stored as `rsn` in the record's
 * header. An integer below 2^53.
 */
export type Turn = Branded<number, 'Turn'>;
/** One run of one daemon; a later run of the same daemon has a higher number. An integer below 2^53. */
export type Incarnation = Branded<number, 'Incarnation'>;
/** The number of the view (set of members) a message belongs to. An integer below 2^53. */
export type Epoch = Branded<number, 'Epoch'>;

/** The most servers a pool may have; bounds every per-server table. */
export const NODE_COUNT_MAX = 64;

export const nodeId = (value: number): NodeId => value as NodeId;
export const databaseId = (value: number): DatabaseId => (value >>> 0) as DatabaseId;
export const clientId = (value: number): ClientId => value as ClientId;
export const turn = (value: number): Turn => value as Turn;
export const incarnation = (value: number): Incarnation => value as Incarnation;
export const epoch = (value: number): Epoch => value as Epoch;

/** The Map key of a record key given as bytes. */
export function keyOf(bytes: Uint8Array): RecordKey {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1') as RecordKey;
}

/** The bytes of a record key; a fresh copy. */
export function keyBytes(key: RecordKey): Uint8Array {
  return Buffer.from(key, 'latin1');
}

/** A record key as people read it in logs: hexadecimal. */
export function keyHex(key: RecordKey): string {
  return Buffer.from(key, 'latin1').toString('hex');
}
