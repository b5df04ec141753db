/** A second interface per server in the configuration: what is accepted, what is refused, and who reaches whom then. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Config } from '../../src/daemon/config.js';
import { parseConfig } from '../../src/daemon/config.js';
import { ConfigError, StartError } from '../../src/daemon/errors.js';
import { requireMachine } from '../../src/daemon/machine.js';
import { memberOf, transportOptions } from '../../src/daemon/ways.js';

interface More {
  alpha?: string;
  beta?: string;
  gamma?: string;
  rest?: string;
}

function config({ alpha = '', beta = '', gamma = '', rest = '' }: More): Config {
  const server = (id: number, name: string, more: string): string =>
    `  - { id: ${id}, name: ${name}, interface: eth1, address: 10.0.0.${id + 1}${more} }`;
  const servers = [server(0, 'alpha', alpha), server(1, 'beta', beta), server(2, 'gamma', gamma)];
  const pool = 'pool: { name: office, keyFile: /etc/smbpool/pool.key }';
  return parseConfig('pool.yaml', [pool, 'server: alpha', 'servers:', ...servers, rest].join('\n'));
}

function problems(more: More): string {
  try {
    config(more);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.join('\n');
  }
  return '';
}

const ETH2 = ', interface2: eth2';
const UDP = 'transport: { kind: udp }';
const at = (number: number): string => `, address2: 10.0.1.${number}`;

test('all servers have two interfaces, or some: frames go where they can', () => {
  const all = config({ alpha: ETH2, beta: ', interface2: ens2', gamma: ETH2 });
  assert.deepEqual(transportOptions(all), {
    kind: 'ethernet', ways: [{ interface: 'eth1', peers: [1, 2] }, { interface: 'eth2', peers: [1, 2] }],
  });
  assert.deepEqual(all.servers.map((server) => memberOf(server, all).interfaces), [
    ['eth1', 'eth2'], ['eth1', 'ens2'], ['eth1', 'eth2'],
  ]);
  const some = config({ alpha: ETH2, gamma: ETH2 });
  assert.deepEqual(transportOptions(some), {
    kind: 'ethernet', ways: [{ interface: 'eth1', peers: [1, 2] }, { interface: 'eth2', peers: [2] }],
  });
  assert.equal(memberOf(some.servers[1]!, some).interfaces, undefined);
  const others = config({ beta: ETH2, gamma: ETH2 });
  assert.deepEqual(transportOptions(others), { kind: 'ethernet', ways: [{ interface: 'eth1', peers: [1, 2] }] });
});

test('with UDP the second way is an address', () => {
  const some = config({ alpha: at(1), gamma: at(3), rest: UDP });
  const place = (id: number, address: string) => ({ id, address, port: 4455 });
  assert.deepEqual(transportOptions(some), {
    kind: 'udp',
    ways: [
      { address: '10.0.0.1', port: 4455, peers: [place(1, '10.0.0.2'), place(2, '10.0.0.3')] },
      { address: '10.0.1.1', port: 4455, peers: [place(2, '10.0.1.3')] },
    ],
  });
  assert.deepEqual(memberOf(some.servers[2]!, some).interfaces, ['10.0.0.3', '10.0.1.3']);
});

test('what cannot be meant is refused, with file, line, key and remedy', () => {
  assert.match(problems({ alpha: ', interface2: eth1', beta: ETH2 }),
    /^pool\.yaml:4: servers\[0\]\.interface2 is "eth1", as interface: name another one, which leads to the other/);
  assert.match(problems({ alpha: ', interface2: a/b' }), /interface2 is "a\/b": it must be the name of a network/);
  assert.match(problems({ beta: ETH2 }),
    /^pool\.yaml:5: servers\[1\]\.interface2 is the only one, so it leads to nobody/);
  assert.match(problems({ alpha: ETH2, beta: ETH2, rest: UDP }),
    /servers\[0\]\.interface2 means nothing with transport udp: write "address2" there/);
  assert.match(problems({ alpha: at(1), beta: at(2) }),
    /servers\[0\]\.address2 means nothing with transport ethernet: write "interface2" there/);
  assert.match(problems({ alpha: ', address2: 10.0.0.1', beta: at(2), rest: UDP }),
    /address2 is "10\.0\.0\.1", as address/);
  assert.match(problems({ alpha: at(1), beta: at(1), rest: UDP }),
    /servers\[1\]\.address2 is "10\.0\.1\.1", which servers\[0\] has already: give each server its own/);
  assert.match(problems({ alpha: at(1), beta: ', address2: 10.0.0.3', rest: UDP }), /which servers\[2\] has already/);
  assert.match(problems({ alpha: ', address2: x', beta: at(2), rest: UDP }), /it must be an IPv4 or IPv6 address/);
  const pub = `${UDP}\naddresses: [{ address: 10.0.1.2/24, interface: eth0 }]`;
  assert.match(problems({ alpha: at(1), beta: at(2), rest: pub }), /which servers\[1\] has as its own/);
});

test('the machine must have both', () => {
  const interfaces = '  eth1: 1 2\n';
  const machine = { interfaces: () => interfaces, processStatus: () => 'CapEff:\t0000000000002000\n' };
  const start = (of: Config): void => requireMachine(of, { ...machine, addresses: () => ['10.0.0.1'] });
  assert.throws(() => start(config({ alpha: ETH2, beta: ETH2 })), (error) => error instanceof StartError
    && /no network interface eth2 here \(there are eth1\): correct "interface2" of server alpha/.test(error.message));
  assert.throws(() => start(config({ alpha: at(1), beta: at(2), rest: UDP })), (error) => error instanceof StartError
    && /has the address 10\.0\.1\.1 of server alpha: configure it, or correct "address2"/.test(error.message));
  start(config({ beta: ETH2, gamma: ETH2 }));
});
