/** What the configuration says of the membership's engine. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseConfig } from '../../src/daemon/config.js';
import { ConfigError, StartError } from '../../src/daemon/errors.js';
import { engineOptions } from '../../src/daemon/etcd-config.js';

const HEAD = `pool: { name: office, keyFile: /etc/smbpool/pool.key }
servers:
  - { id: 0, name: alpha, interface: eth1, address: 10.0.0.1 }
  - { id: 1, name: beta, interface: eth1, address: 10.0.0.2 }
`;
const parse = (more: string) => parseConfig('pool.yaml', HEAD + more, { hostName: 'alpha' });

function problems(more: string): string[] {
  try {
    parse(more);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return [...error.problems];
  }
  return [];
}

test('the engine is the embedded one unless another is named', () => {
  const { membership } = parse('');
  assert.equal(membership.engine, 'embedded');
  assert.deepEqual(engineOptions(membership), {});
  const { membership: other } = parse('membership: { engine: etcd, etcd: { endpoints: [http://10.0.0.11:2379] } }\n');
  assert.deepEqual(engineOptions(other), { etcd: { endpoints: ['http://10.0.0.11:2379'], tls: {} } });
});

test('what cannot work is refused, with a remedy', () => {
  assert.match(problems('membership: { engine: raft }\n')[0]!, /must be "embedded" or "etcd"/);
  assert.match(problems('membership: { engine: etcd }\n')[0]!, /membership\.etcd is missing.*write for example/);
  assert.match(problems('membership: { etcd: { endpoints: [http://a:1] } }\n')[0]!, /write "engine: etcd" too/);
  for (const endpoint of ['10.0.0.11:2379', 'ftp://a', 'http://a/v3', 'http://user@a:1', '7']) {
    const text = `membership: { engine: etcd, etcd: { endpoints: ["${endpoint}"] } }\n`;
    assert.match(problems(text)[0]!, /must be the address of an etcd server/, endpoint);
  }
  const tls = (rest: string): string[] => problems(`membership: { engine: etcd, etcd: { ${rest} } }\n`);
  assert.match(tls('endpoints: [https://a:1], cert: /x')[0]!, /only one of "cert" and "key"/);
  assert.match(tls('endpoints: [http://a:1], ca: /x')[0]!, /is no https/);
  const witness = '  - { id: 2, name: tally, interface: eth1, address: 10.0.0.3, role: witness }\n';
  const text = `${witness}membership: { engine: etcd, etcd: { endpoints: [http://a:1] } }\n`;
  assert.match(problems(text)[0]!, /servers\[2\]\.role.*leave this server out/);
});

test('a file of TLS that is not there keeps the daemon from starting', () => {
  const { membership } = parse(
    'membership: { engine: etcd, etcd: { endpoints: [https://a:1], ca: /nowhere/ca.pem } }\n',
  );
  assert.throws(() => engineOptions(membership), (error) => {
    return error instanceof StartError && /membership\.etcd\.ca: ENOENT.*PEM/.test(error.message);
  });
});
