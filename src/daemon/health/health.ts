/**
 * All checks of this server (docs/decisions/health.md): makes them from the configuration, gathers what fails, and
 * tells the core, which decides what follows. Made by the daemon; never keeps its loop waiting.
 */
import type { HookEvent } from '../../core/effects.js';
import type { Log } from '../../ports/log.js';
import type { Config } from '../config.js';
import { FolderCheck } from './folder-check.js';
import { Hooks } from './hooks.js';
import { LoopCheck, SpaceCheck } from './machine-checks.js';
import { SmbdCheck } from './smbd-check.js';
import type { Check, CheckTimes } from './watch.js';
import { Watch } from './watch.js';

export interface HealthPorts {
  hasSmbd(): boolean;
  /** All that fails now, a sentence each. */
  setHealth(reasons: string[]): void;
}

export class Health {
  private readonly failing = new Map<string, string>();
  private readonly hooks: Hooks;
  private watches: Watch[] = [];
  private ports: HealthPorts | null = null;

  constructor(
    private readonly config: Config,
    private readonly log: Log,
  ) {
    const { hooks, pool, self } = config;
    const variables = { SMBPOOL_POOL: pool.name, SMBPOOL_SERVER: self.name };
    const options = { directory: hooks.directory, times: hooks, variables };
    this.hooks = new Hooks(options, log, (...one) => this.changed(...one));
  }

  /** For event hooks; may be called before the start. */
  tell(event: HookEvent, fields: Record<string, string>): void {
    this.hooks.tell(event, fields);
  }

  start(ports: HealthPorts): void {
    this.ports = ports;
    const watch = (check: Check, times: CheckTimes): Watch => new Watch(check, times, (...one) => this.changed(...one));
    this.watches = checksOf(this.config, ports).map(({ check, times }) => watch(check, times));
    this.hooks.start();
  }

  stop(): void {
    for (const watch of this.watches) watch.stop();
    this.hooks.stop();
  }

  private changed(name: string, reason: string | null): void {
    if (reason === null) {
      if (this.failing.delete(name)) this.log.log('info', 'check.passes', { check: name });
    } else {
      this.failing.set(name, reason);
      this.log.log('warn', 'check.fails', { check: name, why: reason });
    }
    this.ports?.setHealth([...this.failing.values()]);
  }
}

function checksOf(config: Config, ports: HealthPorts): { check: Check; times: CheckTimes }[] {
  const { health, directories, self } = config;
  const { smbd, folders, space, loop } = health;
  const file = folders.write ? `.smbpool-check-${self.name}` : '';
  const checks: { check: Check; times: CheckTimes }[] = [
    ...folders.paths.map((path) => ({ check: new FolderCheck(path, file), times: folders })),
    { check: new SpaceCheck(directories.volatile, space.volatileMib), times: space },
    { check: new SpaceCheck(directories.persistent, space.persistentMib), times: space },
    { check: new LoopCheck(loop.delayMs), times: loop },
  ];
  if (self.role === 'server' && smbd.check) {
    checks.push({ check: new SmbdCheck(smbd, () => ports.hasSmbd()), times: smbd });
  }
  return checks;
}
