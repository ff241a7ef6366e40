/* The commit of a co-allocation, and the cancel of a cluster, for Spin. The protocol in words:
   docs/adr/0004-commit-protocol.md; its races: docs/concurrency.md. models.py has all that is run.

   What may go wrong: a request is lost, comes late, or comes though nobody waits for it any more;
   an answer is lost; a coordinator dies at any point, and one that was thought dead goes on beside
   its successor; a hold runs out, and a site is in doubt, at any instant, whatever clocks say.

   What is left out. The register is honest, and so are the sites: no digests, no signatures. No
   leaders: the protocol has to do without the comparison of the election key, which the code makes
   besides. No agents, and no request ids: each part is held once. No second attempt at a cluster:
   after a refusal that is another transaction, which begins on the record as it then is. The
   amending of a lease that stands is in amend_protocol.pml.

   Configurations (-D):
     ONE       one transaction over two sites, with a coordinator, and another that takes it for
               dead; without this, two transactions compete for two sites, one coordinator each
     FORGET    together with ONE: the register forgets what nobody can ask for any more
     LIVE      together with ONE: the promises that say what there is in the end
     WITNESS   "violations" that have to be found: what must be possible for promises to mean much

   Mutants (-D), of which each breaks a promise:
     CONFIRM_IS_FINAL         PREPARE confirms at once, and is undone where another site refuses
     PREPARED_EXPIRES         a prepared part is let go when it has waited for long
     BLIND_DECISION           a decision is written without looking whether there is one
     CHECK_THEN_HOLD          room is looked for and taken in two transactions
     RELEASE_TAKES_PREPARED   RELEASE is asked for at once, and lets go of a prepared part
     COMMIT_IGNORES_CANCEL    COMMIT does not compare the cluster's revision
     BLIND_CANCEL             a request for the end is written over what came after it was read
     RELEASE_ASKED_ONCE       a RELEASE that was refused is not asked again
     COMMIT_IS_FINAL          RELEASE is never asked, so that a cancel after COMMIT ends nothing
     DOUBT_WAITS              a site in doubt waits for a decision, and does not race to one
     FORGET_UNANSWERED        a decision is forgotten before every site has answered and is over
     FORGET_ON_RECORD         a decision is forgotten while the cluster is on record */

/* A part, as in the broker's domain/part.py; NONE: the site has never heard of it. */
#define NONE      0
#define HELD      1
#define PREPARED  2
#define CONFIRMED 3
#define RELEASED  4
#define EXPIRED   5
#define ENDED     6

#include "register.pml"

byte part[4];
#define PART(t, s) part[(t) * 2 + (s)]

/* The record of a transaction's cluster, in the meta-scheduler's etcd. Revision 0 is the one that
   the co-allocation began with, and that COMMIT compares. */
byte revision[2];
bit scheduled[2];  /* its state; written with COMMIT, in one etcd transaction */
bit end_requested[2];

/* For the promises alone: a cancel was acknowledged, and whether that was before COMMIT. */
bit cancel_told[2];
bit cancel_first[2];

#ifdef FORGET
byte was[2];  /* the decision that was forgotten */
bit gone[2];  /* the cluster's record was cleared away */
#define EVER(t) (was[t] != OPEN -> was[t] : decision[t])
#define GONE(t) (gone[t])
#else
#define EVER(t) (decision[t])
#define GONE(t) false
#endif

#define COUNTED(t, s) (PART(t, s) == HELD || PART(t, s) == PREPARED || PART(t, s) == CONFIRMED)
#define LET_GO(t, s)  (PART(t, s) == RELEASED || PART(t, s) == EXPIRED)
#define BEGAN(t, s)   (PART(t, s) == CONFIRMED || PART(t, s) == ENDED)
#define BOUND(t, s)   (PART(t, s) == PREPARED || BEGAN(t, s))
#define WAITS(t, s)   (PART(t, s) == HELD || PART(t, s) == PREPARED)

/* The promises, by name; `stability` is the register's. One that is broken is made false, asserted,
   and made true again: so the checker says which it was, and no state is searched twice. */
