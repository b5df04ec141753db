/**
 * Holders, waiters, events and hot files for tests of what serves and shows them: every field has a value somewhere.
 */
import type { LockWitness } from '../../src/ports/lock-witness.js';
import type {
  ClientIdentity,
  HotAnswer,
  LockFilter,
  LocksAnswer,
  OpenReport,
  TraceEvent,
  TraceFilter,
  WaitReport,
} from '../../src/wire/locks.js';

const ANNA: ClientIdentity = {
  server: 0, serverName: 'alpha', pid: 1201, client: 'ipv4:10.0.0.51:50123', clientName: 'PC-ANNA',
  user: 'OFFICE\\anna', share: 'pool', shareRoot: '/srv/pool',
};
const BOB: ClientIdentity = {
  server: 1, serverName: 'beta', pid: 2302, client: 'ipv4:10.0.0.52:50200', clientName: '', user: 'OFFICE\\bob',
  share: 'pool', shareRoot: '/srv/pool',
};
const CAROL: ClientIdentity = {
  server: 2, serverName: 'gamma', pid: 3403, client: '[fe80::53]:50300', clientName: 'laptop-7', user: 'carol',
  share: 'archive', shareRoot: '/srv/pool/archive',
};

const REPORT = { path: 'docs/report.odt', fileId: '1:4711:0' };

export function exampleOpens(): OpenReport[] {
  const handle = { shareFileId: '77', persistentId: '9001', durable: false, directory: false, locks: [] };
  return [
    {
      ...BOB, ...REPORT, ...handle, accessMask: 0x12019f, access: 'read, write', sharing: 'r--', oplock: 'lease',
      lease: 'RWH', durable: true, openMicrosAgo: 754_000_000,
      locks: [
        { start: '0', size: '100', type: 'write' },
        { start: '9223372036854775808', size: '1', type: 'read' },
        { start: '200', size: '18446744073709551416', type: 'read' },
        { start: '300', size: '0', type: 'write' },
      ],
    },
    {
      ...CAROL, ...REPORT, ...handle, path: 'report.odt', accessMask: 0x120089, access: 'read', sharing: 'rw-',
      oplock: 'level2', lease: '', openMicrosAgo: 90_000_000, locks: [{ start: '10', size: '5', type: 'read' }],
    },
    {
      ...ANNA, path: 'docs', fileId: '1:4000:0', ...handle, accessMask: 0x100081, access: 'read', sharing: 'rwd',
      oplock: 'none', lease: '', directory: true, openMicrosAgo: 4_000_000,
    },
  ];
}

/** anna waits for bob, bob for carol, and carol, who is stuck, for bob: two of them in a circle. */
export function exampleWaits(): WaitReport[] {
  const bob = { server: 1, serverName: 'beta', pid: 2302, what: 'holds lease RWH', alive: true };
  const carol = { server: 2, serverName: 'gamma', pid: 3403, what: 'holds 10 to 14 read', alive: false };
  return [
    {
      ...ANNA, ...REPORT, what: 'break', wants: 'open: read, write; lets others rwd; asks lease RWH',
    waitMicros: 12_400_000, waitsFor: [bob] },
    { ...BOB, ...REPORT, what: 'range', wants: 'lock 0 to 49 write', waitMicros: 3_100_000, waitsFor: [carol] },
    {
      ...CAROL, ...REPORT, path: 'report.odt', what: 'break', wants: 'open: delete; lets others rwd; asks no oplock',
      waitMicros: 40_000,
      waitsFor: [bob],
    },
    {
      ...ANNA, pid: 1202, user: 'OFFICE\\dora', client: 'ipv4:10.0.0.54:1', clientName: 'PC-DORA',
      path: 'new.txt', fileId: '1:5000:0', what: 'records', wants: 'open: read; lets others rwd; asks no oplock',
      waitMicros: 1_800_000,
      waitsFor: [{ server: 2, serverName: 'gamma', pid: 0, what: 'has to send the records', alive: false }],
    },
    {
      ...ANNA, pid: 1203, user: 'OFFICE\\emil', path: 'other.txt', fileId: '1:5001:0', what: 'records',
      wants: 'open: read; lets others rwd; asks no oplock', waitMicros: 1_100_000, waitsFor: [],
    },
  ];
}

