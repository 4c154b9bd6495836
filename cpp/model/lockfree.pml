/* The update scheme `lockfree` with a crash between any two statements: a model for spin. check.sh checks it.
 *
 * Modelled are push, protect, claim, build, commit, settle, read, drain, vacate and reap of cpp/include/fastac, under
 * the same names, and the words that they share. One statement holds one atomic operation of the C++, and with it at
 * most reads and writes of what nobody else may touch meanwhile, which is asserted (MAY_WRITE, MAY_READ).
 *
 * A gradient is a bit. A record holds the gradients in it twice: in `ledger`, which stands for its header, and in
 * `params`, which stands for its vectors; these are read and written by separate statements, and so are the two words
 * of a slot. So a gradient that is lost, applied twice or mixed with another is seen, and a record that is read while
 * somebody writes it.
 *
 * A crash stops a worker for ever, between any two statements. The observer, which is the parent, sees it dead, reaps
 * it, and starts another in its seat or goes on without it. It does not die itself: with the parent the run is over.
 *
 * What is checked, over all interleavings:
 *   safety    the assertions, each named in the comment on its line, and that nobody waits for ever;
 *   progress  that no run goes on for ever (pan -DNP, no progress labels). Nothing is assumed of the scheduler, so this
 *             holds whoever is never scheduled again, the observer that reaps included; and since there are only so
 *             many gradients to commit, it is lock-freedom: without a commit nobody can go round for ever.
 * What is not: progress where check.sh does not say "every run ends", weaker memory than sequential consistency, more
 * workers and gradients than these, counters that wrap around, the other schemes.
 *
 * Each MUT_... plants one bug, which check.sh expects to be caught.
 */

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef PUSHES_0 /* how many gradients worker 0 is to publish, and each of the others */
#define PUSHES_0 2
#endif
#ifndef PUSHES_1
#define PUSHES_1 1
#endif
#define PUSHES(w) (w == 0 -> PUSHES_0 : PUSHES_1)
#ifndef K
#define K 1
#endif
#ifndef AHEAD /* 1: a worker may push again before its last gradient is settled */
#define AHEAD 0
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef REJECTED /* gradients that are consumed and not applied, being nonfinite or stale */
#define REJECTED 0
#endif
#ifndef STRIDE /* 0: all seats look for a free record from the same one on */
#define STRIDE 2
#endif
#ifndef READS /* by the observer, while the workers run */
#define READS 0
#endif
#ifndef DRAINS /* by the observer, while the workers run; another follows when they have left */
#define DRAINS 0
#endif
#ifndef BARE /* 1: without wiping and MAY_WRITE, so that only what is read and committed tells */
#define BARE 0
#endif

#define OBSERVER WORKERS
#define SEATS (WORKERS + 1)
#ifndef RECORDS
#define RECORDS (2 * SEATS + 2)
#endif

/* ---- the region ----------------------------------------------------------------------------------- */

typedef Record { byte version; byte ledger; byte params; byte consumed[WORKERS] }
typedef Slot { byte tag; byte payload }

Record record[RECORDS];
byte owner[RECORDS]; /* seat + 1; 0: none */
byte hazard[SEATS];  /* record + 1; 0: none */
byte current;        /* {version, record}; at first record 0, of version 0 */
Slot slot[WORKERS * K];
byte begun[WORKERS], published[WORKERS], aborted[WORKERS], incarnation[WORKERS];

#define PACK(version, record) ((version) << 4 | (record))
#define RECORD_OF(word) ((word) & 15)
#define SLOT(w, sequence) slot[(w) * K + (sequence) % K]

/* ---- the model's own ------------------------------------------------------------------------------ */

mtype = { ALIVE, DEAD, GONE, LEFT } /* GONE: reaped and not replaced; LEFT: in order */
mtype status[WORKERS] = ALIVE;
byte crashes;
byte dying = SEATS; /* the worker that crashes just now: until it has stopped nobody moves */
byte held[SEATS];   /* record + 1 that the seat has protected, the second look included */
hidden byte x, y;

