/**
 * Rendezvous (highest random weight) hashing: which server is the home of a key. Each server gets a weight from a hash
 * of server and key, the highest wins; when a server leaves, only its own keys get another home.
 */
import type { DatabaseId, NodeId, RecordKey } from '../../base/ids.js';
import { assert } from '../../base/assert.js';

/** The home of a key among `members` (not empty). The order of the members does not matter. */
export function rendezvousHome(database: DatabaseId, key: RecordKey, members: readonly NodeId[]): NodeId {
  return rendezvousHomeOf(hashKey(database, key), members);
}

/** The same for a key whose hash is known. */
export function rendezvousHomeOf(hash: number, members: readonly NodeId[]): NodeId {
  let best: NodeId | undefined;
  let bestWeight = -1;
  for (const member of members) {
    const weight = mix(hash ^ Math.imul(member + 1, 0x9e3779b1));
    if (weight > bestWeight || (weight === bestWeight && best !== undefined && member < best)) {
      best = member;
      bestWeight = weight;
    }
  }
  assert(best !== undefined, 'a pool has at least one member');
  return best;
}

/** FNV-1a over the key's bytes, started with the database. */
export function hashKey(database: DatabaseId, key: RecordKey): number {
  let hash = (0x811c9dc5 ^ database) >>> 0;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193) >>> 0;
  return hash;
}

/** The finaliser of MurmurHash3: each bit of the input changes half of the output's. */
function mix(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
