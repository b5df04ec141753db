/**
 * The link to one peer: who it is (incarnations), whether it is up, its two streams, and when to send, acknowledge and
 * send again. One object per peer, owned by core/link, which brings frames, ticks and the end of a turn.
 *
 * A link is up while frames arrive that name our present incarnation. Nothing that names another one is applied. When
 * the peer starts anew (a higher incarnation), both streams start anew and what waited for the old one is dropped; when
 * it was only silent, everything is kept and sent again.
 *
 * Messages go only to, and come only from, the run that is a member of the view that we installed; and none of a view
 * that we have not installed is taken: it comes again a little later.
 */
import { DecodeError } from '../../base/bytes.js';
import type { Epoch, Incarnation, NodeId } from '../../base/ids.js';
import { incarnation as toIncarnation } from '../../base/ids.js';
import type { Frame, FrameContent, FrameTimes } from '../../wire/frame.js';
import { encodeFrame } from '../../wire/frame.js';
import type { Announcement } from '../../wire/protocol-version.js';
import { rangeText } from '../../wire/protocol-version.js';
import type { CoreContext } from '../context.js';
import type { Micros } from '../effects.js';
import {
  ACK_DELAY_MICROS,
  ACK_FRAMES_MAX,
  PROBE_MICROS_MIN,
  QUEUE_BYTES_MAX,
  RETRANSMIT_FRAMES_MAX,
  RETRANSMIT_MICROS_MAX,
  RETRANSMIT_MICROS_MIN,
  RIDE_MICROS,
  RTT_DEVIATION_SMOOTHING,
  RTT_MICROS_INITIAL,
  RTT_MICROS_MAX,
  RTT_SMOOTHING,
} from './limits.js';
import type { SentFrame } from './stream.js';
import { ReceiveStream, SendStream } from './stream.js';
import type { Timer } from '../timers.js';

/** What the links need of the core; CoreContext has it. */
export type LinkContext = Pick<CoreContext, 'now' | 'timers' | 'log' | 'count'>;

/** Silent for too long, or about to be called up anew. */
export type DownCause = 'silent' | 'started anew' | 'too much waited for it' | 'left the pool';

export interface LinkEvents {
  /** A message, exactly once and in order. The bytes are valid only during the call. */
  deliver(peer: NodeId, message: Uint8Array): void;
  /**
   * First contact with this run of the peer, which is a member: what was sent to an earlier one is lost, whoever waits
   * for an answer asks again. Called before anything of the new stream is delivered.
   */
  peerUp(peer: NodeId, incarnation: Incarnation): void;
  /** Of a member: messages to it wait. */
  peerDown(peer: NodeId, why: DownCause): void;
  /** The peer gave up this run of ours or what waited for it; we cannot know what we missed, and must end. */
  givenUpBy(peer: NodeId): void;
  /** The same incarnation is heard again after peerDown; nothing was lost. */
  peerReturned?(peer: NodeId, incarnation: Incarnation): void;
  /** What this run of the peer, member or not, says of itself; once, as soon as it is heard. */
  announced?(peer: NodeId, incarnation: Incarnation, announcement: Announcement): void;
  /** Whether a message for a run of the peer is as good for the one that continues it; absent: none is. */
  survives?(message: Uint8Array): boolean;
  sendFrame(peer: NodeId, body: Uint8Array): void;
}

/** A link as `smbpool status` shows it. Counts are since our start. */
export interface LinkStatus {
  peer: NodeId;
  up: boolean;
  /** The peer's; null before the first contact. */
  incarnation: Incarnation | null;
  /** What that run says of itself; null before its first hello. */
  announcement: Announcement | null;
  /** Smoothed round trip; null before the first measurement. */
  rttMicros: number | null;
  rttMinMicros: number | null;
  framesSent: number;
  framesReceived: number;
  messagesSent: number;
  messagesReceived: number;
  /** Data frames sent again: what the network lost, and some that were only late. */
  retransmitted: number;
  /** Data frames received again. */
  duplicates: number;
  /** Times that a frame arrived with others missing before it. */
  gaps: number;
  /** Frames dropped: malformed, of another epoch or incarnation. */
  refused: number;
  queuedBytes: number;
  /** How often the peer fell silent. */
  downs: number;
}