#define MOST (6 / WORKERS) /* gradients of one worker, so many bits */
#define TORN 128           /* the bit of what must not be seen */
#define GRADIENT(w, sequence) (1 << (MOST * (w) + (sequence) - 1))
#define FIRST(w, n) (((1 << (n)) - 1) << (MOST * (w))) /* gradients 1 .. n of worker w */
#define ADD(to, gradient) (((to) & (gradient)) -> (to) | TORN : (to) | (gradient))
#define COUNT(set) (((set) & 1) + ((set) >> 1 & 1) + ((set) >> 2 & 1) + ((set) >> 3 & 1) + ((set) >> 4 & 1) + ((set) >> 5 & 1))
#if WORKERS == 2
#define HELD(r) (held[0] == r + 1 || held[1] == r + 1 || held[2] == r + 1)
#define CONSUMED(r) (FIRST(0, record[r].consumed[0]) | FIRST(1, record[r].consumed[1]))
#elif WORKERS == 3
#define HELD(r) (held[0] == r + 1 || held[1] == r + 1 || held[2] == r + 1 || held[3] == r + 1)
#define CONSUMED(r) (FIRST(0, record[r].consumed[0]) | FIRST(1, record[r].consumed[1]) | FIRST(2, record[r].consumed[2]))
#endif

/* What the record calls consumed is in it, each once, and nothing else. */
#define EXACT(r) (record[r].ledger == CONSUMED(r) && BELONG(record[r].ledger, record[r].params) && record[r].version == COUNT(record[r].params))
#define BELONG(ledger, params) ((params) == ((ledger) & ~REJECTED) && (params) < TORN)
#define MAY_READ(r) (record[r].ledger < TORN && record[r].params < TORN)
#define MAY_WRITE(s, r) (BARE || owner[r] == s + 1 && RECORD_OF(current) != r && !HELD(r))

/* A record that nobody may read any more is wiped, with the statement that lets go of it: fewer states, and whoever does
 * read it stands out. */
inline forget() {
  for (x : 0 .. RECORDS - 1) {
    if
    :: owner[x] == 0 && x != RECORD_OF(current) && !HELD(x) -> wipe(x)
    :: else
    fi
  }
  x = 0; y = 0
}

inline wipe(r) {
  if
  :: BARE
  :: else ->
     record[r].version = 0; record[r].ledger = TORN; record[r].params = TORN;
     for (y : 0 .. WORKERS - 1) { record[r].consumed[y] = 0 }
  fi
}

/* ---- ParamStore ----------------------------------------------------------------------------------- */

/* What a session keeps for itself. `owned`: record + 1; 0: none. */
#define SESSION byte base, owned, r, i, until, tag, grad, n; bool written
#define TARGET (owned - 1)
#define BASE RECORD_OF(base)

inline protect(s) {
  base = current;
  do
  :: d_step { hazard[s] = BASE + 1; held[s] = 0; forget() };
#ifdef MUT_NO_RECHECK
     held[s] = hazard[s]; break
#else
     if
     :: d_step { current == base -> held[s] = hazard[s] }; break
     :: d_step { current != base -> base = current }
     fi
#endif
  od
}

inline unprotect(s) { d_step { hazard[s] = 0; held[s] = 0; base = 0; forget() } }

#ifdef MUT_NO_CURRENT
#define IS_CURRENT(r) false
#else
#define IS_CURRENT(r) (RECORD_OF(current) == r)
#endif
#ifdef MUT_NO_HAZARD
#define HAZARDED(seat, r) false
#else
#define HAZARDED(seat, r) (hazard[seat] == r + 1)
#endif

inline look_at_current() {
  if
  :: IS_CURRENT(r) -> goto release
  :: !IS_CURRENT(r)
  fi
}

inline look_at_hazard(seat) {
  if
  :: HAZARDED(seat, r) -> goto release
  :: !HAZARDED(seat, r)
  fi
}

