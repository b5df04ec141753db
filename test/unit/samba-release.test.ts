/** Which releases of Samba smbpoold serves, from the table beside the module. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { StartError } from '../../src/daemon/errors.js';
import { knownReleases, releaseOf } from '../../src/daemon/samba-release.js';

test('the table names releases, comments and blank lines aside', () => {
  assert.deepEqual(knownReleases('# a\n4.17  47  -samba4  12\n\n4.22  50  -private-samba  13\n'), ['4.17', '4.22']);
  assert.ok(knownReleases().includes('4.17'));
});

test('what smbd -V prints is understood, patch releases and vendors aside', () => {
  assert.equal(releaseOf('Version 4.17.12-Debian\n', ['4.17']), '4.17');
  assert.equal(releaseOf('', ['4.17']), undefined);
});

test('an unknown release is refused with what to do', () => {
  const isClear = (error: unknown): boolean =>
    error instanceof StartError && /Samba 4\.19, and this smbpoold knows 4\.17 and 4\.22: install/.test(error.message);
  assert.throws(() => releaseOf('Version 4.19.5\n', ['4.17', '4.22']), isClear);
});
