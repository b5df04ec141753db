/**
 * A pool on one machine: `up` makes network, folders, daemons and smbds and waits until every server serves; `down`
 * undoes it. Used by the command line, the demo, the tests and the benchmarks. Touches nothing that a lab did not make.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { accepts, daemonStatus } from './admin.js';
import { daemonConfig, daemonFolders } from './daemon-config.js';
import { LabError, messageOf } from './errors.js';
import { etcdArguments, etcdLog, etcdPlaces, requireEtcd, waitForEtcd } from './etcd.js';
import type { ServerPlace } from './layout.js';
import {
  LAB_PASSWORD, LAB_USER, Layout, ROOT_DEFAULT, SERVER_COUNT_MAX, SHARE, secondAddress, serverAddress6,
} from './layout.js';
import { explanation } from './logs.js';
import {
  addBridgeIpv6, addNamespaceIpv6, addSecondInterface, bridgeExists, bridgeFilterHint, createBridge, createNamespace,
  createSecondBridge, existingNamespaces, refuseForeignNetwork, removeBridge, removeFrameLoss, removeNamespace,
} from './network.js';
import type { LabOptions } from './options.js';
import { isAlive, lockHolder, signal, start, startTicks } from './processes.js';
import { run, tryRun, waitUntil } from './run.js';
import { clientConfig, sambaConfig, sambaFolders } from './samba-config.js';
import type { LabProcess, LabState } from './state.js';
import { forgetState, loadState, pointedRoot, saveState } from './state.js';
import { createUnixUser, removeUnixUser, setSmbUser, unixUserExists } from './users.js';
import { DAEMON_NODE_FLAGS } from '../base/node-flags.js';

/** From start to an answering admin socket; half a second when the machine is idle. */
const DAEMON_START_MILLIS_MAX = 30_000;
/** From start to a listing: smbd makes its databases first, and 16 of them share the processors. */
const SMBD_START_MILLIS_MAX = 60_000;
/** As packaging/smbpoold.service: with it a busy machine does not make the others miss a daemon. */
const DAEMON_NICE = -10;
/** A daemon that needs longer to stop is killed with its namespace. */
const STOP_MILLIS_MAX = 5000;
/** Marks a folder as a lab's, which may be wiped. */
const MARK = '.smbpool-lab';

const DAEMON_MAIN = fileURLToPath(new URL('../daemon/main.js', import.meta.url));

type Say = (line: string) => void;

export class Lab {
  /**
   * The lab that is being built now, and whether somebody wants it to stop: a machine has one lab, a signal no context.
   */
  private static building: { done: Promise<unknown>; unwanted: boolean } | null = null;
  /** The lab that this process brought up, until it is down. */
  private static own: Lab | null = null;

  readonly layout: Layout;
  private readonly state: LabState;
  /** How what this process started ended, by pid. */
  private readonly ends = new Map<number, number | NodeJS.Signals>();

  private constructor(layout: Layout, state: LabState) {
    this.layout = layout;
    this.state = state;
  }

  /** The lab that is up below `root` (default: the one that is up), or null. */
  static current(root?: string): Lab | null {
    const layout = new Layout(root ?? pointedRoot() ?? ROOT_DEFAULT);
    const state = loadState(layout);
    return state ? new Lab(layout, state) : null;
  }

  /** Brings a lab up and waits until it serves. On failure everything is taken down again and LabError tells why. */
  static async up(options: LabOptions, say: Say = () => undefined): Promise<Lab> {
    requireRoot();
    await clearLeftovers(say);
    const layout = new Layout(options.root);
    prepareRoot(layout, options.fresh);
    const builder = { pid: process.pid, startTicks: startTicks(process.pid) ?? 0 };
    const lab = new Lab(layout, { options, builder, createdUsers: [], processes: [] });
    saveState(layout, lab.state);
    const built = lab.buildOrUndo(say);
    Lab.building = { done: built.catch(() => undefined), unwanted: false };
    try {
      await built;
      Lab.own = lab;
      return lab;
    } finally {
      Lab.building = null;
    }
  }

