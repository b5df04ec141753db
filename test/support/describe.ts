/** What travels on the wire and on the smbd socket as one readable line each: for traces and golden scenarios. */
import { DecodeError } from '../../src/base/bytes.js';
import type { DatabaseId, RecordKey } from '../../src/base/ids.js';
import type { Frame } from '../../src/wire/frame.js';
import { decodeFrame } from '../../src/wire/frame.js';
import type { RecordMessage } from '../../src/wire/record-messages.js';
import { RECORD_MESSAGE_TYPE_MAX, decodeRecordMessage } from '../../src/wire/record-messages.js';

/** How a database is called; given by whoever knows. */
export type DatabaseNames = (database: DatabaseId) => string;

/** A key as text if it is printable, else in hexadecimal. */
export function describeKey(key: RecordKey): string {
  return /^[\x21-\x7e]+$/.test(key) ? key : `0x${Buffer.from(key, 'latin1').toString('hex')}`;
}

/** A payload as text if it is printable, else its size. */
export function describeData(data: Uint8Array): string {
  if (data.length === 0) return 'empty';
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('latin1');
  if (/^[\x20-\x7e]+$/.test(text)) return `"${text.length > 40 ? `${text.slice(0, 40)}...` : text}"`;
  return `${data.length} bytes`;
}

export function describeRecordMessage(message: RecordMessage, name: DatabaseNames): string {
  switch (message.kind) {
    case 'ask': {
      const keys = message.keys.map(({ database, key }) => `${name(database)}/${describeKey(key)}`).join(' ');
      return `ask ${message.mode} ${keys} for ${message.asker}`;
    }
    case 'exists':
    case 'gone':
      return `${message.kind} ${name(message.database)}/${message.keys.map(describeKey).join(' ')}`;
    case 'orphans':
      return `orphans ${name(message.database)}/${message.keys.map(describeKey).join(' ')}`;
    case 'many': {
      const records = message.records.map(({ key, turn }) => `${describeKey(key)} turn ${turn}`).join(', ');
      return `${message.of}s ${name(message.database)}/${records}`;
    }
    case 'claims-done':
    case 'keys-unknown':
      return `${message.kind} ${message.epoch}`;
    case 'orphans-done':
      return `orphans-done ${name(message.database)} epoch ${message.epoch}`;
    case 'view':
      return `view ${message.epoch}`;
    case 'barrier':
    case 'barrier-passed':
      return `${message.kind} ${message.number}`;
    case 'look':
      return `look ${recordOf(message, name)} for ${message.asker}`;
    case 'looked':
      return `looked ${message.what === 'away' ? 'away' : describeData(message.data)}`;
    case 'describe':
      return `describe ${recordOf(message, name)}`;
    case 'description':
      return `description ${message.text}`;
    case 'claim-now':
    case 'claimed-now':
      return `${message.kind} ${recordOf(message, name)} in view ${message.epoch}`;
    case 'give':
      return `give ${recordOf(message, name)} to ${message.to} for ${message.mode}, turn ${message.turn}`;
    case 'record': {
      const what = message.what === 'copy' ? `copy (owner ${message.owner})` : message.what;
      const data = message.what === 'keep' ? '' : `, ${describeData(message.data)}`;
      return `record ${recordOf(message, name)} ${what}, turn ${message.turn}${data}`;
    }
    default:
      return `${message.kind} ${recordOf(message, name)} turn ${message.turn}`;
  }
}

function recordOf({ database, key }: { database: DatabaseId; key: RecordKey }, name: DatabaseNames): string {
  return `${name(database)}/${describeKey(key)}`;
}

/** A message of any part: record messages in words, others by type and size. */
export function describeMessage(bytes: Uint8Array, name: DatabaseNames): string {
  const type = bytes[0] ?? 0;
  if (type > RECORD_MESSAGE_TYPE_MAX) return `message of type ${type}, ${bytes.length} bytes`;
  try {
    return describeRecordMessage(decodeRecordMessage(bytes), name);
  } catch (error) {
    if (error instanceof DecodeError) return `undecodable message (${error.reason})`;
    throw error;
  }
}

/** Whether a frame carries messages, told by its first byte alone (wire/frame). */
export function isDataFrame(body: Uint8Array): boolean {
  return body[0] === 3;
}

/** The messages of a frame; for frames without any, its kind. */
export function describeFrame(body: Uint8Array, name: DatabaseNames): string[] {
  let frame: Frame;
  try {
    frame = decodeFrame(body);
  } catch (error) {
    if (error instanceof DecodeError) return [`undecodable frame (${error.reason})`];
    throw error;
  }
  if (frame.kind !== 'data') return [frame.kind];
  const { sequence } = frame;
  return frame.records.map((record) => {
    const whole = record.first && record.last;
    return `#${sequence} ${whole ? describeMessage(record.bytes, name) : `part, ${record.bytes.length} bytes`}`;
  });
}
