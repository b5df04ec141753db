/**
 * A lab that is up, in words: for `lab status`. Reads, never changes.
 */
import { accepts, daemonStatus } from './admin.js';
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
  logs: string;
}

export function describeLab(lab: Lab): Promise<ServerDescription[]> {
  return Promise.all(lab.places().map((place) => describe(lab, place)));
}

async function describe(lab: Lab, place: ServerPlace): Promise<ServerDescription> {
  return {
    name: place.name,
    namespace: place.namespace,
    address: place.address,
    smbpoold: place.id === null ? null : await daemonState(lab, place),
    smbd: await smbdState(lab, place),
    logs: place.logs,
  };
}

async function daemonState(lab: Lab, place: ServerPlace): Promise<'runs' | 'does not answer' | 'gone'> {
  const daemon = lab.process('smbpoold', place.id);
  if (!daemon || !isAlive(daemon)) return 'gone';
  return (await daemonStatus(place.adminSocket)) ? 'runs' : 'does not answer';
}

async function smbdState(lab: Lab, place: ServerPlace): Promise<ServerDescription['smbd']> {
  const smbd = lab.process('smbd', place.id);
  if (!smbd || !isAlive(smbd)) return 'gone';
  return (await accepts({ host: place.address, port: 445 })) ? 'serves' : 'does not accept connections';
}
