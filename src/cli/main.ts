#!/usr/bin/env node
/**
 * The command line `smbpool`: one file per command beside this one. Prints what a command answers, or one sentence on
 * standard error and exit status 1 when it cannot.
 */
import { Command } from 'commander';
import { version } from '../ports/version.js';
import { registerDrain } from './drain.js';
import { registerFailovers } from './failovers.js';
import { registerIp } from './ip.js';
import { registerKeygen } from './keygen.js';
import { registerLab } from './lab.js';
import { registerPage } from './page.js';
import { registerRecord } from './record.js';
import { registerServers } from './servers.js';
import { registerStatus } from './status.js';
import { registerTop } from './top.js';
import { registerTrace } from './trace.js';
import { registerWaits } from './waits.js';
import { registerWho } from './who.js';

const program = new Command('smbpool')
  .description('looks at a pool of Samba servers, and runs one on this machine for trying out')
  .version(version())
  .showHelpAfterError()
  .enablePositionalOptions();
registerStatus(program);
registerPage(program);
registerFailovers(program);
registerRecord(program);
registerWho(program);
registerWaits(program);
registerTrace(program);
registerTop(program);
registerIp(program);
registerDrain(program);
registerServers(program);
registerKeygen(program);
registerLab(program);

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`smbpool: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
