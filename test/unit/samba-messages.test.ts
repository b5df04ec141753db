/** What Samba's processes say to each other: logs as Samba's own NDR library packs them, and what is refused. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import { Prng } from '../../src/base/prng.js';
import type { MessageLog } from '../../src/wire/samba-messages.js';
import {
  decodeMessageLog,
  decodeSambaMessage,
  decodeWatchChange,
  encodeMessageLog,
  encodeSambaMessage,
  encodeWatchChange,
  logged,
} from '../../src/wire/samba-messages.js';

const DESTINATION = { pid: 0x1111n, task: 1, vnn: 2, unique: 0x12_3456_7890n };
const SOURCE = { pid: 0x2222n, task: 3, vnn: 4, unique: 0xab_cdefn };

/** messaging_reclog with two messages, packed by python3-samba of Debian 12 (samba.ndr.ndr_pack). */
const PACKED =
  '77000000000000000200000000000200' + '0400020000000000020000001a030000' + '11110000000000000100000002000000' +
  '90785634120000002222000000000000' + '0300000004000000efcdab0000000000' + '05000000616263646500000000000000' +
  '020000001a0300001111000000000000' + '01000000020000009078563412000000' + '22220000000000000300000004000000' +
  'efcdab000000000002000000787900';

function meant(): MessageLog {
  const messages = ['abcde', 'xy'].map((text) => {
    const payload = new Uint8Array(Buffer.from(text));
    return logged({ type: 0x031a, destination: DESTINATION, source: SOURCE, payload });
  });
  return { index: 0x77n, messages };
}

test('a log is packed and read as Samba does', () => {
  assert.equal(Buffer.from(encodeMessageLog(meant())).toString('hex'), PACKED);
  assert.deepEqual(decodeMessageLog(new Uint8Array(Buffer.from(PACKED, 'hex'))), meant());
  const empty = encodeMessageLog({ index: 0x77n, messages: [] });
  assert.equal(Buffer.from(empty).toString('hex'), '770000000000000000000000');
});

test('messages and watches are read as they were written', () => {
  const message = { type: 0x031e, destination: DESTINATION, source: SOURCE, payload: new Uint8Array([1, 2, 3]) };
  assert.deepEqual(decodeSambaMessage(encodeSambaMessage(message)), message);
  const folder = new Uint8Array(Buffer.from('/srv/a'));
  const since = new Uint8Array(16).fill(7);
  const change = { since, filter: 1, subdirFilter: 2, handle: 0xffff_8000_0000_0001n, folder };
  assert.deepEqual(decodeWatchChange(encodeWatchChange(change)), change);
});

test('a log that is cut, changed or lies about its length is refused or read, nothing else', () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  console.log(`seed ${seed}`);
  const prng = new Prng(seed);
  const whole = new Uint8Array(Buffer.from(PACKED, 'hex'));
  for (let round = 0; round < 20_000; round++) {
    const bytes = whole.slice(0, prng.chance(0.5) ? whole.length : prng.below(whole.length));
    for (let i = prng.below(4); i > 0 && bytes.length > 0; i--) bytes[prng.below(bytes.length)] = prng.below(256);
    for (const decode of [decodeMessageLog, decodeWatchChange, decodeSambaMessage]) {
      try {
        decode(bytes);
      } catch (error) {
        assert.ok(error instanceof DecodeError, String(error));
      }
    }
  }
  assert.throws(() => decodeMessageLog(new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255])), /truncated/);
});
