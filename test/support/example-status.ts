/** A daemon's report and a record's description for tests of what serves and shows them: every field has a value. */
import type { RecordReport, StatusReport } from '../../src/ports/status.js';

export function exampleStatus(): StatusReport {
  return {
    poolName: 'office',
    self: 0,
    name: 'alpha',
    version: '0.1.0',
    pid: 4711,
    incarnation: 1700000000000,
    epoch: 1,
    uptimeMicros: 3_723_000_000,
    transport: 'ethernet',
    servers: [
      {
        id: 0, name: 'alpha', address: '10.0.0.1', up: true, role: 'server', state: 'member', silentMicros: null,
        release: '0.1.0', speaks: { min: 1, max: 2 },
        fitness: 'unfit', reasons: ['the file system of /srv/pool does not answer within 10 s'],
        clients: { connections: 12, named: ['10.0.0.51', '10.0.0.52'] },
      },
      {
        id: 1, name: 'beta', address: '10.0.0.2', up: true, role: 'server', state: 'member', silentMicros: 21_000,
        release: '0.1.0', speaks: { min: 1, max: 1 },
        fitness: 'draining', reasons: [], clients: { connections: 1, named: ['10.0.0.53'] },
      },
      {
        id: 2, name: 'gamma', address: '10.0.0.3', up: false, role: 'server', state: 'out', silentMicros: 12_400_000,
        fitness: 'unknown', reasons: [], clients: null,
      },
    ],
    membership: {
      engine: 'embedded', etcd: null, role: 'follower', protocol: 1,
      epoch: 3_145_730, members: [0, 1], holders: [], leader: 1, leaderMicros: 3_600_000_000, leaderLonger: false,
      quorum: { configured: 3, needed: 2, present: 2 },
      lease: { state: 'valid', micros: 271_000 },
    },
    problems: [
      {
        what: 'servers-out', text: 'gamma is not heard',
        remedy: 'if nobody stopped it, start smbpoold on gamma or check the interconnect; one more loss stops the '
          + 'whole pool',
      },
      {
        what: 'unfit',
        text: 'alpha is not fit for clients: the file system of /srv/pool does not answer within 10 s',
        remedy: 'put that right; it has its share of the public addresses again as soon as its checks pass',
      },
      {
        what: 'draining',
        text: 'beta is drained: it gets no public addresses while another server can have them',
        remedy: 'when the work on it is done: smbpool undrain beta',
      },
    ],
    awaiting: [2],
    links: [
      {
        peer: 1, up: true, rttMicros: 87, rttMicrosMin: 61, framesSent: 120_345, framesReceived: 119_870,
        retransmitted: 241, duplicates: 12, gaps: 30, refused: 1, downs: 2, queuedBytes: 0,
        incarnation: 1700000000123,
      },
      {
        peer: 2, up: false, rttMicros: null, rttMicrosMin: null, framesSent: 0, framesReceived: 0, retransmitted: 0,
        duplicates: 0, gaps: 0, refused: 0, downs: 0, queuedBytes: 70_000, incarnation: null,
      },
    ],
    databases: [
      {
        name: 'locking.tdb', id: 0x7a19d84d, persistent: false, recordsOwned: 812, directoryEntries: 301, copies: 40,
        moves: 90_210,
      },
      {
        name: 'brlock.tdb', id: 0x4e66c2b2, persistent: false, recordsOwned: 3, directoryEntries: 1, copies: 0,
        moves: 17,
      },
      {
        name: 'secrets.tdb', id: 0x2672a57f, persistent: true, recordsOwned: 0, directoryEntries: 0, copies: 0,
        moves: 0,
      },
    ],
    persistent: [
      {
        name: 'secrets.tdb', sequence: 12, term: 3, inSync: true,
        leader: { phase: 'serving', holders: [0, 1], waiting: 0 },
      },
      { name: 'passdb.tdb', sequence: null, term: null, inSync: false, leader: null },
    ],
    clients: 14,
    modules: { attachments: 12, opens: 340, waits: 1, operations: 2, watches: 5 },
    waitingRequests: 2,
    waits: [{ name: 'locking.tdb', count: 90_210, medianMicros: 143, p99Micros: 1_250, maxMicros: 48_000 }],
    counters: { 'record.moved': 90_227, 'client.packet.refused.truncated': 2, 'link.down': 0 },
  };
}

export function exampleRecord(): RecordReport {
  return {
    database: 'locking.tdb',
    keyHex: '00ff',
    home: 2,
    owner: 1,
    backup: 0,
    readers: [0],
    waiting: [2, 0],
    turn: 12,
    history: [
      { owner: 0, turn: 11, microsAgo: 95_000_000 },
      { owner: 1, turn: 12, microsAgo: 850 },
    ],
  };
}
