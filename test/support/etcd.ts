/** A real etcd cluster on loopback; it ends with its test. SMBPOOL_ETCD names another binary than Debian's. */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { eventually, ownDirectory, sleep } from './native-helpers.js';

const BINARY = process.env['SMBPOOL_ETCD'] ?? 'etcd';
/** Faster than etcd's own, so that the loss of its leader does not make the tests slow. */
const HEARTBEAT_MS = 50;
const ELECTION_MS = 500;

/** Null: there is an etcd. Otherwise why tests that need one are skipped. */
export function whyNoEtcd(): string | false {
  if (spawnSync(BINARY, ['--version']).status === 0) return false;
  return 'there is no etcd: apt-get install etcd-server (npm run setup does), or name it in SMBPOOL_ETCD';
}

/** "3.4.23". */
export function etcdVersion(): string {
  return /etcd Version: (\S+)/.exec(spawnSync(BINARY, ['--version']).stdout.toString())?.[1] ?? 'unknown';
}

async function freeTcpPorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

export class EtcdCluster {
  private readonly processes: (ChildProcess | null)[];

  private constructor(
    readonly endpoints: readonly string[],
    private readonly commands: readonly (readonly string[])[],
  ) {
    this.processes = commands.map(() => null);
  }

  static async start(t: TestContext, count: number, tls: readonly string[] = []): Promise<EtcdCluster> {
    const directory = ownDirectory(t);
    const ports = await freeTcpPorts(2 * count);
    const scheme = tls.length > 0 ? 'https' : 'http';
    const client = (i: number): string => `${scheme}://127.0.0.1:${ports[2 * i]!}`;
    const peer = (i: number): string => `http://127.0.0.1:${ports[2 * i + 1]!}`;
    const all = Array.from({ length: count }, (_, i) => `e${i}=${peer(i)}`).join();
    const commands = Array.from({ length: count }, (_, i) => [
      '--name', `e${i}`, '--data-dir', join(directory, `e${i}`), '--listen-client-urls', client(i),
      '--advertise-client-urls', client(i), '--listen-peer-urls', peer(i), '--initial-advertise-peer-urls', peer(i),
      '--initial-cluster', all, '--heartbeat-interval', String(HEARTBEAT_MS), '--election-timeout', String(ELECTION_MS),
      '--logger', 'zap', '--log-level', 'error', ...tls,
    ]);
    const cluster = new EtcdCluster(Array.from({ length: count }, (_, i) => client(i)), commands);
    t.after(() => cluster.stop());
    for (let i = 0; i < count; i++) cluster.run(i);
    if (tls.length === 0) await cluster.answers();
    return cluster;
  }

  run(i: number): void {
    this.processes[i] = spawn(BINARY, this.commands[i]!, { stdio: 'ignore' });
  }

  signal(signal: NodeJS.Signals, only?: number): void {
    this.processes.forEach((one, i) => {
      if (only === undefined || only === i) one?.kill(signal);
    });
  }

  /** The number of the server that leads; null: none does. */
  async leader(): Promise<number | null> {
    for (const [i, endpoint] of this.endpoints.entries()) {
      const status = await post(endpoint, '/v3/maintenance/status', {});
      if (status?.leader !== undefined && status.leader === status.header?.member_id) return i;
    }
    return null;
  }

  async answers(): Promise<void> {
    let led = false;
    for (let tries = 0; tries < 300 && !led; tries++) {
      led = (await this.leader()) !== null;
      if (!led) await sleep(50);
    }
    await eventually('etcd has a leader', () => led, 1);
  }

  private async stop(): Promise<void> {
    // one that is stopped does not hear anything else
    this.signal('SIGKILL');
    const live = this.processes.filter((one) => one !== null && one.exitCode === null && one.signalCode === null);
    await Promise.all(live.map((one) => new Promise((resolve) => one!.once('exit', resolve))));
  }
}

interface Status {
  leader?: string;
  header?: { member_id?: string };
}

async function post(endpoint: string, path: string, body: object): Promise<Status | null> {
  try {
    const signal = AbortSignal.timeout(500);
    const response = await fetch(endpoint + path, { method: 'POST', body: JSON.stringify(body), signal });
    return (await response.json()) as Status;
  } catch {
    return null;
  }
}
