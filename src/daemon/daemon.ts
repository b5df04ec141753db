/**
 * The running daemon: takes the machine's locks, starts the host, then the admin socket, and tells systemd. Made by
 * main; the order of starting and stopping is decided here and nowhere else.
 */
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { assert } from '../base/assert.js';
import type { NodeId } from '../base/ids.js';
import { nodeId } from '../base/ids.js';
import type { AddressPlace } from '../core/effects.js';
import { PoolError } from '../host/errors.js';
import { loadNative } from '../host/native.js';
import { PoolHost } from '../host/pool-host.js';
import type { HostOptions } from '../host/pool-host.js';
import type { StandbyReport } from '../ports/status.js';
import { version } from '../ports/version.js';
import { missingNodeFlags } from '../base/node-flags.js';
import type { ServersReport } from '../ports/status.js';
import type { ServersChange } from '../wire/membership-messages.js';
import { rangeText } from '../wire/protocol-version.js';
import { announcementOf } from './announcement.js';
import { AdminServer } from './admin-server.js';
import { parsePublicAddress } from './config-schema.js';
import type { Config } from './config.js';
import { inheritLock, lockDirectory } from './directory-lock.js';
import type { DirectoryLock } from './directory-lock.js';
import { StartError } from './errors.js';
import { engineOptions } from './etcd-config.js';
import { Health } from './health/health.js';
import { nextIncarnation } from './incarnation.js';
import { readKeyFile } from './key-file.js';
import { openLog } from './log.js';
import type { DaemonLog } from './log.js';
import { LoopPriority, thisProcess } from './loop-priority.js';
import { isInMemory, makeDirectory, requireMachine } from './machine.js';
import { notifyServiceManager } from './notify.js';
import type { ServiceState } from './notify.js';
import { installedSamba } from './samba-release.js';
import type { AgreedServers } from './pool-servers.js';
import {
  WishError, differenceText, entryOf, joinChange, leaveChange, placeOf, refusalText, reportChange, serverOf, serversNow,
} from './pool-servers.js';
import { configText } from './standby.js';
import type { Succession } from './standby.js';
import { StandbyKeeper } from './standby-keeper.js';
import { STANDBY_OPTION } from './standby-link.js';
import { reportAddresses, reportStatus } from './status-report.js';
import { memberOf, transportOptions } from './ways.js';

/** After a takeover smbds come first. */
const STANDBY_AFTER_MS = 500;
/** Also when the pool takes long to take this run in. */
const STANDBY_LATEST_MS = 5_000;
const STANDBY_OFF: StandbyReport = {
  on: false, pid: null, ready: false, why: 'the configuration says "standby: off"', residentKib: null, started: 0,
  takeovers: 0, lastTakeover: null,
};

export class Daemon {
  private constructor(
    private readonly log: DaemonLog,
    private readonly host: PoolHost,
    private readonly admin: AdminServer,
    private readonly priority: LoopPriority,
    private readonly health: Health,
    private readonly locks: readonly DirectoryLock[],
    /** Null: there is none. */
    private readonly standby: StandbyKeeper | null,
    private readonly tookOver: boolean,
  ) {}

