/**
 * `smbpool failovers`: the changes of the pool that the asked server saw, each as a timeline with cause and remedy. The
 * text is made by a pure function, which tests compare with golden files.
 */
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type {
  FailoverRecords, FailoversReport, FencedReport, InterfaceReport, PoolEventReport, StepReport, ViewChangeReport,
} from '../wire/failovers.js';
import { addAdminOptions, adminSocket, ask } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { numberParser } from './lock-options.js';
import { duration, plural } from './text.js';

const LAST_DEFAULT = 10;
/** More than a daemon keeps. */
const LAST_MAX = 1000;

const parseLast = numberParser({ min: 1, max: LAST_MAX, whole: true });

interface FailoversOptions extends AdminOptions {
  last: number;
  json?: true;
}

export function registerFailovers(program: Command): void {
  const command = program
    .command('failovers')
    .description('when servers were lost or came, why, and what became of the records, as the asked server saw it')
    .option('--last <number>', 'show so many of the newest changes', parseLast, LAST_DEFAULT)
    .option('--json', "the daemon's answer as JSON, times in microseconds since 1970");
  addAdminOptions(command).action(async (options: FailoversOptions) => {
    const answer = await ask<FailoversReport>(adminSocket(options), ADMIN_PATH.failovers);
    const report = { ...answer, events: answer.events.slice(-options.last) };
    process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : failoversText(report));
  });
}

type NameOf = (id: number) => string;

export function failoversText({ self, servers, events }: FailoversReport): string {
  const nameOf: NameOf = (id) => servers.find((server) => server.id === id)?.name ?? `server ${id}`;
  if (events.length === 0) return `${nameOf(self)} has seen no change of the pool since its smbpoold started\n`;
  return events.map((event) => eventText(event, nameOf, self)).join('\n');
}

function eventText(event: PoolEventReport, nameOf: NameOf, self: number): string {
  switch (event.kind) {
    case 'view':
      return changeText(event, nameOf);
    case 'fenced':
      return fencedText(event, nameOf(self));
    case 'interface':
      return interfaceText(event);
  }
}

function changeText(change: ViewChangeReport, nameOf: NameOf): string {
  const { epoch, leader, members, causes, steps, records, overtaken } = change;
  const origin = originOf(steps);
  const lines = [
    `${day(origin)} ${time(origin)}  view ${epoch}: ${members.map(nameOf).join(', ')} (${nameOf(leader)} leads)`,
    ...causes.flatMap(({ text, remedy }) => [`  ${text}`, ...(remedy === null ? [] : [`    ${remedy}`])]),
    ...steps.map((step) => stepText(step, origin, nameOf)),
    ...(overtaken ? ['  another view came before all members had recovered: see the next'] : []),
    ...(change.left.length === 0 && records.newHomes === 0 ? [] : [`  records here: ${recordWords(records)}`]),
  ];
  return `${lines.join('\n')}\n`;
}

/** Offsets count from the last frame of whoever was lost; of several, the newest. */
function originOf(steps: readonly StepReport[]): number {
  const last = steps.filter(({ what }) => what === 'last-frame').at(-1);
  return (last ?? steps[0])?.atMicros ?? 0;
}

function stepText(step: StepReport, origin: number, nameOf: NameOf): string {
  const offset = `${Math.round((step.atMicros - origin) / 1000)} ms`;
  return `  ${time(step.atMicros)}  ${offset.padStart(8)}  ${stepWords(step, nameOf)}`;
}

function stepWords({ what, server, interface: by }: StepReport, nameOf: NameOf): string {
  const name = server === null ? '' : nameOf(server);
  switch (what) {
    case 'last-frame':
      return `last frame of ${name}`;
    case 'last-frame-by':
      return `last frame of ${name} by ${by ?? ''}`;
    case 'suspected':
      return `${name} is taken for lost`;
    case 'lease-over':
      return `the lease of ${name} is over: it serves no more`;
    case 'proposed':
      return 'view proposed';
    case 'installed':
      return 'view agreed and installed here';
    case 'settled':
      return 'settled: nothing of before is under way';
    case 'claims-sent':
      return 'records told to their new homes';
    case 'recovered':
      return 'recovered: all members have told what they have';
  }
}

function recordWords(records: FailoverRecords): string {
  const { newHomes, claimsSent, claimsReceived, claimedFirst, restored, lost } = records;
  const first = claimedFirst === 0 ? '' : ` (of ${plural(claimedFirst, 'key')} first: somebody waited)`;
  return (
    `${newHomes} got a new home; ${plural(claimsSent, 'claim')} sent, ${claimsReceived} received${first}; ` +
    `${restored} came back from a backup or copy, ${lost} ended with their owner`
  );
}

function fencedText({ atMicros, renewedAtMicros, text, remedy }: FencedReport, name: string): string {
  const isOver = renewedAtMicros !== null;
  const lasted = isOver ? `was fenced for ${duration(renewedAtMicros - atMicros)}` : 'is fenced since then';
  const lines = [
    `${day(atMicros)} ${time(atMicros)}  ${name} ${lasted}: its clients could not open or change files`,
    `  ${text}`,
    ...(remedy === null ? [] : [`    ${remedy}`]),
  ];
  return `${lines.join('\n')}\n`;
}

function interfaceText({ atMicros, backAtMicros, text, remedy }: InterfaceReport): string {
  const isOver = backAtMicros !== null;
  const until = isOver ? `until ${time(backAtMicros)}, ${duration(backAtMicros - atMicros)}` : 'still so';
  return `${day(atMicros)} ${time(atMicros)}  ${text}: ${until}\n    ${remedy}\n`;
}

function day(micros: number): string {
  const date = dateOf(micros);
  return [date.getFullYear(), date.getMonth() + 1, date.getDate()].map(twoDigits).join('-');
}

function time(micros: number): string {
  const date = dateOf(micros);
  const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(':');
  return `${clock}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

function dateOf(micros: number): Date {
  return new Date(Math.floor(micros / 1000));
}

function twoDigits(number: number): string {
  return String(number).padStart(2, '0');
}
