/**
 * Watches opens of folders from outside: it hears when a smbd has stored an open's entry, and when it takes the entry
 * away again. Checked: no open that excludes others is there at the same time as any other of that folder, wherever
 * their entries are (docs/decisions/shared-folders.md, invariants 1 and 2).
 */
import type { RecordKey } from '../../src/base/ids.js';

interface Handle {
  smbd: string;
  folder: RecordKey;
  excludes: boolean;
}

export class FolderChecker {
  readonly totals = { inSlices: 0, inOne: 0, excluded: 0, refused: 0, moved: 0 };
  private readonly handles = new Set<Handle>();
  /** Their records are lost, with both servers that had them: nobody can know what is open. */
  private readonly lost = new Set<RecordKey>();

  constructor(private readonly report: (text: string, folder: RecordKey) => void) {}

  opened(handle: Handle, isInSlice: boolean): void {
    const { smbd, folder, excludes } = handle;
    if (excludes) this.totals.excluded++;
    else if (isInSlice) this.totals.inSlices++;
    else this.totals.inOne++;
    const other = [...this.handles].find((one) => one.folder === folder && (one.excludes || excludes));
    this.handles.add(handle);
    if (other === undefined || this.lost.has(folder)) return;
    const how = (excluding: boolean): string => (excluding ? 'excluding' : 'sharing');
    const where = isInSlice ? ' by its slice' : '';
    this.report(`${smbd} has it open, ${how(excludes)}${where}, and ${other.smbd}, ${how(other.excludes)}`, folder);
  }

  closed(handle: Handle): void {
    this.handles.delete(handle);
  }

  died(smbd: string): void {
    for (const handle of this.handles) if (handle.smbd === smbd) this.handles.delete(handle);
  }

  excuse(isLost: (folder: RecordKey) => boolean): void {
    for (const { folder } of this.handles) if (isLost(folder)) this.lost.add(folder);
  }
}
