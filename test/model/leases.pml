/*
 * Views, part 2 of 2: leases and time (docs/decisions/membership.md). A leader has authority for LEASE from a heartbeat
 * that a majority answered; it gives a lease to member X, which never outlasts that. Who answers promises not to vote
 * for PROMISE, which is shorter: another leader may be elected while leases of the one before are valid. X is taken out
 * of the view when its lease is over, by whomever it was given. Agreement itself is part 1, views.pml, which explains
 * the reductions: no queues, and X for any member. Run by check.sh; README.md says what is left out and how to read a
 * trail.
 *
 * Time is a clock that ticks whenever it likes: a server that does nothing meanwhile is slow, paused, or down. All
 * moments are kept as what is left until they no longer count, LEASE ticks or less; so there is no bound on time.
 * Frames under way are sets of such remainders (bit r - 1 for r ticks left): all that was sent can arrive in any order,
 * any number of times, or never, and the parts of a heartbeat (what it echoes, the lease, the proposal) each at another
 * time, which allows more than the protocol does. A frame whose remainder is 0 changes nothing.
 *
 * A member's lease is until t + remaining, where t is when X sent the answer that the leader names, and remaining is
 * what was left of the authority: as remainders, (t left) + (authority left) - LEASE. All clocks have one speed.
 *
 * Starts with a view that names X's first run, agreed and installed, and its leader, X or another, in term 1. Bounds:
 * TERMS terms: two leaders at least; PER_TERM proposals in each, epoch 1 being the view at the start; RUNS runs of X.
 * Of crashes of others, and of ticks, there is no bound. LEASE 2: the shortest with a moment within it.
 */

#ifndef TERMS
#define TERMS 2
#endif
#ifndef PER_TERM
#define PER_TERM 2
#endif
#ifndef RUNS
#define RUNS 2
#endif
#ifndef LEASE
#define LEASE 2
#endif
#ifndef PROMISE
#define PROMISE 1
#endif

#define SERVERS 3
#define X 2
#define NOBODY 9
#define NO_EPOCH 0
#define OUT 0

#ifndef EPOCHS
#define EPOCHS (TERMS * PER_TERM)
#endif
#define TERM_OF(epoch) (((epoch) + PER_TERM - 1) / PER_TERM)
#define FIRST_OF(t) (((t) - 1) * PER_TERM + 1)
#define BIT(x) (1 << (x))
#define MAJORITY(mask) ((mask) == 3 || (mask) >= 5)
#define LEFT(rest) (1 << ((rest) - 1))

#define FOLLOWER 0
#define CANDIDATE 1
#define LEADER 2

/* on disk */
byte term[SERVERS] = 1;
byte votedFor[SERVERS] = NOBODY;
byte accepted[SERVERS] = 1;

/* lost in a crash */
byte role[SERVERS];
byte votes[SERVERS];        /* candidate: who voted for it */
byte proposal[SERVERS];     /* leader: its newest */
byte answers[SERVERS];      /* leader: who has accepted its newest */
byte promise[SERVERS];      /* does not vote for so long */
byte authority[SERVERS];    /* leader: has it for so long */
byte answered[SERVERS];     /* leader: of the newest answer of X's run: LEASE since X sent it */
byte received[SERVERS];     /* leader: the same since the leader received it */
byte given[SERVERS];        /* leader: X's lease, by whomever it was given, is over after so long */

/* X's run */
byte runOfX = 1;
bool named = true;          /* by the view that it installed last */
byte installed = 1;
byte lease;                 /* in the node page: runs out by itself */

/* under way; of a leader's heartbeats and the answers to them while it leads */
byte beats[SERVERS];        /* heartbeats, to all: LEASE since they were sent */
byte echoes[SERVERS];       /* answers to this leader: LEASE since the heartbeat answered was sent */
byte answersOfX[SERVERS];   /* answers of X's run to this leader: LEASE since they were sent */
byte grants;                /* leases for X's run, in heartbeats of whomever */

/* all proposals ever sent: by epoch */
bool sent[EPOCHS + 1];
byte member[EPOCHS + 1];
byte newestRun[EPOCHS + 1];
bool agreed[EPOCHS + 1];
byte newestAgreed = 1;

hidden byte i;
hidden byte next;
hidden byte rest;

/* each bug planted: see check.sh */
#ifdef LEASE_WHILE_PROPOSED_OUT
#define MAY_GRANT(s) (member[newestAgreed] == runOfX)
#else
#define MAY_GRANT(s) (member[proposal[s]] == runOfX)
#endif

#ifdef LEASE_BY_INSTALLED_VIEW
#define OWN_LEASE true
#else
#define OWN_LEASE (member[proposal[X]] == runOfX)
#endif