bool capacity = true;            /* no site counts more than it has room for, which is one part */
bool atomicity = true;           /* no part began at one site and was let go at another */
bool validity = true;            /* once COMMIT stands, every part is prepared or began */
bool no_unilateral_exit = true;  /* what is prepared is let go only on ABORT */
bool cancel_wins = true;         /* what was cancelled before COMMIT is not committed */
bool cancel_kept = true;         /* a cancel that was acknowledged stays on record */
bool record_agrees = true;       /* a cluster is scheduled if, and only if, COMMIT stands */
bool forgotten = true;           /* of a COMMIT that is forgotten no site is in doubt; an ABORT that
                                    is forgotten becomes no COMMIT */

/* A part's step, whichever it is. */
inline move(t, s, to) {
  if
  :: PART(t, s) == PREPARED && (to == RELEASED || to == EXPIRED) && decision[t] != ABORT &&
       EVER(t) != ABORT ->
       no_unilateral_exit = false; assert(no_unilateral_exit); no_unilateral_exit = true
  :: else
  fi;
  PART(t, s) = to
}

#ifdef COMMIT_IGNORES_CANCEL
#define RECORD_AS_READ(t) true
#else
#define RECORD_AS_READ(t) (revision[t] == 0)
#endif

/* The meta-scheduler's usecases/coallocate.py and loops/recover.py. What it asks of the sites comes
   there by itself, see Site; here are the answers that reach it. To die is to do nothing more. */
proctype Coordinator(byte t) {
  bit receipt[2];
  do
  :: !receipt[0] && (PART(t, 0) == PREPARED || PART(t, 0) == CONFIRMED) -> receipt[0] = 1
  :: !receipt[1] && (PART(t, 1) == PREPARED || PART(t, 1) == CONFIRMED) -> receipt[1] = 1
  :: break
  od;
#ifdef CONFIRM_IS_FINAL
  if
  :: receipt[0] && receipt[1]
  :: else ->
       if
       :: atomic { PART(t, 0) == HELD || PART(t, 0) == CONFIRMED -> move(t, 0, RELEASED) }
       :: skip
       fi;
       if
       :: atomic { PART(t, 1) == HELD || PART(t, 1) == CONFIRMED -> move(t, 1, RELEASED) }
       :: skip
       fi
  fi
#else
  if
  :: receipt[0] && receipt[1] ->
       if
       :: atomic {
            /* One etcd transaction writes the decision, and the cluster's record whole, from what
               was read when the co-allocation began: a request for its end would be gone. */
            NOT_DECIDED(t) && RECORD_AS_READ(t) ->
              write_decision(t, COMMIT);
              scheduled[t] = 1; end_requested[t] = 0; revision[t]++
          }
       :: atomic { !(NOT_DECIDED(t) && RECORD_AS_READ(t)) -> race_to_abort(t) }
       :: skip
       fi
  :: atomic { true -> race_to_abort(t) }  /* refused, past decide_by, or a successor's */
  :: skip
  fi
#endif
}

/* The broker: all that happens to one part. HOLD and PREPARE come at any instant, or never, and
   HOLD may prepare. Whether the coordinator has its record written by then matters to nobody. */