/** Whole names: one put together for each frame costs more than the counting. */
const SENT = {
  hello: 'link.frame.sent.hello',
  heartbeat: 'link.frame.sent.heartbeat',
  data: 'link.frame.sent.data',
  ack: 'link.frame.sent.ack',
} as const satisfies Record<FrameContent['kind'], string>;

export interface PeerLinkOptions {
  peer: NodeId;
  incarnation: Incarnation;
  announcement: Announcement;
  frameBodyBytesMax: number;
  /** Of the view that we installed. */
  epoch: () => Epoch;
  /** Frames we are ready to receive from this peer beyond what we acknowledged. */
  window: number;
}

/** Of messages for a run that may be continued by another one; smbds send each other some hundred bytes at times. */
const CARRIED_BYTES_MAX = 16 * 1024 * 1024;

/** Beginnings of reasons that come with every server that starts or joins: the next frames will do. */
const ORDINARY_REFUSALS = ['incarnation', 'not-a-member', 'epoch-ahead'];

export class PeerLink {
  up = false;
  lastHeardAt: Micros = 0;
  lastHelloAt: Micros = -Infinity;
  /** When we sent the newest frame of which this run of the peer said that it heard it. */
  echoedAt: Micros = -Infinity;
  private remote = toIncarnation(0);
  /** Of that run; null: not heard yet. */
  private announcement: Announcement | null = null;
  /** The run of the peer that is a member; 0 if none is. */
  private member = toIncarnation(0);
  /** The run that we had contact with last; 0 before the first. */
  private met = toIncarnation(0);
  /** The run that peerUp was last called for; 0 before the first. */
  private announced = toIncarnation(0);
  /** The run of the peer for which too much waited: we do not speak with it any more, only with a later one. */
  private givenUp = toIncarnation(0);
  /**
   * Messages for processes of the run that is a member, while a later run is heard: for that one, if a view says that
   * it continues the former (docs/decisions/resuming.md). Some of them may have arrived.
   */
  private carried: Uint8Array[] = [];
  private carriedBytes = 0;
  private remoteWindow = 1;
  private readonly sending: SendStream;
  private readonly receiving = new ReceiveStream();
  /** Since when the oldest frame under way waits for an acknowledgement; null when nothing is under way. */
  private waitingSince: Micros | null = null;
  private probed = false;
  private doublings = 0;
  private retransmitTimer: Timer | null = null;
  private retransmitTimerAt: Micros = Infinity;
  private framesUnacked = 0;
  private ackNow = false;
  private ackTimer: Timer | null = null;
  /** All that is queued can wait for company. */
  private onlyRiders = false;
  private rideTimer: Timer | null = null;
  private echoOf = 0;
  private echoHeardAt: Micros = 0;
  private rttMicros: number | null = null;
  private rttDeviationMicros = 0;
  private rttMinMicros: number | null = null;
  private readonly refusalsLogged = new Set<string>();
  private readonly totals = {
    framesSent: 0,
    framesReceived: 0,
    messagesSent: 0,
    messagesReceived: 0,
    retransmitted: 0,
    duplicates: 0,
    gaps: 0,
    refused: 0,
    downs: 0,
  };

  constructor(
    private readonly options: PeerLinkOptions,
    private readonly context: LinkContext,
    private readonly events: LinkEvents,
  ) {
    this.sending = new SendStream(options.frameBodyBytesMax);
  }

