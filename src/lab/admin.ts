/**
 * Asks a server's smbpoold over its admin socket: the same JSON that `smbpool status --json` prints. Used to wait for
 * the pool and for the demo's closing table. Only what the lab reads is described here; ports/status.ts is the whole.
 */
import { request } from 'node:http';
import { connect } from 'node:net';

/** A daemon that does not answer its admin socket within this is stuck. */
const ANSWER_MILLIS_MAX = 5000;

interface LinkStatus {
  peer: number;
  up: boolean;
  rttMicros: number | null;
  rttMicrosMin: number | null;
  framesSent: number;
  retransmitted: number;
}

export interface DaemonStatus {
  pid: number;
  transport: string;
  /** Of the view that it is a member of; 0: of none yet. */
  epoch: number;
  servers: { id: number; up: boolean }[];
  /** Servers that have not told yet what they own. */
  awaiting: number[];
  /** Requests of smbds that are not answered yet. */
  waitingRequests: number;
  links: LinkStatus[];
  databases: { name: string; persistent: boolean; recordsOwned: number; directoryEntries: number; moves: number }[];
  clients: number;
  /** Absent: there is none by configuration. */
  standby?: { pid: number | null; ready: boolean };
  /** What the VFS module tells: smbds with it, their opens, what waits, operations whose records are held. */
  modules: { attachments: number; opens: number; waits: number; operations: number };
  waits: { name: string; count: number; medianMicros: number; p99Micros: number; maxMicros: number }[];
  counters: Record<string, number>;
}

/** The daemon's status, or null when it does not answer. */
export async function daemonStatus(adminSocket: string): Promise<DaemonStatus | null> {
  return (await askDaemon(adminSocket, '/status')) as DaemonStatus | null;
}

/** What the daemon answers at a path of its admin socket (ports/admin.ts); null when it does not. */
export function askDaemon(adminSocket: string, path: string): Promise<unknown> {
  return new Promise((resolve) => {
    const asked = request({ socketPath: adminSocket, path, timeout: ANSWER_MILLIS_MAX }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('error', () => resolve(null));
      answer.on('end', () => resolve(answer.statusCode === 200 ? parsed(Buffer.concat(chunks).toString()) : null));
    });
    asked.on('timeout', () => asked.destroy());
    asked.on('error', () => resolve(null));
    asked.end();
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Whether somebody accepts connections: on a unix socket, or on a TCP port. */
export function accepts(where: { path: string } | { host: string; port: number }): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ ...where, timeout: 1000 });
    const answer = (value: boolean) => () => {
      socket.destroy();
      resolve(value);
    };
    socket.once('connect', answer(true));
    socket.once('error', answer(false));
    socket.once('timeout', answer(false));
  });
}