inline look_at_hazards() {
  look_at_hazard(0); look_at_hazard(1); look_at_hazard(2);
#if SEATS > 3
  look_at_hazard(3);
#endif
}

/* The load before the compare-and-swap saves time and decides nothing: it is left out. Records are tried
 * from START on. The order of the looks matters: MUT_HAZARDS_FIRST. */
#define START(s) (STRIDE * (s) % RECORDS)
inline claim(s) {
  do
  :: owned != 0 -> break
#ifdef MUT_IN_PLACE
  :: owned == 0 -> owned = BASE + 1; break
#else
  :: owned == 0 && owner[r] != 0 -> r = (r + 1) % RECORDS
#ifdef MUT_CLAIM_STORE
  :: owned == 0 && owner[r] == 0 -> owner[r] = s + 1;
#else
  :: d_step { owned == 0 && owner[r] == 0 -> owner[r] = s + 1 };
#endif
#ifdef MUT_HAZARDS_FIRST
     look_at_hazards(); look_at_current();
#else
     look_at_current(); look_at_hazards();
#endif
     d_step { owned = r + 1; r = START(s); wipe(TARGET) };
     break;
release:
     atomic { owner[r] = 0; d_step { r = (r + 1) % RECORDS; forget() } }
#endif
  od
}

#ifdef MUT_COMMIT_STORE
#define EXPECTED true
#else
#define EXPECTED (current == base)
#endif
#define FOLLOWS(w) (record[TARGET].consumed[w] >= record[RECORD_OF(current)].consumed[w] && record[TARGET].consumed[w] <= published[w])
inline commit(s) {
#ifdef MUT_EARLY_FREE
  owner[TARGET] = 0;
#endif
  if
  :: d_step {
       EXPECTED ->
       assert(EXACT(TARGET));                      /* every consumed gradient is in the record once, and nothing else */
       assert(FOLLOWS(0) && FOLLOWS(1) && FOLLOWS(WORKERS - 1)); /* nothing consumed is taken back, nothing unpublished is consumed */
       current = PACK(record[TARGET].version, TARGET);
       n = 0
     };
     d_step { owner[TARGET] = 0; owned = 0; forget() }
  :: d_step { !EXPECTED -> n = 0; wipe(TARGET) }
  fi
}

/* One compare-and-swap for each record; as at most one succeeds they are one statement here. */
inline vacate(s) {
  d_step {
    y = 0;
    for (x : 0 .. RECORDS - 1) {
      if
      :: owner[x] == s + 1 -> owner[x] = 0; y++
      :: else
      fi
    }
    assert(y <= 1); /* a seat owns at most one record */
    forget()
  };
  d_step { hazard[s] = 0; held[s] = 0; forget() }
}

/* ---- GradBuffer ----------------------------------------------------------------------------------- */

#define SEQUENCE (published[_pid] + 1)
inline push() {
  begun[_pid]++;
#ifdef MUT_EARLY_PUBLISH
  published[_pid]++;
  SLOT(_pid, published[_pid]).tag = GRADIENT(_pid, published[_pid]);
  SLOT(_pid, published[_pid]).payload = GRADIENT(_pid, published[_pid])
#else
  SLOT(_pid, SEQUENCE).tag = GRADIENT(_pid, SEQUENCE);
  SLOT(_pid, SEQUENCE).payload = GRADIENT(_pid, SEQUENCE);
  published[_pid]++
#endif
}

/* ---- RecordBuilder -------------------------------------------------------------------------------- */

#define NEXT SLOT(i, record[TARGET].consumed[i] + 1)

/* Writes to TARGET what follows BASE. n: how many gradients it consumed. Where BASE is no longer current it is given
 * up, and the caller looks again. */
