/* The amending of a lease that stands: its terms are changed at all of its sites or at none, for
   Spin. In words: docs/adr/0015-amend.md, which says too what of it is built. What may go wrong,
   and what is left out, is as in commit_protocol.pml, but for hosts, which obey when they do;
   models.py has all that is run.

   An amend is a transaction of its own. Each site holds what the new terms take beyond the old
   ones, and prepares; there is one decision; then the new terms are in force, or the old ones
   stand as they did. An amend that takes nothing more anywhere goes the short way: it is decided
   when it is put on record, and sites hear of it.

   Terms are versions: 0 are those that the cluster was made with, t + 1 those of amend t. A site
   that joins has old terms of nothing, one that leaves new terms of nothing: of that the model
   knows no more than amounts.

   Two things are one step here that are more in the code, where nothing could come between that
   matters. A receipt, once it is signed, may be in the coordinator's hands or not: there is no
   step in which it comes. And who writes the cluster's record compares what was read, and reads
   again where another was first: so it is written by what it says at that moment.

   Configurations (-D):
     TWO       two amends of one cluster, without others that want the room and without the end of
               its window; without this, one amend with both
     LEAVES    a third site has a part by terms 0, is lost, and is to be left: it takes no part in
               the amend, and hears of it when it does, or never. (docs/adr/0037-lost-sites.md)
     SHORT     the amend, or with TWO the second, takes nothing more and goes the short way
     LIVE      with LEAVES; the promises that say what there is in the end
     WITNESS   "violations" that have to be found: what must be possible for promises to mean much

   Mutants (-D), of which each breaks a promise:
     GROWS_UNHELD            growth is not counted before it is committed
     CHECK_THEN_HOLD         room is looked for and taken in two transactions
     NEW_FOR_OLD             what is held counts in place of the old terms: a shrink frees at once
     SHED_AT_ONCE            what COMMIT gives up is free before the hosts have given it up
     APPLIED_AT_PREPARE      PREPARE puts the new terms in force, and ABORT the old ones again
     TOLD_AT_PREPARE         hosts are told the new terms when they are prepared
     PREPARED_EXPIRES        a prepared amend is let go when it has waited for long
     BLIND_DECISION          a decision is written without looking whether there is one
     END_IN_DOUBT            the end of the old window ends a part whose amend is prepared
     SHORT_WAY_GROWS         the short way is taken by an amend that takes more at a site
     COMMIT_IGNORES_CANCEL   COMMIT does not look whether the cluster's end was asked for
     BLIND_CANCEL            a request for the end is written over what came after it was read
     TWO_ON_RECORD           the record does not say that an amend is under way
     BASE_IGNORED            a site does not compare which terms an amend is to replace
     NOT_RECOVERED           nobody looks for an amend whose coordinator is dead
     DOUBT_WAITS             a site in doubt waits for a decision, and does not race to one
     RELEASE_ASKED_ONCE      a RELEASE that was refused is not asked again
     HOSTS_NOT_TOLD          new terms do not reach the hosts
     LEFT_AT_PREPARE         a site is told to leave when the others have prepared
     LEAVER_NOT_TOLD         a site that was left is told nothing */

/* An amend at a site; NONE: the site has never heard of it. */
#define NONE     0
#define HELD     1
#define PREPARED 2
#define APPLIED  3
#define RELEASED 4
#define EXPIRED  5

#include "register.pml"

/* What version v takes at site s, of ROOM; the moment of `late` at which its window is over; and
   which amends go the short way. */
#define ROOM 2
#if defined(TWO) && defined(SHORT)
#define A(v, s) ((v) == 0 -> 1 + (s) : ((v) == 1 -> 2 - (s) : 1))
#define SHORT_WAY(t) ((t) == 1)
#elif defined(SHORT)
#define A(v, s) (2 - (v))
#define SHORT_WAY(t) true
#else
#define A(v, s) ((v) == 0 -> 1 + (s) : ((v) == 1 -> 2 - (s) : 2))
#ifdef SHORT_WAY_GROWS
#define SHORT_WAY(t) true
#else
#define SHORT_WAY(t) false
#endif
#endif
#ifdef SHORT
#define END(v) (2 - (v))
#else
#define END(v) ((v) + 1)
#endif

/* The cluster's record, in the meta-scheduler's etcd. */
byte slot;         /* the amend that is under way, its number + 1; 0: none */
byte terms;        /* the version that stands */
bit end_requested;

/* An amend: whether it was ever on record, and the version that it was drawn up on. */
bit begun[2];
byte base[2];

