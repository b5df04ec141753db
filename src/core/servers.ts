/**
 * The servers of the pool as this server knows them: whom it speaks with, which of them keep files, what people call
 * them and where they are; and a person's wish for others, which the membership decides (docs/decisions/joining.md).
 */
import type { NodeId } from '../base/ids.js';
import type { ServersChange } from '../wire/membership-messages.js';
import type { DescribedServer, Effect } from './effects.js';
import type { ServerList } from './membership/configuration.js';
import { fileServersIn, presentIn } from './membership/configuration.js';
import type { ChangeResult, MembershipEngine } from './membership/port.js';
import type { View } from './views.js';

export class Servers {
  /** Ascending; members that are being taken out are still among them. */
  all: readonly NodeId[];
  /** All but witnesses, of the view that we installed. */
  ofFiles: readonly NodeId[];
  readonly addresses: Map<NodeId, string>;
  private readonly names: Map<NodeId, string>;
  /** Of the person's wish that is under way; null: none is. */
  private wishToken: number | null = null;

  constructor(
    private readonly self: NodeId,
    configured: {
      servers: readonly NodeId[];
      isWitness: (server: NodeId) => boolean;
      names: Iterable<readonly [NodeId, string]>;
      addresses: Iterable<readonly [NodeId, string]>;
    },
    private readonly emit: (effect: Effect) => void,
  ) {
    this.all = [...configured.servers].sort((a, b) => a - b);
    this.ofFiles = this.all.filter((server) => !configured.isWitness(server));
    this.names = new Map(configured.names);
    this.addresses = new Map(configured.addresses);
  }

  get others(): readonly NodeId[] {
    return this.all.filter((server) => server !== this.self);
  }

  /** What people call the server. */
  nameOf(server: NodeId): string {
    return this.names.get(server) ?? `server ${server}`;
  }

  describe(servers: readonly DescribedServer[]): void {
    for (const { node, name, address } of servers) {
      this.names.set(node, name);
      this.addresses.set(node, address);
    }
  }

  installed({ configuration }: View): void {
    if (configuration !== undefined) this.ofFiles = fileServersIn(configuration);
  }

  /** As accepted; who is taken out stays until a view without it is installed. Returns whether they are others now. */
  accepted({ configuration }: ServerList, members: readonly NodeId[]): boolean {
    // nobody ever changed what the file says
    if (configuration.number === 0) return false;
    const servers = new Set([...presentIn(configuration), ...members, this.self]);
    const ascending = [...servers].sort((a, b) => a - b);
    if (ascending.join() === this.all.join()) return false;
    this.all = ascending;
    return true;
  }

  /** A person wants other servers. `engine`: null: views come from outside of the core. */
  wish(token: number, change: ServersChange, engine: MembershipEngine | null): void {
    const isBusy = this.wishToken !== null;
    if (engine === null || isBusy) return this.answer(token, { why: isBusy ? 'busy' : 'engine', about: [] });
    this.wishToken = token;
    engine.changeServers(change);
  }

  wishAnswered(result: ChangeResult): void {
    const token = this.wishToken;
    this.wishToken = null;
    if (token !== null) this.answer(token, result);
  }

  private answer(token: number, result: ChangeResult): void {
    this.emit({ kind: 'servers-changed', token, result });
  }
}
