/*
 * The segment log and its index: writers append to segments that they own,
 * publish by one CAS of an index word, evict and reuse segments, die at any
 * step and are swept; a reader copies bytes while all that goes on.
 *
 * Small: SEGS segments of SPOTS entries, a bucket of two index words, two
 * keys, two writers with PUTS_0 and PUTS_1 puts, DEATHS deaths.  An entry is
 * two words, each written and read by a step of its own: the key with the
 * serial number of the put, and the serial number again, so that a mixture of
 * two entries is seen.  One read suffices: it may begin at any time and
 * remembers nothing.  Memory is sequentially consistent here: what orders real
 * memory needs is argued in the sources.
 *
 * What must hold, whatever the interleaving:
 *  S1  bytes that a reader returns for a key are one whole entry of that key
 *  S2  when a segment's gen moves, no index word names the old one
 *  S3  after a sweep nothing is owned by a dead process
 *  S4  nobody changes a segment that another owns
 *
 * Mutants, each of which must fail: READ_WITHOUT_RECHECK, GEN_BEFORE_WALK,
 * INDEX_BEFORE_WORDS, INDEX_BEFORE_USED, SWEEP_MOVES_GEN, SWEEP_FORGETS_EVICT.
 */
#ifndef SEGS
#define SEGS 2
#endif
#ifndef SPOTS
#define SPOTS 1
#endif
#ifndef PUTS_0
#define PUTS_0 2
#endif
#ifndef PUTS_1
#define PUTS_1 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

#define NONE   7
#define FREE   0
#define ACTIVE 1
#define SEALED 2
#define EVICT  3

/* A segment's word is state, owner, inc and gen: compared and changed as one
 * in each atomic step below.  used, one and two are the owner's. */
typedef segment {
	byte state;
	byte owner;
	byte inc;
	byte gen;
	byte used;
	byte one[SPOTS]; /* serial << 1 | key */
	byte two[SPOTS]  /* serial */
};
segment seg[SEGS];

/* An index word; 0 is empty. */
#define INDEX(key, spot, segment, gen) \
	(1 | (key) << 1 | (spot) << 2 | (segment) << 3 | (gen) << 5)
#define INDEX_KEY(x)  ((x) >> 1 & 1)
#define INDEX_SPOT(x) ((x) >> 2 & 1)
#define INDEX_SEG(x)  ((x) >> 3 & 3)
#define INDEX_GEN(x)  ((x) >> 5)
short way[2];

byte incarnation[2];
byte deaths;

#define IS_MINE(s, state_) \
	(seg[s].state == state_ && seg[s].owner == me && \
	    seg[s].inc == incarnation[me])
#define NAMES(x, s) \
	((x) != 0 && INDEX_SEG(x) == (s) && INDEX_GEN(x) == seg[s].gen)

/* What a writer does to shared memory is a step, unless it dies before.  It is
 * always writer 0 that dies: with the puts exchanged it is the other. */
#define STEP(what) atomic { \
	if \
	:: what \
	:: me == 0 && deaths < DEATHS -> deaths++; goto death \
	fi }

/* Take a segment that is in state from, if one is. */
#define TAKE(from, to, it, i) \
	seg[i].state == from -> seg[i].state = to; seg[i].owner = me; \
	    seg[i].inc = incarnation[me]; it = i
#if SEGS > 2
#define TAKE_ANY(from, to, it) STEP( \
	if \
	:: TAKE(from, to, it, 0) \
	:: TAKE(from, to, it, 1) \
	:: TAKE(from, to, it, 2) \
	:: else \
	fi)
#else
#define TAKE_ANY(from, to, it) STEP( \
	if \
	:: TAKE(from, to, it, 0) \
	:: TAKE(from, to, it, 1) \
	:: else \
	fi)
#endif

/* Append an entry to my segment; index word w, seen as x, shall name it. */
#define NAME_IT(entry) STEP( \
	if \
	:: way[w] == x -> \
		way[w] = INDEX((entry) & 1, room, mine, seg[mine].gen); room++ \
	:: else \
	fi)
inline append(entry)
{
#ifdef INDEX_BEFORE_WORDS
	STEP(seg[mine].used = 1); /* of SPOTS 1 */
	NAME_IT(entry);
	STEP(seg[mine].one[0] = entry);
	STEP(seg[mine].two[0] = (entry) >> 1);
#else
	STEP(seg[mine].one[room] = entry);
	STEP(seg[mine].two[room] = (entry) >> 1);
#ifdef INDEX_BEFORE_USED
	NAME_IT(entry);
	STEP(seg[mine].used = room);
#else
	STEP(seg[mine].used = room + 1; assert(IS_MINE(mine, ACTIVE))); /* S4 */
	NAME_IT(entry);
	if
	:: seg[mine].used != room -> STEP(seg[mine].used = room)
	:: else
	fi
#endif
#endif
}

inline open_spare()
{
	if
	:: mine == NONE && spare != NONE ->
		atomic { mine = spare; room = 0; spare = NONE }
	:: else
	fi
}

inline move_gen()
{
	for (w in way) {
		assert(!NAMES(way[w], old)) /* S2 */
	}
	w = 0;
	assert(IS_MINE(old, EVICT)); /* S4 */
	seg[old].gen++;
	seg[old].state = ACTIVE
}

/* Entry at of a sealed segment: if an index word names it (one does at most),
 * then a copy of it takes its place (whether it was used may come out either
 * way), or nothing. */
