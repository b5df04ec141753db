/**
 * The smb.conf of the lab's servers, of the unclustered smbd beside them, and of the clients. Pure text; lab.ts writes
 * it.
 */
import { join } from 'node:path';
import type { LabOptions } from './options.js';
import type { ServerPlace } from './layout.js';
import { SHARE } from './layout.js';

/** Which folders an smbd of the lab has to itself; lab.ts makes them. */
export function sambaFolders(place: ServerPlace): string[] {
  return [
    place.logs,
    join(place.directory, 'private'),
    join(place.directory, 'state'),
    join(place.directory, 'cache'),
    join(place.volatile, 'lock'),
    join(place.volatile, 'pid'),
    join(place.volatile, 'ncalrpc'),
  ];
}

/** Only these two lines make an smbd part of the pool. */
function clustering(place: ServerPlace): string[] {
  return ['clustering = yes', `ctdbd socket = ${place.socket}`];
}

const GLOBAL_COMMON = [
  'server role = standalone server',
  'workgroup = WORKGROUP',
  // one name for the pool: the machine's SID in secrets.tdb hangs on it, and so do all user SIDs
  'netbios name = POOL',
  'disable netbios = yes',
  'smb ports = 445',
  'map to guest = never',
  'max log size = 0',
  // each printing probe costs requests to the daemon (printer_list, registry)
  'load printers = no',
  'disable spoolss = yes',
  // share modes, locks and oplocks are kept in the pool's databases; the kernel knows only of this machine's
  'kernel oplocks = no',
  'kernel share modes = no',
  'posix locking = no',
  'durable handles = yes',
  'smb2 leases = yes',
  // with multichannel on, smbd tells the server where a ClientGuid was first seen to drop that connection
  'server multi channel support = no',
  // the lab's servers share a kernel, which would tell each change to the notifyds of all: clients heard of it thrice
  'kernel change notify = no',
  // the lab measures and tests locking, not the disk
  'strict sync = no',
];

const SHARE_COMMON = [
  'read only = no',
  'create mask = 0777',
  'directory mask = 0777',
  'ea support = yes',
  'store dos attributes = yes',
  'map archive = no',
  'map hidden = no',
  'map system = no',
  // all servers of the lab see one mount under one name, so this gives every file the same id on all of them
  'fileid:algorithm = fsname',
];

/**
 * Our module first, so that it sees a request before any other, and reports what the client asked for; fileid last, as
 * it makes the ids. Without a volume id of ours the modules between see the kernel's st_dev, which streams_xattr makes
 * the inode numbers of streams from: right here, where all servers have one mount.
 */
function modules(place: ServerPlace, options: LabOptions): string[] {
  if (place.id === null || !options.module) return [`vfs objects = ${[...options.vfs, 'fileid'].join(' ')}`];
  return [
    `vfs objects = ${['smbpool', ...options.vfs, 'fileid'].join(' ')}`,
    `smbpool:socket = ${place.ringSocket}`,
  ];
}

/** The configuration of one smbd; `place.id` null means unclustered. Options given by the user come last and so win. */
export function sambaConfig(place: ServerPlace, options: LabOptions): string {
  const global = [
    ...GLOBAL_COMMON,
    ...(place.id === null ? [] : clustering(place)),
    `private dir = ${join(place.directory, 'private')}`,
    `state directory = ${join(place.directory, 'state')}`,
    `cache directory = ${join(place.directory, 'cache')}`,
    `lock directory = ${join(place.volatile, 'lock')}`,
    `pid directory = ${join(place.volatile, 'pid')}`,
    `ncalrpc dir = ${join(place.volatile, 'ncalrpc')}`,
    `log file = ${join(place.logs, 'log.smbd')}`,
    `log level = ${options.smbdLogLevel}`,
    ...options.globalOptions,
  ];
  const share = [
    `path = ${place.share}`,
    ...SHARE_COMMON,
    ...modules(place, options),
    ...options.shareOptions,
  ];
  return `${section('global', global)}\n${section(SHARE, share)}`;
}

/** For smbclient and smbtorture: any protocol, none of the machine's own settings. */
export function clientConfig(logs: string): string {
  return section('global', [
    'workgroup = WORKGROUP',
    'client min protocol = NT1',
    'name resolve order = host',
    'load printers = no',
    `log file = ${join(logs, 'log.client')}`,
    `private dir = ${logs}`,
    `lock directory = ${logs}`,
    `state directory = ${logs}`,
    `cache directory = ${logs}`,
  ]);
}

function section(name: string, lines: readonly string[]): string {
  return `[${name}]\n${lines.map((line) => `\t${line}\n`).join('')}`;
}
