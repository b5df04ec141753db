/**
 * A lab that is up, in words: for `lab status`. Reads, never changes.
 */
import { accepts, daemonStatus } from './admin.js';
import type { DaemonStatus } from './admin.js';
import type { Lab } from './lab.js';
import type { ServerPlace } from './layout.js';
import { isAlive } from './processes.js';

export interface ServerDescription {
  name: string;
  namespace: string;
  address: string;
  /** null where there is none (the unclustered smbd). */
  smbpoold: 'runs' | 'does not answer' | 'gone' | null;
  smbd: 'serves' | 'does not accept connections' | 'gone';
  /** smbd processes that have the VFS module attached now, and their open files; null: nobody there to say it. */
  module: { attachments: number; opens: number } | 'off' | null;
  logs: string;
}

export function describeLab(lab: Lab): Promise<ServerDescription[]> {
  return Promise.all(lab.places().map((place) => describe(lab, place)));
}

async function describe(lab: Lab, place: ServerPlace): Promise<ServerDescription> {
  const status = place.id === null ? null : await daemonStatus(place.adminSocket);
  return {
    name: place.name,
    namespace: place.namespace,
    address: place.address,
    smbpoold: place.id === null ? null : daemonState(lab, place, status),
    smbd: await smbdState(lab, place),
    module: place.id !== null && !lab.options.module ? 'off' : moduleState(status),
    logs: place.logs,
  };
}

function daemonState(
  lab: Lab,
  place: ServerPlace,
  status: DaemonStatus | null,
): 'runs' | 'does not answer' | 'gone' {
  const daemon = lab.process('smbpoold', place.id);
  if (!daemon || !isAlive(daemon)) return 'gone';
  return status ? 'runs' : 'does not answer';
}

function moduleState(status: DaemonStatus | null): ServerDescription['module'] {
  if (!status) return null;
  const { attachments, opens } = status.modules;
  return { attachments, opens };
}

async function smbdState(lab: Lab, place: ServerPlace): Promise<ServerDescription['smbd']> {
  const smbd = lab.process('smbd', place.id);
  if (!smbd || !isAlive(smbd)) return 'gone';
  return (await accepts({ host: place.address, port: 445 })) ? 'serves' : 'does not accept connections';
}
