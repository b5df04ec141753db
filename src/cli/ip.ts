/**
 * `smbpool ip`: the public addresses, which server has each, since when, and for how many clients. The text is made by
 * a pure function.
 */
import type { Command } from 'commander';
import { ADMIN_PATH } from '../ports/admin.js';
import type { AddressReport } from '../ports/status.js';
import { addAdminOptions, adminSocket, ask } from './admin-client.js';
import type { AdminOptions } from './admin-client.js';
import { duration, table } from './text.js';

interface IpOptions extends AdminOptions {
  json?: true;
}

export function registerIp(program: Command): void {
  const command = program
    .command('ip')
    .description('the public addresses: who has each, since when, and how many clients are connected to it')
    .option('--json', "the daemon's report as JSON");
  addAdminOptions(command).action(async (options: IpOptions) => {
    const addresses = await ask<AddressReport[]>(adminSocket(options), ADMIN_PATH.addresses);
    process.stdout.write(options.json ? `${JSON.stringify(addresses, null, 2)}\n` : ipText(addresses));
  });
}

export function ipText(addresses: readonly AddressReport[]): string {
  if (addresses.length === 0) return 'no public addresses are configured: write "addresses" in the configuration\n';
  const rows = addresses.map((one) => {
    const { address, prefixLength, holder, holderName, holderFitness, sinceMicros, connections } = one;
    const fitness = holderFitness === 'unfit' || holderFitness === 'draining' ? `, ${holderFitness}` : '';
    const who = holder === null ? 'NOBODY' : `${holder} (${holderName ?? '?'}${fitness})`;
    return [`${address}/${prefixLength}`, who, duration(sinceMicros), connections];
  });
  return `${table(['address', 'holder', 'since', 'connections'], rows)}\n`;
}