  status(): LinkStatus {
    return {
      peer: this.options.peer,
      up: this.up,
      incarnation: this.remote === 0 ? null : this.remote,
      announcement: this.announcement,
      rttMicros: this.rttMicros === null ? null : Math.round(this.rttMicros),
      rttMinMicros: this.rttMinMicros,
      ...this.totals,
      queuedBytes: this.sending.queuedBytes,
    };
  }

  /** The run of the peer that we know was reached: it is there, or silent since. */
  get isMet(): boolean {
    return this.met !== 0 && this.met === this.remote;
  }

  /** The run that speaks with us is the one in our view. */
  get isMember(): boolean {
    return this.member !== 0 && this.member === this.remote;
  }

  /** A later run than the member's is heard: whether it continues that one, the next view says. */
  get isBetween(): boolean {
    return this.member !== 0 && this.remote > this.member;
  }

  private get isGivenUp(): boolean {
    return this.givenUp !== 0 && this.givenUp === this.remote;
  }

  /** Queues a message. When too much waits already, everything is given up, and the peer must start anew. */
  push(message: Uint8Array, canWait = false): boolean {
    if (this.isBetween && this.carries(message)) return true;
    if (this.isGivenUp || !this.isMember) {
      this.context.count('link.message.dropped');
      return false;
    }
    if (this.sending.queuedBytes + message.length > QUEUE_BYTES_MAX) {
      this.overflow();
      return false;
    }
    // whatever is queued behind one that can wait takes it along: streams stay in order
    if (!canWait) this.onlyRiders = false;
    else if (!this.sending.hasQueued) this.onlyRiders = true;
    this.sending.push(message);
    this.totals.messagesSent++;
    return true;
  }

  private overflow(): void {
    this.context.count('link.queue.overflow');
    this.context.log('error', 'link.queue.overflow', {
      peer: this.options.peer,
      queuedBytes: this.sending.queuedBytes,
      meaning: 'too much waited for this server; what waited is given up, and the server must start anew',
    });
    this.giveUp();
    this.goDown('too much waited for it');
  }

  /** What waits for the present run is given up, and the run hears, by another stream, that it must end. */
  private giveUp(): void {
    this.sending.restart(this.sending.number + 1);
    this.waitingSince = null;
    this.givenUp = this.remote;
  }

  private carries(message: Uint8Array): boolean {
    if (this.events.survives?.(message) !== true) return false;
    if (this.carriedBytes + message.length > CARRIED_BYTES_MAX) return false;
    this.carriedBytes += message.length;
    this.carried.push(message);
    return true;
  }

  /** A view was installed: this run of the peer, which perhaps continues the one before, is a member; 0: none is. */
  setMember(run: Incarnation, continues = false): void {
    if (run === this.member) return;
    const wasMember = this.isMember;
    this.member = run;
    this.admit(run, wasMember);
    const carried = continues ? this.carried : [];
    this.carried = [];
    this.carriedBytes = 0;
    if (continues && this.met !== 0) this.met = run;
    for (const message of carried) this.push(message);
    this.announceMember();
  }

  private admit(run: Incarnation, wasMember: boolean): void {
    if (run > this.remote) {
      // known from the view before we heard it: what is said from now on is for it
      this.switchTo(run);
    } else if (wasMember) {
      this.giveUp();
      this.goDown('left the pool');
    }
  }

  private announceMember(): void {
    if (!this.up || !this.isMember || this.announced === this.remote) return;
    this.announced = this.remote;
    this.events.peerUp(this.options.peer, this.remote);
  }

  goDown(why: DownCause): void {
    if (!this.up) return;
    this.up = false;
    this.totals.downs++;
    this.context.count('link.down');
    if (this.announced === this.remote) this.events.peerDown(this.options.peer, why);
  }

  // --- receiving

