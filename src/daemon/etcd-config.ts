/**
 * The part of the configuration that is about etcd: what zod cannot see of it, and the files of TLS. Nothing else of
 * the daemon knows etcd.
 */
import { readFileSync } from 'node:fs';
import type { HostOptions } from '../host/pool-host.js';
import type { ConfigFile } from './config-schema.js';
import { StartError } from './errors.js';

/** As config.ts names places in the file. */
type Where = (path: (string | number)[]) => string;

const EXAMPLE = 'write for example "etcd: { endpoints: [http://10.0.0.11:2379] }" there';

/** What is wrong with it, a sentence each. */
export function etcdProblems(where: Where, { membership, servers }: Omit<ConfigFile, 'server'>): string[] {
  const { engine, etcd } = membership;
  const at = (...path: (string | number)[]): string => where(['membership', ...path]);
  if (engine !== 'etcd') {
    if (etcd === undefined) return [];
    return [`${at('etcd')} means nothing with the engine ${engine}: write "engine: etcd" too`];
  }
  const problems: string[] = [];
  if (etcd === undefined) problems.push(`${at('etcd')} is missing: the engine needs to know where etcd is; ${EXAMPLE}`);
  servers.forEach(({ role }, index) => {
    if (role !== 'witness') return;
    const remedy = 'leave this server out: etcd has the votes, and two servers need no third';
    problems.push(`${where(['servers', index, 'role'])} is "witness", which the engine etcd has no use for: ${remedy}`);
  });
  if ((etcd?.cert === undefined) !== (etcd?.key === undefined)) {
    const remedy = 'etcd knows this server by both; write the other too';
    problems.push(`${at('etcd')} has only one of "cert" and "key": ${remedy}`);
  }
  const isTls = etcd?.ca !== undefined || etcd?.cert !== undefined;
  etcd?.endpoints.forEach((endpoint, index) => {
    if (!isTls || endpoint.startsWith('https:')) return;
    problems.push(`${at('etcd', 'endpoints', index)} is no https, but there are files for TLS: write https://, or none`);
  });
  return problems;
}

/**
 * What the host needs to know of the engine.
 * @throws StartError when a file of TLS cannot be read.
 */
export function engineOptions({ engine, etcd }: ConfigFile['membership']): Pick<HostOptions, 'etcd'> {
  if (engine !== 'etcd' || etcd === undefined) return {};
  const { endpoints, ca, cert, key } = etcd;
  const tls = Object.fromEntries(
    Object.entries({ ca, cert, key }).flatMap(([name, path]) => (path === undefined ? [] : [[name, read(name, path)]])),
  );
  return { etcd: { endpoints, tls } };
}

function read(name: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const remedy = 'etcd cannot be asked without it; put the PEM file there, or name another';
    throw new StartError(`membership.etcd.${name}: ${why}; ${remedy}`, { cause: error });
  }
}
