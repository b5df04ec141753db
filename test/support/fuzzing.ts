/**
 * For fuzz tests: a time budget (FUZZ_SECONDS, default 3 a test), seeds that repeat a failure (SEED), and ways to spoil
 * good bytes. A failure names the seed that repeats it at once.
 */
import { Prng } from '../../src/base/prng.js';

/** Run between two looks at the clock. */
const ROUNDS_PER_LOOK = 50;

export const FUZZ_SECONDS = Number(process.env['FUZZ_SECONDS'] ?? 3);
export const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000_000);

/** Runs `round` with seed after seed until the budget is spent; answers how often it ran. */
export function fuzz(round: (prng: Prng) => void, seconds = FUZZ_SECONDS): number {
  const end = Date.now() + seconds * 1000;
  let seed = SEED;
  while (Date.now() < end) {
    for (let i = 0; i < ROUNDS_PER_LOOK; i++, seed++) {
      try {
        round(new Prng(seed));
      } catch (error) {
        throw new Error(`repeat with SEED=${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
  }
  return seed - SEED;
}

/** One to four of: a byte changed, cut off, some added at the end, some put in, some taken out. */
export function spoil(prng: Prng, good: Uint8Array): Uint8Array {
  let bytes = Uint8Array.from(good);
  for (let changes = 1 + prng.below(4); changes > 0; changes--) {
    const at = prng.below(bytes.length + 1);
    switch (prng.below(5)) {
      case 0:
        if (at < bytes.length) bytes[at] = prng.pick([0, 1, 0x7f, 0x80, 0xff, prng.below(256)]);
        break;
      case 1:
        bytes = bytes.slice(0, at);
        break;
      case 2:
        bytes = Uint8Array.from([...bytes, ...prng.bytes(1 + prng.below(9))]);
        break;
      case 3:
        bytes = Uint8Array.from([...bytes.slice(0, at), ...prng.bytes(1 + prng.below(5)), ...bytes.slice(at)]);
        break;
      default:
        bytes = Uint8Array.from([...bytes.slice(0, at), ...bytes.slice(at + 1 + prng.below(5))]);
    }
  }
  return bytes;
}