#ifdef NO_PROMISE
#define FREE_TO_VOTE(s) true
#else
#define FREE_TO_VOTE(s) (promise[s] == 0)
#endif

#ifdef LEADER_VOTES
#define FREE_OF_LEADING(s) true
#else
#define FREE_OF_LEADING(s) (role[s] != LEADER)
#endif

#ifdef STEPS_DOWN_AND_VOTES
#define KEPT_PROMISE promise[me]
#else
#define KEPT_PROMISE (authority[me] > promise[me] -> authority[me] : promise[me])
#endif

#ifdef NO_LEASE_WAIT
#define LEASE_IS_OVER(s) true
#else
#define LEASE_IS_OVER(s) (role[s] == LEADER && given[s] == 0)
#endif

/* how long leases of former leaders may still be valid when somebody is elected */
#ifdef NO_INHERITED_LEASES
#define INHERITED 0
#else
#define INHERITED (LEASE - PROMISE)
#endif

#ifdef AUTHORITY_FROM_RECEIPT
#define AUTHORITY(left) LEASE
#else
#define AUTHORITY(left) left
#endif

#ifdef NO_WAIT_AFTER_START
#define PROMISE_AT_START 0
#else
#define PROMISE_AT_START LEASE
#endif

#ifdef RUN_MAY_RETURN
#define MAY_JOIN(s, who) (runOfX >= who && member[accepted[s]] != who)
#else
#define MAY_JOIN(s, who) (runOfX >= who && newestRun[accepted[s]] < who)
#endif

inline loseRole(s) {
  role[s] = FOLLOWER;
  votes[s] = 0;
  proposal[s] = NO_EPOCH;
  answers[s] = 0;
  authority[s] = 0;
  beats[s] = 0;
  echoes[s] = 0;
  forgetX(s)
}

inline forgetX(s) {
  answersOfX[s] = 0;
  answered[s] = 0;
  received[s] = 0;
  given[s] = 0
}

inline raiseTerm(s, t) {
  if
  :: t > term[s] -> term[s] = t; votedFor[s] = NOBODY; loseRole(s)
  :: else
  fi
}

/* X's run is over: it has closed what it had, and its lease, before the new run says its first word */
inline newRun() {
  runOfX++;
  named = false;
  installed = NO_EPOCH;
  lease = 0;
  grants = 0;   /* a heartbeat names the run that it is for */
  answersOfX[0] = 0;
  answersOfX[1] = 0
}

/* Views that no server holds or takes any more, other than the newest agreed one, make no difference: forget them. */
inline forgetDeadViews() {
  i = 1;
  do
  :: i <= EPOCHS ->
    if
    :: sent[i] && i != newestAgreed && i != accepted[0] && i != accepted[1] && i != accepted[2] &&
       TERM_OF(i) < term[0] && TERM_OF(i) < term[1] && TERM_OF(i) < term[2] ->
      sent[i] = false; member[i] = OUT; newestRun[i] = 0; agreed[i] = false
    :: else
    fi;
    i++
  :: else -> break
  od;
  i = 0
}

/* Remainders that are no longer than what is already known change nothing: forget them. */
inline forgetOldFrames() {
  i = 0;
  do
  :: i < SERVERS ->
    echoes[i] = echoes[i] & ~(BIT(authority[i]) - 1);
    answersOfX[i] = answersOfX[i] & ~(BIT(answered[i]) - 1);
    i++
  :: else -> break
  od;
#ifndef LEASE_FROM_RECEIPT
  grants = grants & ~(BIT(lease) - 1);
#endif
  i = 0
}

/* Never a member with a valid lease that an agreed view does not name. */
inline checkLease() {
  assert(lease == 0 || member[newestAgreed] == runOfX)
}

inline propose(s, epoch, who) {
  assert(!sent[epoch]);
  sent[epoch] = true;
  member[epoch] = who;
  newestRun[epoch] = (who > newestRun[accepted[s]] -> who : newestRun[accepted[s]]);
  accepted[s] = epoch;
  proposal[s] = epoch;
  answers[s] = BIT(s);
  printf("%d proposes epoch %d (term %d) with run %d of X\n", s, epoch, term[s], who)
}

inline lead() {
  if
  :: role[me] == CANDIDATE ->
    role[me] = LEADER;
    votes[me] = 0;
    given[me] = INHERITED;
    printf("%d leads in term %d\n", me, term[me])
  :: else
  fi
}

