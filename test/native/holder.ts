/** The tests' side of tdb-holder: a second process that has a tdb open. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { TestContext } from 'node:test';
import type { HolderCommand } from './tdb-holder.js';

export class Holder {
  private readonly child: ChildProcess;

  constructor(t: TestContext) {
    this.child = fork(new URL('./tdb-holder.js', import.meta.url));
    t.after(() => this.kill());
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  ask(command: HolderCommand): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error('the second process ended'));
      this.child.once('exit', ended);
      this.child.once('message', (reply: { result?: unknown; error?: string }) => {
        this.child.off('exit', ended);
        if (reply.error === undefined) resolve(reply.result);
        else reject(new Error(reply.error));
      });
      this.child.send(command);
    });
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGKILL');
    await ended;
  }
}
