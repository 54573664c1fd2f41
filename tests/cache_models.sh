#!/bin/sh
# Goal: the protocols of the cache hold in every interleaving of a small
# world, whoever dies at whichever step; and each rule that they rest on is
# needed: without it the same properties fail.
# Method: spin explores tests/models/*.pml exhaustively, each a few times with
# different deaths; each mutant of a model (one rule left out) must violate an
# assertion.  A search that was cut short is a failure of both kinds.
set -u

top=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
cc=${CC:-cc}
if ! command -v spin >/dev/null 2>&1; then
    echo "1..0 # SKIP spin is not installed"
    exit 0
fi
if ! command -v "${cc%% *}" >/dev/null 2>&1; then
    echo "1..0 # SKIP there is no C compiler ($cc)"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/cache_models.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# name | model | holds or fails | definitions
cases()
{
    cat <<'CASES'
a reader and two writers, one of which dies|segment|holds|-DPUTS_0=2 -DPUTS_1=1
the same, two entries a segment|segment|holds|-DPUTS_0=1 -DPUTS_1=1 -DSPOTS=2
the same, three segments|segment|holds|-DPUTS_0=1 -DPUTS_1=1 -DSEGS=3
a reader that does not look again|segment|fails|-DPUTS_1=1 -DREAD_WITHOUT_RECHECK
a gen that moves before the walk|segment|fails|-DGEN_BEFORE_WALK
an index word before the entry's|segment|fails|-DPUTS_1=1 -DINDEX_BEFORE_WORDS -DDEATHS=0
an index word before used|segment|fails|-DINDEX_BEFORE_USED
a sweep that moves gen|segment|fails|-DSWEEP_MOVES_GEN
a sweep that forgets the evicted|segment|fails|-DSWEEP_FORGETS_EVICT
two readers and a writer|flight|holds|-DTWO_READERS -DASKS_0=2
a reader dies|flight|holds|-DTWO_READERS -DASKS_0=2 -DREADER_DEATHS=1
the writer dies|flight|holds|-DTWO_READERS -DASKS_0=2 -DWRITER_DEATHS=1
a deadline passes|flight|holds|-DTWO_READERS -DASKS_0=2 -DLATES=1
three readers, a death and a deadline|flight|holds|-DWRITES=0 -DREADER_DEATHS=1 -DLATES=1
a waiter that does not look again|flight|fails|-DTWO_READERS -DPARK_WITHOUT_RECHECK
waiters taken before the word is free|flight|fails|-DTWO_READERS -DBITS_BEFORE_WORD
a claim taken from the living|flight|fails|-DTWO_READERS -DSTEAL_FROM_LIVING
a write answered before the bump|flight|fails|-DTWO_READERS -DASKS_0=2 -DBUMP_AFTER_ANSWER
an intent closed before the bump|flight|fails|-DTWO_READERS -DASKS_0=2 -DCLOSE_BEFORE_BUMP
a write without an intent|flight|fails|-DTWO_READERS -DASKS_0=2 -DNO_INTENT
a version read before the intents|flight|fails|-DTWO_READERS -DASKS_0=2 -DVERSION_BEFORE_INTENT
an entry with the version of its put|flight|fails|-DTWO_READERS -DASKS_0=2 -DLEASE_AT_PUT
no second bump after a writer's death|flight|fails|-DTWO_READERS -DASKS_0=2 -DWRITER_DEATHS=1 -DNO_DEBT
no first bump after a writer's death|flight|fails|-DTWO_READERS -DASKS_0=2 -DWRITER_DEATHS=1 -DSWEEP_WITHOUT_BUMP
CASES
}

# Explore model $1 with definitions $2; what pan says goes to $work/out.
explore()
{
    rm -rf "$work/pan"
    mkdir "$work/pan"
    (
        cd "$work/pan" || exit 1
        # shellcheck disable=SC2086
        spin -a $2 "$top/tests/models/$1.pml" &&
            $cc -O1 -w -DSAFETY -DMEMLIM=1000 -o pan pan.c &&
            ./pan -m100000 -w23 -n
    ) >"$work/out" 2>&1
}

# Print the verdict of $work/out: holds, fails, or what else it was.
verdict()
{
    if grep -q 'search depth too small\|out of memory\|reached -DMEMLIM' \
        "$work/out"; then
        echo "cut short"
    elif grep -q 'errors: 0$' "$work/out"; then
        echo holds
    elif grep -q 'assertion violated' "$work/out"; then
        echo fails
    else
        echo "an error"
    fi
}

count=$(cases | wc -l)
echo "1..$((count))"
n=0
failed=0
cases >"$work/cases"
while IFS='|' read -r name model expected definitions; do
    n=$((n + 1))
    explore "$model" "$definitions"
    got=$(verdict)
    if [ "$got" = "$expected" ]; then
        echo "ok $n - $model: $name: $expected"
    else
        failed=1
        echo "not ok $n - $model: $name: $expected"
        echo "# but it was: $got"
        sed 's/^/# /' "$work/out"
    fi
    sed -n 's/^ *\([0-9.e+]*\) states, stored$/# \1 states/p' "$work/out"
    sed -n 's/^pan:1: \(assertion violated\)  *\(.*\)$/# \1: \2/p' "$work/out"
done <"$work/cases"
exit "$failed"