#define IS_IT(x) (NAMES(x, old) && INDEX_SPOT(x) == at)
inline walk()
{
	STEP(
	    if
	    :: IS_IT(way[0]) -> w = 0; x = way[0]
	    :: IS_IT(way[1]) -> w = 1; x = way[1]
	    :: else
	    fi);
	if
	:: x == 0
	:: x != 0 && mine != NONE && room < SPOTS -> append(seg[old].one[at])
	:: x != 0 ->
		STEP(
		    if
		    :: way[w] == x -> way[w] = 0
		    :: else
		    fi)
	fi;
	atomic { w = 0; x = 0; at++ }
}

/* Make a spare out of a sealed segment. */
inline evict()
{
	TAKE_ANY(SEALED, EVICT, old);
	if
	:: old != NONE ->
#ifdef GEN_BEFORE_WALK
		STEP(move_gen());
#endif
		do
		:: at < seg[old].used -> walk()
		:: else -> break
		od;
#ifndef GEN_BEFORE_WALK
		STEP(move_gen());
#endif
		STEP(seg[old].used = 0; spare = old; old = NONE; at = 0)
	:: else
	fi
}

/* The key's own, else an empty one, else any. */
#define IS_OF(x) ((x) != 0 && INDEX_KEY(x) == (one & 1))
inline choose_way()
{
	if
	:: IS_OF(way[0]) -> w = 0
	:: !IS_OF(way[0]) && IS_OF(way[1]) -> w = 1
	:: !IS_OF(way[0]) && !IS_OF(way[1]) ->
		if
		:: way[1] != 0 -> w = 0
		:: way[0] != 0 -> w = 1
		:: way[0] == 0 && way[1] == 0 -> w = 0
		fi
	fi;
	x = way[w]
}

inline put()
{
	atomic {
		one = (2 + 4 * me + left) << 1;
		left--;
		if
		:: true
		:: one = one | 1
		fi
	};
	if
	:: spare == NONE ->
		TAKE_ANY(FREE, ACTIVE, spare);
		if
		:: spare != NONE -> STEP(seg[spare].used = 0)
		:: else
		fi
	:: else
	fi;
	open_spare();
	if
	:: spare == NONE -> evict()
	:: mine != NONE
	fi;
	open_spare();
	if
	:: mine != NONE && room < SPOTS ->
		atomic { choose_way() };
		append(one)
	:: else /* gives up */
	fi;
	if
	:: mine != NONE && room == SPOTS ->
		STEP(assert(IS_MINE(mine, ACTIVE)); /* S4 */
		    seg[mine].state = SEALED; mine = NONE; room = 0)
	:: else
	fi;
	atomic { one = 0; w = 0; x = 0 }
}

proctype writer(byte me; byte left)
{
	byte mine = NONE, spare = NONE, old = NONE;
	byte room, at, one, w;
	short x;

life:
	do
	:: left > 0 -> put()
	:: else -> goto end
	od;

	/* From here on this is the master, which has reaped it and sweeps. */
death:
	atomic {
		mine = NONE; spare = NONE; old = NONE;
		room = 0; at = 0; one = 0; w = 0; x = 0;
		incarnation[me]++
	}
	do
	:: w < SEGS ->
		atomic {
			if
			:: seg[w].owner == me && seg[w].state == ACTIVE ->
				seg[w].state = SEALED
#ifdef SWEEP_MOVES_GEN
			:: seg[w].owner == me && seg[w].state == EVICT ->
				at = w;
				for (w in way) {
					assert(!NAMES(way[w], at)) /* S2 */
				}
				w = at;
				seg[w].gen++;
				seg[w].state = FREE
#elif !defined(SWEEP_FORGETS_EVICT)
			:: seg[w].owner == me && seg[w].state == EVICT ->
				seg[w].state = SEALED
#endif
			:: else
			fi;
			w++
		}
	:: else -> break
	od;
	atomic {
		for (w in seg) {
			assert(seg[w].owner != me ||
			    seg[w].state == FREE || seg[w].state == SEALED ||
			    seg[w].inc == incarnation[me]) /* S3 */
		}
		w = 0;
		at = 0;
		goto life
	}
end:
	skip
}

proctype reader()
{
	byte one, two;
	short x;

	if
	:: x = way[0]
	:: x = way[1]
	fi;
	if
	:: x == 0 -> goto end
	:: else
	fi;
	if
	:: seg[INDEX_SEG(x)].gen != INDEX_GEN(x) -> goto end
	:: else
	fi;
	one = seg[INDEX_SEG(x)].one[INDEX_SPOT(x)];
	two = seg[INDEX_SEG(x)].two[INDEX_SPOT(x)];
	atomic {
		if
#ifndef READ_WITHOUT_RECHECK
		:: seg[INDEX_SEG(x)].gen != INDEX_GEN(x)
#endif
		:: (one & 1) != INDEX_KEY(x) /* another key's */
		:: else -> assert(two != 0 && one >> 1 == two) /* S1 */
		fi
	}
end:
	atomic { one = 0; two = 0; x = 0 }
}

/* The world begins in the middle: one segment is sealed, its first entry
 * named, the others are free. */
init {
	atomic {
		seg[0].state = SEALED;
		seg[0].used = SPOTS;
		seg[0].one[0] = 1 << 1;
		seg[0].two[0] = 1;
		way[0] = INDEX(0, 0, 0, 0);
		run writer(0, PUTS_0);
		run writer(1, PUTS_1);
		run reader()
	}
}