proctype Site(byte t; byte s) {
  byte told;
#ifdef RELEASE_ASKED_ONCE
  bit asked;
#endif
end:
  do
#ifdef CHECK_THEN_HOLD
  :: PART(t, s) == NONE && !COUNTED(1 - t, s) -> PART(t, s) = HELD
#else
  :: atomic { PART(t, s) == NONE && !COUNTED(1 - t, s) -> move(t, s, HELD) }
#endif
#ifdef CONFIRM_IS_FINAL
  :: atomic { PART(t, s) == HELD -> move(t, s, CONFIRMED) }
#else
  /* HOLD that prepares: both in one transaction. */
  :: atomic { PART(t, s) == NONE && !COUNTED(1 - t, s) -> move(t, s, PREPARED) }
  :: atomic { PART(t, s) == HELD -> move(t, s, PREPARED) }
#endif
  /* By time. To be given back on request is the same but for the name. */
  :: atomic { PART(t, s) == HELD -> move(t, s, EXPIRED) }
#ifdef PREPARED_EXPIRES
  :: atomic { PART(t, s) == PREPARED && decision[t] == OPEN -> move(t, s, EXPIRED) }
#endif
#ifndef DOUBT_WAITS
  :: atomic { PART(t, s) == PREPARED && decision[t] == OPEN -> race_to_abort(t) }
#endif
  /* A decision, brought by a coordinator or read by the site; applied later, to what the part has
     become by then. */
  :: WAITS(t, s) && decision[t] != OPEN -> told = decision[t];
     atomic {
       if
       :: told == COMMIT && PART(t, s) == PREPARED -> move(t, s, CONFIRMED)
       :: told == ABORT && WAITS(t, s) -> move(t, s, RELEASED)
       :: else
       fi;
       told = OPEN
     }
  /* RELEASE: the meta-scheduler's loops/settle.py asks for it, once the cluster is scheduled and
     its end requested, until it is done. Where the part is still PREPARED it is refused, and
     changes nothing: COMMIT is applied first. */
#ifdef RELEASE_ASKED_ONCE
  :: atomic { !asked && scheduled[t] && end_requested[t] ->
       asked = 1;
       if
       :: PART(t, s) == CONFIRMED -> move(t, s, ENDED)
       :: else
       fi
     }
#elif !defined(COMMIT_IS_FINAL)
  :: atomic { scheduled[t] && end_requested[t] && PART(t, s) == CONFIRMED -> move(t, s, ENDED) }
#endif
#ifdef RELEASE_TAKES_PREPARED
  :: atomic { end_requested[t] && PART(t, s) == PREPARED -> move(t, s, RELEASED) }
#endif
#ifndef LIVE
  /* Its window is over. Not with LIVE, where the end has to come from the cancel. */
  :: atomic { PART(t, s) == CONFIRMED -> move(t, s, ENDED) }
#endif
  od
}

/* The meta-scheduler's usecases/delete_cluster.py: reads the record, writes it whole, and reads
   again where it lost. Or nobody cancels. */
proctype Cancel(byte t) {
  byte read_at;
  bit was_scheduled;
  do
  :: atomic { !GONE(t) -> read_at = revision[t]; was_scheduled = scheduled[t] };
     if
     :: GONE(t) -> break
#ifdef BLIND_CANCEL
     :: atomic {
          true ->
#else
     :: atomic { revision[t] != read_at -> read_at = 0; was_scheduled = 0 }
     :: atomic {
          !GONE(t) && revision[t] == read_at ->
#endif
            scheduled[t] = was_scheduled; end_requested[t] = 1; revision[t]++;
            cancel_told[t] = 1;
            cancel_first[t] = (EVER(t) != COMMIT);
            break
        }
     fi
  :: break
  od
}

#ifdef FORGET
/* The meta-scheduler's loops: settle, which hears from each site once it has obeyed or has no part
   to obey with; recover and refresh, which clear the record away: of an ABORT, and of a cluster of
   which every part is over; and forget. */
#ifdef FORGET_UNANSWERED
#define MAY_FORGET(t) true
#elif defined(FORGET_ON_RECORD)
#define MAY_FORGET(t) (answered[0] && answered[1])
#else
#define MAY_FORGET(t) (answered[0] && answered[1] && gone[t])
#endif

proctype Forget(byte t) {
  bit answered[2];
end:
  do
  :: !answered[0] && decision[t] != OPEN && !WAITS(t, 0) -> answered[0] = 1
  :: !answered[1] && decision[t] != OPEN && !WAITS(t, 1) -> answered[1] = 1
  :: atomic { !gone[t] && decision[t] == ABORT && !scheduled[t] -> gone[t] = 1; revision[t]++ }
  :: atomic { !gone[t] && scheduled[t] && PART(t, 0) == ENDED && PART(t, 1) == ENDED ->
       gone[t] = 1; revision[t]++ }
  :: atomic { decision[t] != OPEN && was[t] == OPEN && MAY_FORGET(t) ->
       was[t] = decision[t]; decision[t] = OPEN }
  od
}
#endif

#define NO_MORE_THAN_ONE(s) (!(COUNTED(0, s) && COUNTED(1, s)))
#define WHOLE(t)   (!(BEGAN(t, 0) && LET_GO(t, 1)) && !(BEGAN(t, 1) && LET_GO(t, 0)))
#define VALID(t)   (EVER(t) != COMMIT || (BOUND(t, 0) && BOUND(t, 1)))
#define OBEYED(t)  (!(cancel_first[t] && EVER(t) == COMMIT))
#define KEPT(t)    (!cancel_told[t] || end_requested[t])
#define AGREES(t)  (scheduled[t] == (EVER(t) == COMMIT))
#ifdef FORGET
#define PAST(t)    (!(was[t] == COMMIT && (WAITS(t, 0) || WAITS(t, 1))) && \
                    !(was[t] == ABORT && decision[t] == COMMIT))
