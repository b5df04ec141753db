/** The servers of a running pool: configurations, their bytes, a person's wish and what is said to it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteReader, ByteWriter, DecodeError } from '../../src/base/bytes.js';
import { nodeId } from '../../src/base/ids.js';
import type { NodeId } from '../../src/base/ids.js';
import {
  ServerLists, counting, fileServersIn, firstConfiguration, isMajority, joined, left, presentIn,
} from '../../src/core/membership/configuration.js';
import { isDone } from '../../src/core/membership/changing-servers.js';
import { describeJoin, describeLeave } from '../../src/cli/servers.js';
import type { Config } from '../../src/daemon/config.js';
import { parseConfig } from '../../src/daemon/config.js';
import type { AgreedServers } from '../../src/daemon/pool-servers.js';
import {
  differenceText, entryOf, joinChange, leaveChange, linesFor, placeOf, refusalText, reportChange, serverOf, serversNow,
} from '../../src/daemon/pool-servers.js';
import type { ConfiguredServer } from '../../src/wire/membership-configuration.js';
import { digestOf, readConfiguration, writeConfiguration } from '../../src/wire/membership-configuration.js';
import type { MembershipContent, MembershipMessage } from '../../src/wire/membership-messages.js';
import {
  REFUSALS, decodeMembershipMessage, encodeMembershipMessage, serversMessages,
} from '../../src/wire/membership-messages.js';

const [A, B, C, D] = [0, 1, 2, 3].map((id) => nodeId(id)) as [NodeId, NodeId, NodeId, NodeId];
const server = (node: NodeId, entry = `text of ${node}`): ConfiguredServer => ({ node, role: 'server', entry });
const witness = (node: NodeId): ConfiguredServer => ({ node, role: 'witness', entry: `text of ${node}` });
const three = [server(A), server(B), witness(C)];

test('a server joins without counting, counts, and leaves; its number is remembered', () => {
  const first = { configuration: firstConfiguration(three), servers: three };
  const four = joined(first, server(D));
  assert.deepEqual(four.configuration, {
    number: 1, counted: [A, B, C], joining: [D], witnesses: [C], former: [],
    digest: digestOf([...three, server(D)]),
  });
  assert.ok(isMajority(four.configuration, (node) => node <= B), 'two of three');
  const counts = counting(four, D).configuration;
  assert.deepEqual([counts.counted, counts.joining, counts.number], [[A, B, C, D], [], 2]);
  assert.ok(!isMajority(counts, (node) => node <= B), 'two of four');
  assert.deepEqual(fileServersIn(counts), [A, B, D]);
  const without = left(counting(four, D), B);
  assert.deepEqual([presentIn(without.configuration), without.configuration.former], [[A, C, D], [B]]);
  assert.equal(without.servers.length, 4, 'who left is still described');
  const back = joined(without, server(B));
  assert.deepEqual([back.configuration.joining, back.configuration.former], [[B], []]);
  assert.deepEqual(left(first, C).configuration.witnesses, []);
});

test('what was written of the servers is put together from what others tell', () => {
  const first = { configuration: firstConfiguration(three), servers: three };
  const { configuration, servers } = joined(first, server(D));
  const lists = new ServerLists([...three].reverse(), null);
  assert.deepEqual(lists.of(undefined)!.configuration, first.configuration);
  assert.equal(lists.of(configuration), null);
  lists.learn(configuration.digest, [server(D, 'another')]);
  assert.equal(lists.of(configuration), null, 'the digest tells');
  lists.learn(configuration.digest, [server(D)]);
  assert.deepEqual(lists.of(configuration), { configuration, servers });
  const own = new ServerLists([server(A, 'as my file says'), server(B), witness(C)], null);
  for (const message of serversMessages(configuration.digest, servers)) {
    if (message.kind === 'servers') own.learn(message.digest, message.servers);
  }
  assert.deepEqual(own.of(configuration)?.servers, servers);
});

test('a change is done when an agreed list has it, and asking twice changes nothing', () => {
  const first = { configuration: firstConfiguration(three), servers: three };
  const change = { what: 'join' as const, number: 0, server: server(D) };
  assert.ok(!isDone(change, first));
  assert.ok(isDone(change, joined(first, server(D))));
  assert.ok(isDone(change, counting(joined(first, server(D)), D)));
  assert.ok(!isDone(change, joined(first, server(D, 'elsewhere'))));
  assert.ok(isDone({ what: 'leave', number: 0, server: server(B) }, left(first, B)));
  assert.ok(!isDone({ what: 'leave', number: 1, server: server(B) }, left(first, B)), 'what was seen is newer');
});

test('a configuration that cannot be is refused', () => {
  const sound = { number: 1, counted: [A, B], joining: [C], witnesses: [C], former: [D], digest: 7 };
  const decode = (configuration: typeof sound): unknown => {
    const writer = new ByteWriter();
    writeConfiguration(writer, configuration);
    return readConfiguration(new ByteReader(writer.finish()));
  };
  assert.deepEqual(decode(sound), sound);
  for (const wrong of [{ number: 0 }, { joining: [B] }, { former: [A] }, { witnesses: [D] }, { witnesses: [A, B] }]) {
    assert.throws(() => decode({ ...sound, ...wrong }), DecodeError, JSON.stringify(wrong));
  }
});

test('the messages about servers travel whole', () => {
  const at = { to: 5 as never, term: 3 };
  const contents = [
    { kind: 'change', what: 'join', number: 4, server: server(D) },
    { kind: 'change', what: 'leave', number: 4, server: { node: D, role: 'server' } },
    ...REFUSALS.map((why) => ({ kind: 'change-refused', number: 1, node: B, why, about: [A, C] }) as const),
    ...serversMessages(9, three),
  ] as const;
  for (const content of contents) {
    const message = { ...content, ...at } as MembershipMessage;
    assert.deepEqual(decodeMembershipMessage(encodeMembershipMessage(message)), message);
  }
  const many = Array.from({ length: 64 }, (_, node) => server(nodeId(node), 'x'.repeat(200)));
  const bytesOf = (content: MembershipContent): Uint8Array =>
    encodeMembershipMessage({ ...content, ...at });
  const parts = serversMessages(1, many).map(bytesOf);
  assert.ok(parts.length > 8 && parts.every(({ length }) => length <= 1_428), 'each fits into a frame');
});

// --- what the daemon says

const YAML = `
pool: { name: office, keyFile: /etc/smbpool/pool.key }
server: alpha
transport: { kind: udp }
servers:
  - { id: 0, name: alpha, address: 10.0.0.1 }
  - { id: 1, name: beta, address: 10.0.0.2 }
`;
const config: Config = parseConfig('smbpool.yaml', YAML, {});
const gamma = { id: 2, name: 'gamma', address: '10.0.0.3', role: 'server' as const };
const asConfigured = config.servers.map((one): ConfiguredServer => {
  return { node: nodeId(one.id), role: one.role, entry: entryOf(one) };
});

function agreedWith(...changes: ((list: AgreedServers) => AgreedServers)[]): AgreedServers {
  const first = { configuration: firstConfiguration(asConfigured), servers: asConfigured };
  return changes.reduce((list, change) => change(list), first as AgreedServers);
}

const withGamma = (list: AgreedServers): AgreedServers =>
  joined(list, { node: C, role: 'server', entry: entryOf(gamma) });

test('a wish that makes no sense is refused before anybody is asked', () => {
  const wish = { name: 'gamma', address: '10.0.0.3' };
  const { server: asked, ...rest } = joinChange(config, null, wish);
  assert.deepEqual([rest, serverOf(asked)], [{ what: 'join', number: 0 }, gamma], 'the lowest free number');
  const refused = (change: object, text: RegExp, agreed: AgreedServers | null = null): void => {
    assert.throws(() => joinChange(config, agreed, { ...wish, ...change }), text);
  };
  refused({ id: '1' }, /beta \(number 1\) is in the pool with number 1/);
  refused({ name: 'beta' }, /with this name/);
  refused({ address: '10.0.0.2' }, /with address 10\.0\.0\.2/);
  refused({ address: 'nowhere' }, /--address: it must be an IPv4 or IPv6 address/);
  refused({ id: '64' }, /--id: it must be a whole number from 0 to 63/);
  refused({ role: 'king' }, /--role: it must be "server" or "witness"/);
  const former = agreedWith(withGamma, (list) => left(list, C));
  refused({ id: '2', name: 'delta' }, /number 2 was that of gamma.* as --id 3/, former);
  assert.equal(joinChange(config, former, { ...wish, id: '2' }).server.node, C, 'the same server comes back');
  assert.throws(() => joinChange({ ...config, transport: { kind: 'ethernet', port: 1 } }, null, wish), /--interface/);
  assert.throws(() => leaveChange(config, null, 'gamma'), /the pool has alpha, beta/);
  assert.throws(() => leaveChange(config, null, 'alpha'), /alpha is this server.*ask on beta/);
  assert.deepEqual(leaveChange(config, null, '1'), { what: 'leave', number: 0, server: { node: B, role: 'server' } });
});

test('the agreed list says who, the file says where', () => {
  const agreed = agreedWith(withGamma);
  assert.deepEqual(serversNow(config, agreed).map(({ name }) => name), ['alpha', 'beta', 'gamma']);
  assert.equal(differenceText(config, agreed), 'smbpool.yaml lacks gamma');
  const moved = { ...config, servers: [config.servers[0]!, { ...config.servers[1]!, address: '10.0.0.9' }, gamma] };
  assert.equal(serversNow(moved, agreed)[1]!.address, '10.0.0.9');
  assert.equal(differenceText(moved, agreed), null);
  assert.equal(differenceText(moved, agreedWith()), null, 'nobody changed the servers yet');
  assert.equal(
    differenceText(moved, agreedWith(withGamma, (list) => left(list, C))),
    'smbpool.yaml has gamma, which the pool has not',
  );
  const place = placeOf(config, agreed.servers[2]!);
  assert.deepEqual(place?.ways, [{ address: '10.0.0.3', port: 4455 }]);
  assert.equal(placeOf(config, { node: D, role: 'server', entry: '{"name":7}' }), null);
});

test('what the command line prints', () => {
  const agreed = agreedWith(withGamma);
  assert.equal(describeJoin('gamma', reportChange(config, agreed)), [
    'gamma is in the pool as number 2; it counts in majorities as soon as it is heard.',
    'Write this into the configuration file of all 3 servers, then start smbpoold on gamma. The others need no '
      + 'restart.',
    '',
    'servers:',
    '  - { id: 0, name: alpha, address: 10.0.0.1 }',
    '  - { id: 1, name: beta, address: 10.0.0.2 }',
    '  - { id: 2, name: gamma, address: 10.0.0.3 }',
    '',
  ].join('\n'));
  const report = reportChange(config, agreedWith((list) => left(list, B)));
  assert.deepEqual([report.configuration, report.servers.map(({ counts }) => counts)], [1, [true]]);
  assert.match(describeLeave('beta', report), /^beta is out of the pool.*\n.*file of the other server, which need no/);
  assert.deepEqual(linesFor([{ ...gamma, role: 'witness' }])[1],
    '  - { id: 2, name: gamma, address: 10.0.0.3, role: witness }');
});

test('each refusal says what to do', () => {
  const change = { what: 'leave' as const, number: 0, server: server(B) };
  const nameOf = (id: number): string => ['alpha', 'beta', 'gamma'][id]!;
  const texts = [...REFUSALS, 'late' as const].map((why) => refusalText(change, { why, about: [C] }, nameOf));
  assert.equal(new Set(texts).size, texts.length);
  assert.match(refusalText(change, { why: 'majority', about: [C] }, nameOf),
    /^without beta a majority of the servers must be heard, and gamma is not: start smbpoold there first/);
});