  onFrame(incarnation: Incarnation, frame: Frame): void {
    if (incarnation < this.remote) return this.refuse('incarnation-old');
    if (incarnation > this.remote) this.switchTo(incarnation);
    this.totals.framesReceived++;
    if (frame.kind === 'hello' || frame.kind === 'heartbeat') {
      this.noteTimes(frame.times, frame.toIncarnation);
      this.noteAnnouncement(frame.announcement);
    }
    this.remoteWindow = frame.window;
    if (frame.toIncarnation !== this.options.incarnation) {
      if (frame.kind === 'hello') this.sendHello();
      else this.refuse('incarnation-not-ours');
      return;
    }
    this.lastHeardAt = this.context.now();
    // it hears by our hellos, of another stream, that it must end
    if (this.isGivenUp) return;
    if (frame.stream !== this.receiving.number && !this.changeStream(frame.stream)) return;
    if (!this.up) this.comeUp();
    if (frame.kind === 'hello' && frame.answerWanted) this.sendHello();
    if (frame.ackStream === this.sending.number) this.acknowledge(frame);
    if (frame.kind !== 'data') return;
    if (!this.isMember) return this.refuse('not-a-member');
    if (frame.epoch > this.options.epoch()) return this.refuse('epoch-ahead');
    this.takeData(frame);
  }

  /** Counts a frame or part that must not be applied; logs each cause once. `isUnknown`: nothing that we know. */
  refuse(reason: string, isUnknown = false): void {
    this.totals.refused++;
    this.context.count(`link.frame.refused.${reason}`);
    if (this.refusalsLogged.has(reason)) return;
    this.refusalsLogged.add(reason);
    const level = ORDINARY_REFUSALS.some((one) => reason.startsWith(one)) ? 'debug' : 'warn';
    const fields = { peer: this.options.peer, reason, note: 'logged once per cause' };
    this.context.log(level, 'link.frame.refused', isUnknown ? { ...fields, remedy: this.remedy() } : fields);
  }

  private remedy(): string {
    const { speaks, release } = this.announcement ?? { speaks: null, release: 'not told' };
    const range = speaks === null ? '' : `, which speaks protocol ${rangeText(speaks)}`;
    const there = `release ${release}${range}`;
    return `this server does not know such frames: smbpool there is ${there}; run releases that belong together`;
  }

  /** From here on the link is one with this later run of the peer. */
  private switchTo(incarnation: Incarnation): void {
    if (this.remote !== 0) this.context.count('link.incarnation.changed');
    this.goDown('started anew');
    this.context.log('debug', 'link.incarnation', { peer: this.options.peer, was: this.remote, is: incarnation });
    this.remote = incarnation;
    this.announcement = null;
    for (const message of this.sending.unacknowledged()) this.carries(message);
    this.sending.restart(1);
    this.receiving.restart(0);
    this.waitingSince = null;
    this.framesUnacked = 0;
    this.ackNow = false;
    this.echoOf = 0;
    this.echoedAt = -Infinity;
    this.rttMicros = null;
    this.rttDeviationMicros = 0;
  }

  /** The peer's stream has another number than the one received: an old one is refused, the first one starts. */
  private changeStream(stream: number): boolean {
    if (stream < this.receiving.number) {
      this.refuse('stream-old');
      return false;
    }
    if (this.receiving.number !== 0) {
      this.refuse('stream-new');
      this.events.givenUpBy(this.options.peer);
      return false;
    }
    this.receiving.restart(stream);
    this.framesUnacked = 0;
    this.ackNow = false;
    return true;
  }

  private comeUp(): void {
    const { peer } = this.options;
    this.up = true;
    this.context.count('link.up');
    this.sending.markAllLost();
    this.waitingSince = null;
    this.doublings = 0;
    this.met = this.remote;
    if (this.announced === this.remote) this.events.peerReturned?.(peer, this.remote);
    else this.announceMember();
  }

  private noteAnnouncement(announcement: Announcement): void {
    if (this.announcement !== null) return;
    this.announcement = announcement;
    this.events.announced?.(this.options.peer, this.remote, announcement);
  }