#endif

proctype Promises() {
end:
  do
  :: d_step { !(NO_MORE_THAN_ONE(0) && NO_MORE_THAN_ONE(1)) ->
       capacity = false; assert(capacity); capacity = true }
  :: d_step { !(WHOLE(0) && WHOLE(1)) -> atomicity = false; assert(atomicity); atomicity = true }
  :: d_step { !(VALID(0) && VALID(1)) -> validity = false; assert(validity); validity = true }
  :: d_step { !(OBEYED(0) && OBEYED(1)) ->
       cancel_wins = false; assert(cancel_wins); cancel_wins = true }
  :: d_step { !(KEPT(0) && KEPT(1)) ->
       cancel_kept = false; assert(cancel_kept); cancel_kept = true }
  :: d_step { !(AGREES(0) && AGREES(1)) ->
       record_agrees = false; assert(record_agrees); record_agrees = true }
#ifdef FORGET
  :: d_step { !(PAST(0)) -> forgotten = false; assert(forgotten); forgotten = true }
#endif
  od
}

#ifdef WITNESS
/* A model in which nothing happens would keep every promise. */
bool committed = true;        /* both parts confirmed */
bool aborted = true;          /* both were prepared, neither began */
bool cancelled_before = true; /* prepared parts let go, because of a cancel */
bool cancelled_after = true;  /* a cancel after COMMIT: one part ended, one not yet confirmed */
bool commit_past = true;      /* a COMMIT is forgotten */
bool past_abort = true;       /* a part that came late asks again, and gets ABORT again */
bool taken_over = true;       /* a site's room goes from one transaction to the other */

proctype Witness() {
end:
  do
  :: d_step { PART(0, 0) == CONFIRMED && PART(0, 1) == CONFIRMED ->
       committed = false; assert(committed); committed = true }
  :: d_step { decision[0] == ABORT && PART(0, 0) == RELEASED && PART(0, 1) == RELEASED ->
       aborted = false; assert(aborted); aborted = true }
  :: d_step { cancel_first[0] && decision[0] == ABORT && PART(0, 0) == PREPARED ->
       cancelled_before = false; assert(cancelled_before); cancelled_before = true }
  :: d_step { cancel_told[0] && !cancel_first[0] && PART(0, 0) == PREPARED && PART(0, 1) == ENDED ->
       cancelled_after = false; assert(cancelled_after); cancelled_after = true }
  :: d_step { PART(0, 0) == ENDED && PART(1, 0) == CONFIRMED ->
       taken_over = false; assert(taken_over); taken_over = true }
#ifdef FORGET
  :: d_step { was[0] == COMMIT -> commit_past = false; assert(commit_past); commit_past = true }
  :: d_step { was[0] == ABORT && PART(0, 0) == RELEASED && decision[0] == ABORT &&
       PART(0, 1) == NONE -> past_abort = false; assert(past_abort); past_abort = true }
#endif
  od
}
#endif

#ifdef LIVE
proctype Time() {
  do
  :: tick = 1 - tick
  od
}
#endif

init {
  atomic {
#ifdef ONE
    run Coordinator(0); run Coordinator(0); run Site(0, 0); run Site(0, 1); run Cancel(0);
#ifdef FORGET
    run Forget(0);
#endif
#else
    run Coordinator(0); run Site(0, 0); run Site(0, 1); run Cancel(0);
    run Coordinator(1); run Site(1, 0); run Site(1, 1); run Cancel(1);
#endif
#if defined(LIVE)
    run Time()
#elif defined(WITNESS)
    run Witness()
#else
    run Promises()
#endif
  }
}

#ifdef LIVE
/* Under weak fairness. No part stays held or prepared; of what was cancelled, nothing stays. */
ltl settled { <>[] (!WAITS(0, 0) && !WAITS(0, 1)) }
ltl cancelled { <>[] (!cancel_told[0] || (!COUNTED(0, 0) && !COUNTED(0, 1))) }
#endif