  /** For signal handlers: stops the lab that this process is building, or takes down the one that it brought up. */
  static async interrupt(): Promise<void> {
    if (Lab.building) {
      Lab.building.unwanted = true;
      await Lab.building.done;
    }
    await Lab.own?.down();
  }

  get options(): LabOptions {
    return this.state.options;
  }

  servers(): ServerPlace[] {
    return this.layout.servers(this.options.servers);
  }

  server(id: number): ServerPlace {
    if (!Number.isInteger(id) || id < 0 || id >= this.options.servers) {
      throw new LabError(`there is no server ${id}; the lab has servers 0 to ${this.options.servers - 1}`);
    }
    return this.layout.server(id);
  }

  /** Where a daemon runs: the servers, and behind them the witness if there is one. */
  private daemons(): ServerPlace[] {
    return this.layout.servers(this.options.servers + (this.options.witness ? 1 : 0));
  }

  private namespaces(): ServerPlace[] {
    return this.options.baseline ? [...this.daemons(), this.layout.baseline()] : this.daemons();
  }

  /** The exit status, or the signal that ended it; null while it runs, and when another process started it. */
  endOf(process_: LabProcess): number | NodeJS.Signals | null {
    return this.ends.get(process_.pid) ?? null;
  }

  /** All smbds: the pool's, and the unclustered one if there is one. */
  places(): ServerPlace[] {
    return this.options.baseline ? [...this.servers(), this.layout.baseline()] : this.servers();
  }

  /** A daemon that a standby took over is the one that has the lock now. */
  process(kind: LabProcess['kind'], server: number | null): LabProcess | null {
    const known = this.state.processes.find((one) => one.kind === kind && one.server === server) ?? null;
    if (known === null || kind !== 'smbpoold' || isAlive(known) || !this.options.standby) return known;
    const pid = lockHolder(daemonFolders(this.layout.server(server ?? 0)).persistent);
    const ticks = pid === null ? null : startTicks(pid);
    return pid === null || ticks === null ? known : { ...known, pid, startTicks: ticks };
  }

  /** The variables that make Samba's tools, and ours, speak to this server. */
  environment(place: ServerPlace): Record<string, string> {
    return {
      SMB_CONF_PATH: place.smbConf,
      CTDB_SOCKET: place.socket,
      SMBPOOL_CONFIG: place.daemonConfig,
    };
  }

  /** Whether another process is on its way of bringing it up. */
  isBeingBuilt(): boolean {
    const { builder } = this.state;
    return builder !== null && builder.pid !== process.pid && startTicks(builder.pid) === builder.startTicks;
  }

  /** Creates a unix account that goes away with the lab, if there is none of that name. */
  async ensureUnixUser(name: string): Promise<void> {
    if (unixUserExists(name)) return;
    this.state.createdUsers.push(name);
    saveState(this.layout, this.state);
    await createUnixUser(name);
  }

  /** Stops and removes everything the lab made except its files. Can be called again, and for a half-made lab. */
  async down(): Promise<void> {
    await this.stop('smbd');
    await this.stop('smbpoold');
    await this.stop('etcd');
    await removeNetwork();
    await unmount(this.layout.volatile);
    for (const user of this.state.createdUsers) await removeUnixUser(user);
    forgetState(this.layout);
    if (Lab.own === this) Lab.own = null;
  }

  /** Removes the lab's files as well; only after `down`. */
  wipe(): void {
    wipeRoot(this.layout);
  }

  private async stop(kind: LabProcess['kind']): Promise<void> {
    const processes = this.state.processes
      .filter((one) => one.kind === kind)
      .map((one) => this.process(kind, one.server) ?? one);
    for (const one of processes) signal(one, 'SIGTERM');
    await waitUntil(() => processes.every((one) => !isAlive(one)), STOP_MILLIS_MAX);
  }

  private async buildOrUndo(say: Say): Promise<void> {
    try {
      await this.build(say);
      this.state.builder = null;
      saveState(this.layout, this.state);
    } catch (error) {
      await this.down();
      throw new LabError(`${messageOf(error)} (logs are kept below ${this.layout.root})`, { cause: error });
    }
  }

