/**
 * Which of Samba's suites the pool must pass as one unclustered smbd does, and in which lanes they run: the suites of a
 * lane one after the other, the lanes at the same time, because most of their time is waiting for timeouts.
 */

/** The share options the suites need; both smbds of a comparison get them. */
export const SUITE_OPTIONS = {
  vfs: ['acl_xattr', 'streams_xattr'],
  shareOptions: ['acl_xattr:ignore system acls = yes'],
  globalOptions: ['server min protocol = NT1'],
};

/** All suites. About four minutes. */
export const ALL_LANES: string[][] = [
  ['smb2.lease'],
  ['smb2.oplock', 'raw.open', 'smb2.lock', 'smb2.sharemode', 'smb2.create', 'smb2.deny', 'smb2.rename'],
  ['raw.oplock', 'raw.lock', 'base.lock', 'smb2.durable-open', 'smb2.durable-v2-open', 'smb2.streams', 'smb2.compound',
    'raw.unlink', 'raw.rename', 'base.delete'],
];

/**
 * smb2.notify, run by itself because it watches the root of the share, and test by test because some of it now and
 * then hangs on any smbd. Left out: mask, which does not pass unclustered and takes over a minute not to.
 */
export const ALONE: string[] = [
  'valid-req', 'tcon', 'dir', 'tdis', 'tdis1', 'mask-change', 'close', 'logoff', 'session-reconnect', 'invalid-reauth',
  'tree', 'basedir', 'double', 'file', 'tcp', 'rec', 'overflow', 'rmdir1', 'rmdir2', 'rmdir3', 'rmdir4',
  'handle-permissions',
].map((name) => `smb2.notify.${name}`);

/**
 * What the variants of the pool (other transports, other sizes, losses) run: the quick suites, and the quick tests of
 * others.
 */
export const SHORT_LANES: string[][] = [
  ['smb2.lock', 'smb2.sharemode', 'smb2.create', 'smb2.deny', 'smb2.rename', 'smb2.durable-open',
    'smb2.durable-v2-open', 'smb2.streams', 'smb2.compound', 'raw.unlink', 'raw.rename', 'base.delete'],
  ['smb2.lease.request', 'smb2.lease.upgrade', 'smb2.lease.upgrade2', 'smb2.lease.break', 'smb2.lease.oplock',
    'smb2.lease.multibreak'],
  ['smb2.oplock.exclusive1', 'smb2.oplock.exclusive2', 'smb2.oplock.batch1',
    'smb2.oplock.batch5', 'smb2.oplock.batch9', 'smb2.oplock.levelII500', 'raw.open'],
];
