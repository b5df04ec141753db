/** Releases and the pool's protocol: announcements, old files, who holds an upgrade up, the gate for new code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteReader, ByteWriter, DecodeError } from '../../src/base/bytes.js';
import { crc32c } from '../../src/base/crc32c.js';
import { epoch, incarnation, nodeId } from '../../src/base/ids.js';
import { Versions } from '../../src/core/membership/versions.js';
import { announcementOf } from '../../src/daemon/announcement.js';
import { problemsOf } from '../../src/daemon/membership-report.js';
import { versionProblems } from '../../src/daemon/version-report.js';
import type { ServerStatus } from '../../src/ports/status.js';
import { ForeignFrames } from '../../src/host/foreign-frames.js';
import { decodeSaved, encodeSaved } from '../../src/wire/membership-state.js';
import type { View } from '../../src/wire/membership-views.js';
import type { ProtocolRange } from '../../src/wire/protocol-version.js';
import {
  PROTOCOL, highestCommon, readAnnouncement, releaseText, writeAnnouncement,
} from '../../src/wire/protocol-version.js';
import { exampleStatus } from '../support/example-status.js';

const [A, B] = [nodeId(0), nodeId(1)];
const range = (min: number, max = min): ProtocolRange => ({ min, max });

test('the highest protocol that all speak', () => {
  assert.equal(highestCommon([range(1, 2), range(2, 3), range(1, 3)]), 2);
  assert.equal(highestCommon([range(1), range(2)]), null);
  assert.equal(highestCommon([]), null);
});

function refusal(hex: string): string {
  try {
    readAnnouncement(new ByteReader(Buffer.from(hex, 'hex')));
  } catch (error) {
    if (error instanceof DecodeError) return error.reason;
    throw error;
  }
  return 'none';
}

test('an announcement on the wire; what a later release adds is skipped, nonsense is refused', () => {
  const writer = new ByteWriter();
  writeAnnouncement(writer, { speaks: range(1, 258), release: '0.2' });
  const hex = Buffer.from(writer.finish()).toString('hex');
  assert.equal(hex, '08' + '0100' + '0201' + '03' + '302e32');
  const longer = new ByteReader(Buffer.from(`0a${hex.slice(2)}ffff77`, 'hex'));
  assert.deepEqual(readAnnouncement(longer), { speaks: range(1, 258), release: '0.2' });
  assert.equal(longer.u8(), 0x77, 'what follows is not touched');
  assert.equal(refusal('05' + '0000' + '0100' + '00'), 'announcement-range');
  assert.equal(refusal('05' + '0200' + '0100' + '00'), 'announcement-range');
  assert.equal(refusal('06' + '0100' + '0100' + '01' + '1b'), 'announcement-release', 'no escape sequences');
  assert.equal(refusal('05' + '0100' + '0100' + '01' + '31'), 'announcement-length');
  assert.equal(refusal('26' + '0100' + '0100' + '21' + '31'.repeat(33)), 'announcement-release');
  assert.equal(refusal('08' + '0100' + '0100' + '03' + '31'), 'truncated');
});

test('a daemon announces its release, at most protocolMax', () => {
  assert.deepEqual(announcementOf('0.1.0', undefined, {}), { speaks: PROTOCOL, release: '0.1.0' });
  const test = (text: string) => ({ SMBPOOLD_TEST_PROTOCOL: text });
  assert.deepEqual(announcementOf('1', undefined, test('1-3')).speaks, range(1, 3));
  assert.deepEqual(announcementOf('1', 2, test('1-3')).speaks, range(1, 2));
  for (const text of ['3-1', '0-1', '1', '1-70000', '']) {
    assert.deepEqual(announcementOf('1', 1, test(text)).speaks, range(1, 1));
  }
  assert.equal(releaseText('1.0 beta\u001b\u00e9' + 'x'.repeat(40)).length, 32);
});

function view(protocol: number, runs: [number, number][]): View {
  const members = runs.map(([node, run]) => ({ node: nodeId(node), incarnation: incarnation(run), since: epoch(1) }));
  return { epoch: epoch(1), leader: A, members, holders: [], protocol, former: [], past: [] };
}

test('a file of before there was a protocol is of a pool at protocol 1; one of a later layout is refused', () => {
  const servers = [A, B].map((node) => ({ node, role: 'server' as const }));
  const later = { term: 7, votedFor: B, accepted: view(3, [[0, 1]]), servers };
  assert.deepEqual(decodeSaved(encodeSaved(later)), later);
  const state = { ...later, accepted: view(1, [[0, 1]]) };
  const bytes = encodeSaved(state);
  assert.deepEqual(decodeSaved(bytes), state);
  // the view begins behind the head (18 bytes), two servers and the byte that says that it is there
  const at = 18 + 2 * 4 + 1 + 8 + 1;
  // each server without the length of its text; the view without its protocol, and without what says of configurations
  const servers2 = [bytes.subarray(18, 20), bytes.subarray(22, 24)];
  const second = Buffer.concat([bytes.subarray(0, 18), ...servers2, bytes.subarray(26, -5), bytes.subarray(-4)]);
  const old = Buffer.concat([second.subarray(0, at - 4), second.subarray(at - 2)]);
  const seal = (version: number, of = old): Buffer => {
    of.writeUInt16LE(version, 4);
    of.writeUInt16LE(of.length, 6);
    of.writeUInt32LE(crc32c(of.subarray(0, -4)), of.length - 4);
    return of;
  };
  assert.deepEqual(decodeSaved(seal(2, second)), state);
  assert.deepEqual(decodeSaved(seal(1)), { ...state, accepted: view(1, [[0, 1]]) });
  assert.throws(() => decodeSaved(seal(4)), { reason: 'state-version' });
});

test('the protocol of the next view', () => {
  const own = { node: A, incarnation: incarnation(5) };
  const context = { log: () => undefined, count: () => undefined };
  const versions = new Versions(context, own, { speaks: range(1, 3), release: '' });
  const next = (base: View | null, isHeard = true): number =>
    versions.next(base, [{ ...own, isHeard: true }, { node: B, incarnation: incarnation(7), isHeard }]);
  assert.equal(next(null), 1, 'B did not say yet');
  versions.announced(B, incarnation(7), { speaks: range(2, 2), release: '' });
  versions.announced(B, incarnation(6), { speaks: range(1, 1), release: '' });
  assert.equal(next(null), 2, 'a run of before does not count');
  const present = view(1, [[0, 5], [1, 7]]);
  assert.equal(next(present), 2);
  assert.equal(next(present, false), 1, 'it is not heard');
  assert.equal(next(view(1, [[0, 5], [1, 6]])), 1, 'a member is another run than the one that is heard');
  assert.equal(next(view(3, [[0, 5]])), 3, 'never back');
});

const LEASE = { self: 0, leaseMs: 300 };

function problems(protocol: number, speaks: (ProtocolRange | null)[], silent: number[] = []): string[] {
  const { servers, membership } = exampleStatus();
  const all = servers.map(({ release: _release, speaks: _speaks, ...server }, i): ServerStatus => {
    const said = speaks[i] ?? null;
    const micros = silent.includes(i) ? 9_000_000 : 20_000;
    const known = said === null ? {} : { release: `0.${said.max}.0`, speaks: said };
    return { ...server, silentMicros: i === 0 ? null : micros, ...known };
  });
  const found = versionProblems({ ...membership, protocol }, all, LEASE);
  return found.map(({ what, text, remedy }) => `${what}: ${text}. ${remedy}`);
}

test('the status names who holds an upgrade up, and who cannot take part', () => {
  assert.deepEqual(problems(1, [range(1), range(1), range(1)]), []);
  assert.deepEqual(problems(1, [range(1), range(1), null], [2]), [], 'nobody began to upgrade');
  const go = 'the pool goes on by itself when all configured servers can';
  const orNot = 'or take protocolMax out of the configuration there';
  assert.deepEqual(problems(1, [range(1, 2), range(1, 2), range(1)]), [
    'upgrade-held: gamma (release 0.1.0, speaks 1) holds the pool at protocol 1. '
      + `upgrade smbpool on it, ${orNot}; ${go}`,
  ]);
  assert.match(problems(1, [range(1), range(1, 2), range(1)])[0]!, /alpha \(.*\) and gamma \(.*\) hold the pool/);
  assert.deepEqual(problems(1, [range(1, 2), range(1, 2), range(1)], [2]), [
    'upgrade-held: gamma is not heard, and so holds the pool at protocol 1. '
      + 'start smbpoold of the new release on gamma; a server that is gone for good has to be taken out of '
      + 'the configuration of all',
  ]);
  assert.deepEqual(problems(2, [range(1, 2), range(1, 2), range(1)]), [
    'foreign-release: gamma (release 0.1.0, speaks 1) is not taken in: the pool is at protocol 2. '
      + 'install a release of smbpool that speaks 2 on gamma, or raise protocolMax there',
  ]);
  assert.deepEqual(problems(2, [range(1, 2), range(1, 2), range(1)], [2]), [], 'it is away, which is told elsewhere');
  const tooNew = problems(1, [range(1), range(2, 3), range(1)]);
  assert.match(tooNew[0]!, /^foreign-release: beta .* until alpha and gamma can speak 2/);
  assert.match(tooNew[1]!, /^upgrade-held: alpha .* and gamma .* hold the pool/);
});

test('a server that has no lease because of its release is not sent to look at its cables', () => {
  const { servers, membership } = exampleStatus();
  const lease = { state: 'none', micros: null } as const;
  const own = servers.map((server) => (server.id === 0 ? { ...server, state: 'joining' as const } : server));
  const [fenced] = problemsOf({ ...membership, protocol: 3, lease }, own, LEASE);
  assert.equal(fenced!.what, 'fenced');
  assert.match(fenced!.remedy, /does not speak the protocol of the pool/);
});

test('frames of an unknown header are said once an hour, however many come', () => {
  const said: unknown[] = [];
  const foreign = new ForeignFrames({ log: (level, event, fields) => said.push([level, event, fields?.['frames']]) });
  for (const [counted, now] of [[0, 0], [3, 10], [9, 20], [9, 4_000_000], [12, 4_000_010]] as const) {
    foreign.look(counted, now);
  }
  const event = 'interconnect.foreign-frames';
  assert.deepEqual(said, [['warn', event, 3], ['warn', event, 6]]);
});
