/**
 * What both engines of the membership promise, in real time: the embedded one, and the one on real etcd servers that
 * the test starts. What random faults find is in test/sim/membership.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import test from 'node:test';
import type { TestContext } from 'node:test';
import type { RegisterResult } from '../../src/core/effects.js';
import type { EngineName } from '../../src/core/membership/port.js';
import type { EtcdTls } from '../../src/host/etcd/http.js';
import { EtcdRegister } from '../../src/host/etcd/register.js';
import type { PoolHost } from '../../src/host/pool-host.js';
import { EtcdCluster, etcdVersion, whyNoEtcd } from '../support/etcd.js';
import { startPool, udp } from '../support/host-pool.js';
import { L, LivePool } from '../support/live-pool.js';
import type { LiveServer } from '../support/live-pool.js';
import { eventually, ownDirectory, sleep } from '../support/native-helpers.js';

const noEtcd = whyNoEtcd();
if (noEtcd === false) console.log(`etcd ${etcdVersion()}`);

async function live(t: TestContext, engine: EngineName, servers = 3, etcd?: EtcdCluster): Promise<LivePool> {
  const cluster = engine === 'embedded' ? undefined : (etcd ?? (await EtcdCluster.start(t, 1)));
  const pool = new LivePool({
    engine,
    servers,
    ...(cluster && { register: () => new EtcdRegister({ endpoints: cluster.endpoints, poolName: 'contract' }) }),
  });
  t.after(() => pool.stop());
  for (const server of pool.all) server.start();
  await pool.whole();
  return pool;
}

const others = (pool: LivePool, lost: LiveServer): LiveServer[] => pool.all.filter((server) => server !== lost);

function keepsTheRules(pool: LivePool): void {
  assert.deepEqual(pool.violations, []);
}

for (const engine of ['embedded', 'etcd'] as const) {
  const options = { skip: engine === 'etcd' && noEtcd };

  test(`${engine}: servers form one view, one leads, leases are renewed`, options, async (t) => {
    const pool = await live(t, engine);
    const view = pool.newest!;
    assert.equal(pool.all.filter((server) => server.status().role === 'leader').length, 1);
    for (const server of pool.all) assert.equal(server.status().leader, view.leader);
    let slept = -Infinity;
    for (let i = 0; i < 100; i++) {
      const from = performance.now();
      await sleep(20);
      // a machine that kept this process, or etcd, waiting for longer than a lease bears says nothing about leases
      if (performance.now() - from > L / 6000) slept = performance.now();
      const isCalm = performance.now() - slept > (3 * L) / 1000;
      if (isCalm) assert.ok(pool.all.every(({ hasLease }) => hasLease), 'all leases go on');
    }
    await pool.whole();
    assert.deepEqual(pool.newest!.members, view.members, 'nobody is left out');
    assert.equal(pool.leader()!.status().engine, engine);
    keepsTheRules(pool);
  });

  for (const who of ['member', 'leader'] as const) {
    test(`${engine}: the others go on without a lost ${who}, and it comes back as a new run`, options, async (t) => {
      const pool = await live(t, engine);
      await sleep((9 * L) / 1000);
      const leader = pool.leader()!;
      const lost = who === 'leader' ? leader : others(pool, leader)[0]!;
      lost.kill();
      const view = await pool.whole(others(pool, lost), 3_000);
      assert.ok(lost.leaseUntil <= performance.now() * 1000, 'its lease was over');
      assert.equal(view.leader === lost.node, false);
      assert.deepEqual(view.past.map(({ node }) => node), [lost.node]);
      lost.start();
      await pool.whole();
      keepsTheRules(pool);
    });
  }

  test(`${engine}: a cut-off leader serves no more, and its run ends when it hears of it`, options, async (t) => {
    const pool = await live(t, engine);
    await sleep((9 * L) / 1000);
    const lost = pool.leader()!;
    lost.isCut = true;
    await pool.whole(others(pool, lost), 4_000);
    assert.equal(lost.hasLease, false);
    lost.isCut = false;
    await eventually('the run is removed', () => lost.removals.length === 1, 3_000);
    keepsTheRules(pool);
  });

  test(`${engine}: who leaves in order is not waited for`, options, async (t) => {
    const pool = await live(t, engine);
    const leaver = others(pool, pool.leader()!)[1]!;
    const from = performance.now();
    leaver.input((one) => one.leave());
    await eventually('a view without it', () => !pool.newest!.members.some(({ node }) => node === leaver.node), 1_000);
    assert.ok(performance.now() - from < L / 1000, 'sooner than a lease ends');
    keepsTheRules(pool);
  });

  test(`${engine}: an unwilling server is left out, and back when it is willing`, options, async (t) => {
    const pool = await live(t, engine);
    const one = others(pool, pool.leader()!)[0]!;
    one.input((its) => its.setWilling(false));
    await eventually('its run is removed', () => one.removals.length === 1, 3_000);
    one.kill();
    one.start();
    await pool.whole();
    keepsTheRules(pool);
  });

  test(`${engine}: all start anew and go on from the last view`, options, async (t) => {
    const pool = await live(t, engine);
    const { epoch } = pool.newest!;
    for (const server of pool.all) server.kill();
    for (const server of pool.all) server.start();
    const view = await pool.whole();
    assert.ok(view.epoch > epoch);
    keepsTheRules(pool);
  });
}

const onEtcd = { skip: noEtcd };

test('etcd: of two servers one goes on alone', onEtcd, async (t) => {
  const pool = await live(t, 'etcd', 2);
  await sleep((9 * L) / 1000);
  const lost = pool.leader()!;
  lost.kill();
  await pool.whole(others(pool, lost), 3_000);
  lost.start();
  await pool.whole();
  keepsTheRules(pool);
});

test('etcd: while it stands still nobody serves; then all go on, no run ended', onEtcd, async (t) => {
  const etcd = await EtcdCluster.start(t, 1);
  const pool = await live(t, 'etcd', 3, etcd);
  const runs = pool.all.map(({ incarnation }) => incarnation);
  etcd.signal('SIGSTOP');
  await sleep((2 * L) / 1000);
  for (let i = 0; i < 50; i++) {
    assert.ok(pool.all.every(({ hasLease }) => !hasLease), 'no lease without etcd');
    await sleep(20);
  }
  assert.match(pool.leader()!.status().register!.failure!, /no answer within 100 ms/);
  etcd.signal('SIGCONT');
  await pool.whole();
  assert.deepEqual(pool.all.map(({ incarnation }) => incarnation), runs);
  assert.ok(pool.all.every(({ removals }) => removals.length === 0));
  keepsTheRules(pool);
});

test('etcd: one of three etcd servers may be lost, whichever it is', onEtcd, async (t) => {
  const etcd = await EtcdCluster.start(t, 3);
  const pool = await live(t, 'etcd', 3, etcd);
  const leader = (await etcd.leader())!;
  for (const lost of [(leader + 1) % 3, leader]) {
    etcd.signal('SIGKILL', lost);
    // the loss of etcd's own leader takes it an election
    await sleep(2_500);
    await pool.whole(pool.all, 5_000);
    etcd.run(lost);
    await etcd.answers();
    await sleep(1_000);
  }
  assert.ok(pool.all.every(({ removals }) => removals.length === 0), 'no run ended');
  keepsTheRules(pool);
});

test('etcd: its data is removed under a pool that runs: the pool goes on with higher epochs', onEtcd, async (t) => {
  const etcd = await EtcdCluster.start(t, 1);
  const pool = await live(t, 'etcd', 3, etcd);
  const { epoch } = pool.newest!;
  const key = Buffer.from('/smbpool/contract/membership').toString('base64');
  await fetch(`${etcd.endpoints[0]}/v3/kv/deleterange`, { method: 'POST', body: JSON.stringify({ key }) });
  await eventually('a new view', () => pool.newest!.epoch > epoch, 5_000);
  await pool.whole();
  keepsTheRules(pool);
});

function openssl(directory: string, ...args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args, { cwd: directory });
  assert.equal(status, 0, stderr.toString());
}

/** A key and a certificate for loopback, signed by itself: so it is its own authority. */
function makeCertificate(directory: string, name: string): { cert: string; key: string } {
  openssl(directory, 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', `/CN=${name}`,
    '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'extendedKeyUsage=serverAuth,clientAuth',
    '-keyout', `${name}.key`, '-out', `${name}.pem`);
  return { cert: join(directory, `${name}.pem`), key: join(directory, `${name}.key`) };
}

