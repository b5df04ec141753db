/**
 * Does the faults of a chaos run to a lab, and undoes them. Starting again what ended is the keepers' part (keeper.ts).
 */
import type { Prng } from '../../base/prng.js';
import type { Lab } from '../lab.js';
import type { ServerPlace } from '../layout.js';
import type { FrameLoss } from '../network.js';
import { processesIn, removeFrameLoss, setFrameLoss, setInterface, setLink, signalAll } from '../network.js';
import { signal } from '../processes.js';
import { pause } from '../run.js';
import { attachedSmbds } from '../smbds.js';
import type { Keeper } from './keeper.js';
import type { Fault } from './plan.js';

const SMBD_KILL_CHANCE = 0.5;

/** Sends a signal to all that runs on the server. */
async function signalServer(place: ServerPlace, name: NodeJS.Signals): Promise<void> {
  const pids = await processesIn(place.namespace);
  signalAll(pids, name);
  // who was made meanwhile
  signalAll((await processesIn(place.namespace)).filter((pid) => !pids.includes(pid)), name);
}

/** Faults under way, for a lab and its keepers. */
export class Faults {
  private losses: FrameLoss[] = [];

  constructor(
    private readonly lab: Lab,
    private readonly keepers: readonly Keeper[],
    private readonly prng: Prng,
  ) {}

  /** Makes the fault, waits as long as it lasts, and undoes it. */
  async make(fault: Fault): Promise<void> {
    const { kind, millis } = fault;
    const place = this.lab.server(fault.server);
    const { namespace } = place;
    const daemon = this.lab.process('smbpoold', fault.server);
    const smbd = this.lab.process('smbd', fault.server);
    switch (kind) {
      case 'server killed': {
        const keeper = this.keepers[fault.server];
        await keeper?.hold(async () => {
          await signalServer(place, 'SIGKILL');
          await pause(millis);
        });
        return;
      }
      case 'daemon killed':
        if (daemon) signal(daemon, 'SIGKILL');
        return;
      case 'smbds killed':
        signalAll(attachedSmbds(this.lab, place).filter(() => this.prng.chance(SMBD_KILL_CHANCE)), 'SIGKILL');
        return;
      case 'main smbd killed':
        if (smbd) signal(smbd, 'SIGKILL');
        return;
      case 'daemon stopped':
        return between(millis, (name) => Promise.resolve(daemon ? signal(daemon, name) : undefined), STOPPED);
      case 'server frozen':
        return between(millis, (name) => signalServer(place, name), STOPPED);
      case 'link down':
        return between(millis, (state) => setLink(namespace, state), DOWN);
      case 'interface down':
        return between(millis, (state) => setInterface(namespace, state), DOWN);
      default:
        return this.lose(this.lossesOf(fault), millis);
    }
  }

  private lossesOf({ kind, server, peer, percent }: Fault): FrameLoss[] {
    const own = this.lab.server(server).namespace;
    const other = peer === null ? null : this.lab.server(peer).namespace;
    const toOwn: FrameLoss = { from: other, to: own, percent: 100 };
    const fromOwn: FrameLoss = { from: own, to: other, percent: 100 };
    if (kind === 'hears nobody') return [toOwn];
    if (kind === 'heard by nobody' || kind === 'not heard by one') return [fromOwn];
    if (kind === 'cut off from one') return [toOwn, fromOwn];
    return [{ ...toOwn, percent }, { ...fromOwn, percent }];
  }

  private async lose(losses: readonly FrameLoss[], millis: number): Promise<void> {
    this.losses.push(...losses);
    try {
      await setFrameLoss(this.losses);
      await pause(millis);
    } finally {
      this.losses = this.losses.filter((loss) => !losses.includes(loss));
      await setFrameLoss(this.losses);
    }
  }

  /** Undoes what may be left when a fault could not be undone. */
  async heal(): Promise<void> {
    await removeFrameLoss();
    for (const place of this.lab.servers()) {
      await setLink(place.namespace, 'up');
      await setInterface(place.namespace, 'up');
      await signalServer(place, 'SIGCONT');
    }
  }
}

const STOPPED = ['SIGSTOP', 'SIGCONT'] as const;
const DOWN = ['down', 'up'] as const;

async function between<T>(millis: number, set: (state: T) => Promise<void>, [begin, end]: readonly [T, T]) {
  try {
    await set(begin);
    await pause(millis);
  } finally {
    await set(end);
  }
}
