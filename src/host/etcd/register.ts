/**
 * The pool's register in an etcd cluster, by etcd's JSON gateway (POST /v3/kv/range and /v3/kv/txn, the same port as
 * gRPC): docs/decisions/etcd.md. Every request has a deadline; an endpoint that fails is left for the next. Decides
 * nothing about the pool.
 */
import type { Micros, RegisterRequest, RegisterResult } from '../../core/effects.js';
import type { PoolRegister } from '../../ports/pool-register.js';
import { messageOf } from '../errors.js';
import type { EtcdTls } from './http.js';
import { EtcdEndpoint } from './http.js';
import { requestBody, resultOf } from './messages.js';

export interface EtcdOptions {
  /** As https://10.0.0.1:2379; the first is asked until it fails, then the next. */
  endpoints: readonly string[];
  tls?: EtcdTls;
  poolName: string;
}

/** The engine has two under way at most. */
const REQUESTS_MAX = 8;

/** Where the pool's register is. */
export function registerKey(poolName: string): string {
  return `/smbpool/${poolName}/membership`;
}

export class EtcdRegister implements PoolRegister {
  private readonly endpoints: readonly EtcdEndpoint[];
  private readonly key: string;
  private current = 0;
  private underWay = 0;
  private readonly totals = { requests: 0, failures: 0, failovers: 0 };

  constructor({ endpoints, tls, poolName }: EtcdOptions) {
    this.endpoints = endpoints.map((url) => new EtcdEndpoint(url, tls));
    this.key = registerKey(poolName);
  }

  /** etcd.request, etcd.failure, etcd.failover: since the start. */
  counters(): Record<string, number> {
    const { requests, failures, failovers } = this.totals;
    return { 'etcd.request': requests, 'etcd.failure': failures, 'etcd.failover': failovers };
  }

  async request(request: RegisterRequest, deadlineMicros: Micros): Promise<RegisterResult> {
    if (this.underWay >= REQUESTS_MAX) return { kind: 'failed', why: 'too many requests wait for etcd' };
    this.underWay++;
    try {
      return await this.ask(request, Math.max(1, Math.floor(deadlineMicros / 1000)));
    } finally {
      this.underWay--;
    }
  }

  /** An endpoint that refuses at once leaves the time to ask the others. */
  private async ask(request: RegisterRequest, deadlineMs: number): Promise<RegisterResult> {
    const expired = AbortSignal.timeout(deadlineMs);
    const { path, body } = requestBody(this.key, request);
    const failures: string[] = [];
    while (failures.length < this.endpoints.length && !expired.aborted) {
      const at = this.current;
      const endpoint = this.endpoints[at]!;
      this.totals.requests++;
      try {
        return resultOf(request, await endpoint.post(path, body, expired));
      } catch (error) {
        this.totals.failures++;
        failures.push(expired.aborted ? `${endpoint.url}: no answer within ${deadlineMs} ms` : messageOf(error));
        this.leave(at);
      }
    }
    return { kind: 'failed', why: failures.join('; ') };
  }

  private leave(at: number): void {
    if (this.current !== at || this.endpoints.length === 1) return;
    this.current = (at + 1) % this.endpoints.length;
    this.totals.failovers++;
  }

  close(): void {
    for (const endpoint of this.endpoints) endpoint.close();
  }
}
