/**
 * The judges of a chaos run, shown histories in which something is wrong: a judge that finds nothing proves nothing.
 * And the plan of its faults: repeated by its seed, never more than a minority hurt unless it says so.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Prng } from '../../src/base/prng.js';
import type { Change, Session, Written } from '../../src/lab/chaos/history.js';
import { judge, judgeCounter, judgeEnd, judgeValues, writeOutcome } from '../../src/lab/chaos/history.js';
import { Outages } from '../../src/lab/chaos/outages.js';
import type { Fault } from '../../src/lab/chaos/plan.js';
import { faultWords, nextRound } from '../../src/lab/chaos/plan.js';

const done = (content: string): Written => ({ content, outcome: 'done' });
const unknown = (content: string): Written => ({ content, outcome: 'unknown' });

/** A session that held the file from `from` to `to`. */
function session(from: number, to: number, read: string | null, written: Written | null, exclusive = true): Session {
  return { file: 'file', client: `client ${from}`, exclusive, from, heldUntil: to, read, written };
}

const problemsOf = (sessions: Session[]): string[] => judge('0', sessions).problems;

test('a history that one server could have made is no violation', () => {
  const sessions = [
    session(1, 2, '0', done('1')),
    // its answer was lost; the next one finds it
    session(3, 3, null, unknown('2')),
    session(4, 5, '2', done('3')),
    // its answer was lost; the next one does not find it
    session(6, 6, null, unknown('4')),
    session(7, 9, '3', null, false),
    session(8, 9, '3', null, false),
    session(10, 11, '3', done('4')),
    // lost its server before the next one got the file
    session(12, 12, null, unknown('5')),
    session(12.5, 13, '4', unknown('5')),
  ];
  const { problems, possible } = judge('0', sessions.reverse());
  assert.deepEqual(problems, []);
  assert.deepEqual([...possible].sort(), ['4', '5']);
});

test('a write that a server without a lease does not answer as done may be done, and what is refused is not', () => {
  assert.equal(writeOutcome('OK'), 'done');
  assert.equal(writeOutcome('0xC000020C'), 'unknown');
  assert.equal(writeOutcome('SHARING_VIOLATION'), null);
});

test('two that exclude each other and held a file at one time are found', () => {
  const both = [session(1, 3, '0', done('1')), session(2, 4, '1', done('2'))];
  assert.match(problemsOf(both).join(), /client 1 held it from 1\.000 s to 3\.000 s at least, and client 2 got it/);
  const readerAndWriter = [session(1, 3, '0', null, false), session(2, 4, '0', done('1'))];
  assert.equal(problemsOf(readerAndWriter).length, 1);
  // not the neighbour: a long one under a short one
  const long = [session(1, 9, '0', null, false), session(2, 3, '0', null, false), session(5, 6, '0', done('1'))];
  assert.equal(problemsOf(long).length, 1);
});

test('a write that was answered and is lost is found', () => {
  const lost = [session(1, 2, '0', done('1')), session(3, 4, '0', done('2'))];
  assert.match(problemsOf(lost).join(), /client 3 read "0" after 3\.000 s; expected "1"/);
});

test('a write that comes after somebody saw that it was not there is found', () => {
  const late = [
    session(1, 1, null, unknown('1')),
    session(2, 3, '0', null, false),
    session(4, 5, '1', null, false),
  ];
  assert.match(problemsOf(late).join(), /read "1" after 4\.000 s; expected "0"/);
});

test('what was refused and is there is found', () => {
  const refused = [session(1, 2, null, null), session(3, 4, '1', null, false)];
  assert.equal(problemsOf(refused).length, 1);
});

test('the end of a file is what was written last, the same through every server', () => {
  const { possible } = judge('0', [session(1, 2, '0', done('1')), session(3, 3, null, unknown('2'))]);
  const end = (...seen: string[]) => {
    return judgeEnd('file', possible, new Map(seen.map((content, index) => [`server-${index}`, content])));
  };
  assert.deepEqual(end('1', '1'), []);
  assert.deepEqual(end('2', '2'), []);
  assert.match(end('1', '2').join(), /different contents/);
  assert.match(end('1', '0').join(), /server-1 shows "0" at the end; expected "1" or "2"/);
});