byte hold[4];
bit receipt[4]; /* that it was PREPARED, signed */
#define H(t, s)       hold[(t) * 2 + (s)]
#define RECEIPT(t, s) receipt[(t) * 2 + (s)]

/* A site's part. */
byte force[2]; /* the version in force */
byte runs[2];  /* the version that its hosts have obeyed */
bit ending[2]; /* its end was asked for, or its window is over */
bit over[2];   /* nothing of it is left */

bit leaving;   /* of the third site's part, its end was asked for, or its window is over */
bit left_over; /* nothing of it is left */

bit rival[2]; /* others hold a unit, whenever there is room for it */
byte late;    /* how many moments have passed at which a window may end */

bit recovers; /* there is a leader again, whatever becomes of the coordinator */

/* For the promises alone: a cancel was acknowledged, and whether that was before COMMIT. */
bit cancel_told;
bit cancel_first[2];

#define WAITS(t, s)    (H(t, s) == HELD || H(t, s) == PREPARED)
#define LET_GO(t, s)   (H(t, s) == RELEASED || H(t, s) == EXPIRED)
#define BOUND(t, s)    (H(t, s) == PREPARED || H(t, s) == APPLIED)
#define IN_DOUBT(s)    (H(0, s) == PREPARED || H(1, s) == PREPARED)
#define IDLE(s)        (!WAITS(0, s) && !WAITS(1, s))

/* What a site must not give to others: old terms, held growth, and what hosts have not given up. */
#define MAX(a, b)      ((a) > (b) -> (a) : (b))
#define STANDING(s)    MAX(A(force[s], s), A(runs[s], s))
#define WANTED(t, s)   (WAITS(t, s) -> A((t) + 1, s) : 0)
#define HELD_MOST(s)   MAX(WANTED(0, s), WANTED(1, s))
#define NEEDS(s)       (over[s] -> 0 : MAX(STANDING(s), HELD_MOST(s)))

/* What it counts. */
#if defined(GROWS_UNHELD)
#define COUNTS(s) (over[s] -> 0 : STANDING(s))
#elif defined(NEW_FOR_OLD)
#define COUNTS(s) (over[s] -> 0 : (IDLE(s) -> STANDING(s) : HELD_MOST(s)))
#elif defined(SHED_AT_ONCE)
#define COUNTS(s) (over[s] -> 0 : MAX(A(force[s], s), HELD_MOST(s)))
#else
#define COUNTS(s) NEEDS(s)
#endif
#define FITS(t, s) (MAX(COUNTS(s), A((t) + 1, s)) + rival[s] <= ROOM)

/* The promises, by name; `stability` is the register's. */
bool capacity = true;           /* a site never owes more than it has room for */
bool old_stands = true;         /* what is in force, or on hosts, is of Create or committed */
bool atomicity = true;          /* no amend was applied at one site and let go at another */
bool validity = true;           /* once COMMIT stands, every site is prepared or applied it */
bool no_unilateral_exit = true; /* what is prepared is let go only on ABORT */
bool in_order = true;           /* an amend replaces only the terms that it was drawn up on */
bool survives = true;           /* what COMMIT made longer does not end with the old window */
bool cancel_wins = true;        /* what was cancelled before COMMIT is not committed */
bool cancel_kept = true;        /* a cancel that was acknowledged stays on record */
bool record_agrees = true;      /* the terms on record are those of the last COMMIT */
bool not_robbed = true;         /* no site is told to leave while the terms on record need it */

inline check_order(t, version) {
  if
  :: version != base[t] -> in_order = false; assert(in_order); in_order = true
  :: else
  fi
}

/* A step of an amend at a site, whichever it is. */
inline move(t, s, to) {
  if
  :: H(t, s) == PREPARED && (to == RELEASED || to == EXPIRED) && decision[t] != ABORT ->
       no_unilateral_exit = false; assert(no_unilateral_exit); no_unilateral_exit = true
  :: else
  fi;
#ifdef APPLIED_AT_PREPARE
  if
  :: to == PREPARED -> force[s] = t + 1
  :: H(t, s) == PREPARED && to == RELEASED -> force[s] = base[t]
  :: else
  fi;
#endif
#ifdef TOLD_AT_PREPARE
  if
  :: to == PREPARED -> runs[s] = t + 1
  :: else
  fi;
#endif
  if
  :: to == PREPARED -> RECEIPT(t, s) = 1
  :: to == APPLIED -> check_order(t, force[s]); force[s] = t + 1
  :: else
  fi;
  H(t, s) = to
}