test('etcd: by TLS, where both sides show who they are', onEtcd, async (t) => {
  const directory = ownDirectory(t);
  const { cert, key } = makeCertificate(directory, 'etcd');
  const other = makeCertificate(directory, 'other');
  const { endpoints } = await EtcdCluster.start(t, 1, [
    '--cert-file', cert, '--key-file', key, '--trusted-ca-file', cert, '--client-cert-auth',
  ]);
  const own = { ca: readFileSync(cert), cert: readFileSync(cert), key: readFileSync(key) };
  const ask = async (tls: EtcdTls): Promise<RegisterResult> => {
    const register = new EtcdRegister({ endpoints, tls, poolName: 'tls' });
    t.after(() => register.close());
    return register.request({ kind: 'read' }, 5_000_000);
  };
  let answer: RegisterResult = { kind: 'failed', why: '' };
  for (let tries = 0; tries < 100 && answer.kind === 'failed'; tries++) {
    answer = await ask(own);
    if (answer.kind === 'failed') await sleep(100);
  }
  assert.deepEqual(answer, { kind: 'value', revision: 0, value: null });
  const unknown = await ask({ ca: own.ca });
  assert.ok(unknown.kind === 'failed' && /certificate required|bad certificate/.test(unknown.why), unknown.kind);
  const wrong = await ask({ ...own, ca: readFileSync(other.cert) });
  assert.ok(wrong.kind === 'failed' && /self-signed certificate/.test(wrong.why), wrong.kind);
});

test('whole hosts on etcd', onEtcd, async (t) => {
  const { endpoints } = await EtcdCluster.start(t, 1);
  const { hosts } = await startPool(t, await udp(3), { etcd: { endpoints } });
  await eventually('all are members', () => hosts.every((host: PoolHost) => host.status().members.length === 3));
  await eventually('all may serve', () => hosts.every((host) => !host.status().isFenced));
  for (const host of hosts) assert.equal(host.status().membership?.engine, 'etcd');
  const [first] = hosts;
  assert.ok(first!.status().counters['etcd.request']! > 0);
});