test('a counter has all increments that were answered, and none that nobody asked for', () => {
  const sessions = [
    session(1, 2, '0', done('1')), session(3, 4, '1', done('2')), session(5, 5, null, unknown('3')),
    session(6, 6, null, null),
  ];
  assert.deepEqual(judgeCounter('counter', sessions, 2), []);
  assert.deepEqual(judgeCounter('counter', sessions, 3), []);
  for (const wrong of [1, 4, Number.NaN]) assert.equal(judgeCounter('counter', sessions, wrong).length, 1);
});

test('a value that was committed with an answer is on all servers, or a later one', () => {
  const change = (value: string, outcome: Change['outcome']): Change => ({ name: 'value', value, outcome });
  const judged = (changes: Change[], ...seen: (string | undefined)[]) => {
    const servers = seen.map((value, index): [string, Map<string, string>] => {
      return [`server-${index}`, new Map(value === undefined ? [] : [['value', value]])];
    });
    return judgeValues(changes, new Map(servers));
  };
  const changes = [change('1', 'unknown'), change('2', 'done'), change('3', 'unknown')];
  assert.deepEqual(judged(changes, '2', '2'), []);
  assert.deepEqual(judged(changes, '3', '3'), []);
  assert.deepEqual(judged([change('1', 'unknown')], undefined, undefined), []);
  assert.match(judged(changes, '2', '1').join(), /server-1 has 1; expected 2 or 3/);
  assert.match(judged(changes, '2', undefined).join(), /server-1 has nothing/);
  assert.match(judged(changes, '2', '3').join(), /different values/);
});

test('a server is well since its last fault, and only in a pool with a majority', () => {
  const outages = new Outages(3);
  assert.ok(outages.wellFor(0) > 0);
  outages.begin(1);
  outages.begin(1);
  outages.end(1);
  assert.equal(outages.wellFor(1), 0, 'one of two causes is gone');
  assert.ok(outages.wellFor(0) > 0);
  outages.begin(2);
  assert.equal(outages.wellFor(0), 0, 'the majority is hurt');
  outages.end(2);
  outages.end(1);
  assert.deepEqual(outages.hurt(), []);
  assert.ok(outages.wellFor(0) < 1, 'it counts from the return of the majority');
});

test('a seed repeats its faults; more than a minority is hurt only where the round says so', () => {
  for (const servers of [2, 3, 5]) {
    const rounds = (seed: number) => {
      const prng = new Prng(seed);
      return Array.from({ length: 400 }, () => nextRound(prng, servers));
    };
    assert.deepEqual(rounds(7), rounds(7));
    assert.notDeepEqual(rounds(7), rounds(8));
    const minority = Math.floor((servers - 1) / 2);
    for (const { faults, losesQuorum } of rounds(7)) {
      // a connection's smbd is not the server
      const hurt = new Set(faults.filter(({ kind }) => kind !== 'smbds killed').map(({ server }) => server));
      assert.equal(hurt.size > minority, losesQuorum);
      for (const { server, peer } of faults) {
        assert.ok(server < servers && peer !== server && (peer ?? 0) < servers);
      }
    }
    const isSeen = (kind: string) => rounds(7).some(({ faults }) => faults.some((fault) => fault.kind === kind));
    assert.ok(servers === 2 || (isSeen('frames lost') && isSeen('main smbd killed')));
  }
});

test('faults are told in words', () => {
  const fault = (kind: Fault['kind']): Fault => {
    return { kind, server: 1, peer: 2, afterMillis: 0, millis: 2100, percent: 30 };
  };
  assert.equal(faultWords(fault('link down')), 'server-1: its link is down for 2.1 s');
  assert.equal(faultWords(fault('cut off from one')), 'server-1 and server-2 do not hear each other for 2.1 s');
  assert.equal(faultWords(fault('frames lost')), 'server-1: 30 % of the frames from and to it are lost for 2.1 s');
});
