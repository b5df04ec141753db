/*
 * Views, part 1 of 2: agreement without time (docs/decisions/membership.md). Three configured servers elect leaders,
 * propose views and agree on them; messages are lost, late, doubled and overtaken, servers crash and start anew.
 * Part 2, leases.pml, has the time. Run by check.sh; README.md says what is left out and how to read a trail.
 *
 * Reductions, and why they lose nothing:
 * - There are no queues. What was sent once can be received at any time afterwards, by anybody, any number of times, or
 *   never: a proposal by its place in the table of epochs; a vote and an answer by a mask that the candidate or leader
 *   may look at whenever it likes.
 * - A refused or late vote request, or a heartbeat, can do no more than raise the term; a server that learned a term so
 *   does nothing that it could not have done without: it votes, accepts and stands in that term or a later one.
 * - Of a view's members there is one, server X: no rule reads two members at once, so that what holds for X holds for
 *   each. X is a voter, candidate and leader like the others.
 * - A server that crashed and has not yet come back is one that does nothing; so a crash is: lose all but the disk. Of
 *   servers other than X there is no bound on crashes. X has RUNS runs, that is RUNS - 1 crashes or ends.
 *
 * Bounds: TERMS terms and PER_TERM proposals in each, EPOCHS in all. Two proposals in one term are needed for one that
 * builds upon an agreed one; three terms for a leader that does not know what the one before had agreed on, and that
 * comes back to it; four for the rule of the own term (figure 8 of the paper on Raft). Two runs of X are one and
 * another that takes its place; three leave room for frames of a run that is long over.
 */

#ifndef TERMS
#define TERMS 3
#endif
#ifndef PER_TERM
#define PER_TERM 2
#endif
#ifndef RUNS
#define RUNS 3
#endif

#define SERVERS 3
#define X 2
#define NOBODY 9
#define NO_EPOCH 0
#define OUT 0

/* epochs are numbered 1 to EPOCHS: term by term, PER_TERM each */
#ifndef EPOCHS
#define EPOCHS (TERMS * PER_TERM)
#endif
#define TERM_OF(epoch) (((epoch) + PER_TERM - 1) / PER_TERM)
#define FIRST_OF(t) (((t) - 1) * PER_TERM + 1)
#define BIT(x) (1 << (x))
#define MAJORITY(mask) ((mask) == 3 || (mask) >= 5)

#define me _pid

#define FOLLOWER 0
#define CANDIDATE 1
#define LEADER 2

/* on disk */
byte term[SERVERS];
byte votedFor[SERVERS] = NOBODY;
byte accepted[SERVERS];

/* lost in a crash */
byte role[SERVERS];
byte votes[SERVERS];        /* candidate: who voted for it */
byte proposal[SERVERS];     /* leader: its newest */
byte answers[SERVERS];      /* leader: who has accepted its newest */
byte installed = NO_EPOCH;  /* by X's run */
bool named;                 /* X's run: by the view that it installed last */
byte runOfX = 1;

/* all proposals ever sent: by epoch */
bool sent[EPOCHS + 1];
byte member[EPOCHS + 1];    /* the run of X that the view names, or OUT */
byte newestRun[EPOCHS + 1]; /* the newest run of X that it or any view that it follows has named */
short follows[EPOCHS + 1];  /* the views before it: that its leader had accepted, and those that they follow */
bool agreed[EPOCHS + 1];

/* what the checks remember: the newest vote of each server. Not saved anew by the rules, so no states of its own */
byte votedTerm[SERVERS];
byte votedLast[SERVERS] = NOBODY;

hidden byte i;
hidden byte j;
hidden byte newest;
hidden byte before;
hidden byte next;

inline loseRole(s) {
  role[s] = FOLLOWER;
  votes[s] = 0;
  proposal[s] = NO_EPOCH;
  answers[s] = 0
}

inline raiseTerm(s, t) {
  if
  :: t > term[s] -> term[s] = t; votedFor[s] = NOBODY; loseRole(s)
  :: else
  fi
}

inline vote(s, candidate) {
  votedFor[s] = candidate;
  assert(term[s] >= votedTerm[s]);
  assert(term[s] > votedTerm[s] || votedLast[s] == candidate);   /* one vote in a term, across crashes */
  votedTerm[s] = term[s];
  votedLast[s] = candidate;
  votes[candidate] = votes[candidate] | BIT(s)
}

/* X's run is over: by a crash, or by a view that does not name it */
inline newRun() {
  runOfX++;
  named = false;
  installed = NO_EPOCH
}

