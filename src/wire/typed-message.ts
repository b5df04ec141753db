/**
 * What the codecs of the messages between servers have in common: the first byte is the type, the rest is of that
 * kind, and nothing may follow. Used by the *-messages.ts files beside it.
 */
import { ByteReader, DecodeError } from '../base/bytes.js';

/** A codec's table of types, turned round. */
export function kindsByType<Kind extends string>(types: Readonly<Record<Kind, number>>): ReadonlyMap<number, Kind> {
  return new Map(Object.entries<number>(types).map(([kind, type]) => [type, kind as Kind]));
}

/** Throws DecodeError: unknown type, cut short, or longer than it should be. */
export function decodeTyped<Kind extends string, Message>(
  bytes: Uint8Array,
  kinds: ReadonlyMap<number, Kind>,
  readBody: (reader: ByteReader, kind: Kind) => Message,
): Message {
  const reader = new ByteReader(bytes);
  const kind = kinds.get(reader.u8());
  if (kind === undefined) throw new DecodeError('unknown-type');
  const message = readBody(reader, kind);
  reader.end();
  return message;
}
