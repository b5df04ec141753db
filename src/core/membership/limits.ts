/** The times of the membership, each with its reason. No behaviour. */

/**
 * A heartbeat and its answer to each server: 25 round trips a second cost nothing, and seven may be lost before a lease
 * runs out.
 */
export const MEMBERSHIP_HEARTBEAT_MICROS = 40_000;

/**
 * How long a server serves without hearing more, and so the least time until others take over from a dead one. Below
 * what a person or a client notices, above what a busy machine or a slow disk keeps a process waiting.
 */
export const MEMBERSHIP_LEASE_MICROS = 300_000;

/**
 * Who hears nothing of its leader for this share of a lease may vote for another. Less than a lease, so that another
 * leads, and renews all leases, before they are over: a lost leader fences nobody but itself. An election for nothing
 * costs two writes to disk and leaves nobody out.
 */
export const PROMISE_LEASES = 0.5;

/** Clocks of two servers differ by no more in speed. Quartz is a hundred times better; a steered clock is slewed. */
export const CLOCK_SPEED_DIFFERENCE = 0.01;

/** A save that failed is tried again after this time: a full disk is not asked all the time, and may soon have room. */
export const SAVE_AGAIN_MICROS = 200_000;

/** What may wait for the disk: half a minute of heartbeats, far longer than any election or lease. */
export const SAVE_WAITING_MAX = 1_024;

/** A leader without authority for so many leases steps down: by then others may have been elected. */
export const STEP_DOWN_LEASES = 2;

/** A fresh pool's leader waits so many heartbeats for more servers, so that a pool that starts has one first view. */
export const GATHER_HEARTBEATS = 2;

/**
 * For so many leases a server is new: a process that has just started compiles, opens its databases, meets its smbds,
 * and may be late for once. It is left out only after a longer silence; its lease ends as always.
 */
export const NEW_MEMBER_LEASES = 8;
export const NEW_MEMBER_SILENT_LEASES = 3;

/**
 * Links that are silent count against a member only after the majority has been there for so long: longer than a link
 * that works again takes to be heard after everything was silent.
 */
export const UNHEARD_AFTER_MICROS = 1_500_000;

/** A person's change of the servers is given up after this time: longer than electing a leader and a lease take. */
export const CHANGE_MICROS = 10_000_000;

/** A leader forgets a change that nobody asks for any more. */
export const CHANGE_FORGOTTEN_MICROS = 1_000_000;

/**
 * A server of a pool that never was waits so many leases for those that it did not hear yet, although a majority is
 * there: they may tell that there is a pool, and that it is none of its servers.
 */
export const FRESH_WAIT_LEASES = 1;

/** Who gave the lead away does not stand for so many leases: the others get the time to elect. */
export const REST_LEASES = 4;

/**
 * With so many views that some member has still to make up for, nobody joins: a server that comes and goes must not
 * fill the list, so that there is always room to remove the dead.
 */
export const FORMER_VIEWS_FOR_JOINS = 8;

/** Engine etcd: a leader from which nothing came for this share of a lease is challenged. It answers, if it lives. */
export const CHALLENGE_AFTER_LEASES = 0.5;

/**
 * Engine etcd: who answered a challenged leader within this share of a lease hears it, and is heard. Less than the time
 * after which a server that does not hear the leader challenges it: when both lost each other, both say so.
 */
export const HEARD_LEASES = 1 / 3;

/** Engine etcd: another server's challenge that leads to nothing for so many leases is replaced. */
export const CHALLENGE_LEASES_MAX = 3;

/** Engine etcd: who follows looks at the register so often, to know a view that its leader could not tell it. */
export const LOOK_MICROS = 1_000_000;

/**
 * Engine etcd: a leader that hears none of several members leaves them out only after this time. It may be its network
 * that is away, or everybody's; if it is its own alone, the others take the lead meanwhile.
 */
export const ALONE_MICROS = 5_000_000;

/** Engine etcd: a read that took longer is asked again, elsewhere; three fit into a lease. */
export const READ_LEASES = 1 / 3;

/** A span of our clock that is at least `micros` of any other server's. */
export function stretched(micros: number): number {
  return Math.ceil(micros * (1 + CLOCK_SPEED_DIFFERENCE));
}

/** A span of our clock that is at most `micros` of any other server's. */
export function shortened(micros: number): number {
  return Math.max(0, Math.floor(micros * (1 - CLOCK_SPEED_DIFFERENCE)));
}