  /**
   * With a succession in place of a daemon that died, and with what that left.
   * @throws ConfigError or StartError when the daemon cannot serve; nothing is left behind then.
   */
  static async start(config: Config, succession?: Succession): Promise<Daemon> {
    const text = succession?.configText ?? configText(config);
    const poolKey = readKeyFile(config.pool.keyFile, process.getuid?.() ?? 0);
    requireMachine(config);
    const { volatile, persistent } = config.directories;
    const files = [config.socket, config.adminSocket, config.ringSocket, config.nodePage];
    for (const path of new Set([volatile, persistent, ...files.map((file) => dirname(file))])) makeDirectory(path);
    const locks = succession?.locks.map(inheritLock) ?? [...new Set([volatile, persistent])].map(lockDirectory);
    const log = openLog({ ...config.log, server: config.self.name });
    if (succession === undefined) warnOfStart(config, log);
    else sayTakeover(succession, log);
    const priority = await LoopPriority.start(config.realtime, thisProcess(loadNative()), log);
    const health = new Health(config, log);
    const release = version();
    const announcement = announcementOf(release, config.protocolMax, process.env);
    const pool = new PoolServers(config, log);
    const context: { standby: StandbyKeeper | null } = { standby: null };
    const base = hostOptions(config, poolKey, log, health, succession);
    const host = await startHost({
      ...base,
      announcement,
      ...pool.forHost(),
      ...(succession === undefined ? {} : { inheritance: succession.inheritance }),
      keeps: keepsStandby(config),
      onDatabase: (name) => context.standby?.database(name),
      onResumed: () => {
        sayWhen(succession, log, 'standby.resumed');
        context.standby?.start(STANDBY_AFTER_MS);
      },
      startAnew: (reason, remedy) => {
        context.standby?.end('anew');
        base.startAnew(reason, remedy);
      },
    });
    sayWhen(succession, log, 'standby.runs');
    const standby = keepsStandby(config) ? makeStandby(config, host, log, locks, text, succession) : null;
    context.standby = standby;
    const startedAt = process.hrtime.bigint();
    const admin = await AdminServer.start({
      path: config.adminSocket,
      source: {
        status: () => reportStatus({
          config: pool.config, file: config, agreed: pool.agreed, node: host.status(), version: release,
          realtime: priority.status(), standby: standby?.status() ?? STANDBY_OFF,
          uptimeMicros: Number(process.hrtime.bigint() - startedAt) / 1000,
        }),
        failovers: () => ({
          self: config.self.id,
          servers: pool.config.servers.map(({ id, name }) => ({ id, name })),
          events: host.poolEvents(),
        }),
        describeRecord: (database, key) => host.describeRecord(database, key),
        witness: host,
        addresses: () => reportAddresses(pool.config, host.status(), host.addressStatus()),
        drain: (name, draining) => host.drain(serverNamed(pool.config, name), draining),
        join: (wish) => pool.change(host, joinChange(config, pool.agreed, wish)),
        leave: (name) => pool.change(host, leaveChange(config, pool.agreed, name)),
      },
    });
    health.start(host);
    const { self, transport } = config;
    log.log('info', 'serving', {
      version: release, speaks: rangeText(announcement.speaks), pool: config.pool.name, id: self.id,
      servers: pool.config.servers.length, transport: transport.kind,
      socket: config.socket, admin: config.adminSocket, ring: config.ringSocket, realtime: priority.status().on,
    });
    standby?.start(succession === undefined ? 0 : STANDBY_LATEST_MS);
    return new Daemon(log, host, admin, priority, health, locks, standby, succession !== undefined);
  }

  /** In a standby: see PoolHost.rehearse. */
  static rehearse(config: Config, known: Pick<Succession, 'incarnation' | 'samba'>): void {
    const log = { log: () => undefined, close: () => undefined };
    PoolHost.rehearse(hostOptions(config, new Uint8Array(0), log, { tell: () => undefined }, known));
  }

  /** Tells systemd that smbd may start; after the handlers of signals are in place. */
  announce(): Promise<void> {
    return this.notify(this.tookOver ? 'taken-over' : 'ready');
  }

  /** Ends in order: no new questions, then the pool, then the files. */
  async stop(reason: string): Promise<void> {
    this.log.log('info', 'stopping', { reason });
    await this.notify('stopping');
    this.standby?.end('stop');
    await this.admin.stop();
    this.health.stop();
    await this.host.stop();
    this.priority.stop();
    for (const lock of this.locks) lock.release();
    this.log.log('info', 'stopped');
    this.log.close();
  }

