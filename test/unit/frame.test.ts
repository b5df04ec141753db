/** The frame codec: round trips over a range of seeds, input cut at every byte, hexadecimal against value. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodeError } from '../../src/base/bytes.js';
import type { Epoch, Incarnation } from '../../src/base/ids.js';
import { Prng } from '../../src/base/prng.js';
import type { Frame, FrameContent, FrameHeader } from '../../src/wire/frame.js';
import { dataFrameBytes, decodeFrame, encodeFrame } from '../../src/wire/frame.js';

const u53 = (prng: Prng): number => prng.below(0x20_0000) * 0x1_0000_0000 + prng.u32();

function randomFrame(prng: Prng): [FrameHeader, FrameContent] {
  const header: FrameHeader = {
    epoch: u53(prng) as Epoch,
    toIncarnation: u53(prng) as Incarnation,
    window: 1 + prng.below(65_535),
    stream: 1 + prng.below(0xffff_ffff),
    ackStream: prng.u32(),
    ack: u53(prng),
    ackMapLow: (prng.u32() & ~1) >>> 0,
    ackMapHigh: prng.u32(),
  };
  const times = { sentAt: u53(prng), echoOf: u53(prng), echoHeldMicros: prng.u32() };
  const min = 1 + prng.below(0xffff);
  const release = Array.from({ length: prng.below(33) }, () => prng.pick(['1', '.', '~', '!'])).join('');
  const announcement = { speaks: { min, max: min + prng.below(0x10000 - min) }, release };
  switch (prng.below(4)) {
    case 0:
      return [header, { kind: 'hello', answerWanted: prng.chance(0.5), times, announcement }];
    case 1:
      return [header, { kind: 'heartbeat', times, announcement }];
    case 2:
      return [header, { kind: 'ack' }];
    default: {
      const records = Array.from({ length: 1 + prng.below(5) }, () => ({
        first: prng.chance(0.5),
        last: prng.chance(0.5),
        bytes: prng.bytes(prng.below(40)),
      }));
      return [header, { kind: 'data', sequence: 1 + u53(prng), records }];
    }
  }
}

function refusal(body: Uint8Array): string {
  try {
    decodeFrame(body);
  } catch (error) {
    if (error instanceof DecodeError) return error.reason;
    throw error;
  }
  return 'accepted';
}

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('every frame comes back as it was, for seeds 1 to 1000', () => {
  for (let seed = 1; seed <= 1000; seed++) {
    const [header, content] = randomFrame(new Prng(seed));
    const bytes = encodeFrame(header, content);
    const frame: Frame = { ...header, ...content };
    assert.deepEqual(decodeFrame(bytes), frame, `seed ${seed}`);
    if (content.kind === 'data') assert.equal(bytes.length, dataFrameBytes(content.records), `seed ${seed}`);
  }
});

test('a frame cut at any byte, or with a byte behind it, is refused', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const bytes = encodeFrame(...randomFrame(new Prng(seed)));
    for (let cut = 0; cut < bytes.length; cut++) {
      assert.equal(refusal(bytes.subarray(0, cut)), 'truncated', `seed ${seed} cut at ${cut}`);
    }
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    assert.equal(refusal(longer), 'trailing-bytes', `seed ${seed}`);
  }
});

const header: FrameHeader = {
  epoch: 1 as Epoch,
  toIncarnation: 0x0102_0304_0506 as Incarnation,
  window: 64,
  stream: 2,
  ackStream: 3,
  ack: 0x11,
  ackMapLow: 0x8000_0002,
  ackMapHigh: 0x4000_0000,
};
const head = (kind: string, sequence: string, count: string): string =>
  [
    `${kind}4000`,
    '02000000',
    '0100000000000000',
    '0605040302010000',
    sequence,
    '03000000',
    count,
    '0000',
    '1100000000000000',
    '0200008000000040',
  ].join('');
const none = '0000000000000000';
const times = { sentAt: 5, echoOf: 4, echoHeldMicros: 3 };
const timesHex = '0500000000000000' + '0400000000000000' + '03000000';
const announcement = { speaks: { min: 2, max: 3 }, release: '0.1' };
const announcementHex = '08' + '0200' + '0300' + '03' + '302e31';

const table: [string, FrameContent][] = [
  [head('0101', none, '0000') + timesHex + announcementHex, { kind: 'hello', answerWanted: true, times, announcement }],
  [
    head('0100', none, '0000') + timesHex + announcementHex,
    { kind: 'hello', answerWanted: false, times, announcement },
  ],
  [head('0200', none, '0000') + timesHex + announcementHex, { kind: 'heartbeat', times, announcement }],
  [head('0400', none, '0000'), { kind: 'ack' }],
  [
    head('0300', '1200000000000000', '0200') + '020000c0' + 'aabb' + '01000080' + 'cc',
    {
      kind: 'data',
      sequence: 0x12,
      records: [
        { first: true, last: true, bytes: Uint8Array.of(0xaa, 0xbb) },
        { first: true, last: false, bytes: Uint8Array.of(0xcc) },
      ],
    },
  ],
];

for (const [hex, content] of table) {
  test(`bytes on the wire: ${content.kind} ${hex.slice(0, 4)}`, () => {
    assert.equal(toHex(encodeFrame(header, content)), hex);
    assert.deepEqual(decodeFrame(Buffer.from(hex, 'hex')).kind, content.kind);
  });
}

test('what no sender makes is refused with its own reason', () => {
  const ack = head('0400', none, '0000');
  const replaced = (at: number, hex: string): Uint8Array =>
    Buffer.from(ack.slice(0, at * 2) + hex + ack.slice(at * 2 + hex.length), 'hex');
  const cases: [string, Uint8Array][] = [
    ['frame-kind', replaced(0, '00')],
    ['frame-kind', replaced(0, '05')],
    ['frame-flags', replaced(1, '01')],
    ['frame-window', replaced(2, '0000')],
    ['frame-stream', replaced(4, '00000000')],
    ['number-too-large', replaced(8, 'ffffffffffffffff')],
    ['frame-sequence', replaced(24, '01')],
    ['frame-record-count', replaced(36, '0100')],
    ['frame-reserved', replaced(38, '01')],
    ['frame-ack-map', replaced(48, '01')],
    ['frame-sequence', Buffer.from(head('0300', none, '0100') + '00000000', 'hex')],
    ['frame-record-count', Buffer.from(head('0300', '0100000000000000', '0000'), 'hex')],
    ['frame-record-flags', Buffer.from(head('0300', '0100000000000000', '0100') + '00000001', 'hex')],
  ];
  for (const [reason, bytes] of cases) assert.equal(refusal(bytes), reason, toHex(bytes));
});