/* COMMIT and the new terms on record, in one etcd transaction. */
inline commit(t) {
  check_order(t, terms);
  write_decision(t, COMMIT);
  terms = t + 1; slot = 0; end_requested = 0
}

#ifdef TWO_ON_RECORD
#define FREE      true
#define STILL(t)  true
#else
#define FREE      (slot == 0 || decision[slot - 1] == ABORT)
#define STILL(t)  (slot == (t) + 1)
#endif
#ifdef COMMIT_IGNORES_CANCEL
#define NOT_CANCELLED true
#else
#define NOT_CANCELLED (!end_requested)
#endif

/* The meta-scheduler, for one amend. To die is to do nothing more. */
proctype Coordinator(byte t) {
  if
  :: atomic {
       FREE && !end_requested ->
         slot = t + 1; base[t] = terms; begun[t] = 1;
         if
         :: SHORT_WAY(t) -> commit(t); goto done
         :: else
         fi
     }
  :: goto done
  fi;
  if
  :: RECEIPT(t, 0) && RECEIPT(t, 1) ->
       if
       :: atomic { NOT_DECIDED(t) && STILL(t) && NOT_CANCELLED -> commit(t) }
       :: atomic { !(NOT_DECIDED(t) && STILL(t) && NOT_CANCELLED) -> race_to_abort(t) }
       :: skip
       fi
  :: atomic { true -> race_to_abort(t) }  /* refused, or past decide_by */
  :: skip
  fi;
done:
  skip
}

/* The meta-scheduler's loop that recovers, at whoever leads: it may take for dead who is not. */
proctype Recover() {
  if
  :: recovers = 1
  :: goto end
  fi;
end:
  do
#ifndef NOT_RECOVERED
  :: atomic { recovers && slot != 0 && decision[slot - 1] == OPEN -> race_to_abort(slot - 1) }
#endif
  :: atomic { recovers && slot != 0 && decision[slot - 1] == ABORT -> slot = 0 }
  od
}

#ifdef BASE_IGNORED
#define FOLLOWS(t, s) true
#else
#define FOLLOWS(t, s) (force[s] == base[t])
#endif
#define TAKES(t, s) (begun[t] && H(t, s) == NONE && !ending[s] && IDLE(s) && FOLLOWS(t, s))

/* The broker: all that happens to one amend. HOLD and PREPARE come at any instant, or never, also
   long after the amend was aborted; HOLD may prepare. */
proctype Site(byte t; byte s) {
end:
  do
#ifdef CHECK_THEN_HOLD
  :: !SHORT_WAY(t) && TAKES(t, s) && FITS(t, s) -> H(t, s) = HELD
#else
  :: atomic { !SHORT_WAY(t) && TAKES(t, s) && FITS(t, s) -> move(t, s, HELD) }
#endif
  :: atomic { !SHORT_WAY(t) && TAKES(t, s) && FITS(t, s) -> move(t, s, PREPARED) }
  :: atomic { H(t, s) == HELD -> move(t, s, PREPARED) }
  :: atomic { H(t, s) == HELD -> move(t, s, EXPIRED) }
#ifdef PREPARED_EXPIRES
  :: atomic { H(t, s) == PREPARED && decision[t] == OPEN -> move(t, s, EXPIRED) }
#endif
#ifndef DOUBT_WAITS
  :: atomic { H(t, s) == PREPARED && decision[t] == OPEN -> race_to_abort(t) }
#endif
  /* A decision, brought by a coordinator or read by the site. */
  :: atomic { H(t, s) == PREPARED && decision[t] == COMMIT -> move(t, s, APPLIED) }
  :: atomic { WAITS(t, s) && decision[t] == ABORT -> move(t, s, RELEASED) }
  :: atomic { SHORT_WAY(t) && decision[t] == COMMIT && TAKES(t, s) -> move(t, s, APPLIED) }
  od
}

/* An amend that is only held goes with its part. */
inline end_part(s) {
  ending[s] = 1;
  if
  :: WAITS(0, s) -> move(0, s, RELEASED)
  :: else
  fi;
  if
  :: WAITS(1, s) -> move(1, s, RELEASED)
  :: else
  fi
}

