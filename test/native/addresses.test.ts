/**
 * The addon's calls for public addresses, IPv4 and IPv6, in namespaces of their own: configured with a lifetime,
 * announced, connections ended, clients tickled; and what is refused.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadNative } from '../../src/host/native.js';
import type { Report } from './addresses-inside.js';

const skip = process.getuid?.() === 0 ? false : 'needs root, for network namespaces';
const INSIDE = fileURLToPath(new URL('./addresses-inside.js', import.meta.url));
const PREPARE = 'mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up';

test('an address is taken, announced, let go, and forgotten by the kernel', { skip, timeout: 120_000 }, () => {
  const script = `${PREPARE} && exec "$0" "$1"`;
  const args = ['-m', '-n', '--propagation', 'private', 'sh', '-c', script, process.execPath, INSIDE];
  const { seen, stale, ownRoute, route } = JSON.parse(execFileSync('unshare', args, { encoding: 'utf8' })) as Report;
  for (const { address, ...one } of seen) {
    const ended = { ended: 1, heard: '', client: 'ECONNRESET', stays: false };
    const calls = address.includes(':') ? 'fd00::1' : '10.9.0.1';
    assert.deepEqual(one, { configured: true, believed: true, calls, ...ended }, address);
  }
  assert.equal(seen.length, 4);
  assert.deepEqual(stale, [true, true, true]);
  assert.ok(ownRoute > 500, `the route of an own address ends after ${ownRoute} s`);
  assert.ok(route, 'no route to the network of a public address');
});

test('what is no address, no interface, or too late is refused', async () => {
  const native = loadNative();
  const take = { prefixLength: 24, lifetimeSeconds: 3, announce: false, tickle: [], interface: 'smbp-none' };
  const refused = (more: object, code: string) => async () => {
    // arguments are judged at once, what the kernel says comes later
    const call = async () => native.takeAddress({ ...take, address: '10.9.0.100', deadlineMicros: Infinity, ...more });
    await assert.rejects(call, { code });
  };
  await refused({ address: '10.9.0' }, 'ERR_INVALID_ARG_TYPE')();
  await refused({ tickle: 1 }, 'ERR_INVALID_ARG_TYPE')();
  await refused({ deadlineMicros: 1 }, 'ECANCELED')();
  await refused({}, 'ENODEV')();
  assert.equal(native.removeAddress({ address: '10.9.0.100', prefixLength: 24, interface: 'smbp-none' }), false);
});
