/**
 * Tells systemd that the daemon serves, and by which process, or that it stops (Type=notify). Does
 * nothing when systemd did not start it. Called by main. Node.js has no datagram unix sockets, so systemd-notify(1)
 * carries the message.
 */
import { spawn } from 'node:child_process';

/** taken-over: ready, and this process is the main one now. */
export type ServiceState = 'ready' | 'taken-over' | 'stopping';

const ARGUMENTS: Record<ServiceState, readonly string[]> = {
  ready: ['--ready'],
  'taken-over': ['--ready', `--pid=${process.pid}`],
  stopping: ['--stopping'],
};

/**
 * Resolves once systemd was told, or at once where there is none to tell.
 * @returns why it could not be told; null when it was, or need not be.
 */
export function notifyServiceManager(state: ServiceState, environment: NodeJS.ProcessEnv): Promise<string | null> {
  if (!environment['NOTIFY_SOCKET']) return Promise.resolve(null);
  return new Promise((resolve) => {
    const child = spawn('systemd-notify', ARGUMENTS[state], { stdio: 'ignore', env: environment });
    child.once('error', (error) => resolve(`systemd-notify cannot be started: ${error.message}`));
    child.once('exit', (code) => resolve(code === 0 ? null : `systemd-notify ended with status ${String(code)}`));
  });
}
