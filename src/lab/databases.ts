/**
 * Looks into the pool's databases with the stock ctdb tool, which reads each server's own file: for the checks after a
 * load.
 */
import { LabError } from './errors.js';
import type { Lab } from './lab.js';
import type { ServerPlace } from './layout.js';

export interface Row {
  key: string;
  /** The server that owns the record. */
  owner: number;
  data: string;
}

async function ctdb(lab: Lab, place: ServerPlace, ...args: string[]): Promise<string> {
  const result = await lab.runIn(place, 'ctdb', args);
  if (result.status !== 0) {
    throw new LabError(`ctdb ${args.join(' ')} at ${place.name}: ${result.stdout}${result.stderr}`);
  }
  return result.stdout;
}

export interface Database {
  name: string;
  persistent: boolean;
}

/** The databases that this server has. */
export async function databases(lab: Lab, place: ServerPlace): Promise<Database[]> {
  const text = await ctdb(lab, place, 'getdbmap');
  return [...text.matchAll(/^dbid:\S+ name:(\S+) path:\S+ ?(.*)$/gm)].map((match) => ({
    name: match[1] ?? '',
    persistent: (match[2] ?? '').includes('PERSISTENT'),
  }));
}

/** The records in this server's own file. */
export async function rows(lab: Lab, place: ServerPlace, database: string): Promise<Row[]> {
  const text = await ctdb(lab, place, 'cattdb', database);
  return text.split(/^(?=key\()/m).flatMap((part) => {
    const key = /^key\(\d+\) = "(.*)"$/m.exec(part)?.[1];
    if (key === undefined) return [];
    return [
      {
        key,
        owner: Number(/^dmaster: (\d+)/m.exec(part)?.[1]),
        data: /^data\(\d+\) = "(.*)"$/m.exec(part)?.[1] ?? '',
      },
    ];
  });
}
