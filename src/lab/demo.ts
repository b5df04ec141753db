/**
 * `npm run demo`: brings a pool of three up, shows each promise with what was expected and what was seen, prints what
 * crossed the wire, and takes the pool down. Exit status 0 only when everything held. With --keep the pool stays up.
 */
import { DEMO_STEPS } from './demo-steps.js';
import type { Seen } from './demo-steps.js';
import { messageOf } from './errors.js';
import { Lab } from './lab.js';
import { LAB_PASSWORD, LAB_USER } from './layout.js';
import { panics } from './logs.js';
import { labOptions } from './options.js';
import { cleaningUpOnSignal } from './signals.js';
import { wireTables } from './wire-table.js';

/** Not the lab's own folder: the demo wipes what it made, and leaves a lab's files alone. */
const DEMO_ROOT = '/tmp/smbpool-demo';

const say = (line = ''): void => void process.stdout.write(`${line}\n`);

async function showSteps(lab: Lab): Promise<boolean> {
  let all = true;
  for (const [index, step] of DEMO_STEPS.filter((one) => lab.options.module || !one.needsModule).entries()) {
    say(`${index + 1}. ${step.title}`);
    say(`   expected  ${step.expected}`);
    const failed = (error: unknown): Seen => ({ held: false, seen: messageOf(error) });
    const { held, seen, output } = await step.see(lab).catch(failed);
    say(`   seen      ${seen}`);
    const lines = output === undefined ? [] : ['', ...output.trimEnd().split('\n'), ''];
    for (const line of lines) say(`     ${line}`.trimEnd());
    say(`   ${held ? '✔' : '✘ NOT HELD'}`);
    say();
    all &&= held;
  }
  const broken = lab.servers().flatMap((place) => panics(place));
  for (const line of broken) say(`✘ ${line}`);
  return all && broken.length === 0;
}

async function main(): Promise<void> {
  const keep = process.argv.includes('--keep');
  const options = labOptions({ root: DEMO_ROOT, fresh: true });
  say('A pool of three: stock smbd and smbpoold on each server, one shared folder, a network namespace per server.');
  if (!options.module) say('Without the VFS module, as SMBPOOL_NO_MODULE=1 says: what only it can tell is not shown.');
  const held = await cleaningUpOnSignal(
    async () => {
      const lab = await Lab.up(options, say);
      say();
      try {
        const all = await showSteps(lab);
        for (const line of await wireTables(lab)) say(line);
        return all;
      } finally {
        if (keep) explainKept(lab);
        else await takeDown(lab);
      }
    },
    () => Lab.interrupt(),
  );
  say(held ? 'Everything held.' : 'NOT everything held: see the crosses above.');
  if (!held) process.exitCode = 1;
}

async function takeDown(lab: Lab): Promise<void> {
  await lab.down();
  lab.wipe();
  say('The pool is down again, nothing is left behind.');
}

function explainKept(lab: Lab): void {
  say(`The pool stays up. Use it:  smbclient //${lab.server(0).address}/pool -U ${LAB_USER}%${LAB_PASSWORD}`);
  say('  on a server:              npx smbpool lab exec 0 -- smbstatus');
  say('  what runs:                npx smbpool lab status');
  say('Stop it and remove it:      npx smbpool lab down --wipe');
}

main().catch((error: unknown) => {
  process.stderr.write(`demo: ${messageOf(error)}\n`);
  process.exitCode = 1;
});
