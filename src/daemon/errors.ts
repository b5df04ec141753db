/**
 * The errors that keep smbpoold from starting. Each message is one sentence for the person who started it, naming what
 * is wrong and what to do; main prints it and exits 1. Never thrown once the daemon serves.
 */

/**
 * The configuration, or a file it names, cannot be used. `problems` are whole lines, each with file, key and remedy.
 */
export class ConfigError extends Error {
  readonly code = 'ERR_POOL_CONFIG';
  constructor(readonly problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'ConfigError';
  }
}

/** The machine does not let the daemon start: a lock is taken, an interface or a capability is missing. */
export class StartError extends Error {
  readonly code = 'ERR_POOL_START';
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'StartError';
  }
}
