/** Public addresses in the configuration: what is accepted, and the sentences of what is refused. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseConfig } from '../../src/daemon/config.js';
import { ConfigError } from '../../src/daemon/errors.js';

const FILE = 'pool.yaml';

function text(addresses: string): string {
  return [
    'pool: { name: office, keyFile: /etc/smbpool/pool.key }',
    'server: alpha',
    'servers:',
    '  - { id: 0, name: alpha, interface: eth1, address: 10.0.0.1 }',
    '  - { id: 1, name: beta, interface: eth1, address: "2001:db8::1" }',
    `addresses: ${addresses}`,
  ].join('\n');
}

function problems(addresses: string): string[] {
  try {
    parseConfig(FILE, text(addresses));
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message.split('\n');
  }
}

test('addresses of both kinds, with another interface on one server', () => {
  const one = '{ address: 10.0.0.100/24, interface: eth0, interfaces: { beta: ens3 } }';
  const config = parseConfig(FILE, text(`[${one}, { address: "2001:db8::100/64", interface: eth0 }]`));
  assert.deepEqual(config.addresses, [
    { address: '10.0.0.100/24', interface: 'eth0', interfaces: { beta: 'ens3' } },
    { address: '2001:db8::100/64', interface: 'eth0' },
  ]);
  assert.equal(parseConfig(FILE, text('[]')).addresses?.length, 0);
});

test('what is no address, is there twice or belongs to a server is refused', () => {
  const refused = (address: string, more = ''): string =>
    problems(`[{ address: "${address}", interface: eth0${more} }]`).join(' ');
  const wrong = [
    '10.0.0.100', '10.0.0.100/33', '10.0.0.100/0', 'x/24', '::ffff:10.0.0.9/96', '10.0.0.1/24/1', '2001:db8::9',
    '2001:db8::9/129', '2001:db8::9/0', '2001:db8::9%eth0/64', 'fe80::9%eth0/64', '2001:db8:::9/64', '2001:db8::9/6x',
  ];
  for (const address of wrong) {
    assert.match(refused(address), /it must be an IPv4 or IPv6 address with the length of its prefix; write/);
  }
  assert.match(refused('10.0.0.1/24'), /pool.yaml:6: addresses\[0\].address is .* servers\[0\] has as its own/);
  assert.match(refused('2001:DB8:0::1/64'), /servers\[1\] has as its own: give the pool an address that nothing/);
  assert.match(refused('10.0.0.9/24', ', interfaces: { gamma: ens3 }'), /is no server: it must be one of alpha, beta/);
  for (const [address, why] of [
    ['fe80::9/64', /which holds on one link only, and leads nowhere without the name of an interface: write one of/],
    ['169.254.0.9/16', /holds on one link only/], ['ff02::9/64', /is for many machines at once/],
    ['224.0.0.9/24', /for many machines/], ['255.255.255.255/24', /for many machines/],
    ['::1/128', /every machine has for itself/], ['127.0.0.9/8', /every machine has for itself/],
    ['::/64', /stands for any address/], ['0.0.0.0/8', /stands for any address/],
  ] as const) {
    assert.match(refused(address), why, address);
  }
  for (const address of ['fd00::9/64', 'fec0::9/64', '2001:db8::9/128', '::2/64', '169.253.0.9/16', '223.0.0.9/24']) {
    assert.equal(refused(address), '', address);
  }
  const otherwise = '[{ address: "2001:db8::9/64", interface: eth0 }, { address: "2001:DB8:0:0::9/48", interface: e }]';
  assert.match(problems(otherwise).join(' '), /addresses\[1\].address .* addresses\[0\] has already/);
  const twice = '{ address: 10.0.0.100/24, interface: eth0 }';
  assert.match(problems(`[${twice}, ${twice}]`).join(' '), /addresses\[1\].address .* addresses\[0\] has already/);
});
