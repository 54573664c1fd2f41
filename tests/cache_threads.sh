#!/bin/sh
# Goal: the thread sanitizer finds no race in the cache.
# Method: the cache and stress_cache_threads.c are built with it and run.  That
# it would find one is shown by the same program with one thread that reads the
# arena as if nobody else wrote there.
set -eu

top=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$top}
work=$(mktemp -d "${TMPDIR:-/tmp}/cache_threads.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cc=${CC:-cc}

# build_and_run NAME FLAG...
build_and_run()
{
    name=$1
    shift
    "$cc" -std=gnu11 -O1 -g -D_GNU_SOURCE -fsanitize=thread "$@" \
        -I"$top" -I"$build" -o "$work/$name" \
        "$top"/tests/stress_cache_threads.c "$top"/shm/shm_*.c -pthread \
        >"$work/$name.log" 2>&1 || return 2
    # The sanitizer needs its shadow where random addresses may be in the way.
    TSAN_OPTIONS='halt_on_error=1 exitcode=66' \
        setarch "$(uname -m)" -R "$work/$name" >"$work/$name.log" 2>&1
}

echo 'int main(void) { return 0; }' >"$work/empty.c"
if ! "$cc" -fsanitize=thread -o "$work/empty" "$work/empty.c" 2>/dev/null ||
    ! setarch "$(uname -m)" -R "$work/empty" 2>/dev/null; then
    echo '1..0 # SKIP the compiler has no thread sanitizer that runs here'
    exit 0
fi

echo 1..2
if build_and_run right; then
    grep '^#' "$work/right.log"
    echo 'ok 1 - threads on one map race for nothing'
else
    sed 's/^/# /' "$work/right.log" | head -n 60
    echo 'not ok 1 - threads on one map race for nothing'
fi

if build_and_run wrong -DCACHE_RACE; then
    echo 'not ok 2 - a plain read of the arena is found'
elif grep -q 'data race' "$work/wrong.log"; then
    echo 'ok 2 - a plain read of the arena is found'
else
    sed 's/^/# /' "$work/wrong.log" | head -n 20
    echo 'not ok 2 - a plain read of the arena is found'
fi
