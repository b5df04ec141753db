/**
 * How long after a client began to make a file another client, which watches the folder, is told: through the same
 * server of a pool, through another one, and on one unclustered smbd, in turns; and how long a watch takes until smbd
 * goes on. `node dist/bench/change-notify.js [CHANGES]`, as root.
 */
import { LabError, messageOf } from '../src/lab/errors.js';
import { Lab } from '../src/lab/lab.js';
import { labOptions } from '../src/lab/options.js';
import { cleaningUpOnSignal } from '../src/lab/signals.js';
import { SmbClient } from '../src/lab/smb-client.js';

const ROOT = '/tmp/smbpool-notify';
const CHANGES_DEFAULT = 1000;
const FOLDER = { folder: true, access: ['read'] as 'read'[], disposition: 'open_if' as const };
const TOLD_MILLIS_MAX = 10_000;

class Pair {
  readonly told: number[] = [];
  readonly watched: number[] = [];

  private constructor(
    readonly name: string,
    private readonly watcher: SmbClient,
    private readonly changer: SmbClient,
  ) {}

  static async connect(name: string, watching: string, changing: string): Promise<Pair> {
    return new Pair(name, await SmbClient.connect(watching), await SmbClient.connect(changing));
  }

  async once(folder: string): Promise<void> {
    const { watcher, changer } = this;
    const made = await changer.mustOpen(folder, FOLDER);
    await changer.closeHandle(made.handle);
    const { handle } = await watcher.mustOpen(folder, FOLDER);
    const told = watcher.watch(handle, { waitMs: TOLD_MILLIS_MAX, filter: 1 });
    const echo = await watcher.echo();
    this.watched.push((echo.at - echo.sent) * 1e6);
    const file = await changer.mustOpen(`${folder}/new`, { disposition: 'create' });
    const answer = await told;
    if (answer.status !== 'OK') throw new LabError(`${this.name}: not told of ${folder}/new: ${answer.status}`);
    this.told.push((answer.at - file.sent) * 1e6);
    await changer.closeHandle(file.handle);
    await watcher.closeHandle(handle);
  }

  close(): void {
    this.watcher.close();
    this.changer.close();
  }
}

function quantiles(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): string => String(Math.round(sorted[Math.floor(share * (sorted.length - 1))]!));
  return ['50 %', '99 %', 'max'].map((name, i) => `${name} ${at([0.5, 0.99, 1][i]!).padStart(6)}`).join('  ');
}

async function main(): Promise<void> {
  const changes = Number(process.argv[2] ?? CHANGES_DEFAULT);
  if (!Number.isSafeInteger(changes) || changes < 1) throw new LabError('say how many changes: a whole number');
  const options = labOptions({ root: ROOT, fresh: true, servers: 3, baseline: true });
  await cleaningUpOnSignal(
    async () => {
      const lab = await Lab.up(options);
      const [zero, one] = lab.servers().map(({ address }) => address);
      const alone = lab.places().find(({ name }) => name === 'baseline')!.address;
      const pairs = [
        await Pair.connect('one unclustered smbd', alone, alone),
        await Pair.connect('pool, same server', zero!, zero!),
        await Pair.connect('pool, other server', zero!, one!),
      ];
      try {
        for (let i = 0; i < changes; i++) for (const [n, pair] of pairs.entries()) await pair.once(`n${n}-${i}`);
      } finally {
        for (const pair of pairs) pair.close();
        await lab.down();
        lab.wipe();
      }
      console.log(`${changes} changes each, in turns; microseconds`);
      const line = (what: string, name: string, values: readonly number[]): void => {
        console.log(`${what}, ${name.padEnd(22)} ${quantiles(values)}`);
      };
      for (const { name, told } of pairs) line('told after the change began', name, told);
      for (const { name, watched } of pairs) line('watch until the next answer', name, watched);
    },
    () => Lab.interrupt(),
  );
}

main().catch((error: unknown) => {
  console.error(`change-notify: ${messageOf(error)}`);
  process.exitCode = 1;
});
