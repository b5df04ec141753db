/** What the status says of the pool's servers: who is not in it, who does not count yet, what is wrong in the file. */
import type { NodeStatus } from '../core/node.js';
import type { ProblemReport } from '../ports/status.js';
import type { Config } from './config.js';
import { list } from './membership-report.js';
import type { AgreedServers } from './pool-servers.js';
import { differenceText, linesFor } from './pool-servers.js';

/** The worst first. `config`: with the servers that the pool has now; `file`: as written. */
export function serversProblems(
  config: Config,
  file: Config,
  agreed: AgreedServers | null,
  node: NodeStatus,
): ProblemReport[] {
  const { self } = config;
  if (node.membership?.isOutside === true) {
    const { id, name, address, interface: device } = self;
    const options = [`--id ${id}`, `--address ${address}`, ...(device === undefined ? [] : [`--interface ${device}`])];
    return [{
      what: 'outside',
      text: `${name} is none of the servers of the pool: it was taken out, or never taken in. Nobody is served here`,
      remedy: `on a server of the pool: smbpool join ${name} ${options.join(' ')}; or stop smbpoold and smbd here`,
    }];
  }
  const { joining = [] } = agreed?.configuration ?? {};
  const names = joining.map((one) => config.servers.find(({ id }) => id === one)?.name ?? `server ${one}`);
  const problems: ProblemReport[] = [];
  if (names.length > 0) {
    problems.push({
      what: 'servers-joining',
      text: `${list(names)} joined and ${names.length === 1 ? 'does' : 'do'} not count in majorities yet`,
      remedy: 'start smbpoold there, with a file that names all servers; it counts as soon as it is heard',
    });
  }
  const difference = agreed === null ? null : differenceText(file, agreed);
  if (difference !== null) {
    problems.push({
      what: 'servers-differ', text: difference,
      remedy: `write there, for its next start: ${linesFor(config.servers).join(' ').replaceAll('  ', ' ')}`,
    });
  }
  return problems;
}