  /** Nothing may be made after somebody asked for the end: it would outlive the clean-up. */
  private checkWanted(): void {
    if (Lab.building?.unwanted) throw new LabError('interrupted');
  }

  private async build(say: Say): Promise<void> {
    await refuseForeignNetwork();
    if (this.options.module) await requireModule();
    if (this.options.engine === 'etcd') await requireEtcd();
    await this.makeNetwork();
    this.checkWanted();
    await run('mount', ['-t', 'tmpfs', '-o', 'mode=0755,size=4g', 'smbpool-lab', this.layout.volatile]);
    this.writeFiles();
    await this.checkExtendedAttributes();
    await this.ensureUnixUser(LAB_USER);
    this.checkWanted();
    await this.startAllEtcd();
    await Promise.all(this.daemons().map((place) => this.startDaemon(place)));
    await Promise.all(this.daemons().map((place) => this.waitForDaemon(place, 'all are members')));
    await setSmbUser(this.server(0), LAB_USER, LAB_PASSWORD);
    if (this.options.baseline) await setSmbUser(this.layout.baseline(), LAB_USER, LAB_PASSWORD);
    this.checkWanted();
    await this.startAllSmbds();
    for (const place of this.places()) {
      const where = `namespace ${place.namespace}, logs ${place.logs}`;
      say(`${place.name.padEnd(9)} serves //${place.address}/${SHARE}   (${where})`);
    }
  }

  private async makeNetwork(): Promise<void> {
    await createBridge();
    for (const place of this.namespaces()) {
      this.checkWanted();
      await createNamespace(place.namespace, place.address);
    }
    if (this.options.addresses6 > 0) {
      await addBridgeIpv6();
      for (const { id, namespace } of this.servers()) {
        this.checkWanted();
        await addNamespaceIpv6(namespace, serverAddress6(id!));
      }
    }
    if (this.options.interfaces === 1) return;
    await createSecondBridge();
    for (const { id, namespace } of this.daemons()) {
      this.checkWanted();
      if (id !== null) await addSecondInterface(namespace, secondAddress(id));
    }
  }

  /**
   * One server more, with the next number, beside those that are up: its network, its files, which name all servers,
   * its daemon and smbd. The pool must have taken it in before (smbpool join). Waits until it serves.
   */
  async add(): Promise<ServerPlace> {
    const { options } = this;
    if (options.witness) throw new LabError('a lab with a witness cannot grow: the next number is that of the witness');
    if (options.servers >= SERVER_COUNT_MAX) throw new LabError(`a lab has at most ${SERVER_COUNT_MAX} servers`);
    const place = this.layout.server(options.servers);
    this.state.options = { ...options, servers: options.servers + 1 };
    saveState(this.layout, this.state);
    await createNamespace(place.namespace, place.address);
    if (options.addresses6 > 0) await addNamespaceIpv6(place.namespace, serverAddress6(options.servers));
    if (options.interfaces === 2) await addSecondInterface(place.namespace, secondAddress(options.servers));
    this.writeFilesOf(place);
    await this.startAgain(place);
    return place;
  }

