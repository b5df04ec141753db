/**
 * Watches from outside which servers the pool has (docs/decisions/joining.md): agreed configurations follow each other
 * by one server, and none is lost. It counts majorities itself, from what is on the disks.
 */
import type { NodeId } from '../../../src/base/ids.js';
import type { View } from '../../../src/core/views.js';
import type { Configuration } from '../../../src/wire/membership-configuration.js';
import type { ServersChange } from '../../../src/wire/membership-messages.js';

export class ServersChecker {
  /** How often an agreed view changed the servers. */
  changes = 0;
  /** Agreed views, by epoch. */
  private readonly agreed: { epoch: number; configuration: Configuration }[] = [];
  private readonly contents = new Map<number, string>();
  private readonly first: Configuration;
  /** The highest number of a configuration that somebody was told to be done. */
  private told = 0;

  constructor(
    nodes: readonly NodeId[],
    private readonly fail: (rule: string, text: string) => void,
  ) {
    this.first = { number: 0, counted: [...nodes], joining: [], witnesses: [], former: [], digest: 0 };
  }

  /** Of the newest agreed view. */
  get newest(): Configuration {
    return this.agreed.at(-1)?.configuration ?? this.first;
  }

  isMajority(view: View, has: ReadonlySet<NodeId>): boolean {
    const { counted } = view.configuration ?? this.first;
    return 2 * counted.filter((node) => has.has(node)).length > counted.length;
  }

  agree(view: View): void {
    const configuration = view.configuration ?? this.first;
    const { number } = configuration;
    const text = JSON.stringify(configuration);
    const known = this.contents.get(number);
    if (known !== undefined && known !== text) this.fail('one-configuration-a-number', `${number}: ${known}, ${text}`);
    this.contents.set(number, text);
    // a slow disk may complete the majority of an earlier view later
    this.agreed.push({ epoch: view.epoch, configuration });
    this.agreed.sort((a, b) => a.epoch - b.epoch);
    const place = this.agreed.findIndex(({ epoch }) => epoch === view.epoch);
    this.checkStep(this.agreed[place - 1]?.configuration ?? this.first, configuration);
    const after = this.agreed[place + 1];
    if (after !== undefined) this.checkStep(configuration, after.configuration);
    if (place === this.agreed.length - 1 && number < this.told) {
      this.fail('configuration-never-lost', `${number} is agreed, although ${this.told} was answered as done`);
    }
  }

  private checkStep(before: Configuration, after: Configuration): void {
    if (after.number === before.number) return;
    this.changes++;
    const step = after.number - before.number;
    const changed = [...after.counted, ...before.counted].filter(
      (node) => after.counted.includes(node) !== before.counted.includes(node),
    );
    if (step < 0) this.fail('configuration-never-lost', `${after.number} follows ${before.number}`);
    else if (step > 1 || changed.length > 1) {
      this.fail('one-server-at-a-time', `${changed.join()} from ${before.number}`);
    }
  }

  /** Somebody was told that the change is done. */
  done({ what, number, server }: ServersChange): void {
    const { newest } = this;
    const isIn = newest.counted.includes(server.node) || newest.joining.includes(server.node);
    // another change may have undone it since, which has a higher number
    if (newest.number > number + 1) {
      this.told = Math.max(this.told, number + 1);
      return;
    }
    if (newest.number <= number || isIn !== (what === 'join')) {
      this.fail('told-is-agreed', `${what} of ${server.node} at ${number}, agreed is ${JSON.stringify(newest)}`);
    }
    this.told = Math.max(this.told, newest.number);
  }
}