  /** Ends at once with exit status 1. The kernel drops the locks; smbd sees its connections close. */
  abort(why: string, error?: unknown): never {
    const successor = this.standby === null ? 'systemd starts the daemon again' : 'the standby goes on';
    const remedy = `please report it with the lines above; ${successor}`;
    this.log.log('error', why, { ...(error === undefined ? {} : { error }), remedy });
    this.log.close();
    process.exit(1);
  }

  /** For log rotation. */
  reopenLog(): void {
    this.log.reopen();
    this.log.log('info', 'log opened again', { reason: 'SIGHUP' });
  }

  private async notify(state: ServiceState): Promise<void> {
    const failure = await notifyServiceManager(state, process.env);
    if (failure === null) return;
    this.log.log('warn', 'systemd could not be told', { state, cause: failure, remedy: 'install systemd-notify' });
  }
}

/** The pool's servers while the daemon runs. */
class PoolServers {
  /** null: the membership was not asked yet, or nobody ever changed them. */
  agreed: AgreedServers | null = null;
  /** As the file says, with the servers that the pool has now. */
  config: Config;
  private told: string | null = null;

  constructor(
    private readonly file: Config,
    private readonly log: DaemonLog,
  ) {
    this.config = file;
  }

  forHost(): Pick<HostOptions, 'placeOf' | 'onServers'> {
    return {
      placeOf: (server) => placeOf(this.file, server),
      onServers: (configuration, servers) => this.changed({ configuration, servers }),
    };
  }

  private changed(agreed: AgreedServers): void {
    this.agreed = agreed;
    this.config = { ...this.file, servers: serversNow(this.file, agreed) };
    const difference = differenceText(this.file, agreed);
    if (difference === this.told) return;
    this.told = difference;
    const remedy = 'smbpool status says what to write there; until then the pool goes by what its servers agreed on';
    if (difference === null) return;
    this.log.log('warn', 'the file names other servers than the pool has', { difference, remedy });
  }

  /** @throws WishError (rejects) when it is refused. */
  async change(host: PoolHost, change: ServersChange): Promise<ServersReport> {
    const result = await host.changeServers(change);
    if (result === 'done') return reportChange(this.file, this.agreed);
    const known = [...this.config.servers, ...[serverOf(change.server) ?? []].flat()];
    const nameOf = (id: number): string => known.find((server) => server.id === id)?.name ?? `server ${id}`;
    throw new WishError(refusalText(change, result, nameOf));
  }
}

/** What works, and not as well as it could. */
function warnOfStart(config: Config, log: DaemonLog): void {
  warnOfNodeFlags(log);
  warnOfConfiguration(config, log);
}

function warnOfNodeFlags(log: DaemonLog): void {
  const missing = missingNodeFlags(process.execArgv);
  if (missing.length === 0) return;
  log.log('warn', 'Node.js was not told what this daemon needs: on a busy machine this server may lose its lease', {
    missing,
    remedy: 'start it as "smbpoold", or with the command line of packaging/smbpoold.service',
  });
}

function warnOfConfiguration(config: Config, log: DaemonLog): void {
  const { directories, faults, file } = config;
  if (!isInMemory(directories.volatile)) {
    log.log('warn', 'the volatile databases are not in memory', {
      directory: directories.volatile,
      remedy: `put directories.volatile of ${file} on a tmpfs, for example below /run; each open writes to them`,
    });
  }
  if (faults !== undefined) {
    const remedy = `remove "faults" from ${file} unless this is a test`;
    log.log('warn', 'frames are lost, doubled or delayed on purpose', { ...faults, remedy });
  }
}

function keepsStandby({ standby, self }: Config): boolean {
  return standby === 'on' && self.role === 'server';
}