/* A view that nobody holds, that was not agreed and that no server takes any more makes no difference: forget it. */
inline forgetDeadViews() {
  i = 1;
  do
  :: i <= EPOCHS ->
    if
    :: sent[i] && !agreed[i] && i != accepted[0] && i != accepted[1] && i != accepted[2] &&
       TERM_OF(i) < term[0] && TERM_OF(i) < term[1] && TERM_OF(i) < term[2] ->
      sent[i] = false; member[i] = OUT; newestRun[i] = 0; follows[i] = 0;
      j = 1;
      do
      :: j <= EPOCHS -> follows[j] = follows[j] & ~BIT(i); j++
      :: else -> break
      od
    :: else
    fi;
    i++
  :: else -> break
  od;
  i = 0; j = 0
}

/* Between any two agreed views, the later one's leader knew the earlier one; a run of X that went does not return. */
inline checkAgreedViews(epoch) {
  i = 1;
  newest = 0;
  before = OUT;
  do
  :: i <= EPOCHS ->
    if
    :: agreed[i] ->
      assert(i >= epoch || (follows[epoch] & BIT(i)));
      assert(i <= epoch || (follows[i] & BIT(epoch)));
      assert(member[i] == OUT || member[i] == before || member[i] > newest);
      before = member[i];
      if
      :: before > newest -> newest = before
      :: else
      fi
    :: else
    fi;
    i++
  :: else -> break
  od;
  i = 0; newest = 0; before = 0
}

inline propose(s, epoch, who) {
  assert(!sent[epoch]);                                          /* one view of an epoch */
  sent[epoch] = true;
  member[epoch] = who;
  newestRun[epoch] = (who > newestRun[accepted[s]] -> who : newestRun[accepted[s]]);
  follows[epoch] = (accepted[s] == NO_EPOCH -> 0 : follows[accepted[s]] | BIT(accepted[s]));
  accepted[s] = epoch;
  proposal[s] = epoch;
  answers[s] = BIT(s);
  printf("%d proposes epoch %d (term %d) with run %d of X\n", s, epoch, term[s], who)
}

/* the leader has one proposal open at a time; the next one it makes, or 0 when there can be none */
#define NEXT(s) (proposal[s] == NO_EPOCH -> FIRST_OF(term[s]) : \
  (agreed[proposal[s]] && proposal[s] < EPOCHS && TERM_OF(proposal[s] + 1) == term[s] -> proposal[s] + 1 : 0))
#ifdef NO_OWN_TERM_RULE
#undef NEXT
#define NEXT(s) (proposal[s] == NO_EPOCH || TERM_OF(proposal[s]) < term[s] -> FIRST_OF(term[s]) : \
  (agreed[proposal[s]] && proposal[s] < EPOCHS && TERM_OF(proposal[s] + 1) == term[s] -> proposal[s] + 1 : 0))
#endif

/* a run that the leader hears, perhaps late: only one that no view has named yet may become a member */
#ifdef RUN_MAY_RETURN
#define MAY_JOIN(s, who) (runOfX >= who && member[accepted[s]] != who)
#else
#define MAY_JOIN(s, who) (runOfX >= who && newestRun[accepted[s]] < who)
#endif

#ifdef ANY_VIEW_MAY_LEAD
#define KNOWS_ENOUGH(s, candidate) true
#else
#define KNOWS_ENOUGH(s, candidate) (accepted[candidate] >= accepted[s])
#endif

#ifdef OLD_TERM_ACCEPTED
#define TERM_ALLOWS(s, epoch) true
#else
#define TERM_ALLOWS(s, epoch) (TERM_OF(epoch) >= term[s])
#endif

/* voting: rule 1, the promise, is in leases.pml; a vote for itself is part of standing */
#define VOTE(candidate) \
  :: d_step { \
      me != candidate && role[candidate] == CANDIDATE && term[candidate] >= term[me] && \
      KNOWS_ENOUGH(me, candidate) && \
      (term[candidate] > term[me] || votedFor[me] == NOBODY) -> \
      raiseTerm(me, term[candidate]); \
      vote(me, candidate); \
      printf("%d votes for %d in term %d\n", me, candidate, term[me]); \
      forgetDeadViews() \
    }

#define ACCEPT(epoch) \
  :: d_step { \
      epoch <= EPOCHS && sent[epoch] && epoch > accepted[me] && TERM_ALLOWS(me, epoch) -> \
      raiseTerm(me, TERM_OF(epoch)); \
      if \
      :: role[me] == CANDIDATE -> loseRole(me) \
      :: else \
      fi; \
      assert(role[me] != LEADER); \
      accepted[me] = epoch; \
      answer(epoch); \
      printf("%d accepts epoch %d (term %d)\n", me, epoch, TERM_OF(epoch)); \
      forgetDeadViews() \
    }

