/* The register of decisions, which all models of the protocol share: an entry a transaction, which
   is written once. Who includes this has a configuration LIVE and a mutant BLIND_DECISION. */

#define OPEN   0
#define COMMIT 1
#define ABORT  2

byte decision[2];

bool stability = true; /* a decision never changes */

inline write_decision(t, outcome) {
  if
  :: decision[t] != OPEN && decision[t] != outcome ->
       stability = false; assert(stability); stability = true
  :: else
  fi;
  decision[t] = outcome
}

/* Anybody's: to ABORT, and to nothing else. Who is not the first obeys what stands. */
inline race_to_abort(t) {
#ifdef BLIND_DECISION
  write_decision(t, ABORT)
#else
  if
  :: decision[t] == OPEN -> write_decision(t, ABORT)
  :: else
  fi
#endif
}

#ifdef BLIND_DECISION
#define NOT_DECIDED(t) true
#else
#define NOT_DECIDED(t) (decision[t] == OPEN)
#endif

#ifdef LIVE
/* Time goes on when nothing else does: a process turns this over for ever. Without it a run that is
   stuck has an end, and Spin 6.5.2 with weak fairness (-f) passes over such runs where "in the end"
   is <>[]. */
bit tick;
#endif
