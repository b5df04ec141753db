/**
 * `npm run sim -- [--seed N] [--runs K] [--node pool|bare] [--sabotage KIND]`: simulated runs of the core, each from
 * its own seed. Prints the seed first; when a run breaks a rule, prints what, the last lines of its trace, and how to
 * repeat it.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { PROTOCOL } from '../../src/wire/protocol-version.js';
import { SABOTAGES, describeSettings, settingsOf } from './settings.js';
import type { Sabotage, Settings } from './settings.js';
import type { RunResult } from './run.js';
import { simulate } from './run.js';
import { nodeFactory } from './nodes.js';
import type { NodeKind } from './nodes.js';

/** Lines of the trace printed when a run fails. */
const TRACE_LINES_SHOWN = 80;

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('give a whole number, 0 or more');
  return value;
}

function protocolNumber(text: string): number {
  const value = wholeNumber(text);
  const { min, max } = PROTOCOL;
  if (value < min || value > max) throw new InvalidArgumentError(`give a protocol from ${min} to ${max}`);
  return value;
}

/** What broke, and the end of the story. */
function report(result: RunResult, settings: Settings, kind: NodeKind, traceLines: number): void {
  for (const violation of result.violations.slice(0, 10)) {
    console.log(`  ${(violation.at / 1000).toFixed(3)} ms  ${violation.rule}: ${violation.text}`);
  }
  const record = result.violations[0]?.record ?? '';
  console.log(`  the last lines${record === '' ? '' : ` about ${record}`}:`);
  for (const line of result.trace.tail(traceLines, record)) console.log(`  ${line}`);
  const sabotage = settings.sabotage === 'none' ? '' : ` --sabotage ${settings.sabotage}`;
  const more = ['membership', 'resumes', 'drains'] as const;
  const flags = ['restarts', 'modules', 'rough', 'leases', 'watches', 'folders', ...more] as const;
  const chosen = flags.filter((name) => options[name]);
  const extras = chosen.map((name) => ` --${name}`).join('');
  const protocol = options.protocol === undefined ? '' : ` --protocol ${options.protocol}`;
  console.log(`  repeat: npm run sim -- --seed ${settings.seed} --node ${kind}${sabotage}${extras}${protocol}`);
}

const program = new Command('sim')
  .description('Runs the core of several servers in a simulated world and checks what must always hold.')
  .option('--seed <number>', 'seed of the first run; the others follow', wholeNumber, Date.now() % 1_000_000)
  .option('--runs <number>', 'how many runs', wholeNumber, 1)
  .option('--node <kind>', 'pool: the whole core; bare: links and records only', 'pool')
  .option('--sabotage <kind>', `a planted bug: ${SABOTAGES.join(', ')}`, 'none')
  .option('--restarts', 'let daemons die and start anew too', false)
  .option('--resumes', 'daemons are killed while their smbds go on, and others continue them', false)
  .option('--modules', 'smbds have the VFS module', false)
  .option('--rough', 'smbds are stopped, stores refuse, listings run, faults may last', false)
  .option('--leases', 'clients cache files under leases', false)
  .option('--watches', 'clients watch folders', false)
  .option('--folders', 'clients open folders', false)
  .option('--membership', 'servers agree on views themselves', false)
  .option('--drains', 'servers are drained and wanted back', false)
  .addOption(
    new Option('--protocol <number>', 'what all speak; by the seed when not given')
      .argParser(protocolNumber)
      .conflicts(['membership', 'resumes']),
  )
  .option('--trace <lines>', 'lines of the trace to show for a failed run', wholeNumber, TRACE_LINES_SHOWN)
  .option('--keep-going', 'do not stop at the first failed run', false)
  .parse();
const options = program.opts<{
  seed: number;
  runs: number;
  node: NodeKind;
  sabotage: Sabotage;
  trace: number;
  keepGoing: boolean;
  restarts: boolean;
  modules: boolean;
  rough: boolean;
  leases: boolean;
  watches: boolean;
  folders: boolean;
  membership: boolean;
  resumes: boolean;
  drains: boolean;
  protocol?: number;
}>();

/** Runs them one after the other; returns how many broke a rule. */
function runAll(): number {
  let failed = 0;
  for (let seed = options.seed; seed < options.seed + options.runs; seed++) {
    const { restarts, modules, rough, leases, watches, folders, membership, resumes, drains, sabotage } = options;
    const { protocol } = options;
    const named = { restarts, modules, rough, leases, watches, folders, membership, resumes, drains, sabotage };
    const extras = protocol === undefined ? named : { ...named, protocol };
    const settings = settingsOf(seed, extras);
    const result = simulate(settings, nodeFactory(options.node, sabotage));
    const verdict = result.violations.length === 0 ? 'ok' : 'FAILED';
    console.log(`seed ${seed} ${verdict}: ${describeSettings(settings)}; ${result.summary}`);
    if (result.violations.length === 0) continue;
    failed++;
    report(result, settings, options.node, options.trace);
    if (!options.keepGoing) break;
  }
  return failed;
}

console.log(`seed ${options.seed}, ${options.runs} runs, node ${options.node}`);
const failed = runAll();
if (failed > 0) console.log(`${failed} runs failed`);
process.exitCode = failed === 0 ? 0 : 1;