/* The part that is amended, its hosts, and others that want its site's room. */
proctype Part(byte s) {
#ifdef RELEASE_ASKED_ONCE
  bit asked;
#endif
end:
  do
  /* Hosts obey what is in force, and what they give up is free when they have. */
#ifndef HOSTS_NOT_TOLD
  :: atomic { !over[s] && runs[s] != force[s] -> runs[s] = force[s] }
#endif
  /* RELEASE: refused in doubt, and asked again. */
#ifdef RELEASE_ASKED_ONCE
  :: atomic { !asked && end_requested && !ending[s] ->
       asked = 1;
       if
       :: !IN_DOUBT(s) -> end_part(s)
       :: else
       fi
     }
#else
  :: atomic { end_requested && !ending[s] && !IN_DOUBT(s) -> end_part(s) }
#endif
  /* The window in force is over: not in doubt, where it may yet have become a longer one. */
#ifdef END_IN_DOUBT
  :: atomic { late >= END(force[s]) && !ending[s] ->
#else
  :: atomic { late >= END(force[s]) && !ending[s] && !IN_DOUBT(s) ->
#endif
       if
       :: decision[0] == COMMIT && H(0, s) != APPLIED && late < END(1) ->
            survives = false; assert(survives); survives = true
       :: else
       fi;
       end_part(s)
     }
  :: atomic { ending[s] && !over[s] -> over[s] = 1 }
#if !defined(LIVE) && !defined(TWO)
  :: atomic { !rival[s] && COUNTS(s) < ROOM -> rival[s] = 1 }
  :: atomic { rival[s] -> rival[s] = 0 }
#endif
  od
}

/* The part at the third site, which is asked nothing. */
proctype Leaver() {
end:
  do
#ifdef LEFT_AT_PREPARE
  :: atomic { RECEIPT(0, 0) && RECEIPT(0, 1) && !leaving ->
#else
  :: atomic { terms != 0 && !leaving ->
#endif
#ifdef LEAVER_NOT_TOLD
       skip
#else
       if
       :: terms == 0 -> not_robbed = false; assert(not_robbed); not_robbed = true
       :: else
       fi;
       leaving = 1
#endif
     }
  :: atomic { terms == 0 && end_requested && !leaving -> leaving = 1 }
  :: atomic { terms == 0 && late >= END(0) && !leaving -> leaving = 1 }
  :: atomic { leaving && !left_over -> left_over = 1 }
  od
}

proctype Time() {
  do
#ifndef TWO
  :: atomic { late < 2 -> late++ }
#endif
#ifdef LIVE
  :: tick = 1 - tick
#else
  :: break
#endif
  od
}

/* Or nobody cancels. */
proctype Cancel() {
#ifdef BLIND_CANCEL
  byte slot_read, terms_read;
  atomic { true -> slot_read = slot; terms_read = terms };
#endif
  if
  :: atomic {
       true ->
#ifdef BLIND_CANCEL
         slot = slot_read; terms = terms_read; slot_read = 0; terms_read = 0;
#endif
         end_requested = 1;
         cancel_told = 1;
         cancel_first[0] = (decision[0] != COMMIT); cancel_first[1] = (decision[1] != COMMIT)
     }
  :: skip
  fi
}

#define ENOUGH(s)   (NEEDS(s) + rival[s] <= ROOM)
#define AGREED(v)   ((v) == 0 || decision[(v) - 1] == COMMIT)
#define STANDS(s)   (AGREED(force[s]) && AGREED(runs[s]))
#define WHOLE(t)    (!(H(t, 0) == APPLIED && LET_GO(t, 1)) && !(H(t, 1) == APPLIED && LET_GO(t, 0)))
#define VALID(t)    (decision[t] != COMMIT || SHORT_WAY(t) || (BOUND(t, 0) && BOUND(t, 1)))
#define OBEYED(t)   (!(cancel_first[t] && decision[t] == COMMIT))
#define NEITHER     (decision[0] != COMMIT && decision[1] != COMMIT)
#define AGREES      (terms == 0 -> NEITHER : decision[terms - 1] == COMMIT)

proctype Promises() {
end:
  do
  :: d_step { !(ENOUGH(0) && ENOUGH(1)) -> capacity = false; assert(capacity); capacity = true }
  :: d_step { !(STANDS(0) && STANDS(1)) ->
       old_stands = false; assert(old_stands); old_stands = true }
  :: d_step { !(WHOLE(0) && WHOLE(1)) -> atomicity = false; assert(atomicity); atomicity = true }
  :: d_step { !(VALID(0) && VALID(1)) -> validity = false; assert(validity); validity = true }
  :: d_step { !(OBEYED(0) && OBEYED(1)) ->
       cancel_wins = false; assert(cancel_wins); cancel_wins = true }
  :: d_step { cancel_told && !end_requested ->
       cancel_kept = false; assert(cancel_kept); cancel_kept = true }
  :: d_step { !AGREES -> record_agrees = false; assert(record_agrees); record_agrees = true }
  od
}

#ifdef WITNESS
bool committed = true;        /* new terms in force and obeyed at both sites */
bool aborted = true;          /* both were prepared, both have the old terms as before */
bool expired = true;          /* one site's hold ran out, the other has prepared */
bool refused = true;          /* others have the room that it would take */
bool cancelled_before = true; /* prepared, and to be let go because of a cancel */
bool cancelled_after = true;  /* a cancel after COMMIT: one part ends, one has not heard of it */
bool extended = true;         /* the old window is over and the part goes on */
bool heard_late = true;       /* the old window is over, COMMIT stands, the site is in doubt */
bool shed = true;             /* others have what a shrink has freed */
bool shedding = true;         /* given up, and still on the hosts */
bool one_by_one = true;       /* the second was drawn up on the first's terms, and is in force */
bool overlapping = true;      /* the second began, and a site has not heard of the first's COMMIT */
bool left_behind = true;      /* both have the new terms, and the lost site has not heard of it */
bool belated = true;          /* a hold of the first, aborted, is in the second's way */

proctype Witness() {
end:
  do
  :: d_step { runs[0] == 1 && runs[1] == 1 ->
       committed = false; assert(committed); committed = true }
  :: d_step { decision[0] == ABORT && RECEIPT(0, 0) && RECEIPT(0, 1) && IDLE(0) && IDLE(1) &&
       !ending[0] && !ending[1] ->
       aborted = false; assert(aborted); aborted = true }
  :: d_step { H(0, 0) == EXPIRED && H(0, 1) == PREPARED ->
       expired = false; assert(expired); expired = true }
  :: d_step { TAKES(0, 0) && !FITS(0, 0) && H(0, 1) == PREPARED ->
       refused = false; assert(refused); refused = true }
  :: d_step { cancel_first[0] && decision[0] == ABORT && H(0, 0) == PREPARED ->
       cancelled_before = false; assert(cancelled_before); cancelled_before = true }
  :: d_step { cancel_told && !cancel_first[0] && H(0, 0) != APPLIED && ending[1] && !ending[0] ->
       cancelled_after = false; assert(cancelled_after); cancelled_after = true }
  :: d_step { late >= END(0) && late < END(1) && force[0] == 1 && !ending[0] ->
       extended = false; assert(extended); extended = true }
  :: d_step { late >= END(0) && decision[0] == COMMIT && H(0, 0) == PREPARED ->
       heard_late = false; assert(heard_late); heard_late = true }
  :: d_step { rival[1] && A(runs[1], 1) < A(0, 1) && !ending[1] ->
       shed = false; assert(shed); shed = true }
  :: d_step { A(force[1], 1) < A(runs[1], 1) ->
       shedding = false; assert(shedding); shedding = true }
  :: d_step { base[1] == 1 && runs[0] == 2 && runs[1] == 2 ->
       one_by_one = false; assert(one_by_one); one_by_one = true }
  :: d_step { begun[1] && base[1] == 1 && H(0, 1) == PREPARED ->
       overlapping = false; assert(overlapping); overlapping = true }
#ifdef LEAVES
  :: d_step { runs[0] == 1 && runs[1] == 1 && !leaving ->
       left_behind = false; assert(left_behind); left_behind = true }
#endif
  :: d_step { decision[0] == ABORT && begun[1] && WAITS(0, 0) && H(1, 1) == PREPARED ->
       belated = false; assert(belated); belated = true }
  od
}
#endif

init {
  atomic {
    run Coordinator(0); run Site(0, 0); run Site(0, 1);
#ifdef TWO
    run Coordinator(1); run Site(1, 0); run Site(1, 1);
#endif
#if defined(LEAVES) || defined(LIVE)
    run Leaver();
#endif
    run Part(0); run Part(1); run Recover(); run Time(); run Cancel();
#if defined(LIVE)
#elif defined(WITNESS)
    run Witness()
#else
    run Promises()
#endif
  }
}

#ifdef LIVE
/* Under weak fairness. No site stays in doubt, whoever leads or does not; while somebody leads, no
   amend stays under way; both sites have what is on record, hosts too, or both are at their end;
   of what was cancelled, nothing stays. */
#define HAS_IT(s) (!ending[s] && runs[s] == force[s] && force[s] == terms)
ltl settled   { <>[] (IDLE(0) && IDLE(1)) }
ltl freed     { <>[] (!recovers || slot == 0) }
ltl uniform   { <>[] ((HAS_IT(0) && HAS_IT(1)) || (over[0] && over[1])) }
ltl cancelled { <>[] (!cancel_told || (over[0] && over[1])) }
ltl left      { <>[] (terms == 0 || left_over) }
#endif
