/**
 * What crossed the wire since the daemons of a lab started, as two tables: for the end of the demo. Reads the daemons'
 * status.
 */
import Table from 'cli-table3';
import type { DaemonStatus } from './admin.js';
import { daemonStatus } from './admin.js';
import { LabError } from './errors.js';
import type { Lab } from './lab.js';

/** No colours: the output is also read in files and in CI. */
const PLAIN = { head: [], border: [] };

interface Reported {
  name: string;
  status: DaemonStatus;
}

function traffic(reported: Reported[]): string {
  const table = new Table({ head: ['', ...reported.map(({ name }) => name)], style: PLAIN });
  const counter = (name: string) => (status: DaemonStatus) => status.counters[name] ?? 0;
  const overLinks = (pick: (link: DaemonStatus['links'][number]) => number) => (status: DaemonStatus) =>
    status.links.reduce((sum, link) => sum + pick(link), 0);
  const rows: [string, (status: DaemonStatus) => number | string][] = [
    ['records moved here', counter('record.arrived.move')],
    ['copies of records, for reading', counter('record.arrived.copy')],
    ['new records, granted at once', counter('record.granted-on-the-spot')],
    ['messages to smbds of other servers', counter('gate.message.sent')],
    ['commits (accounts, registry)', counter('persistent.commit.done')],
    ['frames sent', overLinks((link) => link.framesSent)],
    ['of these sent again', overLinks((link) => link.retransmitted)],
    ['round trip, smallest, microseconds', smallestRoundTrip],
  ];
  for (const [title, value] of rows) table.push([title, ...reported.map(({ status }) => value(status))]);
  return table.toString();
}

function smallestRoundTrip(status: DaemonStatus): number | string {
  const trips = status.links.flatMap((link) => link.rttMicrosMin ?? []);
  return trips.length === 0 ? '-' : Math.round(Math.min(...trips));
}

/** How long smbds waited for a record that was not on their server. */
function waits(reported: Reported[]): string {
  const names = [...new Set(reported.flatMap(({ status }) => status.waits.map((wait) => wait.name)))].sort();
  const table = new Table({ head: ['waits for records of', ...reported.map(({ name }) => name)], style: PLAIN });
  for (const name of names) {
    const cells = reported.map(({ status }) => {
      const wait = status.waits.find((one) => one.name === name);
      if (!wait || wait.count === 0) return '-';
      const times = [wait.medianMicros, wait.p99Micros, wait.maxMicros].map((micros) => Math.round(micros));
      return `${wait.count} x ${times.join(' / ')}`;
    });
    table.push([name, ...cells]);
  }
  return table.toString();
}

/** The tables' lines. Throws LabError when a daemon does not answer. */
export async function wireTables(lab: Lab): Promise<string[]> {
  const reported = await Promise.all(
    lab.servers().map(async ({ name, adminSocket }) => {
      const status = await daemonStatus(adminSocket);
      if (!status) throw new LabError(`smbpoold of ${name} does not answer`);
      return { name, status };
    }),
  );
  return [
    'What crossed the wire:',
    traffic(reported),
    'How long an smbd waited for a record (times x median / p99 / max, microseconds):',
    waits(reported),
  ];
}
