#!/usr/bin/env node
/**
 * `smbpoold`: reads the command line, starts the daemon, and stops it on SIGTERM or SIGINT. Everything that keeps it
 * from starting is one sentence on standard error and exit status 1. smbd's processes end when this one does, so it
 * only ends on purpose or on a bug.
 */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { CONFIG_FILE_DEFAULT } from '../ports/admin.js';
import { version } from '../ports/version.js';
import { loadConfig } from './config.js';
import { Daemon } from './daemon.js';
import { ConfigError, StartError } from './errors.js';
import { readKeyFile } from './key-file.js';
import { requireMachine } from './machine.js';

/** A clean stop takes milliseconds; a host that hangs in it must not keep systemd waiting for its own 90 s. */
const STOP_TIMEOUT_MS = 10_000;

interface Arguments {
  config: string;
  server?: string;
  checkConfig?: true;
}

function parseArguments(argv: readonly string[]): Arguments {
  return new Command('smbpoold')
    .description('one server of a pool of Samba servers; smbd connects to it as to CTDB')
    .version(version())
    .option('--config <file>', 'the configuration file', CONFIG_FILE_DEFAULT)
    .option('--server <name>', 'which server to be; otherwise "server" in the file, otherwise the host name')
    .option('--check-config', 'say whether the configuration is good, and end')
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

async function run(options: Arguments): Promise<void> {
  const config = loadConfig(options.config, identity(options));
  const daemon = await Daemon.start(config);
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
    else await run(options);
  } catch (error) {
    process.stderr.write(explain(error));
    process.exit(1);
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv);
}
