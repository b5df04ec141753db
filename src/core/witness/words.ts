/**
 * SMB's numbers in the words people know: access masks, sharing, oplocks, leases, statuses. Constants are those of
 * [MS-SMB2] and [MS-ERREF]; oplock numbers are smbd's own (source3/include/smb.h).
 */

const ACCESS_WORDS: [number, string][] = [
  [0x0000_0001, 'read'],
  [0x0000_0002, 'write'],
  [0x0000_0004, 'append'],
  [0x0000_0020, 'execute'],
  [0x0001_0000, 'delete'],
  [0x0004_0000, 'change permissions'],
  [0x0008_0000, 'take ownership'],
  [0x0200_0000, 'maximum allowed'],
  [0x1000_0000, 'all'],
  [0x2000_0000, 'execute'],
  [0x4000_0000, 'write'],
  [0x8000_0000, 'read'],
];

/** FILE_ALL_ACCESS. */
const FULL_ACCESS = 0x001f_01ff;

/** 'read, write', or 'attributes' for an open that reads and writes no data. */
export function accessWords(mask: number): string {
  if ((mask & FULL_ACCESS) === FULL_ACCESS) return 'full control';
  const words = ACCESS_WORDS.filter(([bit]) => (mask & bit) !== 0).map(([, word]) => word);
  return words.length === 0 ? 'attributes' : [...new Set(words)].join(', ');
}

/** 'rwd' lets others read, write and delete; '-' stands for what is denied. */
export function sharingWords(share: number): string {
  return `${(share & 1) !== 0 ? 'r' : '-'}${(share & 2) !== 0 ? 'w' : '-'}${(share & 4) !== 0 ? 'd' : '-'}`;
}

const LEASE_OPLOCK = 0x100;

export function oplockWord(oplock: number): 'none' | 'level2' | 'exclusive' | 'batch' | 'lease' {
  if ((oplock & LEASE_OPLOCK) !== 0) return 'lease';
  if ((oplock & 2) !== 0) return 'batch';
  if ((oplock & 1) !== 0) return 'exclusive';
  return (oplock & 4) !== 0 ? 'level2' : 'none';
}

/** 'RWH', 'RH', 'R' or ''. */
export function leaseWord(state: number): string {
  return `${(state & 1) !== 0 ? 'R' : ''}${(state & 4) !== 0 ? 'W' : ''}${(state & 2) !== 0 ? 'H' : ''}`;
}

/** 'lease RWH', 'batch', 'no oplock'. */
export function cachingWords(oplock: number, leaseState: number): string {
  const word = oplockWord(oplock);
  if (word === 'lease') return `lease ${leaseWord(leaseState) || 'none'}`;
  return word === 'none' ? 'no oplock' : word;
}

const DISPOSITIONS = ['supersede', 'open', 'create', 'open or create', 'overwrite', 'overwrite or create'];

export function dispositionWord(disposition: number): string {
  return DISPOSITIONS[disposition] ?? `disposition ${disposition}`;
}

const STATUS_NAMES = new Map<number, string>([
  [0x0000_0103, 'PENDING'],
  [0xc000_000d, 'INVALID_PARAMETER'],
  [0xc000_000f, 'NO_SUCH_FILE'],
  [0xc000_0022, 'ACCESS_DENIED'],
  [0xc000_0033, 'OBJECT_NAME_INVALID'],
  [0xc000_0034, 'OBJECT_NAME_NOT_FOUND'],
  [0xc000_0035, 'OBJECT_NAME_COLLISION'],
  [0xc000_003a, 'OBJECT_PATH_NOT_FOUND'],
  [0xc000_0043, 'SHARING_VIOLATION'],
  [0xc000_0054, 'FILE_LOCK_CONFLICT'],
  [0xc000_0055, 'LOCK_NOT_GRANTED'],
  [0xc000_0056, 'DELETE_PENDING'],
  [0xc000_007e, 'RANGE_NOT_LOCKED'],
  [0xc000_007f, 'DISK_FULL'],
  [0xc000_00ba, 'FILE_IS_A_DIRECTORY'],
  [0xc000_00bb, 'NOT_SUPPORTED'],
  [0xc000_0101, 'DIRECTORY_NOT_EMPTY'],
  [0xc000_0103, 'NOT_A_DIRECTORY'],
  [0xc000_0120, 'CANCELLED'],
  [0xc000_0128, 'FILE_CLOSED'],
]);

/** '' for success, else the name without NT_STATUS_, or the number. */
export function statusWord(status: number): string {
  if (status === 0) return '';
  return STATUS_NAMES.get(status >>> 0) ?? `0x${(status >>> 0).toString(16).padStart(8, '0')}`;
}
