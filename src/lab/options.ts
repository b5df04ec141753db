/**
 * What a lab is to be like: the options of `lab up`, checked. Used by the command line, the demo and the tests, which
 * start from `labOptions({})`. Does nothing but judge.
 */
import { isAbsolute } from 'node:path';
import { LabError } from './errors.js';
import { PUBLIC_ADDRESSES_MAX, ROOT_DEFAULT, SERVER_COUNT_DEFAULT, SERVER_COUNT_MAX } from './layout.js';

export type Transport = 'ethernet' | 'udp';
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export interface LabOptions {
  root: string;
  /** How many servers, 1 to 16. */
  servers: number;
  /** One more smbpoold, without smbd, that only votes. */
  witness: boolean;
  /** Of the membership; with etcd it runs beside the first three servers, or beside the first of fewer. */
  engine: 'embedded' | 'etcd';
  /** Lines `name = value` for the share. */
  shareOptions: string[];
  /** Lines `name = value` for [global]. */
  globalOptions: string[];
  /** With our VFS module on the pool's servers; it is the first of the list. */
  module: boolean;
  /** VFS modules between ours and fileid, in their order. */
  vfs: string[];
  /** Wipe what an earlier lab left below the root, the shared files too. */
  fresh: boolean;
  transport: Transport;
  /** Percent of frames each server loses when sending. */
  lossPercent: number;
  /** Percent of frames each server sends twice. */
  duplicatePercent: number;
  /** Seed of the faults. */
  seed: number;
  logLevel: LogLevel;
  /** How long a server serves without hearing of the others, and so until they take over; null: smbpoold's default. */
  leaseMillis: number | null;
  /** Whether each daemon has a standby, which goes on in its place when it dies. */
  standby: boolean;
  /** Whether the servers share folders that everybody opens. */
  sharedFolders: boolean;
  /** Whether the daemons' loops have real-time priority. */
  realtime: boolean;
  /** smbd's debug level. */
  smbdLogLevel: number;
  /** Also start one unclustered smbd with the same share options, at BASELINE_ADDRESS. */
  baseline: boolean;
  /** How many interfaces each server has for the others, 1 or 2; the second on a bridge of its own. */
  interfaces: number;
  /** How many public addresses the pool has, from 10.77.0.100 on. */
  addresses: number;
  /** How many more of IPv6, from fd00:77::100 on. */
  addresses6: number;
}

const DEFAULTS: LabOptions = {
  root: ROOT_DEFAULT,
  servers: SERVER_COUNT_DEFAULT,
  witness: false,
  engine: 'embedded',
  shareOptions: [],
  globalOptions: [],
  // the set-up's own switch: where the module could not be built, nothing asks for it
  module: process.env['SMBPOOL_NO_MODULE'] !== '1',
  vfs: [],
  fresh: false,
  transport: 'ethernet',
  lossPercent: 0,
  duplicatePercent: 0,
  seed: 1,
  logLevel: 'info',
  leaseMillis: null,
  standby: false,
  sharedFolders: false,
  realtime: true,
  smbdLogLevel: 1,
  baseline: false,
  interfaces: 1,
  addresses: 0,
  addresses6: 0,
};

/** Six heartbeats, and what smbpoold takes. */
const LEASE_MILLIS_MIN = 240;
const LEASE_MILLIS_MAX = 30_000;

/** A unix socket's path has at most 107 bytes (Linux, sun_path); the longest below the root is 60 bytes. */
const ROOT_BYTES_MAX = 47;

/** The defaults with `wishes` applied. Throws LabError for a wish that cannot be met. */
export function labOptions(wishes: Partial<LabOptions>): LabOptions {
  const options = { ...DEFAULTS, ...wishes };
  if (!Number.isInteger(options.servers) || options.servers < 1 || options.servers > SERVER_COUNT_MAX) {
    throw new LabError(`the number of servers must be from 1 to ${SERVER_COUNT_MAX}; "${options.servers}" is not`);
  }
  if (options.witness && options.servers === SERVER_COUNT_MAX) {
    throw new LabError(`with a witness there may be ${SERVER_COUNT_MAX - 1} servers at most`);
  }
  if (options.witness && options.engine === 'etcd') throw new LabError('a pool on etcd has no use for a witness');
  if (!isAbsolute(options.root) || options.root === '/' || /[\s"'\\]/.test(options.root)) {
    throw new LabError(`--root must be an absolute path of a folder, without spaces; "${options.root}" is not`);
  }
  if (Buffer.byteLength(options.root) > ROOT_BYTES_MAX) {
    throw new LabError(`--root may have ${ROOT_BYTES_MAX} bytes (socket paths below it are limited): ${options.root}`);
  }
  for (const line of [...options.shareOptions, ...options.globalOptions]) checkLine(line);
  for (const module of options.vfs) {
    if (!/^[a-z0-9_]+(:[A-Za-z0-9_]+)?$/.test(module)) throw new LabError(`"${module}" is no name of a VFS module`);
  }
  if (options.interfaces !== 1 && options.interfaces !== 2) {
    throw new LabError(`--interfaces is 1 or 2, not "${options.interfaces}"`);
  }
  checkNumber('--addresses', options.addresses, PUBLIC_ADDRESSES_MAX);
  checkNumber('--addresses6', options.addresses6, PUBLIC_ADDRESSES_MAX);
  checkLease(options.leaseMillis);
  checkNumber('--loss', options.lossPercent, 50);
  checkNumber('--duplicate', options.duplicatePercent, 50);
  checkNumber('--smbd-log-level', options.smbdLogLevel, 10);
  if (options.transport !== 'ethernet' && options.transport !== 'udp') {
    throw new LabError(`--transport is "ethernet" or "udp", not "${String(options.transport)}"`);
  }
  return options;
}

function checkLine(line: string): void {
  if (!/^[A-Za-z][^=\n\r[\]]*=[^\n\r]*$/.test(line)) {
    throw new LabError(`"${line}" is no smb.conf option: write 'name = value'`);
  }
}

function checkLease(millis: number | null): void {
  if (millis === null) return;
  if (!Number.isInteger(millis) || millis < LEASE_MILLIS_MIN || millis > LEASE_MILLIS_MAX) {
    throw new LabError(`--lease-millis is ${LEASE_MILLIS_MIN} to ${LEASE_MILLIS_MAX}, not "${millis}"`);
  }
}

function checkNumber(name: string, value: number, max: number): void {
  if (!Number.isFinite(value) || value < 0 || value > max) throw new LabError(`${name} must be from 0 to ${max}`);
}
