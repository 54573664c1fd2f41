#!/bin/sh
# Goal: the rooms stay rooms.  A file includes its own room and the rooms to
# its right (master -> worker, ops -> api -> shm; ctl -> api, shm), and a
# library's header only where the library belongs.
# Method: every #include of every .c and .h is looked up in two tables; each
# offending line is printed.  The same check then runs over a small planted
# tree with one offence of each kind, because a lint that cannot fail is none.
set -eu

top=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
planted=$(mktemp -d "${TMPDIR:-/tmp}/lint_arrows.XXXXXX")
trap 'rm -rf "$planted"' EXIT
trap 'exit 1' HUP INT TERM

# Print "file:line: text (reason)" for each include that breaks a rule below
# the folder $1.
offences()
{
    (cd "$1" && find master worker ops api shm ctl tests -name '*.[ch]' \
        -type f 2>/dev/null | LC_ALL=C sort) |
    (cd "$1" && while IFS= read -r file; do
        awk '
        BEGIN {
            sees["shm"] = " shm "
            sees["api"] = " api shm "
            sees["worker"] = " worker api shm "
            sees["ops"] = " ops api shm "
            sees["master"] = " master worker ops api shm "
            sees["ctl"] = " ctl api shm "

            # header (a prefix): the rooms that may include it
            lib["libpq"] = " worker ops ctl "
            lib["postgres_ext.h"] = " worker ops ctl "
            lib["liburing"] = " worker "
            lib["linux/io_uring.h"] = " worker "
            lib["openssl/"] = " worker "
            lib["jansson.h"] = " api ops ctl "
            lib["microhttpd.h"] = " ops "
            lib["curl/"] = " ops ctl "
            lib["ncurses.h"] = " ctl "

            # api and shm do no I/O; threads are the name resolver alone
            lib["sys/socket.h"] = " master worker ops "
            lib["sys/epoll.h"] = " worker "
            lib["poll.h"] = " master worker ops ctl "
            lib["netdb.h"] = " master worker ops "
            lib["netinet/"] = " master worker ops "
            lib["pthread.h"] = " worker "
        }
        function bad(why) {
            printf "%s:%d: %s (%s)\n", FILENAME, FNR, $0, why
        }
        # A unit test sees what the room it tests sees.
        function test_room(name) {
            if (name ~ /^test_io/)
                return "worker"
            sub(/^test_/, "", name)
            sub(/[_.].*/, "", name)
            return name
        }
        FNR == 1 {
            split(FILENAME, part, "/")
            room = part[1]
        }
        FNR == 1 && room == "tests" {
            if (part[2] !~ /^test_/)
                exit
            room = test_room(part[2])
            if (!(room in sees)) {
                bad("the name does not say which room it tests")
                exit
            }
        }
        /^[ \t]*#[ \t]*include[ \t]*"/ {
            name = $0
            sub(/^[^"]*"/, "", name)
            sub(/".*/, "", name)
            slash = index(name, "/")
            if (name == "config.h")
                next
            if (slash == 0) {
                bad("write the room before the file name")
                next
            }
            other = substr(name, 1, slash - 1)
            if (other == "tests" && part[1] == "tests")
                next
            if (index(sees[room], " " other " ") == 0)
                bad(room " does not see " other)
            next
        }
        /^[ \t]*#[ \t]*include[ \t]*</ {
            name = $0
            sub(/^[^<]*</, "", name)
            sub(/>.*/, "", name)
            if (part[1] == "tests")
                next
            for (header in lib)
                if (index(name, header) == 1 &&
                    index(lib[header], " " room " ") == 0)
                    bad(room " does not use <" name ">")
        }
        ' "$file"
    done)
}

# plant FILE INCLUDE: a file with one include.
plant()
{
    mkdir -p "$planted/$(dirname "$1")"
    printf '#include %s\n' "$2" >"$planted/$1"
}

echo 1..4

found=$(offences "$top")
if [ -z "$found" ]; then
    echo 'ok 1 - no file includes a room to its left or a foreign library'
else
    printf '%s\n' "$found" | sed 's/^/# /'
    echo 'not ok 1 - no file includes a room to its left or a foreign library'
fi

files=$(cd "$top" && find master worker ops api shm ctl -name '*.[ch]' | wc -l)
if [ "$files" -gt 20 ]; then
    echo 'ok 2 - the sources were looked at'
else
    echo "# only $files files below $top"
    echo 'not ok 2 - the sources were looked at'
fi

plant shm/shm_a.c '"api/api.h"'
plant shm/shm_b.c '<sys/socket.h>'
plant api/api_a.h '"worker/worker.h"'
plant api/api_b.c '<libpq-fe.h>'
plant worker/worker_a.c '"master/master_child.h"'
plant worker/worker_b.c '"ops/ops.h"'
plant worker/worker_c.c '<jansson.h>'
plant worker/worker_d.c '"worker_conn.h"'
plant ops/ops_a.c '"worker/worker.h"'
plant ops/ops_b.c '<liburing.h>'
plant master/master_a.c '<libpq-fe.h>'
plant worker/worker_e.c '<microhttpd.h>'
plant worker/worker_f.c '<curl/curl.h>'
plant tests/test_ops_a.c '"worker/worker_log.h"'
plant master/master_b.c '"ctl/ctl.h"'
plant ctl/ctl_a.c '"worker/io.h"'
plant ctl/ctl_b.c '<microhttpd.h>'
plant tests/test_api_a.c '"worker/worker_http.h"'
plant tests/test_nowhere.c '"shm/shm_base.h"'
planted_count=$(find "$planted" -type f | wc -l)
found=$(offences "$planted")
missed=$(cd "$planted" && find . -type f | sed 's|^\./||' |
    while IFS= read -r file; do
        printf '%s\n' "$found" | grep -q "^$file:1: " || echo "$file"
    done)
if [ -z "$missed" ] &&
    [ "$(printf '%s\n' "$found" | wc -l)" -eq "$planted_count" ]; then
    echo 'ok 3 - each planted offence is found once'
else
    printf '%s\n' "$found" | sed 's/^/# found: /'
    printf '%s\n' "$missed" | sed 's/^/# missed: /'
    echo 'not ok 3 - each planted offence is found once'
fi

rm -rf "${planted:?}"/*
plant master/master_a.c '"worker/worker.h"'
plant master/master_b.c '"ops/ops.h"'
plant worker/worker_a.c '<libpq-fe.h>'
plant worker/worker_b.c '"api/api.h"'
plant ops/ops_a.c '"shm/shm_board.h"'
plant api/api_a.c '<jansson.h>'
plant ctl/ctl_a.c '<libpq-fe.h>'
plant ctl/ctl_b.c '<curl/curl.h>'
plant ops/ops_b.c '<microhttpd.h>'
plant ops/ops_c.c '"api/api_call.h"'
plant tests/test_ops_a.c '"shm/shm_cache.h"'
plant shm/shm_a.c '"config.h"'
plant tests/test_worker_a.c '"api/api.h"'
plant tests/fuzz_a.c '"worker/worker_http.h"'
found=$(offences "$planted")
if [ -z "$found" ]; then
    echo 'ok 4 - what the rules allow is not complained about'
else
    printf '%s\n' "$found" | sed 's/^/# /'
    echo 'not ok 4 - what the rules allow is not complained about'
fi
