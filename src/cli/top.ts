/**
 * `smbpool top`: the files used most, with what that costs; a screen that is redrawn in place, or, where output is no
 * terminal, a table per interval. What is shown is made by top-view; here are terminal, keys and time.
 */
import { emitKeypressEvents } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ReadStream, WriteStream } from 'node:tty';
import { Option } from 'commander';
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type { HotAnswer } from '../wire/locks.js';
import { addAdminOptions, adminSocket, ask } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { CommandError } from './errors.js';
import { numberParser } from './lock-options.js';
import { Output, untilStopped } from './output.js';
import { TOP_SORTS, press, topText } from './top-view.js';
import type { TopSort, TopView } from './top-view.js';

const INTERVAL_SECONDS_DEFAULT = 2;
const INTERVAL_SECONDS = { min: 0.1, max: 3600 };
/** Lines of a table where there is no screen to fill. */
const TABLE_LINES = 25;
/** A terminal that does not say how high it is. */
const SCREEN_LINES_DEFAULT = 24;

/** However it ends, the terminal must be left as it was. */
const END_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Plain ANSI: a screen of our own, without a cursor and without breaking long lines. */
const ENTER_SCREEN = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE_SCREEN = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const TO_TOP = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

interface TopOptions extends AdminOptions {
  sort: TopSort;
  interval: number;
  once?: true;
  json?: true;
}

export function registerTop(program: Command): void {
  const command = program
    .command('top')
    .description('the files used most in the whole pool: opens, moves between servers, waits')
    .addOption(new Option('--sort <column>', 'what to sort by').choices([...TOP_SORTS]).default('opens'))
    .option('--interval <seconds>', 'time between two looks', numberParser(INTERVAL_SECONDS), INTERVAL_SECONDS_DEFAULT)
    .option('--once', 'look once')
    .option('--json', "the daemon's answers as JSON, one a line");
  addAdminOptions(command).action(async (options: TopOptions) => {
    const socket = adminSocket(options);
    const look: Look = (signal) => ask<HotAnswer>(socket, ADMIN_PATH.hot, {}, signal);
    const { stdin, stdout } = process;
    const view: TopView = { sort: options.sort, filter: '', typing: null, quit: false };
    const isScreen = stdout.isTTY && stdin.isTTY && options.once !== true && options.json !== true;
    if (!isScreen) return printTables(look, view, options);
    await new TopScreen({ input: stdin, output: stdout, look, intervalMs: options.interval * 1000 }, view).run();
  });
}

async function printTables(look: Look, view: TopView, options: TopOptions): Promise<void> {
  const stopped = untilStopped();
  const output = new Output(process.stdout, () => stopped.abort());
  for (let count = 0; !stopped.signal.aborted; count++) {
    const answer = await look(stopped.signal).catch((error: unknown) => {
      if (stopped.signal.aborted) return null;
      throw error;
    });
    if (answer === null) return;
    const text = options.json ? `${JSON.stringify(answer)}\n` : topText(answer, view, TABLE_LINES, false);
    await output.write(count === 0 || options.json ? text : `\n${text}`);
    if (options.once) return;
    await sleep(options.interval * 1000, undefined, { signal: stopped.signal }).catch(() => {});
  }
}

/** Asks the daemon; the signal gives it up. @throws CommandError (rejects) */
export type Look = (signal: AbortSignal) => Promise<HotAnswer>;

export interface TopTerminal {
  input: Pick<ReadStream, 'on' | 'off' | 'setRawMode' | 'resume' | 'pause'> & NodeJS.ReadableStream;
  output: Pick<WriteStream, 'on' | 'off' | 'write' | 'rows'>;
  look: Look;
  intervalMs: number;
}

/** The live screen. Outlives the daemon: it says so, and shows the next run of it. */
export class TopScreen {
  private answer: HotAnswer | null = null;
  private trouble = '';
  private readonly ended = new AbortController();

  constructor(
    private readonly terminal: TopTerminal,
    private view: TopView,
  ) {}

  /**
   * Until a key or a signal ends it; leaves the terminal as it was.
   * @throws CommandError when the daemon is not there to begin with.
   */
  async run(): Promise<void> {
    const { input, output, look } = this.terminal;
    this.answer = await look(this.ended.signal);
    emitKeypressEvents(input);
    const quit = (): void => this.ended.abort();
    const draw = (): void => this.draw();
    input.on('keypress', this.onKey).on('end', quit);
    output.on('resize', draw).on('error', quit);
    for (const signal of END_SIGNALS) process.on(signal, quit);
    input.setRawMode(true);
    input.resume();
    output.write(ENTER_SCREEN);
    try {
      await this.lookUntilEnded();
    } finally {
      output.write(LEAVE_SCREEN);
      input.setRawMode(false);
      input.pause();
      input.off('keypress', this.onKey).off('end', quit);
      output.off('resize', draw);
      for (const signal of END_SIGNALS) process.off(signal, quit);
    }
  }

  private async lookUntilEnded(): Promise<void> {
    const { signal } = this.ended;
    while (!signal.aborted) {
      this.draw();
      await sleep(this.terminal.intervalMs, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        this.answer = await this.terminal.look(signal);
        this.trouble = '';
      } catch (error) {
        if (!(error instanceof CommandError)) throw error;
        this.trouble = error.message;
      }
    }
  }

  private readonly onKey = (text: string | undefined, key: { name?: string; ctrl?: boolean } | undefined): void => {
    const name = key?.name ?? text ?? '';
    this.view = press(this.view, { text: text ?? '', name, ctrl: key?.ctrl === true });
    if (this.view.quit) this.ended.abort();
    else this.draw();
  };

  private draw(): void {
    if (this.answer === null || this.ended.signal.aborted) return;
    const rows = this.terminal.output.rows ?? SCREEN_LINES_DEFAULT;
    const trouble = this.trouble === '' ? '' : `${this.trouble}\n`;
    const text = trouble + topText(this.answer, this.view, rows - (trouble === '' ? 0 : 1), true);
    const lines = text.trimEnd().split('\n').slice(0, rows);
    this.terminal.output.write(`${TO_TOP}${lines.map((line) => line + CLEAR_LINE).join('\r\n')}${CLEAR_BELOW}`);
  }
}