/* a heartbeat's lease for X: to whom the leader's newest proposal names */
inline grant(s) {
  if
  :: MAY_GRANT(s) && answered[s] + authority[s] > LEASE ->
    rest = answered[s] + authority[s] - LEASE;
#ifdef LEASE_FROM_RECEIPT
    rest = authority[s];
#endif
    grants = grants | LEFT(rest);
    rest = received[s] + authority[s] - LEASE;
    given[s] = (rest > given[s] -> rest : given[s]);
    rest = 0
  :: else
  fi
}

inline takeAuthority(s, left) {
  authority[s] = (left > authority[s] -> left : authority[s]);
  printf("%d has authority for %d\n", s, authority[s]);
  if
  :: s == X && named && OWN_LEASE ->
    lease = authority[X];
    checkLease()
  :: else
  fi
}

#define NEXT(s) (proposal[s] == NO_EPOCH -> FIRST_OF(term[s]) : \
  (agreed[proposal[s]] && proposal[s] < EPOCHS && TERM_OF(proposal[s] + 1) == term[s] -> proposal[s] + 1 : 0))
#define MAY_PROPOSE (role[me] == LEADER && NEXT(me) != 0 || role[me] == CANDIDATE && MAJORITY(votes[me]))

#define VOTE(candidate) \
  :: d_step { \
      me != candidate && role[candidate] == CANDIDATE && FREE_TO_VOTE(me) && FREE_OF_LEADING(me) && \
      accepted[candidate] >= accepted[me] && \
      (term[candidate] > term[me] || term[candidate] == term[me] && votedFor[me] == NOBODY) -> \
      raiseTerm(me, term[candidate]); \
      votedFor[me] = candidate; \
      votes[candidate] = votes[candidate] | BIT(me); \
      printf("%d votes for %d in term %d\n", me, candidate, term[me]); \
      forgetDeadViews() \
    }

#define ACCEPT(epoch) \
  :: d_step { \
      epoch <= EPOCHS && sent[epoch] && epoch > accepted[me] && TERM_OF(epoch) >= term[me] -> \
      follow(TERM_OF(epoch)); \
      accepted[me] = epoch; \
      answer(epoch); \
      printf("%d accepts epoch %d (term %d)\n", me, epoch, TERM_OF(epoch)); \
      forgetDeadViews() \
    }

/* a frame of this term's leader has come */
inline follow(t) {
  raiseTerm(me, t);
  if
  :: role[me] == CANDIDATE -> loseRole(me)
  :: else
  fi;
  assert(role[me] != LEADER)
}

inline answer(epoch) {
  i = 0;
  do
  :: i < SERVERS ->
    if
    :: role[i] == LEADER && proposal[i] == epoch && !agreed[epoch] -> answers[i] = answers[i] | BIT(me)
    :: else
    fi;
    i++
  :: else -> break
  od;
  i = 0
}

/* a leader that hears a higher term leads no longer; what it promised itself stays promised */
#define STEP_DOWN(other) \
  :: d_step { \
      role[me] == LEADER && term[other] > term[me] -> \
      promise[me] = KEPT_PROMISE; \
      raiseTerm(me, term[other]); \
      printf("%d hears the term %d and steps down\n", me, term[me]); \
      forgetDeadViews() \
    }

#define JOIN(who) \
  :: d_step { \
      MAY_PROPOSE && who <= RUNS && MAY_JOIN(me, who) -> \
      lead(); \
      next = NEXT(me); \
      propose(me, next, who); \
      forgetX(me); \
      forgetDeadViews() \
    }

/* a heartbeat of which left is left comes, and is answered at once */
#define HEARTBEAT(leader, left) \
  :: d_step { \
      me != leader && left <= LEASE && (beats[leader] & LEFT(left)) && term[me] <= term[leader] -> \
      follow(term[leader]); \
      promise[me] = PROMISE; \
      echoes[leader] = echoes[leader] | LEFT(left); \
      answersOfX[leader] = (me == X && MAY_GRANT(leader) -> answersOfX[leader] | LEFT(LEASE) : answersOfX[leader]); \
      printf("%d answers %d's heartbeat, %d left\n", me, leader, left); \
      forgetOldFrames(); \
      forgetDeadViews() \
    }

#define ANSWER(left) \
  :: d_step { \
      left <= LEASE && (echoes[me] & LEFT(left)) && AUTHORITY(left) > authority[me] -> \
      takeAuthority(me, AUTHORITY(left)); \
      forgetOldFrames() \
    } \
  :: d_step { \
      left <= LEASE && (answersOfX[me] & LEFT(left)) && left > answered[me] -> \
      answered[me] = left; \
      received[me] = LEASE; \
      printf("%d hears X's answer, %d left\n", me, left); \
      forgetOldFrames() \
    } \
  :: d_step { \
      me == X && left <= LEASE && (grants & LEFT(left)) && named && left > lease -> \
      lease = left; \
      printf("X has a lease for %d\n", left); \
      checkLease(); \
      forgetOldFrames() \
    }