function makeStandby(
  config: Config,
  host: PoolHost,
  log: DaemonLog,
  locks: readonly DirectoryLock[],
  text: string,
  succession: Succession | undefined,
): StandbyKeeper {
  const program = fileURLToPath(new URL('./main.js', import.meta.url));
  const options = ['--config', config.file, '--server', config.self.name, `--${STANDBY_OPTION}`];
  return new StandbyKeeper({
    log,
    host,
    pair: () => loadNative().standbyPair(),
    locks: locks.map(({ descriptor }) => descriptor),
    command: [process.execPath, ...process.execArgv, program, ...options],
    takeovers: succession?.takeovers ?? [],
    config: text,
  });
}

/** How long after the death of the one before. */
function sayWhen(succession: Succession | undefined, log: DaemonLog, event: string): void {
  if (succession === undefined) return;
  log.log('info', event, { micros: Math.round((performance.now() - succession.noticedAt) * 1000) });
}

function sayTakeover(succession: Succession, log: DaemonLog): void {
  const { takeovers, noticedAt, waitedMicros, inheritance } = succession;
  const fields = {
    takeovers: takeovers.length,
    clients: inheritance.connections.length,
    waitedMicros,
    micros: Math.round((performance.now() - noticedAt) * 1000),
  };
  const remedy = 'smbds go on; please report it with the last lines of that one';
  log.log('error', 'standby.took-over: the active smbpoold died', { ...fields, remedy });
}

function hostOptions(
  config: Config,
  poolKey: Uint8Array,
  log: Pick<DaemonLog, 'log' | 'close'>,
  health: Pick<Health, 'tell'>,
  known: Pick<Succession, 'incarnation' | 'samba'> | undefined,
): HostOptions {
  const { self, servers, directories, faults, membership, addresses } = config;
  const samba = known === undefined ? installedSamba() : known.samba;
  return {
    self: nodeId(self.id),
    members: servers.map((server) => ({ ...memberOf(server, config), entry: entryOf(server) })),
    membership: { heartbeatMicros: membership.heartbeatMs * 1000, leaseMicros: membership.leaseMs * 1000 },
    ...engineOptions(membership),
    drainLeasesMicros: config.health.drain.leasesMs * 1000,
    sharesFolders: config.sharedFolders === 'on',
    incarnation: known?.incarnation ?? nextIncarnation(directories.persistent, Date.now()),
    ...(samba === undefined ? {} : { samba }),
    socketPath: config.socket,
    ringSocketPath: config.ringSocket,
    pagePath: config.nodePage,
    volatileDirectory: directories.volatile,
    persistentDirectory: directories.persistent,
    transport: transportOptions(config),
    poolName: config.pool.name,
    poolKey,
    ...(addresses === undefined ? {} : { addresses: addresses.map((one) => addressPlace(one, self.name)) }),
    ...(faults === undefined ? {} : { faults }),
    log,
    onEvent: (event, fields) => health.tell(event, fields),
    startAnew: (reason, remedy) => {
      log.log('error', 'starting anew', { reason, remedy });
      log.close();
      process.exit(1);
    },
  };
}

/** @throws Error with a sentence when there is none. */
function serverNamed({ servers }: Config, name: string): NodeId {
  const found = servers.find((server) => server.name === name || `${server.id}` === name);
  const names = servers.map((server) => server.name).join(', ');
  if (found === undefined) throw new Error(`there is no server ${JSON.stringify(name)}; the pool has ${names}`);
  if (found.role === 'witness') throw new Error(`${found.name} is a witness: it serves nobody, so just stop it`);
  return nodeId(found.id);
}

function addressPlace(configured: NonNullable<Config['addresses']>[number], name: string): AddressPlace {
  const parsed = parsePublicAddress(configured.address);
  assert(parsed !== null, 'the schema refuses what is no address');
  return { ...parsed, interface: configured.interfaces?.[name] ?? configured.interface };
}

/** The host's own errors are sentences already; anything else is a bug, whose stack says more. */
async function startHost(options: HostOptions): Promise<PoolHost> {
  try {
    return await PoolHost.start(options);
  } catch (error) {
    if (error instanceof PoolError) throw new StartError(error.message, { cause: error });
    throw error;
  }
}
