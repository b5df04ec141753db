/*
 * The servers of the pool (docs/decisions/joining.md): agreement on views as in views.pml, with another thing watched.
 * A view carries its configuration, a set of SERVERS servers, which a leader may change by one; a majority is one of
 * the configuration that the candidate, or the view itself, has. Run by check.sh; README.md explains.
 *
 * Reductions: those of views.pml. Members are left out, since what is agreed of them is in views.pml. Servers that have
 * joined and do not count yet make no majority, so they are not here: a server is counted or it is not.
 * - Servers are alike, so server 0 is the one that stands in term 1, and 0 or 1 in term 2. Another that stands in the
 *   same term only has no vote left, as one that does not vote.
 *
 * Bounds: TERMS terms, PER_TERM proposals in each. The first of a term keeps the configuration, each other one changes
 * it. Three terms are needed for two leaders with a change that the other does not know, and the return of the first.
 */

#ifndef TERMS
#define TERMS 3
#endif
#ifndef PER_TERM
#define PER_TERM 2
#endif

#define SERVERS 4
/* at first */
#ifndef FIRST
#define FIRST 15
#endif
#define NOBODY 9
#define NO_EPOCH 0
#define EPOCHS (TERMS * PER_TERM)
#define TERM_OF(epoch) (((epoch) + PER_TERM - 1) / PER_TERM)
#define FIRST_OF(t) (((t) - 1) * PER_TERM + 1)
#define BIT(x) (1 << (x))
#define IS(mask, x) (((mask) >> (x)) & 1)
#define COUNT(mask) (IS(mask, 0) + IS(mask, 1) + IS(mask, 2) + IS(mask, 3))
/* of the file, or of a view */
#define SET(epoch) ((epoch) == 0 -> FIRST : counted[epoch])
#define MAJORITY(set, mask) (2 * COUNT((set) & (mask)) > COUNT(set))

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
byte votes[SERVERS];
byte proposal[SERVERS];
byte answers[SERVERS];

/* by epoch; epoch 0 is the file */
bool sent[EPOCHS + 1];
byte counted[EPOCHS + 1];
byte follows[EPOCHS + 1];
bool agreed[EPOCHS + 1];

hidden byte i;
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

/* of any two agreed views the later one's leader knew the earlier one */
inline checkAgreed(epoch) {
  i = 1;
  do
  :: i <= EPOCHS ->
    if
    :: agreed[i] && i < epoch -> assert(IS(follows[epoch], i))
    :: agreed[i] && i > epoch -> assert(IS(follows[i], epoch))
    :: else
    fi;
    i++
  :: else -> break
  od;
  i = 0
}

inline propose(epoch, set) {
  sent[epoch] = true;
  counted[epoch] = set;
  follows[epoch] = follows[accepted[me]] | BIT(accepted[me]);
  accepted[me] = epoch;
  proposal[me] = epoch;
  answers[me] = BIT(me)
}

active [SERVERS] proctype server() {
  byte other;
  do
  /* it stands: only who counts, and in a term that there is */
  :: atomic { term[me] < TERMS && me <= term[me] && role[me] != LEADER && IS(SET(accepted[me]), me) ->
       raiseTerm(me, term[me] + 1);
       role[me] = CANDIDATE; votedFor[me] = me; votes[me] = BIT(me) }
  /* it votes for another */
  :: atomic { select (other : 0 .. 3);
       if
       :: other != me && role[other] == CANDIDATE && accepted[other] >= accepted[me] &&
          (term[other] > term[me] || (term[other] == term[me] && votedFor[me] == NOBODY)) ->
         raiseTerm(me, term[other]);
         votedFor[me] = other;
         votes[other] = votes[other] | BIT(me)
       /* or it has a newer view, and the candidate takes that over, with its term */
       :: other != me && role[other] == CANDIDATE && accepted[other] < accepted[me] ->
         raiseTerm(other, term[me]);
         loseRole(other);
         accepted[other] = accepted[me]
       :: else
       fi;
       other = 0 }
  :: atomic { role[me] == CANDIDATE && MAJORITY(SET(accepted[me]), votes[me]) ->
       i = 0;
       do
       :: i < SERVERS -> assert(!(role[i] == LEADER && term[i] == term[me])); i++
       :: else -> break
       od;
       i = 0;
       role[me] = LEADER; votes[me] = 0 }
  /* the first view of the term */
  :: atomic { role[me] == LEADER && proposal[me] == NO_EPOCH ->
       next = FIRST_OF(term[me]);
       propose(next, SET(accepted[me]));
       next = 0 }
#ifdef CHANGES_BEFORE_ITS_OWN_VIEW
  :: atomic { role[me] == LEADER && proposal[me] == NO_EPOCH ->
       select (other : 0 .. 3);
       next = SET(accepted[me]) ^ BIT(other);
       if
       :: other != me && next != 0 -> propose(FIRST_OF(term[me]), next)
       :: else
       fi;
       other = 0; next = 0 }
#endif
  /* one server more, or less */
  :: atomic { role[me] == LEADER && proposal[me] != NO_EPOCH && proposal[me] < FIRST_OF(term[me] + 1) - 1 &&
              agreed[proposal[me]] ->
       select (other : 0 .. 3);
       next = counted[proposal[me]] ^ BIT(other);
       if
       :: other != me && next != 0 -> propose(proposal[me] + 1, next)
       :: else
       fi;
       other = 0; next = 0 }
  /* it accepts a view */
  :: atomic { select (other : 1 .. EPOCHS);
       if
       :: sent[other] && other > accepted[me] && TERM_OF(other) >= term[me] && !(role[me] == LEADER) ->
         raiseTerm(me, TERM_OF(other));
         loseRole(me);
         accepted[me] = other;
         i = 0;
         do
         :: i < SERVERS ->
           if
           :: role[i] == LEADER && proposal[i] == other -> answers[i] = answers[i] | BIT(me)
           :: else
           fi;
           i++
         :: else -> break
         od;
         i = 0
       :: else
       fi;
       other = 0 }
  :: atomic { role[me] == LEADER && proposal[me] != NO_EPOCH && !agreed[proposal[me]] &&
              MAJORITY(counted[proposal[me]], answers[me]) ->
       agreed[proposal[me]] = true;
       checkAgreed(proposal[me]) }
  /* a crash, or a lead that ends */
  :: atomic { role[me] != FOLLOWER -> loseRole(me) }
  od
}
