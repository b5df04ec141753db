/**
 * Where everything of the lab is: names, addresses and paths, in one place. Pure; used by all other parts of the lab.
 */
import { join } from 'node:path';

/** Network namespaces, the bridge and the veth pairs all start with this. */
export const LAB_PREFIX = 'smbp';
export const BRIDGE = 'smbpbr0';
/** Of the second interfaces, where there are any. */
export const SECOND_BRIDGE = 'smbpbr1';
/** The root namespace's address on the bridge: clients of the lab come from here. */
export const HOST_ADDRESS = '10.77.0.1';
export const PREFIX_LENGTH = 24;
/** The same in IPv6, where the pool has public addresses of that kind. */
export const HOST_ADDRESS_6 = 'fd00:77::1';
export const PREFIX_LENGTH_6 = 64;
/** The unclustered smbd that the tests compare with. */
export const BASELINE_NAMESPACE = 'smbpbase';
export const BASELINE_ADDRESS = '10.77.0.200';
/**
 * Each server needs an address between .10 and .25 and about 60 MB; more than this proves nothing new on one machine.
 */
export const SERVER_COUNT_MAX = 16;
export const SERVER_COUNT_DEFAULT = 3;

export const SHARE = 'pool';
export const LAB_USER = 'pool';
export const LAB_PASSWORD = 'pool';

/**
 * Below /tmp because the shared folder must be on a file system with user extended attributes, which tmpfs (and so
 * /run) has only since Linux 6.6. The volatile databases are on a tmpfs of their own.
 */
export const ROOT_DEFAULT = '/tmp/smbpool-lab';
/** Names the root of the lab that is up, so that `lab status` and `lab down` find it. */
export const POINTER_FILE = '/run/smbpool-lab';

export function serverNamespace(id: number): string {
  return `${LAB_PREFIX}${id}`;
}

export function serverAddress(id: number): string {
  return `10.77.0.${10 + id}`;
}

/** The end of a server's veth pair that is in the root namespace, on the bridge. */
export function hostInterface(namespace: string): string {
  return `${namespace}v`;
}

/** The same of its second interface. */
export function secondHostInterface(namespace: string): string {
  return `${namespace}w`;
}

/** Of the second interface, for UDP; nobody else is on that network. */
export function secondAddress(id: number): string {
  return `10.77.1.${10 + id}`;
}

/** Public addresses end with this number and those that follow. */
const PUBLIC_FIRST = 100;
/** Below the unclustered smbd's. */
export const PUBLIC_ADDRESSES_MAX = 64;

export function publicAddress(index: number): string {
  return `10.77.0.${PUBLIC_FIRST + index}`;
}

/** The numbers' digits are the same as IPv4's. */
export function publicAddress6(index: number): string {
  return `fd00:77::${PUBLIC_FIRST + index}`;
}

/** A server's own address in IPv6. */
export function serverAddress6(id: number): string {
  return `fd00:77::${10 + id}`;
}

/** The name of every server's interface inside its namespace. */
export const SERVER_INTERFACE = 'eth0';
export const SECOND_INTERFACE = 'eth1';

export interface ServerPlace {
  /** null for the unclustered smbd. */
  id: number | null;
  name: string;
  namespace: string;
  address: string;
  directory: string;
  volatile: string;
  smbConf: string;
  daemonConfig: string;
  /** smbd's `ctdbd socket`. */
  socket: string;
  adminSocket: string;
  /** Where the VFS module finds smbpoold. */
  ringSocket: string;
  logs: string;
  daemonLog: string;
  share: string;
}

/** The paths below one lab's root. */
export class Layout {
  readonly stateFile: string;
  readonly keyFile: string;
  readonly share: string;
  /** Mount point of the tmpfs. */
  readonly volatile: string;
  readonly clientConf: string;

  constructor(readonly root: string) {
    this.stateFile = join(root, 'lab.json');
    this.keyFile = join(root, 'pool.key');
    this.share = join(root, 'share');
    this.volatile = join(root, 'volatile');
    this.clientConf = join(root, 'client.conf');
  }

  server(id: number): ServerPlace {
    return this.place(`server-${id}`, { id, namespace: serverNamespace(id), address: serverAddress(id) }, this.share);
  }

  servers(count: number): ServerPlace[] {
    return Array.from({ length: count }, (_, id) => this.server(id));
  }

  baseline(): ServerPlace {
    const where = { id: null, namespace: BASELINE_NAMESPACE, address: BASELINE_ADDRESS };
    return this.place('baseline', where, join(this.root, 'baseline', 'share'));
  }

  private place(
    name: string,
    where: { id: number | null; namespace: string; address: string },
    share: string,
  ): ServerPlace {
    const directory = join(this.root, name);
    const logs = join(directory, 'log');
    return {
      ...where,
      name,
      directory,
      volatile: join(this.volatile, name),
      smbConf: join(directory, 'smb.conf'),
      daemonConfig: join(directory, 'smbpoold.yaml'),
      socket: join(directory, 'ctdbd.socket'),
      adminSocket: join(directory, 'admin.socket'),
      ringSocket: join(directory, 'ring.socket'),
      logs,
      daemonLog: join(logs, 'smbpoold.log'),
      share,
    };
  }
}
