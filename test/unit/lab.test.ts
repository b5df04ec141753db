/**
 * The lab's pure parts: options that are refused with a sentence, and the configuration files it writes. The lab itself
 * is tested in test/integration.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { parse } from 'yaml';
import { configSchema } from '../../src/daemon/config-schema.js';
import { parseConfig } from '../../src/daemon/config.js';
import { daemonConfig } from '../../src/lab/daemon-config.js';
import { LabError } from '../../src/lab/errors.js';
import { Layout } from '../../src/lab/layout.js';
import { labOptions } from '../../src/lab/options.js';
import type { LabOptions } from '../../src/lab/options.js';
import { sambaConfig } from '../../src/lab/samba-config.js';

const layout = new Layout('/tmp/lab');

/** The lines of one section of an smb.conf, name to value; a later line wins, as in Samba. */
function section(text: string, name: string): Map<string, string> {
  const body = text.split(/^\[/m).find((part) => part.startsWith(`${name}]`)) ?? '';
  const pairs = body.split('\n').flatMap((line) => {
    const at = line.indexOf('=');
    return at < 0 ? [] : [[line.slice(0, at).trim(), line.slice(at + 1).trim()] as const];
  });
  return new Map(pairs);
}

test('options that cannot be met are refused', () => {
  const refused: [Partial<LabOptions>, RegExp][] = [
    [{ servers: 0 }, /from 1 to 16/],
    [{ servers: 17 }, /from 1 to 16/],
    [{ servers: 2.5 }, /from 1 to 16/],
    [{ root: 'relative' }, /absolute path/],
    [{ root: '/' }, /absolute path/],
    [{ root: `/${'x'.repeat(60)}` }, /47 bytes/],
    [{ shareOptions: ['no value'] }, /name = value/],
    [{ globalOptions: ['[evil]\npath = /'] }, /name = value/],
    [{ vfs: ['acl xattr'] }, /VFS module/],
    [{ lossPercent: 60 }, /--loss/],
    [{ interfaces: 3 }, /--interfaces is 1 or 2/],
    [{ leaseMillis: 100 }, /--lease-millis is 240 to 30000, not "100"/],
  ];
  for (const [wishes, message] of refused) {
    assert.throws(() => labOptions(wishes), (error) => error instanceof LabError && message.test(error.message));
  }
});

test("the smb.conf is clustered for the pool's servers only", () => {
  const options = labOptions({});
  const pool = section(sambaConfig(layout.server(1), options), 'global');
  assert.equal(pool.get('clustering'), 'yes');
  assert.equal(pool.get('ctdbd socket'), '/tmp/lab/server-1/ctdbd.socket');
  const alone = section(sambaConfig(layout.baseline(), options), 'global');
  assert.equal(alone.has('clustering'), false);
  assert.equal(alone.has('ctdbd socket'), false);
});

test('options of the command line come last and so win; modules go in front of fileid, ours first', () => {
  const options = labOptions({
    module: true,
    vfs: ['acl_xattr', 'streams_xattr'],
    shareOptions: ['create mask = 0700'],
    globalOptions: ['server min protocol = NT1', 'smbd getinfo ask sharemode = yes'],
  });
  const text = sambaConfig(layout.server(0), options);
  assert.equal(section(text, 'pool').get('vfs objects'), 'smbpool acl_xattr streams_xattr fileid');
  assert.equal(section(text, 'pool').get('smbpool:socket'), '/tmp/lab/server-0/ring.socket');
  assert.equal(section(text, 'pool').get('create mask'), '0700');
  assert.equal(section(text, 'global').get('server min protocol'), 'NT1');
  assert.equal(section(text, 'global').get('smbd getinfo ask sharemode'), 'yes');
});

test('our module is left out where it was not wanted, and on the unclustered smbd', () => {
  const without = section(sambaConfig(layout.server(0), labOptions({ module: false })), 'pool');
  assert.equal(without.get('vfs objects'), 'fileid');
  assert.equal(without.has('smbpool:socket'), false);
  const alone = section(sambaConfig(layout.baseline(), labOptions({ module: true })), 'pool');
  assert.equal(alone.get('vfs objects'), 'fileid');
});

test('smbpoold accepts what the lab writes for it', () => {
  const options = labOptions({ servers: 16, transport: 'udp', lossPercent: 2, seed: 7 });
  const configs = layout.servers(16).map((place) => configSchema.parse(parse(daemonConfig(layout, place, options))));
  for (const [id, config] of configs.entries()) {
    assert.equal(config.server, `server-${id}`);
    assert.equal(config.servers.length, 16);
    assert.equal(config.transport.kind, 'udp');
    assert.equal(config.faults?.lossPercent, 2);
  }
  for (const transport of ['ethernet', 'udp'] as const) {
    const text = daemonConfig(layout, layout.server(1), labOptions({ servers: 3, transport, interfaces: 2 }));
    const { self, transport: { kind } } = parseConfig('lab.yaml', text);
    assert.deepEqual([kind, self.interface2, self.address2], transport === 'udp'
      ? ['udp', undefined, '10.77.1.11'] : ['ethernet', 'eth1', undefined]);
  }
  const patient = labOptions({ servers: 3, engine: 'etcd', leaseMillis: 2_000 });
  const { membership } = parseConfig('lab.yaml', daemonConfig(layout, layout.server(1), patient));
  assert.deepEqual([membership.engine, membership.leaseMs], ['etcd', 2_000]);
  const seeds = new Set(configs.map((config) => config.faults?.seed));
  assert.equal(seeds.size, 16, 'all servers would lose the same frames');
  assert.equal(new Set(configs.map((config) => config.adminSocket)).size, 16);
});
