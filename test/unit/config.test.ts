/**
 * The configuration file: what is accepted, the defaults, and that each refusal names file, line, key and remedy; the
 * key file, the incarnation, the directory lock and the checks of the machine.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { writeKey } from '../../src/cli/keygen.js';
import { loadConfig, nearestKey, parseConfig } from '../../src/daemon/config.js';
import { lockDirectory } from '../../src/daemon/directory-lock.js';
import { ConfigError, StartError } from '../../src/daemon/errors.js';
import { INCARNATION_FILE, nextIncarnation } from '../../src/daemon/incarnation.js';
import { parseKey, readKeyFile } from '../../src/daemon/key-file.js';
import type { Machine } from '../../src/daemon/machine.js';
import { requireMachine } from '../../src/daemon/machine.js';

const folder = mkdtempSync(join(tmpdir(), 'smbpool-config-'));
after(() => rmSync(folder, { recursive: true }));

const GOOD = `# the pool of the office
pool: { name: office, keyFile: /etc/smbpool/pool.key }
servers:
  - { id: 0, name: alpha, interface: eth1, address: 10.0.0.1 }
  - id: 1
    name: beta
    interface: eth1
    address: 10.0.0.2
`;
const parse = (text: string) => parseConfig('pool.yaml', text, { hostName: 'alpha' });

/** The problems that a changed good file has. */
function problems(from: string | RegExp, to: string): string[] {
  const text = GOOD.replace(from, to);
  assert.notEqual(text, GOOD, 'the test must change the file');
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return [...error.problems];
  }
  return [];
}

test('a short file is completed with defaults', () => {
  const config = parse(GOOD);
  assert.equal(config.self.id, 0);
  assert.deepEqual(config.directories, { volatile: '/run/smbpool/volatile', persistent: '/var/lib/smbpool' });
  assert.equal(config.socket, '/run/smbpool/ctdbd.socket');
  assert.equal(config.adminSocket, '/run/smbpool/admin.socket');
  assert.equal(config.ringSocket, '/run/smbpool/ring.socket');
  assert.equal(config.nodePage, '/run/smbpool/node.page');
  assert.deepEqual(config.transport, { kind: 'ethernet', port: 4455 });
  assert.deepEqual(config.log, { level: 'info' });
  assert.equal(config.faults, undefined);
});

test('a full file is taken as written', () => {
  const config = parse(
    `${GOOD}server: beta
directories: { volatile: /run/v, persistent: /var/p }
socket: /run/s
adminSocket: /run/a
transport: { kind: udp, port: 5000 }
faults: { lossPercent: 2.5, duplicatePercent: 1, seed: 7 }
log: { level: debug, file: /var/log/x }
`,
  );
  assert.equal(config.self.name, 'beta');
  assert.deepEqual(config.transport, { kind: 'udp', port: 5000 });
  assert.deepEqual(config.faults, { lossPercent: 2.5, duplicatePercent: 1, delayMsMax: 0, seed: 7 });
  assert.deepEqual(config.log, { level: 'debug', file: '/var/log/x' });
});

test('ring and node page lie beside the socket unless they are named', () => {
  const beside = parse(`${GOOD}socket: /run/x/s\n`);
  assert.deepEqual([beside.ringSocket, beside.nodePage], ['/run/x/ring.socket', '/run/x/node.page']);
  const named = parse(`${GOOD}ringSocket: /run/r\nnodePage: /run/p\n`);
  assert.deepEqual([named.ringSocket, named.nodePage], ['/run/r', '/run/p']);
});

test('the server is chosen by --server, then by the file, then by the host name', () => {
  const choose = (text: string, identity: object) => parseConfig('f', text, identity).self.name;
  assert.equal(choose(`${GOOD}server: alpha\n`, { server: 'beta', hostName: 'gamma' }), 'beta');
  assert.equal(choose(`${GOOD}server: beta\n`, { hostName: 'alpha' }), 'beta');
  assert.equal(choose(GOOD, { hostName: 'beta.example.net' }), 'beta');
  assert.throws(() => choose(GOOD, { hostName: 'gamma' }), /f:3: servers has no server with .*"gamma".*--server NAME/);
  assert.throws(() => choose(GOOD, { server: 'gamma' }), /no server named "gamma" \(--server\); it has alpha, beta/);
  assert.throws(() => choose(`${GOOD}server: gamma\n`, {}), /f:9: server is "gamma": it must be one of alpha, beta/);
});