  private noteTimes(times: FrameTimes, echoedIncarnation: Incarnation): void {
    const now = this.context.now();
    // a late heartbeat must not replace a newer one's time
    if (times.sentAt > this.echoOf) {
      this.echoOf = times.sentAt;
      this.echoHeardAt = now;
    }
    if (times.echoOf === 0 || echoedIncarnation !== this.options.incarnation) return;
    const rtt = now - times.echoOf - times.echoHeldMicros;
    if (rtt < 0 || rtt > RTT_MICROS_MAX) {
      this.context.count('link.rtt.refused');
      return;
    }
    this.echoedAt = Math.max(this.echoedAt, times.echoOf);
    if (this.rttMicros === null) {
      this.rttMicros = rtt;
      this.rttDeviationMicros = rtt / 2;
    } else {
      const deviation = Math.abs(rtt - this.rttMicros);
      this.rttDeviationMicros += (deviation - this.rttDeviationMicros) / RTT_DEVIATION_SMOOTHING;
      this.rttMicros += (rtt - this.rttMicros) / RTT_SMOOTHING;
    }
    this.rttMinMicros = Math.min(this.rttMinMicros ?? Infinity, rtt);
  }

  private acknowledge(frame: Frame): void {
    let progress = false;
    try {
      progress = this.sending.acknowledge(frame.ack, frame.ackMapLow, frame.ackMapHigh);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.refuse(error.reason);
      return;
    }
    if (!progress) return;
    this.doublings = 0;
    this.probed = false;
    this.waitingSince = this.sending.underWay > 0 ? this.context.now() : null;
  }

  private takeData(frame: Frame & { kind: 'data' }): void {
    const gapBefore = this.receiving.hasGap;
    const acceptance = this.receiving.accept(
      frame.sequence,
      frame.records,
      (message) => {
        this.totals.messagesReceived++;
        this.events.deliver(this.options.peer, message);
      },
      (reason) => this.refuse(reason),
    );
    this.framesUnacked++;
    // a gap, a double or a filled gap is told at once: the sender has something to learn from it
    if (acceptance !== 'delivered' || gapBefore) this.ackNow = true;
    if (this.framesUnacked >= Math.min(ACK_FRAMES_MAX, this.options.window)) this.ackNow = true;
    if (acceptance === 'duplicate') this.totals.duplicates++;
    if (acceptance === 'held' && !gapBefore) this.totals.gaps++;
    if (acceptance === 'beyond-window') this.refuse('beyond-window');
  }

  // --- sending

  /** End of a turn: what was lost goes again, what waits goes out as far as the window allows, then what is owed. */
  flush(): void {
    if (this.up) {
      if (this.sending.hasLost) for (const frame of this.sending.lostFrames()) this.transmit(frame);
      if (this.onlyRiders && this.sending.hasQueued) this.waitForCompany();
      else this.sendQueued();
    }
    if (this.framesUnacked === 0) return;
    if (this.ackNow) this.sendAck();
    else this.ackTimer ??= this.context.timers.at(this.context.now() + ACK_DELAY_MICROS, () => this.onAckTimer());
  }

  private sendQueued(): void {
    for (;;) {
      const frame = this.sending.next(this.remoteWindow);
      if (frame === null) return;
      this.transmit(frame);
    }
  }

  private waitForCompany(): void {
    this.rideTimer ??= this.context.timers.at(this.context.now() + RIDE_MICROS, () => {
      this.rideTimer = null;
      this.onlyRiders = false;
    });
  }

  private onAckTimer(): void {
    this.ackTimer = null;
    if (this.framesUnacked === 0) return;
    // what waits for company has it now: data carries the acknowledgement
    if (this.up && this.onlyRiders && this.sending.hasQueued) this.sendQueued();
    if (this.framesUnacked > 0) this.sendAck();
  }

  private sendAck(): void {
    this.emit({ kind: 'ack' });
  }

