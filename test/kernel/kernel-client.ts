/**
 * A real client: the Linux kernel's SMB client (cifs.ko) in a small virtual machine, under software emulation. Driven
 * by its serial line. Must never outlive the test.
 */
import { spawn, execFile } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { LAB_PASSWORD, LAB_USER, SHARE } from '../../src/lab/layout.js';
import { repositoryFolder } from '../../src/lab/repository.js';

const FOLDER = join(repositoryFolder(), '.cache/kernel-client');
const MEMORY_MEBIBYTES = 384;
/** Downloads a kernel of 70 MB, and packages the first time. */
const SYSTEM_MILLIS_MAX = 900_000;
/** A boot takes some five seconds on an idle machine. */
const BOOT_MILLIS_MAX = 90_000;
/** How much of its console is told when something goes wrong. */
const CONSOLE_LINES_KEPT = 30;

/** Why kernel clients cannot run here; false when they can. */
export const KERNEL_SKIP: string | false =
  process.getuid?.() !== 0
    ? 'needs root: sudo npm test -- kernel'
    : !existsSync('/usr/bin/apt-get') || process.arch !== 'x64'
      ? 'needs Debian on amd64, for its kernel and qemu: run "npm test -- kernel" there'
      : false;

/** Makes the clients' system, or finds it made; installs the Debian packages it takes. */
export async function makeSystem(): Promise<void> {
  const script = join(repositoryFolder(), 'test/kernel/make-system.sh');
  await promisify(execFile)('bash', [script, FOLDER], { timeout: SYSTEM_MILLIS_MAX });
}

export interface KernelClientOptions {
  name: string;
  server: string;
  turns: number;
  /** Of mount.cifs, besides user and password. */
  options: string;
}

export class KernelClient {
  private readonly console: string[] = [];
  private readonly told: string[] = [];
  private waiter: { resolve: (line: string) => void; reject: (error: Error) => void } | null = null;
  private over = false;

  private constructor(
    private readonly name: string,
    private readonly child: ChildProcessWithoutNullStreams,
  ) {}

  /** Boots one; resolves when it has mounted the share. */
  static async boot({ name, server, turns, options }: KernelClientOptions): Promise<KernelClient> {
    const settings = { server, share: SHARE, user: LAB_USER, password: LAB_PASSWORD, name, turns, options };
    const words = Object.entries(settings).map(([key, value]) => `smbpool.${key}=${value}`);
    const machine = [
      '-accel', 'tcg', '-cpu', 'max', '-m', String(MEMORY_MEBIBYTES), '-smp', '1', '-nographic', '-no-reboot',
      '-kernel', join(FOLDER, 'kernel'), '-initrd', join(FOLDER, 'initrd'),
      '-append', ['console=ttyS0', 'quiet', 'panic=-1', 'rdinit=/init', ...words].join(' '),
      '-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net',
    ];
    // it dies with us, however we die
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...machine]);
    const client = new KernelClient(name, child);
    createInterface({ input: child.stdout }).on('line', (line) => client.onLine(line));
    child.stderr.on('data', (text: Buffer) => client.keep(text.toString().trim()));
    child.stdin.on('error', () => undefined);
    child.on('error', (error) => client.end(error.message));
    child.on('close', () => client.end('its machine is off'));
    try {
      const first = await client.next(BOOT_MILLIS_MAX);
      if (first !== 'ready') throw client.error(first);
      return client;
    } catch (error) {
      client.kill();
      throw error;
    }
  }

  private keep(line: string): void {
    this.console.push(line);
    if (this.console.length > CONSOLE_LINES_KEPT) this.console.shift();
  }

  private onLine(raw: string): void {
    const line = raw.replace(/\r/g, '');
    this.keep(line);
    // the firmware leaves its own characters before the first line
    const at = line.indexOf('@');
    if (at === -1) return;
    const told = line.slice(at + 1);
    if (this.waiter === null) return void this.told.push(told);
    this.waiter.resolve(told);
    this.waiter = null;
  }

  private end(why: string): void {
    this.over = true;
    this.waiter?.reject(this.error(why));
    this.waiter = null;
  }

  private error(why: string): Error {
    return new Error(`kernel client ${this.name}: ${why}\n  its console: ${this.console.join('\n  ')}`);
  }

  /** The next thing that it tells. */
  async next(timeoutMillis: number): Promise<string> {
    const known = this.told.shift();
    if (known !== undefined) return known;
    if (this.over) throw this.error('its machine is off');
    return new Promise<string>((resolve, reject) => {
      const deadline = setTimeout(() => {
        this.waiter = null;
        reject(this.error(`told nothing for ${timeoutMillis / 1000} s`));
      }, timeoutMillis);
      this.waiter = {
        resolve: (line) => {
          clearTimeout(deadline);
          resolve(line);
        },
        reject: (error) => {
          clearTimeout(deadline);
          reject(error);
        },
      };
    });
  }

  /** One line to the script that it runs. */
  say(line: string): void {
    this.child.stdin.write(`${line}\n`);
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}
