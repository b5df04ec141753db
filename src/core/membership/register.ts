/**
 * The pool's register as one server knows it: asks for it, one read and one swap at a time, and says what it is. The
 * register itself is outside of the pool (docs/decisions/etcd.md).
 */
import { DecodeError } from '../../base/bytes.js';
import type { NodeId } from '../../base/ids.js';
import type { RegisterState } from '../../wire/membership-register.js';
import { decodeRegister, encodeRegister } from '../../wire/membership-register.js';
import type { Micros, RegisterRequest, RegisterResult, RegisterValue } from '../effects.js';
import type { MembershipContext, RegisterStatus } from './port.js';

export interface RegisterTimes {
  readMicros: Micros;
  swapMicros: Micros;
}

interface Asked {
  token: number;
  at: Micros;
  /** What a swap writes. */
  state: RegisterState | null;
}

export class Register {
  /** Null: it never answered. */
  private known: { revision: number; state: RegisterState | null } | null = null;
  private knownAt: Micros = -Infinity;
  private reading: Asked | null = null;
  private swapping: Asked | null = null;
  private token = 0;
  private failure: string | null = null;
  private answeredAt: Micros | null = null;

  constructor(
    private readonly context: MembershipContext,
    private readonly times: RegisterTimes,
    /** It was this, all of it at one moment, at `askedAt` or later. */
    private readonly learnt: (state: RegisterState | null, askedAt: Micros) => void,
  ) {}

  /** What it was last; null: there is none, or it never answered. */
  get state(): RegisterState | null {
    return this.known?.state ?? null;
  }

  get isKnown(): boolean {
    return this.known !== null;
  }

  /** Of the state; another for each that was ever there. */
  get revision(): number {
    return this.known?.revision ?? 0;
  }

  /** Unless a read is under way. */
  read(): void {
    if (this.reading === null) this.reading = this.ask({ kind: 'read' }, this.times.readMicros, null);
  }

  /** Puts this in place of what we know, if that is what is there. False: not now, a swap is under way. */
  swap(state: RegisterState): boolean {
    if (this.swapping !== null || this.known === null) return false;
    const request: RegisterRequest = { kind: 'swap', revision: this.known.revision, value: encodeRegister(state) };
    this.swapping = this.ask(request, this.times.swapMicros, state);
    return true;
  }

  private ask(request: RegisterRequest, deadlineMicros: Micros, state: RegisterState | null): Asked {
    const token = ++this.token;
    this.context.count(`membership.register.${request.kind}`);
    this.context.emit({ kind: 'register-request', token, request, deadlineMicros });
    return { token, at: this.context.now(), state };
  }

  onAnswer(token: number, result: RegisterResult): void {
    const asked = this.take(token);
    if (asked === null) return this.context.count('membership.register.unknown');
    if (result.kind === 'failed') return this.onFailure(result.why, asked);
    this.answers();
    if (result.kind === 'swapped') return this.learn({ revision: result.revision, state: asked.state }, asked.at);
    this.onValue(result, asked.at);
  }

  private take(token: number): Asked | null {
    const { reading, swapping } = this;
    if (reading?.token === token) {
      this.reading = null;
      return reading;
    }
    if (swapping?.token !== token) return null;
    this.swapping = null;
    return swapping;
  }

  private onValue({ revision, value }: RegisterValue, askedAt: Micros): void {
    try {
      this.learn({ revision, state: value === null ? null : decodeRegister(value) }, askedAt);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      // nobody serves until a person has looked
      this.fails(`the value in etcd is no state of a pool (${error.reason})`, {
        remedy: 'see who else writes to this key, or remove it: the pool then makes a new one',
      });
    }
  }

  private learn(known: { revision: number; state: RegisterState | null }, askedAt: Micros): void {
    const { known: before, context } = this;
    if (before !== null && known.revision < before.revision) {
      // an answer that another one overtook
      if (askedAt <= this.knownAt) return;
      context.count('membership.register.went-back');
      context.log('error', 'membership.register.went-back', {
        revision: known.revision,
        before: before.revision,
        meaning: 'etcd lost changes: its data was removed or restored. The pool goes on from what its servers know',
      });
    }
    this.known = known;
    this.knownAt = context.now();
    this.learnt(known.state, askedAt);
  }

  private onFailure(why: string, { state }: Asked): void {
    this.fails(why, { remedy: 'see whether etcd has a leader, and whether this server reaches it' });
    // whether it was done, a read tells
    if (state !== null) this.read();
  }

  private fails(why: string, more: Record<string, string>): void {
    this.context.count('membership.register.failed');
    if (this.failure === null) this.context.log('warn', 'membership.register.fails', { why, ...more });
    this.failure = why;
  }

  private answers(): void {
    if (this.failure !== null) this.context.log('info', 'membership.register.answers', { after: this.failure });
    this.failure = null;
    this.answeredAt = this.context.now();
  }

  /** For people. */
  status(now: Micros): RegisterStatus {
    const challenger: NodeId | null = this.state?.challenge?.node ?? null;
    const { answeredAt, failure } = this;
    return { microsSinceAnswer: answeredAt === null ? null : now - answeredAt, failure, challenger };
  }
}
