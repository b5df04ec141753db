/**
 * Where everything of the benchmark is: namespaces, addresses, paths. Names start with a prefix of their own, so a lab
 * can be up at the same time. Pure.
 */
import { join } from 'node:path';
import type { ServerPlace } from '../src/lab/layout.js';

/** What is compared: ours, CTDB, and for SMB one smbd that knows of no other server. */
export type System = 'smbpool' | 'ctdb' | 'single';

export const PREFIX = 'bn';
export const BRIDGE = 'bnbr0';
export const HOST_ADDRESS = '10.83.0.1';
export const SERVERS = 3;
/** The account that the SMB load logs on with: the benchmark's own, made and removed by it. */
export const USER = 'smbpoolbench';
export const PASSWORD = 'smbpoolbench';

const FIRST_ADDRESS: Record<System, number> = { smbpool: 10, ctdb: 20, single: 30 };
const LETTER: Record<System, string> = { smbpool: 'p', ctdb: 'c', single: 's' };

/** A server of one of the systems. `volatile` is on tmpfs, as is everything its daemon writes. */
export function place(root: string, system: System, id: number): ServerPlace {
  const name = `${system}-${id}`;
  const directory = join(root, 'state', name);
  return {
    id: system === 'single' ? null : id,
    name,
    namespace: `${PREFIX}${LETTER[system]}${id}`,
    address: `10.83.0.${FIRST_ADDRESS[system] + id}`,
    directory,
    volatile: join(directory, 'volatile'),
    smbConf: join(directory, 'smb.conf'),
    daemonConfig: join(directory, system === 'ctdb' ? 'ctdb.conf' : 'smbpoold.yaml'),
    socket: system === 'ctdb' ? join(directory, 'run', 'ctdbd.socket') : join(directory, 'ctdbd.socket'),
    adminSocket: join(directory, 'admin.socket'),
    ringSocket: join(directory, 'ring.socket'),
    logs: join(directory, 'log'),
    daemonLog: join(directory, 'log', 'daemon.log'),
    // not on tmpfs: user attributes work there only since Linux 6.6
    share: join(root, 'share', system),
  };
}

export function places(root: string, system: System): ServerPlace[] {
  return Array.from({ length: system === 'single' ? 1 : SERVERS }, (_, id) => place(root, system, id));
}
