#!/bin/sh
# Goal: get, put and invalidate wait for nobody: no lock in the objects, no
# system call while they run.
# Method: nm(1) over the cache's objects must name nothing of threads, futexes
# or system calls but in the files that make, enter and wake; strace(1) over
# cache_quiet.c must show nothing between its two marks, and does show a call
# that is planted there.
set -eu

top=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$top}
work=$(mktemp -d "${TMPDIR:-/tmp}/cache_symbols.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cc=${CC:-cc}

echo 1..4
for source in "$top"/shm/shm_cache*.c; do
    "$cc" -std=gnu11 -O2 -D_GNU_SOURCE -I"$top" -I"$build" -c \
        -o "$work/$(basename "$source" .c).o" "$source"
done
locks=$(nm -A "$work"/shm_cache*.o |
    grep -E ' U .*(pthread|futex|mutex|sem_|cnd_|mtx_|flock|lockf)' || true)
if [ -z "$locks" ]; then
    echo 'ok 1 - no object of the cache knows a lock'
else
    printf '%s\n' "$locks" | sed 's/^/# /'
    echo 'not ok 1 - no object of the cache knows a lock'
fi
calls=$(nm -A "$work"/shm_cache_get.o "$work"/shm_cache_put.o \
    "$work"/shm_cache_evict.o "$work"/shm_cache_intent.o |
    grep -E ' U (read|write|malloc|calloc|free|mmap|madvise|syscall|poll)$' ||
    true)
if [ -z "$calls" ]; then
    echo 'ok 2 - reading and writing objects know no system call and no heap'
else
    printf '%s\n' "$calls" | sed 's/^/# /'
    echo 'not ok 2 - reading and writing objects know no system call and no heap'
fi

# heard SOURCE: the calls between the marks.
heard()
{
    "$cc" -std=gnu11 -O2 -D_GNU_SOURCE -I"$top" -I"$build" \
        -o "$work/quiet" "$1" "$top"/shm/shm_*.c || return 1
    strace -f -o "$work/trace" "$work/quiet" >"$work/out" || return 1
    sed -n '/"begin"/,/"end"/p' "$work/trace" >"$work/between"
    # Both marks, and what is between them.
    [ "$(grep -c '"begin"\|"end"' "$work/between")" -eq 2 ] || return 1
    grep -v '"begin"\|"end"' "$work/between" || true
}

if ! strace -o /dev/null true 2>/dev/null; then
    echo 'ok 3 # SKIP strace cannot trace here'
    echo 'ok 4 # SKIP strace cannot trace here'
    exit 0
fi
if found=$(heard "$top/tests/cache_quiet.c") && [ -z "$found" ]; then
    echo "# $(cat "$work/out")"
    echo 'ok 3 - get, copy, put, invalidate and intents make no system call'
else
    printf '%s\n' "$found" | head -n 10 | sed 's/^/# /'
    echo 'not ok 3 - get, copy, put, invalidate and intents make no system call'
fi
sed 's/hits++;/hits += getppid() != 0;/' "$top/tests/cache_quiet.c" \
    >"$work/planted.c"
if found=$(heard "$work/planted.c") &&
    printf '%s\n' "$found" | grep -q getppid; then
    echo 'ok 4 - a planted call is heard'
else
    echo 'not ok 4 - a planted call is heard'
fi