proctype server(byte me) {
end:
  do
  :: d_step {
      role[me] != LEADER && FREE_TO_VOTE(me) && term[me] < TERMS ->
      raiseTerm(me, term[me] + 1);
      role[me] = CANDIDATE;
      votedFor[me] = me;
      votes[me] = BIT(me);
      printf("%d stands in term %d\n", me, term[me]);
      forgetDeadViews()
    }
  VOTE(0) VOTE(1) VOTE(2)
  :: d_step {  /* keeps X as its accepted view has it */
      MAY_PROPOSE ->
      lead();
      next = NEXT(me);
      propose(me, next, member[accepted[me]]);
      forgetDeadViews()
    }
  :: d_step {  /* has lost X; a leader that takes itself out closes what it has first */
      MAY_PROPOSE && member[accepted[me]] != OUT && LEASE_IS_OVER(me) ->
      lead();
      next = NEXT(me);
      propose(me, next, OUT);
      forgetX(me);
      lease = (me == X -> 0 : lease);
      forgetDeadViews()
    }
  JOIN(1) JOIN(2) JOIN(3)
  ACCEPT(1) ACCEPT(2) ACCEPT(3) ACCEPT(4) ACCEPT(5) ACCEPT(6) ACCEPT(7) ACCEPT(8) ACCEPT(9)
  :: d_step {
      role[me] == LEADER && proposal[me] != NO_EPOCH && !agreed[proposal[me]] && MAJORITY(answers[me]) ->
      agreed[proposal[me]] = true;
      answers[me] = 0;
      printf("%d has agreement on epoch %d\n", me, proposal[me]);
      newestAgreed = (proposal[me] > newestAgreed -> proposal[me] : newestAgreed);
      checkLease();
      forgetDeadViews()
    }
  :: d_step {
      role[me] == LEADER ->
      beats[me] = beats[me] | LEFT(LEASE);
      grant(me);
      forgetOldFrames();
      printf("%d sends heartbeats\n", me)
    }
  HEARTBEAT(0, 1) HEARTBEAT(0, 2) HEARTBEAT(0, 3)
  HEARTBEAT(1, 1) HEARTBEAT(1, 2) HEARTBEAT(1, 3)
  HEARTBEAT(2, 1) HEARTBEAT(2, 2) HEARTBEAT(2, 3)
  ANSWER(1) ANSWER(2) ANSWER(3)
  STEP_DOWN(0) STEP_DOWN(1) STEP_DOWN(2)
  :: d_step {
      role[me] == LEADER && authority[me] == 0 ->
      loseRole(me);
      printf("%d steps down\n", me)
    }
  :: d_step {  /* X hears that what it accepted is agreed */
      me == X && agreed[accepted[X]] && accepted[X] > installed ->
      installed = accepted[X];
      if
      :: member[installed] == runOfX -> named = true; printf("X installs epoch %d\n", installed)
      :: member[installed] != runOfX && newestRun[installed] >= runOfX && runOfX < RUNS ->
        printf("X's run %d ends with epoch %d\n", runOfX, installed);
        loseRole(X);
        newRun()
      :: else
      fi
    }
  :: d_step {  /* has been down for as long as it did nothing before */
      (role[me] != FOLLOWER || promise[me] < LEASE) && (me != X || runOfX < RUNS) ->
      printf("%d crashes and starts anew\n", me);
      loseRole(me);
      promise[me] = PROMISE_AT_START;
      if
      :: me == X -> newRun()
      :: else
      fi
    }
  od
}

#define LESS(rest) rest = (rest > 0 -> rest - 1 : 0)

proctype clock() {
end:
  do
  :: d_step {
      printf("tick\n");
      i = 0;
      do
      :: i < SERVERS ->
        LESS(promise[i]);
        LESS(authority[i]);
        LESS(answered[i]);
        LESS(received[i]);
        LESS(given[i]);
        beats[i] = beats[i] >> 1;
        echoes[i] = echoes[i] >> 1;
        answersOfX[i] = answersOfX[i] >> 1;
        i++
      :: else -> break
      od;
      i = 0;
#ifndef LEASE_FROM_RECEIPT
      grants = grants >> 1;
#endif
      LESS(lease)
    }
  od
}

init {
  atomic {
    sent[1] = true;
    member[1] = 1;
    newestRun[1] = 1;
    agreed[1] = true;
    if
    :: role[0] = LEADER; proposal[0] = 1
    :: role[X] = LEADER; proposal[X] = 1
    fi;
    run server(0);
    run server(1);
    run server(X);
    run clock()
  }
}
