/*
 * Single flight and invalidation: readers that miss one key and claim its
 * load, wait for it or take it over; a writer with an intent; a deadline that
 * passes; a reader or the writer that dies at any step and is swept; a server
 * that may commit a dead writer's statement late.
 *
 * Small: one key, three readers (the first with ASKS_0 requests, the others
 * with one each; two with TWO_READERS), a writer with WRITES writes,
 * READER_DEATHS deaths of the first reader, WRITER_DEATHS of the writer, LATES
 * deadlines that pass.  The row's only content is its version.  A loader keeps
 * the lease of its miss, and its put may give up and leave what is there: the
 * program does better at both.  Memory is sequentially consistent here: what
 * orders real memory needs is argued in the sources.
 *
 * What must hold, whatever the interleaving:
 *  F1  at most one living process holds a claim before its deadline
 *  F2  a waiter needs its timer only when somebody has died
 *  F3  no answer is older than what had been told to anybody before its
 *      request came: the answer of a write or of a read.  While a dead
 *      writer's statement may still commit: than the answer of a write; once
 *      that debt is settled: than what the statement did
 *  F4  after a sweep no claim is a dead process's
 *
 * Mutants, each of which must fail: PARK_WITHOUT_RECHECK, BITS_BEFORE_WORD,
 * BUMP_AFTER_ANSWER, CLOSE_BEFORE_BUMP, NO_INTENT, LEASE_AT_PUT,
 * VERSION_BEFORE_INTENT, STEAL_FROM_LIVING, NO_DEBT, SWEEP_WITHOUT_BUMP.
 */
#ifndef ASKS_0
#define ASKS_0 1
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef READER_DEATHS
#define READER_DEATHS 0
#endif
#ifndef WRITER_DEATHS
#define WRITER_DEATHS 0
#endif
#ifndef LATES
#define LATES 0
#endif

/* The cache: a stripe's version, the intent and its bit in open[], an entry
 * and the version that it was loaded under. */
byte version;
bool intent, open;
byte entry_version = 255, entry;

/* The place: whose claim (slot, incarnation, deadline made one number), has
 * its deadline passed, who waits.  And the eventfds. */
byte word, waiters;
bool late;
bool woken[3];

/* The database, and a statement on its way. */
byte row;
bool sent;

byte deaths, writer_deaths, lates;
byte incarnation; /* of reader 0, who alone dies of them */

/* Ghosts. */
bool holds[3];
byte told;    /* newest row in any answer */
byte written; /* newest row in a write's answer */
bool orphan;  /* a dead writer's statement may still commit */
bool writer_died;

#define CLAIM(n)      (1 | me << 1 | incarnation << 3 | (n) << 4)
#define CLAIM_SLOT(x) ((x) >> 1 & 3)
#define CLAIM_INC(x)  ((x) >> 3 & 1)
#define IS_DEAD(x)    (CLAIM_SLOT(x) == 0 && CLAIM_INC(x) != incarnation)
#define NEWER(a, b)   ((a) > (b) -> (a) : (b))

/* A step of a process that may die before it. */
#define STEP(what) atomic { \
	if \
	:: what \
	:: me == 0 && deaths < READER_DEATHS -> deaths++; goto death \
	fi }

inline answer(value)
{
	assert(value >= floor); /* F3 */
	told = NEWER(value, told)
}

inline wake_all()
{
	do
	:: bits & 1 -> STEP(woken[0] = true; bits = bits & 6)
	:: !(bits & 1) && bits & 2 -> STEP(woken[1] = true; bits = bits & 4)
	:: bits == 4 -> STEP(woken[2] = true; bits = 0)
	:: bits == 0 -> break
	od
}

inline finish()
{
#ifdef BITS_BEFORE_WORD
	STEP(bits = waiters; waiters = 0);
	STEP(
	    if
	    :: word == mine -> word = 0; late = false; holds[me] = false
	    :: else -> bits = 0
	    fi);
#else
	STEP(
	    if
	    :: word == mine -> word = 0; late = false; holds[me] = false
	    :: else -> mine = 0 /* stolen: waking is the thief's */
	    fi);
	if
	:: mine != 0 -> STEP(bits = waiters; waiters = 0)
	:: else
	fi;
#endif
	wake_all();
	mine = 0
}

