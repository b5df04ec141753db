/** Requests and answers of etcd's JSON gateway as the register needs them. Pure. */
import { z } from 'zod';
import type { RegisterRequest, RegisterResult, RegisterValue } from '../../core/effects.js';

/** int64 and bytes come as text. */
const revision = z.string().regex(/^\d{1,16}$/).transform(Number);
const range = z.object({
  kvs: z.array(z.object({ mod_revision: revision, value: z.base64().default('') })).max(1).optional(),
});
const header = z.object({ revision });
const rangeAnswer = range.extend({ header });
const swapAnswer = z.object({
  header,
  succeeded: z.boolean().default(false),
  responses: z.array(z.object({ response_range: range.optional() })).default([]),
});

const base64 = (bytes: Uint8Array | string): string => Buffer.from(bytes).toString('base64');

export function requestBody(key: string, request: RegisterRequest): { path: string; body: string } {
  const name = base64(key);
  // linearizable, as nothing else is asked for
  if (request.kind === 'read') return { path: '/v3/kv/range', body: JSON.stringify({ key: name }) };
  const compare = { key: name, target: 'MOD', result: 'EQUAL', mod_revision: String(request.revision) };
  const body = JSON.stringify({
    compare: [compare],
    success: [{ request_put: { key: name, value: base64(request.value) } }],
    failure: [{ request_range: { key: name } }],
  });
  return { path: '/v3/kv/txn', body };
}

/** @throws Error when the answer is none of etcd's. */
export function resultOf({ kind }: RegisterRequest, answer: unknown): RegisterResult {
  if (kind === 'read') return { kind: 'value', ...valueOf(rangeAnswer.parse(answer)) };
  const { header: at, succeeded, responses } = swapAnswer.parse(answer);
  if (succeeded) return { kind: 'swapped', revision: at.revision };
  return { kind: 'refused', ...valueOf(responses[0]?.response_range ?? {}) };
}

function valueOf({ kvs = [] }: z.output<typeof range>): RegisterValue {
  const [found] = kvs;
  if (found === undefined) return { revision: 0, value: null };
  return { revision: found.mod_revision, value: new Uint8Array(Buffer.from(found.value, 'base64')) };
}