/* the answer: it counts if the leader still leads and has not proposed another view since */
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

/* A new leader proposes at once: one step. That it leads and has not proposed shows nowhere. */
inline lead() {
  if
  :: role[me] == CANDIDATE ->
    /* one leader in a term */
    assert(me == 0 || role[0] != LEADER || term[0] != term[me]);
    assert(me == 1 || role[1] != LEADER || term[1] != term[me]);
    assert(me == 2 || role[2] != LEADER || term[2] != term[me]);
    role[me] = LEADER;
    votes[me] = 0;
    printf("%d leads in term %d\n", me, term[me])
  :: else
  fi
}

#define MAY_PROPOSE (role[me] == LEADER && NEXT(me) != 0 || role[me] == CANDIDATE && MAJORITY(votes[me]))

#define JOIN(who) \
  :: d_step { \
      MAY_PROPOSE && who <= RUNS && MAY_JOIN(me, who) -> \
      lead(); \
      next = NEXT(me); \
      propose(me, next, who); \
      forgetDeadViews() \
    }

active [SERVERS] proctype server() {
end:
  do
  :: d_step {
      role[me] != LEADER && term[me] < TERMS ->
      raiseTerm(me, term[me] + 1);
      role[me] = CANDIDATE;
      vote(me, me);
      printf("%d stands in term %d\n", me, term[me]);
      forgetDeadViews()
    }
  VOTE(0) VOTE(1) VOTE(2)
#ifdef NO_OWN_TERM_RULE
  :: d_step {  /* leads, and does not propose at once */
      role[me] == CANDIDATE && MAJORITY(votes[me]) ->
      lead();
      proposal[me] = accepted[me];
      answers[me] = BIT(me)
    }
#endif
  :: d_step {  /* keeps X as its accepted view has it */
      MAY_PROPOSE ->
      lead();
      next = NEXT(me);
      propose(me, next, member[accepted[me]]);
      forgetDeadViews()
    }
  :: d_step {  /* has lost X */
      MAY_PROPOSE && member[accepted[me]] != OUT ->
      lead();
      next = NEXT(me);
      propose(me, next, OUT);
      forgetDeadViews()
    }
  JOIN(1) JOIN(2) JOIN(3)
  ACCEPT(1) ACCEPT(2) ACCEPT(3) ACCEPT(4) ACCEPT(5) ACCEPT(6) ACCEPT(7) ACCEPT(8)
#ifdef NO_OWN_TERM_RULE
  /* a leader spreads the view that it found, and counts who has accepted it */
#define SPREAD(leader) \
  :: d_step { \
      role[leader] == LEADER && proposal[leader] != NO_EPOCH && TERM_OF(proposal[leader]) < term[leader] && \
      term[me] <= term[leader] && me != leader && accepted[me] <= proposal[leader] -> \
      raiseTerm(me, term[leader]); \
      accepted[me] = proposal[leader]; \
      answers[leader] = answers[leader] | BIT(me); \
      printf("%d accepts epoch %d from %d\n", me, accepted[me], leader) \
    }
  SPREAD(0) SPREAD(1) SPREAD(2)
#endif
  :: d_step {
      role[me] == LEADER && proposal[me] != NO_EPOCH && !agreed[proposal[me]] && MAJORITY(answers[me]) ->
      agreed[proposal[me]] = true;
      answers[me] = 0;
      printf("%d has agreement on epoch %d\n", me, proposal[me]);
      checkAgreedViews(proposal[me])
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
      :: else -> assert(!named || runOfX == RUNS)  /* a member's run ends with the view that does not name it */
      fi
    }
  :: d_step {
      (role[me] != FOLLOWER || me == X) && (me != X || runOfX < RUNS) ->
      printf("%d crashes and starts anew\n", me);
#ifdef LEADS_ON_AFTER_CRASH
      if
      :: role[me] == LEADER -> proposal[me] = NO_EPOCH; answers[me] = 0
      :: else -> loseRole(me)
      fi;
#else
      loseRole(me);
#endif
#ifdef VOTE_NOT_SAVED
      votedFor[me] = NOBODY;
#endif
#ifdef VIEW_NOT_SAVED
      accepted[me] = NO_EPOCH;
#endif
      if
      :: me == X -> newRun()
      :: else
      fi
    }
  od
}