proctype reader(byte me; byte asks)
{
	byte floor, lease, value, mine, seen, bits;
	bool was_open, claims;

life:
	do
	:: asks == 0 -> goto end
	:: else ->
		atomic {
			asks--;
			if
			:: orphan -> floor = written
			:: else -> floor = told
			fi
		}
look:
#ifdef VERSION_BEFORE_INTENT
		STEP(lease = version);
		STEP(was_open = open);
#else
		STEP(was_open = open);
		STEP(lease = version);
#endif
		atomic {
			if
			:: !was_open && entry_version == lease ->
				answer(entry);
				goto next
			:: else
			fi
		}
		/* A miss: claim. */
		STEP(
		    if
#ifdef STEAL_FROM_LIVING
		    :: true ->
#else
		    :: word == 0 || late || IS_DEAD(word) ->
#endif
			    /* F1 */
			    assert(!holds[0] && !holds[1] && !holds[2]);
			    holds[me] = true;
			    claims = !claims;
			    mine = CLAIM(claims);
			    word = mine;
			    late = false
#ifndef STEAL_FROM_LIVING
		    :: else -> seen = word
#endif
		    fi);
		if
		:: mine != 0 ->
			STEP(value = row);
#ifdef LEASE_AT_PUT
			STEP(lease = version);
#endif
			STEP(was_open = word != mine); /* still mine? */
			if
			:: !was_open ->
				STEP(
				    if
				    :: true /* gives up, as it always may */
				    :: !(entry_version == lease &&
					entry > value) ->
					    entry_version = lease;
					    entry = value
				    fi)
			:: else
			fi;
			finish();
			atomic { answer(value) }
		:: else ->
			STEP(waiters = waiters | 1 << me);
#ifndef PARK_WITHOUT_RECHECK
			STEP(was_open = word == seen);
			if
			:: !was_open -> seen = 0; goto look
			:: else -> seen = 0
			fi;
#endif
			if
			:: atomic { woken[me] -> woken[me] = false }
			:: atomic { timeout -> assert(deaths > 0) } /* F2 */
			:: atomic { me == 0 && deaths < READER_DEATHS ->
				deaths++; goto death }
			fi;
			goto look
		fi;
next:
		atomic { floor = 0; lease = 0; value = 0; was_open = false;
		    seen = 0 }
	od;

	/* From here on this is the master, which has reaped it and sweeps. */
death:
	atomic {
		floor = 0; lease = 0; value = 0; was_open = false; seen = 0;
		mine = 0; bits = 0; holds[me] = false;
		incarnation++
	}
	atomic {
		if
		:: word != 0 && IS_DEAD(word) -> word = 0; late = false
		:: else
		fi
	}
	atomic {
		waiters = waiters & 6;
		if
		:: word == 0 -> bits = waiters; waiters = 0
		:: else
		fi
	}
	wake_all();
	atomic {
		assert(word == 0 || !IS_DEAD(word)); /* F4 */
		goto life
	}
end:
	claims = false
}

#define WRITER_STEP(what) atomic { \
	if \
	:: what \
	:: writer_deaths < WRITER_DEATHS -> writer_deaths++; goto death \
	fi }

proctype writer()
{
	byte left = WRITES, value;
	bool debt;

life:
	do
	:: left == 0 -> goto end
	:: else ->
		left--;
#ifndef NO_INTENT
		WRITER_STEP(intent = true);
		WRITER_STEP(open = true);
#endif
		WRITER_STEP(sent = true);
		atomic {
			if
			:: !sent -> value = row
			:: writer_deaths < WRITER_DEATHS ->
				writer_deaths++; goto death
			fi
		}
#ifdef BUMP_AFTER_ANSWER
		WRITER_STEP(open = false);
		WRITER_STEP(told = NEWER(value, told); written = value);
		WRITER_STEP(version++);
		WRITER_STEP(intent = false);
#else
#ifdef CLOSE_BEFORE_BUMP
		WRITER_STEP(open = false);
#endif
		WRITER_STEP(version++);
		WRITER_STEP(intent = false);
		WRITER_STEP(open = false);
		WRITER_STEP(told = NEWER(value, told); written = value);
#endif
		value = 0
	od;

	/* The master: invalidate what was under way, and once more when it can
	 * no longer commit. */
death:
	atomic {
		writer_died = true;
		orphan = sent;
		value = 0
	}
	if
	:: intent ->
#ifndef SWEEP_WITHOUT_BUMP
		version++;
#endif
		debt = true;
		intent = false
	:: else
	fi;
	open = false;
	if
	:: debt ->
		atomic { !sent -> writer_died = false }
#ifndef NO_DEBT
		version++;
#endif
		atomic {
			debt = false;
			orphan = false;
			told = NEWER(row, told)
		}
	:: else -> writer_died = false
	fi;
	goto life;
end:
	skip
}

proctype server()
{
end:
	do
	:: atomic { sent ->
		if
		:: row++
		:: writer_died /* rolled back */
		fi;
		sent = false }
	od
}

/* The loader's deadline passes: who holds the claim holds it no longer. */
proctype clock()
{
end:
	do
	:: atomic { word != 0 && !late && lates < LATES ->
		lates++;
		late = true;
		holds[0] = false;
		holds[1] = false;
		holds[2] = false }
	od
}

init {
	atomic {
		run reader(0, ASKS_0);
		run reader(1, 1);
#ifndef TWO_READERS
		run reader(2, 1);
#endif
		run writer();
		run server();
		run clock()
	}
}