export function exampleLocks(): LocksAnswer {
  return { opens: exampleOpens(), waits: exampleWaits(), missing: [], truncated: false };
}

/** 2026-03-29 12:30:15 UTC, and 850 us. */
const START_MICROS = 1_774_787_415_000_850;

export function exampleEvents(): TraceEvent[] {
  const event = (micros: number, more: Partial<TraceEvent>): TraceEvent => ({
    ...ANNA, ...REPORT, atMicros: START_MICROS + micros, kind: 'open', tookMicros: null, status: '', detail: '',
    ...more,
  });
  return [
    event(0, { detail: 'open: read, write; lets others rwd; asks lease RWH' }),
    event(40, { kind: 'waiting', detail: 'records asked of beta' }),
    event(410, { kind: 'moved', tookMicros: 370, detail: 'locking.tdb from beta' }),
    event(415, { kind: 'home', tookMicros: 375, detail: '3 records' }),
    event(700, { ...BOB, kind: 'break-sent', detail: 'lease RWH to lease RH' }),
    event(2_300, { ...BOB, kind: 'break-done', tookMicros: 1_600, detail: 'lease RWH to lease RH' }),
    event(2_600, { kind: 'granted', tookMicros: 2_600, detail: 'read, write; lets others rwd; has lease R' }),
    event(5_000_000, { ...CAROL, path: 'report.odt', detail: 'open: delete; lets others rwd; asks no oplock' }),
    event(5_000_090, { ...CAROL, path: 'report.odt', kind: 'refused', tookMicros: 90, status: 'SHARING_VIOLATION' }),
    event(6_000_000, { kind: 'lock', tookMicros: 12, detail: '0 to 99 write', dropped: 17 }),
    // a record that moved for a share without the module: only the file's number is known
    event(6_000_200, {
      ...CAROL, ...{ pid: 0, client: '', clientName: '', user: '', share: '', path: '' }, kind: 'moved',
      tookMicros: 410, detail: 'brlock.tdb from alpha',
    }),
    event(6_000_500, { kind: 'unlock', detail: '0 to 99' }),
    event(43_200_000_000, { kind: 'close' }),
  ];
}

export function exampleHot(): HotAnswer {
  return {
    intervalMicros: 2_000_000,
    files: [
      {
        path: 'docs/report.odt', share: 'pool', fileId: '1:4711:0', opens: 840, moves: 420, waits: 400,
        waitMedianMicros: 380, waitP99Micros: 12_400, servers: [0, 1], holders: 3,
      },
      {
        path: 'docs', share: 'pool', fileId: '1:4000:0', opens: 2_400, moves: 3, waits: 3, waitMedianMicros: 350,
        waitP99Micros: 900, servers: [0, 1, 2], holders: 12,
      },
      {
        path: 'new.txt', share: 'archive', fileId: '1:5000:0', opens: 1, moves: 1, waits: 1,
        waitMedianMicros: 1_800_000, waitP99Micros: 1_800_000, servers: [0], holders: 0,
      },
    ],
    missing: [],
  };
}

/** Answers the same to everybody, and remembers what was asked. Every trace gets the example's events at once. */
export class FakeWitness implements LockWitness {
  readonly asked: (LockFilter | TraceFilter)[] = [];
  readonly readers = new Set<(event: TraceEvent) => void>();
  answer = exampleLocks();
  hotAnswer = exampleHot();
  events = exampleEvents();

  async locks(filter: LockFilter): Promise<LocksAnswer> {
    this.asked.push(filter);
    return this.answer;
  }

  async hot(): Promise<HotAnswer> {
    return this.hotAnswer;
  }

  trace(filter: TraceFilter, onEvent: (event: TraceEvent) => void): () => void {
    this.asked.push(filter);
    this.readers.add(onEvent);
    for (const event of this.events) onEvent(event);
    return () => this.readers.delete(onEvent);
  }
}