  private writeFiles(): void {
    if (!existsSync(this.layout.keyFile)) {
      writeFileSync(this.layout.keyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
    }
    const clientFolder = join(this.layout.root, 'client');
    mkdirSync(clientFolder, { recursive: true });
    writeFileSync(this.layout.clientConf, clientConfig(clientFolder));
    for (const place of this.namespaces()) this.writeFilesOf(place);
  }

  private writeFilesOf(place: ServerPlace): void {
    const folders = daemonFolders(place);
    for (const folder of [...sambaFolders(place), folders.volatile, folders.persistent]) {
      mkdirSync(folder, { recursive: true });
    }
    chmodSync(join(place.directory, 'private'), 0o700);
    mkdirSync(place.share, { recursive: true });
    chmodSync(place.share, 0o1777);
    writeFileSync(place.smbConf, sambaConfig(place, this.options));
    if (place.id !== null) writeFileSync(place.daemonConfig, daemonConfig(this.layout, place, this.options));
  }

  /** acl_xattr and streams_xattr fail one by one and without a word where extended attributes are missing. */
  private async checkExtendedAttributes(): Promise<void> {
    const needed = [...this.options.vfs, ...this.options.shareOptions].some((text) => text.includes('xattr'));
    if (!needed) return;
    const script = 'import os,sys; p=sys.argv[1]; os.setxattr(p,"user.smbpool",b"1"); os.removexattr(p,"user.smbpool")';
    const result = await tryRun('/usr/bin/python3', ['-c', script, this.layout.share]);
    if (result.status !== 0) {
      throw new LabError(
        `the file system of ${this.layout.share} has no user extended attributes, which the VFS modules need; ` +
          'choose a folder on a disk with --root DIR',
      );
    }
  }

  /** Of its kind and server it takes the place of one that ended. */
  private remember(process_: LabProcess): void {
    const { kind, server } = process_;
    this.state.processes = this.state.processes.filter((one) => one.kind !== kind || one.server !== server);
    this.state.processes.push(process_);
    saveState(this.layout, this.state);
  }

  /**
   * Starts what ended of etcd, smbpoold and smbd of this server again, and waits until it is a member and serves; for
   * that a majority must be there, not all.
   */
  async startAgain(place: ServerPlace): Promise<void> {
    const hasEtcd = etcdPlaces(this.layout, this.options).some(({ id }) => id === place.id);
    if (hasEtcd && !this.isRunning('etcd', place)) await this.startEtcd(place);
    if (!this.isRunning('smbpoold', place)) await this.startDaemon(place);
    await this.waitForDaemon(place, 'it is a member');
    if (!this.isRunning('smbd', place)) await this.startSmbd(place);
    await this.waitForShare(place);
  }

  isRunning(kind: LabProcess['kind'], place: ServerPlace): boolean {
    const known = this.process(kind, place.id);
    return known !== null && isAlive(known);
  }

  /** Whether the server's daemon is a member of the pool and tells what it owns to all, and its smbd is there. */
  async isWhole(place: ServerPlace): Promise<boolean> {
    return this.isRunning('smbd', place) && (await this.isMember(place, 'it is a member'));
  }

  private async isMember(place: ServerPlace, until: 'all are members' | 'it is a member'): Promise<boolean> {
    const status = await daemonStatus(place.adminSocket);
    if (!status || status.epoch === 0 || status.awaiting.length > 0) return false;
    const up = new Set(status.servers.filter((server) => server.up).map(({ id }) => id));
    return until === 'it is a member' || this.servers().every(({ id }) => id !== null && up.has(id));
  }

  /** Whether all servers are members and see each other as such. */
  async isComplete(): Promise<boolean> {
    const complete = await Promise.all(this.servers().map((place) => this.isMember(place, 'all are members')));
    return complete.every((one) => one);
  }

  private async startAllEtcd(): Promise<void> {
    const places = etcdPlaces(this.layout, this.options);
    await Promise.all(places.map((place) => this.startEtcd(place)));
    await waitForEtcd(places, () => this.checkWanted());
  }

  /** Of a server that has one: the first time, and again after it ended. */
  async startEtcd(place: ServerPlace): Promise<void> {
    this.remember(
      await start({
        kind: 'etcd',
        server: place.id,
        namespace: place.namespace,
        command: 'etcd',
        args: etcdArguments(place, etcdPlaces(this.layout, this.options)),
        outputFile: etcdLog(place),
        nice: DAEMON_NICE,
      }),
    );
  }

  private async startDaemon(place: ServerPlace): Promise<void> {
    this.remember(
      await start({
        kind: 'smbpoold',
        server: place.id,
        namespace: place.namespace,
        command: process.execPath,
        args: [...DAEMON_NODE_FLAGS, DAEMON_MAIN, '--config', place.daemonConfig],
        outputFile: place.daemonLog,
        nice: DAEMON_NICE,
        ended: (pid, how) => this.ends.set(pid, how),
      }),
    );
  }

  private async waitForDaemon(place: ServerPlace, until: 'all are members' | 'it is a member'): Promise<void> {
    const daemon = this.process('smbpoold', place.id);
    const dead = () => daemon === null || !isAlive(daemon);
    const ready = async () => {
      this.checkWanted();
      if (dead()) return true;
      // a witness is no member of any view
      if (this.isWitness(place)) return (await daemonStatus(place.adminSocket)) !== null;
      if (!(await this.isMember(place, until))) return false;
      return existsSync(place.ringSocket) && (await accepts({ path: place.socket }));
    };
    const inTime = await waitUntil(ready, DAEMON_START_MILLIS_MAX, 100);
    if (inTime && !dead()) return;
    const why = explanation(place, (file) => file === place.daemonLog) ?? `${place.daemonLog} is empty`;
    const hint = dead() ? '' : bridgeFilterHint();
    throw new LabError(`smbpoold of ${place.name} ${dead() ? 'ended' : 'did not get ready'}: ${why}${hint}`);
  }

  private isWitness({ id }: ServerPlace): boolean {
    return id === this.options.servers;
  }

  /**
   * Of the smbds of a new pool the first one alone: it writes their version down for the others. Two that want to do
   * that at the same moment refuse each other (source3/smbd/server.c, smbd_claim_version), and one ends; systemd would
   * start it again.
   */
  private async startAllSmbds(): Promise<void> {
    const [first, ...others] = this.places() as [ServerPlace, ...ServerPlace[]];
    await this.startSmbd(first);
    await this.waitForShare(first);
    await Promise.all(others.map((place) => this.startSmbd(place)));
    for (const place of others) await this.waitForShare(place);
  }

  private async startSmbd(place: ServerPlace): Promise<void> {
    this.remember(
      await start({
        kind: 'smbd',
        server: place.id,
        namespace: place.namespace,
        command: 'smbd',
        args: ['--foreground', '--no-process-group', `--configfile=${place.smbConf}`],
        outputFile: join(place.logs, 'smbd.out'),
      }),
    );
  }

  private async waitForShare(place: ServerPlace): Promise<void> {
    const smbd = this.process('smbd', place.id);
    const dead = () => smbd === null || !isAlive(smbd);
    const listening = async () => {
      this.checkWanted();
      return dead() || accepts({ host: place.address, port: 445 });
    };
    const inTime = await waitUntil(listening, SMBD_START_MILLIS_MAX, 100);
    if (inTime && !dead()) {
      const listing = await this.smbclient(place, 'ls');
      if (listing.status === 0) return this.checkModule(place);
      throw this.smbdFailure(place, `does not serve (smbclient: ${listing.stdout.trim() || listing.stderr.trim()})`);
    }
    throw this.smbdFailure(place, dead() ? 'ended' : 'does not accept connections');
  }

  /** That the listing's smbd attached: with a ring that cannot be reached everything works, only slower. */
  private async checkModule(place: ServerPlace): Promise<void> {
    if (!this.options.module || place.id === null) return;
    const status = await daemonStatus(place.adminSocket);
    if ((status?.counters['witness.attached'] ?? 0) > 0) return;
    throw this.smbdFailure(place, 'serves, but its VFS module did not reach smbpoold');
  }

  private smbdFailure(place: ServerPlace, what: string): LabError {
    return new LabError(`smbd of ${place.name} ${what}: ${explanation(place) ?? 'its logs are empty'}`);
  }

  /** Runs smbclient commands (separated by ";") as the lab's user, from the root namespace. */
  smbclient(place: ServerPlace, commands: string, user = `${LAB_USER}%${LAB_PASSWORD}`) {
    const args = ['-s', this.layout.clientConf, `//${place.address}/${SHARE}`, '-U', user, '-c', commands];
    return tryRun('smbclient', args, { timeoutMs: 30_000 });
  }

  /** Runs a program in the server's namespace, with the variables of `environment`. */
  runIn(place: ServerPlace, command: string, args: readonly string[], timeoutMs = 30_000) {
    const environment = this.environment(place);
    return tryRun('ip', ['netns', 'exec', place.namespace, command, ...args], { environment, timeoutMs });
  }
}

/** smbd says only "bad network name" to a client when a module is missing, and refuses the share. */
async function requireModule(): Promise<void> {
  const said = await run('smbd', ['-b']);
  const folder = /^\s*MODULESDIR:\s*(\S+)/m.exec(said)?.[1] ?? '/usr/lib/samba';
  const file = join(folder, 'vfs', 'smbpool.so');
  if (existsSync(file)) return;
  throw new LabError(
    `smbpool's VFS module is not installed (${file} is missing): "npm run setup" builds and installs it; ` +
      '"lab up --no-module" makes a pool without',
  );
}

export function requireRoot(): void {
  if (process.getuid?.() !== 0) throw new LabError('the lab needs root: it makes network namespaces and starts smbd');
}

/** Takes down what is left of whatever lab there was, unless one is really up. */
async function clearLeftovers(say: Say): Promise<void> {
  const before = Lab.current();
  if (before) {
    if (before.isBeingBuilt()) throw new LabError(`another lab is just being started below ${before.layout.root}`);
    const alive = before.servers().some((place) => {
      const smbd = before.process('smbd', place.id);
      return smbd !== null && isAlive(smbd);
    });
    if (alive) {
      throw new LabError(`a lab is up already below ${before.layout.root}: end it first with "npx smbpool lab down"`);
    }
    say('clearing what an earlier lab left behind');
    await before.down();
  }
  if (existingNamespaces().length > 0 || bridgeExists()) await removeNetwork();
}

/** Removes what a lab without a state file left (a crash at the wrong moment); tells whether there was anything. */
export async function clearWithoutState(root: string | undefined, wipe: boolean): Promise<boolean> {
  const layout = new Layout(root ?? ROOT_DEFAULT);
  const leftovers = existingNamespaces().length > 0 || bridgeExists() || (wipe && existsSync(layout.root));
  await removeNetwork();
  await unmount(layout.volatile);
  if (wipe) wipeRoot(layout);
  return leftovers;
}

/** Removes every namespace and bridge of the lab's names; what runs inside is ended. */
export async function removeNetwork(): Promise<void> {
  await removeFrameLoss();
  await Promise.all(existingNamespaces().map((namespace) => removeNamespace(namespace)));
  await removeBridge();
}

function prepareRoot(layout: Layout, fresh: boolean): void {
  if (fresh) wipeRoot(layout);
  if (existsSync(layout.root)) {
    const status = lstatSync(layout.root);
    // below /tmp anybody may have made the folder first, and with it choose what root writes
    if (!status.isDirectory() || status.uid !== 0 || (status.mode & 0o022) !== 0) {
      throw new LabError(`${layout.root} must be a folder of root's that nobody else can write to; move it away`);
    }
    if (!existsSync(join(layout.root, MARK)) && readdirSync(layout.root).length > 0) {
      throw new LabError(`${layout.root} holds something that is no lab; give another folder with --root DIR`);
    }
  }
  mkdirSync(layout.root, { recursive: true, mode: 0o755 });
  writeFileSync(join(layout.root, MARK), 'made by "smbpool lab up"; "smbpool lab down --wipe" removes the folder\n');
  mkdirSync(layout.volatile, { recursive: true });
}

function wipeRoot(layout: Layout): void {
  if (!existsSync(layout.root)) return;
  if (!existsSync(join(layout.root, MARK))) {
    throw new LabError(`${layout.root} was not made by the lab and is not wiped`);
  }
  rmSync(layout.root, { recursive: true, force: true });
}

async function unmount(folder: string): Promise<void> {
  const mounts = () => readFileSync('/proc/self/mounts', 'utf8').split('\n');
  const mounted = () => mounts().some((line) => line.split(' ')[1] === folder);
  if (!mounted()) return;
  const result = await tryRun('umount', [folder]);
  // somebody's shell stands inside: let go when it leaves
  if (result.status !== 0 && mounted()) await run('umount', ['--lazy', folder]);
}
