/**
 * The administrator's own programs: which files of the directory are hooks and may be run, and running one with a bound
 * on its time and its output. Used by hooks.ts; decides nothing about fitness.
 */
import { spawn } from 'node:child_process';
import { lstat, readdir } from 'node:fs/promises';
import type { Stats } from 'node:fs';
import { join } from 'node:path';
import { codeOf, messageOf } from '../../host/errors.js';

export interface HookFile {
  name: string;
  path: string;
  kind: 'check' | 'event';
}

export interface HookListing {
  hooks: HookFile[];
  /** What is not run, and why, with what to do. */
  refused: { path: string; why: string; remedy: string }[];
}

/** More is kept from no program; a person reads its first line. */
const OUTPUT_BYTES_MAX = 4_096;
const LINE_CHARACTERS_MAX = 300;
const OTHERS_WRITE = 0o022;
const EXECUTE = 0o111;
/** As run-parts has it: neither backups of editors nor what a package manager left. */
const HOOK_NAME = /^(check|event)-[A-Za-z0-9_-]+$/;

/** The hooks in the directory, by name. A directory that is not there has none. */
export async function listHooks(directory: string, ownUid: number): Promise<HookListing> {
  const listing: HookListing = { hooks: [], refused: [] };
  try {
    const why = refusalOf(await lstat(directory), ownUid, 'directory');
    if (why !== null) return { hooks: [], refused: [{ path: directory, ...why }] };
    for (const name of (await readdir(directory)).sort()) {
      if (name.startsWith('.') || name.startsWith('README')) continue;
      const path = join(directory, name);
      const kind = HOOK_NAME.exec(name)?.[1];
      const remedy = 'name it check-NAME or event-NAME, of letters, digits, "_" and "-"';
      const refusal = kind === undefined
        ? { why: 'its name is not that of a hook', remedy } : refusalOf(await lstat(path), ownUid, 'file');
      if (refusal !== null) listing.refused.push({ path, ...refusal });
      else listing.hooks.push({ name, path, kind: kind as HookFile['kind'] });
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') {
      const remedy = 'see that smbpoold may read the directory of the hooks';
      listing.refused.push({ path: directory, why: messageOf(error), remedy });
    }
  }
  return listing;
}

/** smbpoold runs as root: what others can write to must not be run. */
function refusalOf(stats: Stats, ownUid: number, kind: 'file' | 'directory'): { why: string; remedy: string } | null {
  const isRight = kind === 'file' ? stats.isFile() : stats.isDirectory();
  if (!isRight) return { why: `it is no ${kind}`, remedy: `put a ${kind} there; links are not followed` };
  if (stats.uid !== 0 && stats.uid !== ownUid) return { why: 'it belongs to another user', remedy: 'chown root' };
  if ((stats.mode & OTHERS_WRITE) !== 0) return { why: 'others can write to it', remedy: 'chmod go-w' };
  if ((stats.mode & EXECUTE) === 0) return { why: 'it cannot be executed', remedy: 'chmod u+x' };
  return null;
}

/** A program under way. */
export interface Running {
  /** null: it ended with 0. Else the first line that it said, or how it ended. Never rejects. */
  outcome: Promise<string | null>;
  /** Ends it, with all processes of its group. */
  kill(): void;
}

export function runHook(path: string, args: readonly string[], variables: Record<string, string>): Running {
  const env = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', ...variables };
  const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, cwd: '/', env });
  let output = Buffer.alloc(0);
  const keep = (chunk: Buffer): void => {
    // read to its end, so that the program does not wait for us
    if (output.length < OUTPUT_BYTES_MAX) output = Buffer.concat([output, chunk]).subarray(0, OUTPUT_BYTES_MAX);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.unref();
  const outcome = new Promise<string | null>((resolve) => {
    child.on('error', (error) => resolve(messageOf(error)));
    let ended: { code: number | null; signal: string | null } | null = null;
    const settle = (): void => {
      if (ended === null) return;
      if (ended.code === 0) return resolve(null);
      const [line = ''] = output.toString().trim().split('\n');
      const how = ended.code === null ? `it was ended by ${ended.signal}` : `it ended with exit status ${ended.code}`;
      resolve(line === '' ? how : line.replace(/\p{C}/gu, '?').slice(0, LINE_CHARACTERS_MAX));
    };
    child.on('exit', (code, signal) => {
      ended = { code, signal };
      // what it left running may hold its output open for ever
      setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
        settle();
      }, OUTPUT_AFTER_END_MS).unref();
    });
    child.on('close', settle);
  });
  return { outcome, kill: () => killGroup(child.pid) };
}

/** What the program said last may be in the pipe when it has ended. */
const OUTPUT_AFTER_END_MS = 200;

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // it ended by itself
  }
}
