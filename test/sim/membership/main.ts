/**
 * `node dist/test/sim/membership/main.js [--seed N] [--runs K] [--sabotage KIND] [--engine etcd]`: simulated runs of
 * the membership, each from its own seed. Prints the seed first; when a run breaks a rule, prints what, the last lines
 * of its trace, and how to repeat it. At the end the times that were measured.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { EngineName } from '../../../src/core/membership/port.js';
import type { Measured } from './run.js';
import { describeMeasured, noMeasured, simulate } from './run.js';
import type { Sabotage } from './settings.js';
import { SABOTAGES, describeSettings, settingsOf } from './settings.js';

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('give a whole number, 0 or more');
  return value;
}

const options = new Command('membership')
  .description('Runs the membership of several servers in a simulated world and checks what must always hold.')
  .option('--seed <number>', 'seed of the first run; the others follow', wholeNumber, Date.now() % 1_000_000)
  .option('--runs <number>', 'how many runs', wholeNumber, 1)
  .option('--sabotage <kind>', `a planted bug: ${SABOTAGES.join(', ')}`, 'none')
  .addOption(new Option('--engine <name>', 'the engine').choices(['embedded', 'etcd']).default('embedded'))
  .option('--resumes', 'servers are killed, and other runs continue theirs', false)
  .option('--trace <lines>', 'lines of the trace to show for a failed run', wholeNumber, 60)
  .option('--keep-going', 'do not stop at the first failed run', false)
  .parse()
  .opts<{
    seed: number;
    runs: number;
    sabotage: Sabotage;
    engine: EngineName;
    trace: number;
    keepGoing: boolean;
    resumes: boolean;
  }>();

const measured = noMeasured();
let failed = 0;
let agreements = 0;
let raises = 0;
console.log(`seed ${options.seed}, ${options.runs} runs`);
for (let seed = options.seed; seed < options.seed + options.runs; seed++) {
  const settings = settingsOf(seed, options.sabotage, options.engine, options.resumes);
  const result = simulate(settings);
  agreements += result.agreements;
  raises += result.raises;
  for (const name of Object.keys(measured) as (keyof Measured)[]) measured[name].push(...result.measured[name]);
  if (result.violations.length === 0) continue;
  failed++;
  console.log(`seed ${seed} FAILED: ${describeSettings(settings)}`);
  for (const { at, rule, text } of result.violations.slice(0, 5)) console.log(`  ${at / 1000} ms  ${rule}: ${text}`);
  for (const line of result.trace.tail(options.trace)) console.log(`  ${line}`);
  const sabotage = options.sabotage === 'none' ? '' : ` --sabotage ${options.sabotage}`;
  const engine = options.engine === 'etcd' ? ' --engine etcd' : '';
  const resumes = options.resumes ? ' --resumes' : '';
  console.log(`  repeat: node dist/test/sim/membership/main.js --seed ${seed}${engine}${sabotage}${resumes}`);
  if (!options.keepGoing) break;
}
for (const line of describeMeasured(measured)) console.log(line);
console.log(`${agreements} views agreed, the protocol rose ${raises} times, ${failed} runs failed`);
process.exitCode = failed === 0 ? 0 : 1;
