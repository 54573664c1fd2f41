#!/bin/sh
# Goal: the cache is as right on 64-bit Arm as where it was written.
# Method: the cache, its unit tests and its storms are built by the cross
# compiler and run under qemu's user mode.  The kills are fewer: an emulated
# process is slow to start.  What qemu cannot show is Arm's weaker order of
# memory, for it runs on this machine's: the models and the thread sanitizer
# stand for that.
set -eu

top=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$top}
work=$(mktemp -d "${TMPDIR:-/tmp}/cache_arm64.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cc=aarch64-linux-gnu-gcc
cross=/usr/aarch64-linux-gnu/lib
library=/usr/lib/aarch64-linux-gnu

skip()
{
    echo "1..0 # SKIP $1"
    exit 0
}

command -v "$cc" >/dev/null || skip "$cc is not installed"
command -v qemu-aarch64 >/dev/null || skip 'qemu-aarch64 is not installed'
[ -e "$library/libcmocka.so" ] || skip 'libcmocka-dev:arm64 is not installed'

# Only these of /usr/include: the rest is for this machine.
mkdir "$work/include"
cp /usr/include/cmocka*.h "$work/include"

# build NAME SOURCE FLAG...
build()
{
    name=$1
    source=$2
    shift 2
    "$cc" -std=gnu11 -O2 -D_GNU_SOURCE "$@" -I"$top" -I"$build" \
        -I"$work/include" -o "$work/$name" "$top/tests/$source" \
        "$top"/shm/shm_*.c -L"$library" -lcmocka -lm
}

# The loader is named, because a process that qemu started with -L (a folder
# put before every path) can hang in its first fork.
run()
{
    abs_top_srcdir=$top CMOCKA_MESSAGE_OUTPUT=STDOUT timeout 240 \
        qemu-aarch64 "$cross/ld-linux-aarch64.so.1" \
        --library-path "$cross:$library" "$work/$1"
}

tests='test_shm_cache test_shm_cache_flight test_shm_cache_intent
    test_shm_cache_put stress_cache_storm stress_cache_crash'
echo "1..$(echo "$tests" | wc -w)"
number=0
for name in $tests; do
    number=$((number + 1))
    flags=
    [ "$name" != stress_cache_crash ] || flags=-DSHM_CRASH_POINTS
    # shellcheck disable=SC2086 # no flag or one
    if build "$name" "$name.c" $flags >"$work/log" 2>&1 &&
        STORM_KILLS=${STORM_KILLS_ARM64:-300} CRASH_EVERY=7 \
            run "$name" >"$work/log" 2>&1; then
        grep -E 'kills|deaths|PASSED' "$work/log" | sed 's/^[# ]*/# /' || true
        echo "ok $number - $name on aarch64"
    else
        tail -n 30 "$work/log" | sed 's/^/# /'
        echo "not ok $number - $name on aarch64"
    fi
done
