/**
 * What a new user does first, on a bare machine of each release: a folder with the minimal Debian and a clone of HEAD
 * (scripts/fresh-machine.sh). Finds what the set-up forgot and this machine happens to have. What is not committed is
 * not tested. Part of npm test; alone: npm test -- fresh
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { repositoryFolder } from '../../src/lab/repository.js';
import { cleaningUpOnSignal } from '../../src/lab/signals.js';

const SCRIPT = join(repositoryFolder(), 'scripts', 'fresh-machine.sh');
/** Each step of the demo (src/lab/demo.ts) ends with one. */
const STEPS = 9;

/** Why it cannot run here; false when it can. */
function whyNot(): string | false {
  const inside = process.env['SMBPOOL_FRESH_MACHINE'];
  if (inside !== undefined) return `this is a bare machine already (${inside})`;
  if (process.getuid?.() !== 0) return 'needs root, for debootstrap and namespaces: sudo npm test -- fresh';
  const missing = ['debootstrap', 'slirp4netns', 'git'].filter((tool) => spawnSync(tool, ['--version']).error);
  if (missing.length > 0) return `needs ${missing.join(', ')}: apt-get install ${missing.join(' ')}`;
  const isClone = spawnSync('git', ['-C', repositoryFolder(), 'rev-parse', 'HEAD']).status === 0;
  return isClone ? false : 'needs a clone, and this folder is none: git clone';
}

/** Runs a command there; its output goes to ours as it comes. */
async function runFresh(release: string, command: readonly string[]): Promise<{ status: number; output: string }> {
  const child = spawn('bash', [SCRIPT, release, ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      process.stdout.write(text);
    });
  }
  const closed = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? -1));
  });
  const status = await cleaningUpOnSignal(
    () => closed,
    async () => {
      child.kill('SIGTERM');
      await closed;
    },
  );
  return { status, output };
}

function assertDemo({ status, output }: { status: number; output: string }): void {
  assert.equal(status, 0, 'a command failed; its output is above');
  assert.match(output, /build-module: installed in /, 'the module was not built');
  assert.equal(output.match(/^ {3}✔$/gm)?.length, STEPS, 'a step of the demo is missing');
  assert.match(output, /^Everything held\.$/m);
}

test('npm run demo on a bare machine with bookworm, with the module', { skip: whyNot() }, async () => {
  assertDemo(await runFresh('bookworm', ['npm', 'run', 'demo']));
});

test("npm run demo, then Samba's quick suites, on a bare machine with trixie", { skip: whyNot() }, async () => {
  const ran = await runFresh('trixie', ['bash', '-c', 'npm run demo && SMBPOOL_SHORT=1 npm test -- suites']);
  assertDemo(ran);
  assert.match(ran.output, /^✔ three servers pass what one unclustered smbd passes, the short list /m);
});