inline build(s) {
  d_step {
    assert(MAY_READ(BASE));       /* a record is read only while it is current or protected */
    assert(MAY_WRITE(s, TARGET)); /* a record is written only by its owner, and while it is neither current nor protected */
    record[TARGET].version = record[BASE].version;
    record[TARGET].ledger = record[BASE].ledger;
    for (x : 0 .. WORKERS - 1) { record[TARGET].consumed[x] = record[BASE].consumed[x] }
  };
  until = published[0];
  do
  :: d_step { record[TARGET].consumed[i] == until && i < WORKERS - 1 -> i++; until = published[i] }
  :: d_step {
       record[TARGET].consumed[i] == until && i == WORKERS - 1 ->
       if
       :: n > 0 && !written -> record[TARGET].params = record[BASE].params /* all were rejected */
       :: else
       fi;
       i = 0; until = 0; written = false
     };
     break
  :: d_step { record[TARGET].consumed[i] != until && current != base -> i = 0; until = 0; n = 0; written = false; wipe(TARGET) };
     goto look_again
  :: record[TARGET].consumed[i] != until && current == base ->
     if
     :: d_step { (NEXT.tag & REJECTED) -> count(s) }
     :: d_step { !(NEXT.tag & REJECTED) -> count(s) };
        grad = SLOT(i, record[TARGET].consumed[i]).payload;
        d_step {
          assert(MAY_READ(BASE)); /* a record is read only while it is current or protected */
          assert(MAY_WRITE(s, TARGET)); /* a record is written only by its owner, and while it is neither current nor protected */
          record[TARGET].params = (written -> ADD(record[TARGET].params, grad) : ADD(record[BASE].params, grad));
          record[TARGET].version++;
          written = true; grad = 0
        }
     fi
  od
}

inline count(s) {
  assert(MAY_WRITE(s, TARGET)); /* a record is written only by its owner, and while it is neither current nor protected */
  record[TARGET].ledger = ADD(record[TARGET].ledger, NEXT.tag);
  record[TARGET].consumed[i]++;
  n++
}

/* ---- Session -------------------------------------------------------------------------------------- */

inline read(s) {
  protect(s);
  tag = record[BASE].ledger;
  grad = record[BASE].params;
  d_step {
    assert(BELONG(tag, grad)); /* what is read of a protected record belongs together */
    assert(s == OBSERVER || (tag & FIRST(s, known)) == FIRST(s, known)); /* a worker reads its own settled gradients */
    tag = 0; grad = 0
  };
  unprotect(s)
}

#ifdef MUT_OVERRUN
#define ROOM (K + 1)
#else
#define ROOM (AHEAD -> K : 1)
#endif
#define HOLDS_SEAT (incarnation[_pid] == mine)

active [WORKERS] proctype worker() provided (dying == SEATS || dying == _pid) {
  SESSION;
  byte known, mine; /* known: how many of its gradients are consumed, at least */
start:
  {
    d_step { mine = incarnation[_pid]; r = START(_pid) };
    protect(_pid);
#ifdef MUT_KNOWN_AT_START
    known = published[_pid];
#else
    known = record[BASE].consumed[_pid];
#endif
    unprotect(_pid);
again:
    do
    :: HOLDS_SEAT && published[_pid] < PUSHES(_pid) ->
       read(_pid);
       if
       :: published[_pid] != known
       :: published[_pid] - known < ROOM ->
          push();
          if
          :: AHEAD -> goto again
          :: true
          fi
       fi;
look_again:
       do /* settle */
       :: protect(_pid);
          if
          :: d_step { record[BASE].consumed[_pid] == published[_pid] -> known = published[_pid] }; break
          :: d_step { record[BASE].consumed[_pid] != published[_pid] -> known = record[BASE].consumed[_pid] }
          fi;
          claim(_pid);
#ifdef MUT_EARLY_UNPROTECT
          atomic { hazard[_pid] = 0; held[_pid] = 0 };
#endif
          build(_pid);
          commit(_pid)
       od;
       unprotect(_pid)
    :: !HOLDS_SEAT || published[_pid] >= PUSHES(_pid) -> break
    od;
    if
    :: HOLDS_SEAT -> vacate(_pid); status[_pid] = LEFT
    :: !HOLDS_SEAT
    fi
  } unless {
    d_step {
      dying == _pid ->
      base = 0; owned = 0; r = 0; i = 0; until = 0; tag = 0; grad = 0; n = 0; written = false; known = 0; mine = 0;
      status[_pid] = DEAD; dying = SEATS
    };
    if
    :: status[_pid] == ALIVE -> goto start
    :: status[_pid] == GONE
    fi
  }
}