  private transmit(frame: SentFrame): void {
    if (frame.order !== 0) {
      this.totals.retransmitted++;
      this.context.count('link.frame.retransmitted');
    }
    this.sending.transmitted(frame);
    this.emit({ kind: 'data', sequence: frame.sequence, records: frame.records });
    if (this.waitingSince === null) {
      this.waitingSince = this.context.now();
      this.probed = false;
    }
    this.armRetransmit();
  }

  sendHello(): void {
    this.lastHelloAt = this.context.now();
    const { announcement } = this.options;
    this.emit({ kind: 'hello', answerWanted: !this.up, times: this.times(), announcement });
  }

  sendHeartbeat(): void {
    this.emit({ kind: 'heartbeat', times: this.times(), announcement: this.options.announcement });
  }

  private times(): FrameTimes {
    const now = this.context.now();
    // 0 means "no time": a clock at its very start is told as 1
    const sentAt = Math.max(now, 1);
    if (this.echoOf === 0) return { sentAt, echoOf: 0, echoHeldMicros: 0 };
    return { sentAt, echoOf: this.echoOf, echoHeldMicros: Math.min(now - this.echoHeardAt, 0xffff_ffff) };
  }

  /** Every frame carries the acknowledgement, so whichever goes out settles what is owed. */
  private emit(content: FrameContent): void {
    const [ackMapLow, ackMapHigh] = this.receiving.ackMap();
    const body = encodeFrame(
      {
        epoch: this.options.epoch(),
        toIncarnation: this.remote,
        window: this.options.window,
        stream: this.sending.number,
        ackStream: this.receiving.number,
        ack: this.receiving.delivered,
        ackMapLow,
        ackMapHigh,
      },
      content,
    );
    this.framesUnacked = 0;
    this.ackNow = false;
    this.ackTimer?.cancel();
    this.ackTimer = null;
    this.totals.framesSent++;
    this.context.count(SENT[content.kind]);
    this.events.sendFrame(this.options.peer, body);
  }

  // --- sending again

  private timeoutMicros(): number {
    const base = Math.max(RETRANSMIT_MICROS_MIN, 2 * this.patienceMicros());
    return Math.min(RETRANSMIT_MICROS_MAX, base * 2 ** Math.min(this.doublings, 16));
  }

  private retransmitDueAt(): Micros {
    if (this.waitingSince === null || !this.up) return Infinity;
    const timeout = this.timeoutMicros();
    if (this.probed || this.doublings > 0) return this.waitingSince + timeout;
    return this.waitingSince + Math.min(Math.max(PROBE_MICROS_MIN, this.patienceMicros()), timeout);
  }

  /** How long an acknowledgement may take: the usual trip, its usual spread, the wait for something to ride on. */
  private patienceMicros(): number {
    return (this.rttMicros ?? RTT_MICROS_INITIAL) + 4 * this.rttDeviationMicros + ACK_DELAY_MICROS;
  }

  /** One timer is kept running and looks again when it fires, instead of a new one per frame. */
  private armRetransmit(): void {
    const dueAt = this.retransmitDueAt();
    if (dueAt === Infinity || (this.retransmitTimer !== null && this.retransmitTimerAt <= dueAt)) return;
    this.retransmitTimer?.cancel();
    this.retransmitTimerAt = dueAt;
    this.retransmitTimer = this.context.timers.at(dueAt, () => this.onRetransmitTimer());
  }

  private onRetransmitTimer(): void {
    this.retransmitTimer = null;
    const now = this.context.now();
    if (this.retransmitDueAt() <= now) {
      if (!this.probed && this.doublings === 0) {
        this.probed = true;
        const newest = this.sending.newestUnacked();
        if (newest !== null) this.transmit(newest);
      } else {
        this.doublings++;
        this.waitingSince = now;
        for (const frame of this.sending.oldestUnacked(RETRANSMIT_FRAMES_MAX)) this.transmit(frame);
      }
    }
    this.armRetransmit();
  }
}
