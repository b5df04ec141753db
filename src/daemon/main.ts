#!/usr/bin/env -S node --single-threaded-gc --max-semi-space-size=2
/**
 * `smbpoold`: reads the command line, starts the daemon, and stops it on SIGTERM or SIGINT. Everything that keeps it
 * from starting is one sentence on standard error and exit status 1. smbd's processes end when this one does and no
 * standby goes on in its place (`standby: on`), so it only ends on purpose or on a bug.
 */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import { CONFIG_FILE_DEFAULT } from '../ports/admin.js';
import { version } from '../ports/version.js';
import { loadConfig } from './config.js';
import type { Config } from './config.js';
import { Daemon } from './daemon.js';
import { ConfigError, StartError } from './errors.js';
import { readKeyFile } from './key-file.js';
import { requireMachine } from './machine.js';
import { standBy } from './standby.js';
import type { Succession } from './standby.js';
import { STANDBY_OPTION } from './standby-link.js';

/** A clean stop takes milliseconds; a host that hangs in it must not keep systemd waiting for its own 90 s. */
const STOP_TIMEOUT_MS = 10_000;

interface Arguments {
  config: string;
  server?: string;
  checkConfig?: true;
  standby?: string;
}

function parseArguments(argv: readonly string[]): Arguments {
  return new Command('smbpoold')
    .description('one server of a pool of Samba servers; smbd connects to it as to CTDB')
    .version(version())
    .option('--config <file>', 'the configuration file', CONFIG_FILE_DEFAULT)
    .option('--server <name>', 'which server to be; otherwise "server" in the file, otherwise the host name')
    .option('--check-config', 'say whether the configuration is good, and end')
    .addOption(new Option(`--${STANDBY_OPTION} <pid>`).hideHelp())
    .allowExcessArguments(false)
    .parse([...argv])
    .opts<Arguments>();
}

function checkConfig(options: Arguments): void {
  const config = loadConfig(options.config, identity(options));
  readKeyFile(config.pool.keyFile, process.getuid?.() ?? 0);
  requireMachine(config);
  const { self, servers, pool } = config;
  const which = `server ${self.name} (id ${self.id}), one of ${servers.length} of pool ${pool.name}`;
  process.stdout.write(`${config.file}: good. This is ${which}.\n`);
}

function identity(options: Arguments): { server?: string } {
  return options.server === undefined ? {} : { server: options.server };
}

/** Ends with the active daemon, or goes on in its place. */
async function runStandby(options: Arguments): Promise<void> {
  const config = loadConfig(options.config, identity(options));
  // whoever signals all processes of the service means the active one, with which this one ends
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, () => undefined);
  const how = await standBy(config, Number(options.standby), (...known) => Daemon.rehearse(...known));
  if (how === null) process.exit(0);
  if (typeof how === 'string') throw new StartError(`the standby does not take over: ${how}`);
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.removeAllListeners(name);
  await serve(how.config, how);
}

async function run(options: Arguments): Promise<void> {
  await serve(loadConfig(options.config, identity(options)));
}

async function serve(config: Config, succession?: Succession): Promise<void> {
  const daemon = await Daemon.start(config, succession);
  let stopping = false;
  const stop = (signal: string): void => {
    if (stopping) return;
    stopping = true;
    setTimeout(() => daemon.abort(`the daemon did not stop within ${STOP_TIMEOUT_MS} ms`), STOP_TIMEOUT_MS).unref();
    daemon.stop(signal).then(
      () => process.exit(0),
      (error: unknown) => daemon.abort('the daemon did not stop cleanly', error),
    );
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
  process.on('SIGHUP', () => daemon.reopenLog());
  const unexpected = 'an error that nothing in smbpoold expected; it ends';
  process.on('uncaughtException', (error) => daemon.abort(unexpected, error));
  await daemon.announce();
}

/** What a person reads who started the daemon: sentences where we have them, the whole error where it is a bug. */
function explain(error: unknown): string {
  if (error instanceof ConfigError) return error.problems.map((problem) => `smbpoold: ${problem}\n`).join('');
  if (error instanceof StartError) return `smbpoold: ${error.message}\n`;
  return `smbpoold: cannot start: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`;
}

async function main(argv: readonly string[]): Promise<void> {
  try {
    const options = parseArguments(argv);
    if (options.checkConfig) checkConfig(options);
    else if (options.standby !== undefined) await runStandby(options);
    else await run(options);
  } catch (error) {
    process.stderr.write(explain(error));
    process.exit(1);
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv);
}
