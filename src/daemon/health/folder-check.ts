/**
 * Whether the file system below a share answers: a process of its own looks at the folder, writes a small file there
 * and reads it back. When the file system hangs, that process does, and nothing else; it is ended, and no other is
 * started before it is gone, which the kernel may put off for as long as the file system hangs.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { Check } from './watch.js';

/**
 * Reads a number, answers with it and what is wrong, or "ok". The shell's own commands only, so that a probe starts no
 * program; it ends with its standard input.
 */
const SCRIPT = `
while read -r n; do
  why=
  if [ ! -d "$1" ]; then why='it is no folder, or not there'
  elif [ -n "$2" ]; then
    if why=$( { echo "$n" > "$1/$2"; } 2>&1 ); then
      read -r back < "$1/$2" && [ "$back" = "$n" ] || why='what was written does not come back'
    else why="\${why:-it cannot be written to}"
    fi
  fi
  echo "$n \${why:-ok}"
done`;

const LINE_CHARACTERS_MAX = 1_000;

type Helper = ChildProcessByStdio<Writable, Readable, null>;

export class FolderCheck implements Check {
  readonly name: string;
  private helper: Helper | null = null;
  private probes = 0;

  constructor(
    private readonly path: string,
    /** Of the file that is written; empty: the folder is only looked at. */
    private readonly fileName: string,
  ) {
    this.name = `folder ${path}`;
  }

  /** For tests. */
  get pid(): number | undefined {
    return this.helper?.pid;
  }

  run(): Promise<string | null> {
    return new Promise((resolve) => {
      const helper = this.helper ?? this.start();
      const number = ++this.probes;
      let text = '';
      const onData = (chunk: Buffer): void => {
        text = (text + chunk.toString()).slice(-LINE_CHARACTERS_MAX);
        const line = text.split('\n').slice(0, -1).find((one) => one.startsWith(`${number} `));
        if (line !== undefined) end(this.judge(line.slice(`${number} `.length)));
      };
      const onExit = (): void => end(`the process that looks at ${this.path} ended`);
      const end = (outcome: string | null): void => {
        helper.stdout.off('data', onData);
        helper.off('exit', onExit).off('error', onExit);
        resolve(outcome);
      };
      helper.stdout.on('data', onData);
      helper.on('exit', onExit).on('error', onExit);
      helper.stdin.write(`${number}\n`);
    });
  }

  late(seconds: number): string {
    return `the file system of ${this.path} does not answer within ${seconds} s`;
  }

  abandon(): void {
    const pid = this.helper?.pid;
    if (pid === undefined) return;
    try {
      // with what the shell may have started
      process.kill(-pid, 'SIGKILL');
    } catch {
      // it ended by itself
    }
  }

  private start(): Helper {
    const helper = spawn('/bin/sh', ['-c', SCRIPT, 'probe', this.path, this.fileName], {
      stdio: ['pipe', 'pipe', 'ignore'], detached: true, cwd: '/', env: { PATH: '/usr/bin:/bin' },
    });
    this.helper = helper;
    const gone = (): void => void (this.helper = null);
    helper.on('exit', gone).on('error', gone);
    helper.stdin.on('error', () => undefined);
    helper.unref();
    for (const end of [helper.stdin, helper.stdout]) (end as Socket).unref();
    return helper;
  }

  private judge(said: string): string | null {
    // without the shell's name and line
    return said === 'ok' ? null : `the folder ${this.path}: ${said.replace(/^probe: (line )?\d+: /, '')}`;
  }
}
