/**
 * Whether all servers of the pool share folders: one whose smbds do not ask before they exclude others would pass by
 * the delegations of the rest. Each tells the others with each view; delegations wait until all have said so, and end
 * when somebody says otherwise. Used by core/node.
 */
import type { NodeId } from '../../base/ids.js';
import { FOLDERS_PROTOCOL } from '../../wire/protocol-version.js';
import { encodeWitnessMessage } from '../../wire/witness-messages.js';
import type { CoreContext } from '../context.js';
import { FOLDERS_NAME } from './folders.js';
import type { Folders } from './folders.js';

export class FolderAgreement {
  /** What the present runs of other members said. */
  private readonly said = new Map<NodeId, boolean>();

  /**
   * @param shares whether this server is configured so
   * @param nameOf what people call a server
   */
  constructor(
    private readonly context: CoreContext,
    private readonly folders: Folders,
    private readonly shares: boolean,
    private readonly nameOf: (server: NodeId) => string,
  ) {}

  /** This run begins: our smbds ask from the first open on. `open` opens a database that only the daemons use. */
  begin(open: (name: string) => void): void {
    if (!this.shares) return;
    open(FOLDERS_NAME);
    this.context.emit({ kind: 'shares-folders' });
  }

  /** There is another view; the runs of these servers are new in it, or out. */
  installed(changed: readonly NodeId[]): void {
    for (const server of changed) this.said.delete(server);
    this.folders.setMayDelegate(false);
  }

  /** All members have installed the view, so all of them know what the pool speaks. */
  settled(): void {
    if (!this.context.speaks(FOLDERS_PROTOCOL)) return;
    const message = encodeWitnessMessage({ kind: 'folders', shares: this.shares });
    for (const member of this.others()) this.context.send(member, message);
    this.judge();
  }

  heard(from: NodeId, shares: boolean): void {
    this.said.set(from, shares);
    if (!shares && this.shares) {
      const remedy = 'write the same "sharedFolders" into the configurations of all servers';
      const why = `${this.nameOf(from)} does not share folders, so nobody does`;
      this.context.log('warn', 'folders-not-shared', { peer: from, why, remedy });
      this.folders.recallAll();
    }
    this.judge();
  }

  private judge(): void {
    if (!this.shares || !this.context.speaks(FOLDERS_PROTOCOL)) return;
    this.folders.setMayDelegate(this.others().every((member) => this.said.get(member) === true));
  }

  private others(): NodeId[] {
    return this.context.members.filter((member) => member !== this.context.self);
  }
}
