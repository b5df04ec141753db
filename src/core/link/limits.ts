/** The times and sizes of the link layer (core/link*), each with its reason. No behaviour. */

/**
 * A heartbeat is small (some 150 bytes on the wire), so 20 a second cost nothing; twenty may be lost before a verdict.
 */
export const HEARTBEAT_INTERVAL_MICROS = 50_000;

/** Hellos go out so often to a peer that is not up: a started server joins within a tenth of a second. */
export const HELLO_INTERVAL_MICROS = 100_000;

/**
 * A peer silent for so long is called down. Twenty heartbeats: neither loss of frames nor a busy machine reaches that.
 */
export const SILENCE_MICROS_MAX = 1_000_000;

/**
 * An acknowledgement waits so long for data to ride on; well below the shortest retransmission timeout. One that
 * travels alone wakes two processes for nothing: at 0.2 ms those cost as much as the data.
 */
export const ACK_DELAY_MICROS = 1_000;

/**
 * A message that nobody waits for waits so long for something to ride on. A frame of its own would wake the peer, which
 * costs more than the message; on a busy link there is always company.
 */
export const RIDE_MICROS = 5_000;

/**
 * So many frames received without an acknowledgement sent: acknowledge now, so that the sender's window never runs
 * dry.
 */
export const ACK_FRAMES_MAX = 8;

/**
 * Lower end of the retransmission timeout, for servers with idle processors. On a busy one, where a process waits for
 * the others' time slices, the measured trips and their spread raise it.
 */
export const RETRANSMIT_MICROS_MIN = 4_000;

/** Upper end of the doubling timeout: a healed cable is noticed within it even when no heartbeat gets through first. */
export const RETRANSMIT_MICROS_MAX = 100_000;

/**
 * The probe for a lost last frame goes out earlier than the timeout, but not before an acknowledgement could be here.
 */
export const PROBE_MICROS_MIN = 2_000;

/** Frames sent again when the timeout passes; the acknowledgements they cause tell which others are missing. */
export const RETRANSMIT_FRAMES_MAX = 4;

/** More frames than this to one peer are never under way: the acknowledgement map has so many bits (wire/frame). */
export const WINDOW_FRAMES_MAX = 64;

/** Largest message: far above any record smbd stores, small enough that a bad peer cannot eat the memory. */
export const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** What a waiting message needs besides its bytes: most are some twenty bytes long, and their objects cost more. */
export const MESSAGE_OVERHEAD_BYTES = 128;

/** What may wait for one peer. Reached only when it is gone for long under load; then it is given up. */
export const QUEUE_BYTES_MAX = 256 * 1024 * 1024;

/** Weight of a new round-trip sample in the smoothed value: 1/8, as in TCP. */
export const RTT_SMOOTHING = 8;

/** Weight of a new deviation from the smoothed round trip: 1/4, as in TCP. */
export const RTT_DEVIATION_SMOOTHING = 4;

/** Round trip assumed before the first was measured. */
export const RTT_MICROS_INITIAL = 500;

/** A round trip longer than this is a clock error or a replay of old times, not a measurement. */
export const RTT_MICROS_MAX = 10_000_000;