inline reap(w) {
  incarnation[w]++;
  aborted[w] = begun[w] - published[w];
#ifndef MUT_REAP_FORGETS
  vacate(w);
#endif
  if
  :: status[w] = ALIVE
  :: status[w] = GONE
  fi
}

#ifdef MUT_REAP_ALIVE
#define SEEN_DEAD(w) (status[w] == DEAD || status[w] == ALIVE && incarnation[w] == 0)
#else
#define SEEN_DEAD(w) (status[w] == DEAD)
#endif
#define AWAY(w) (status[w] == LEFT || status[w] == GONE)

#define HAS_WANTED(r, w) (record[r].consumed[w] >= wanted[w])
#define CONTAINS_WANTED(r) (HAS_WANTED(r, 0) && HAS_WANTED(r, 1) && HAS_WANTED(r, WORKERS - 1))

active proctype observer() provided (dying == SEATS) {
  SESSION;
  byte known, reads, drains, wanted[WORKERS];
  r = START(OBSERVER);
watch:
  do
  :: SEEN_DEAD(0) -> reap(0)
  :: SEEN_DEAD(1) -> reap(1)
  :: WORKERS > 2 && SEEN_DEAD(WORKERS - 1) -> reap(WORKERS - 1)
  :: reads < READS -> reads++; read(OBSERVER)
  :: drains < DRAINS -> drains++; break
  :: AWAY(0) && AWAY(1) && AWAY(WORKERS - 1) -> drains = DRAINS + 1; break
  od;
  /* drain */
  wanted[0] = published[0];
  wanted[1] = published[1];
  wanted[WORKERS - 1] = published[WORKERS - 1];
look_again:
  do
  :: protect(OBSERVER);
     if
     :: CONTAINS_WANTED(RECORD_OF(base)) -> break
     :: else
     fi;
     claim(OBSERVER);
     build(OBSERVER);
     if
     :: n > 0 -> commit(OBSERVER)
     :: else
     fi
  od;
  unprotect(OBSERVER);
  if
  :: drains <= DRAINS -> goto watch
  :: drains > DRAINS
  fi;
  vacate(OBSERVER);
  d_step {
    assert(EXACT(RECORD_OF(current))); /* every consumed gradient is in the record once, and nothing else */
    for (x : 0 .. WORKERS - 1) {
      assert(record[RECORD_OF(current)].consumed[x] == published[x]); /* nothing is pending at the end */
      assert(begun[x] == published[x] + aborted[x]); /* begun = published + aborted */
      assert(status[x] == GONE || published[x] == PUSHES(x)); /* whoever was not stopped has published everything */
    }
    for (x : 0 .. RECORDS - 1) { assert(owner[x] == 0) } /* no record is owned by nobody who is left */
    for (x : 0 .. SEATS - 1) { assert(hazard[x] == 0) }  /* no record is protected by nobody who is left */
    x = 0
  }
}

active proctype death() {
end:
  do
  :: d_step { dying == SEATS && crashes < CRASHES && status[0] == ALIVE -> dying = 0; crashes++ }
  :: d_step { dying == SEATS && crashes < CRASHES && status[1] == ALIVE -> dying = 1; crashes++ }
#if WORKERS > 2
  :: d_step { dying == SEATS && crashes < CRASHES && status[2] == ALIVE -> dying = 2; crashes++ }
#endif
  od
}