const REFUSED: { what: string; from: string | RegExp; to: string; says: RegExp[] }[] = [
  {
    what: 'a misspelt key',
    from: 'keyFile',
    to: 'keyfile',
    says: [
      /^pool\.yaml:2: pool\.keyFile is missing: it must be an absolute path; write for example "keyFile: /,
      /^pool\.yaml:2: pool\.keyfile is not a known key: did you mean "keyFile"\?$/,
    ],
  },
  {
    what: 'an unknown key',
    from: '    name: beta',
    to: '    name: beta\n    colour: red',
    says: [/^pool\.yaml:7: servers\[1\]\.colour is not a known key: the keys here are id, .*, address2, role$/],
  },
  {
    what: 'a wrong type',
    from: 'id: 1',
    to: 'id: one',
    says: [/^pool\.yaml:5: servers\[1\]\.id is "one": it must be a whole number from 0 to 63; write .* "id: 0"$/],
  },
  {
    what: 'a number out of range',
    from: 'id: 1',
    to: 'id: 64',
    says: [/^pool\.yaml:5: servers\[1\]\.id is 64: it must be a whole number from 0 to 63/],
  },
  {
    what: 'the same id twice',
    from: 'id: 1',
    to: 'id: 0',
    says: [/^pool\.yaml:5: servers\[1\]\.id is 0, which servers\[0\] has already: give each server its own id$/],
  },
  {
    what: 'an address that is none',
    from: '10.0.0.2',
    to: '10.0.0',
    says: [/^pool\.yaml:8: servers\[1\]\.address is "10\.0\.0": it must be an IPv4 or IPv6 address/],
  },
  {
    what: 'no interface for raw Ethernet',
    from: '    interface: eth1\n',
    to: '',
    says: [/^pool\.yaml:5: servers\[1\]\.interface is missing: raw Ethernet needs .*"transport: \{ kind: udp \}"$/],
  },
  {
    what: 'an empty list of servers',
    from: /servers:[^]*/,
    to: 'servers: []\n',
    says: [/^pool\.yaml:3: servers is \[\]: it must be a list of 1 to 64 servers/],
  },
  {
    what: 'a missing block',
    from: /pool: .*\n/,
    to: '',
    says: [/^pool\.yaml:1: pool is missing: it must be a block of keys; write for example "pool: \{ name: office/],
  },
  {
    what: 'a relative path',
    from: '/etc/smbpool/pool.key',
    to: 'pool.key',
    says: [/^pool\.yaml:2: pool\.keyFile is "pool\.key": it must be an absolute path/],
  },
  { what: 'a bad choice', from: /$/, to: 'transport: { kind: tcp }\n', says: [/:9: transport\.kind is "tcp": /] },
  { what: 'too much loss', from: /$/, to: 'faults: { lossPercent: 90 }\n', says: [/lossPercent is 90: .* 0 to 50/] },
  { what: 'no YAML', from: 'servers:', to: 'servers: [', says: [/^pool\.yaml: is not YAML: .* line \d+, column/] },
  { what: 'a key given twice', from: /$/, to: 'servers: []\n', says: [/is not YAML: .*unique at line 9, column 1/] },
  { what: 'one path for two sockets', from: /$/, to: 'socket: /a\nadminSocket: /a\n', says: [/:10: adminSocket .*/] },
  { what: 'one path for socket and page', from: /$/, to: 'socket: /a\nnodePage: /a\n', says: [/:10: nodePage .*/] },
];

for (const { what, from, to, says } of REFUSED) {
  test(`refused: ${what}`, () => {
    const found = problems(from, to);
    for (const pattern of says) {
      assert.ok(
        found.some((problem) => pattern.test(problem)),
        `${String(pattern)} is not among\n${found.join('\n')}`,
      );
    }
    if (!found.some((problem) => problem.includes('YAML'))) assert.equal(found.length, says.length, found.join('\n'));
  });
}

test('any text is refused with a ConfigError or accepted, never anything else', () => {
  for (const text of ['', 'null', '[]', '3', 'pool', 'pool: 3', 'servers: {}', '{', '&a [*a]', '\u0000']) {
    assert.throws(() => parse(text), ConfigError, JSON.stringify(text));
  }
});

test('a file that is not there is named, with what to do', () => {
  assert.throws(() => loadConfig(join(folder, 'none.yaml')), /none\.yaml: cannot be read: does not exist; .*--config/);
});

test('the nearest key is one that differs little', () => {
  assert.equal(nearestKey('adress', ['id', 'name', 'address']), 'address');
  assert.equal(nearestKey('whatever', ['id', 'name', 'address']), undefined);
});

test('a key file that keygen made is read; it is not overwritten', () => {
  const file = join(folder, 'pool.key');
  writeKey(file);
  assert.equal(readKeyFile(file, process.getuid!()).length, 32);
  assert.throws(() => writeKey(file), /pool\.key exists already and is kept/);
  chmodSync(file, 0o640);
  assert.throws(() => readKeyFile(file, process.getuid!()), /has mode 0640, others can use it; "chmod 0600/);
  chmodSync(file, 0o600);
  writeFileSync(file, 'secret');
  assert.throws(() => readKeyFile(file, process.getuid!()), /must be 32 bytes as 64 hexadecimal digits or in base64/);
  assert.throws(() => readKeyFile(join(folder, 'none'), 0), /does not exist; make one with "smbpool keygen/);
});

test('a key is 64 hexadecimal digits or 44 of base64', () => {
  const key = Buffer.alloc(32, 0xa5);
  assert.deepEqual(parseKey(`${key.toString('hex')}\n`), key);
  assert.deepEqual(parseKey(key.toString('base64')), key);
  for (const bad of ['', key.toString('hex').slice(2), `${key.toString('hex')}00`, key.toString('base64').slice(1)]) {
    assert.equal(parseKey(bad), null);
  }
});

test('an incarnation is the time, and higher than the last also when the clock went back', () => {
  const directory = mkdtempSync(join(folder, 'incarnation-'));
  assert.equal(nextIncarnation(directory, 5000.7), 5000);
  assert.equal(nextIncarnation(directory, 4000), 5001);
  assert.equal(nextIncarnation(directory, 9000), 9000);
  assert.equal(readFileSync(join(directory, INCARNATION_FILE), 'utf8'), '9000\n');
  writeFileSync(join(directory, INCARNATION_FILE), 'x');
  assert.throws(() => nextIncarnation(directory, 1), StartError);
});

test('a directory is locked by one holder at a time, and the other is told who has it', () => {
  const directory = mkdtempSync(join(folder, 'lock-'));
  const lock = lockDirectory(directory);
  const inUse = new RegExp(`in use by another smbpoold \\(process ${process.pid}\\): stop it`);
  assert.throws(() => lockDirectory(directory), inUse);
  lock.release();
  lockDirectory(directory).release();
});

const machine = (changes: Partial<Record<keyof Machine, string>>): Machine => ({
  interfaces: () => changes.interfaces ?? 'Inter-|  Receive\n face |bytes\n    lo: 1 2\n  eth1: 3 4\n',
  processStatus: () => changes.processStatus ?? 'Name:\tnode\nCapEff:\t0000000000002000\n',
  addresses: () => ['127.0.0.1', changes.addresses ?? '10.0.0.1'],
});

test('the machine must have the interface and the right to raw frames', () => {
  const config = parse(GOOD);
  requireMachine(config, machine({}));
  const refuses = (changes: Partial<Record<keyof Machine, string>>, says: RegExp) =>
    assert.throws(() => requireMachine(config, machine(changes)), says);
  refuses({ interfaces: '    lo: 1 2\n' }, /no network interface eth1 here \(there are lo\): correct "interface"/);
  refuses({ processStatus: 'CapEff:\t0000000000001fff\n' }, /need CAP_NET_RAW, which this process does not have/);
});

test('for UDP the machine must have the address, and needs no rights', () => {
  const config = parse(`${GOOD}transport: { kind: udp }\n`);
  requireMachine(config, machine({ processStatus: '', interfaces: '' }));
  const elsewhere = machine({ addresses: '10.0.0.9' });
  assert.throws(() => requireMachine(config, elsewhere), /has the address 10\.0\.0\.1 of server/);
});
