#!/usr/bin/env python3
# Goal: the tests of the cache are worth something: bugs of the kinds that such
# code has are caught.
# Method: each bug below is put into a copy of the sources, one at a time (text
# by text: a bug whose place is not found exactly once is a failure of this
# test), and the named test is built and run on it: it has to fail.  First all
# of those tests have to pass on an untouched copy.  docs/SHM.md lists the bugs.
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.environ.get('abs_top_srcdir') or os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get('abs_top_builddir') or TOP
CC = os.environ.get('CC', 'cc')

# (what it is, file, old text, new text, test that catches it)
BUGS = [
    ('a reader does not look at the segment again after it has copied',
     'shm_cache_get.c',
     '''if (shm_cache_spot_held(cache, &spot))
        return true;
    shm_cache_add''',
     '''if (shm_cache_spot_held(cache, &spot) || true)
        return true;
    shm_cache_add''',
     'test_shm_cache'),
    ('an entry is served whatever happened since it was loaded',
     'shm_cache_entry.h',
     'return entry->version == lease->version &&',
     'return',
     'test_shm_cache'),
    ('a key is taken for another one with the same hash',
     'shm_cache_entry.h',
     'return SHM_CACHE_RELAXED(*word) == want >>',
     'return want == want || SHM_CACHE_RELAXED(*word) == want >>',
     'test_shm_cache'),
    ('lengths read from the map are believed',
     'shm_cache_get.c',
     'return start + view->value_bytes <= room;',
     'return view->value_bytes < 1u << 20;',
     'stress_cache_hostile'),
    ('a segment is used again while the index still names its entries',
     'shm_cache_evict.c',
     'if (!way_replace(way, index, 0) || is_dead)',
     'if (is_dead)',
     'stress_cache_storm'),
    ('a segment is used again under its old generation',
     'shm_cache_evict.c',
     'shm_cache_word_gen(word) + 1,',
     'shm_cache_word_gen(word),',
     'test_shm_cache_put'),
    ('a put replaces a newer row',
     'shm_cache_put.c',
     'entry->row_version > put->value->row_version;',
     'false;',
     'test_shm_cache_put'),
    ('a loader puts although its claim was taken over',
     'shm_cache_put.c',
     '!shm_cache_claim_is_mine(cache, flight)) return SHM_CACHE_LOST;',
     'false) return SHM_CACHE_LOST;',
     'test_shm_cache_put'),
    ('the writes of a dead worker are not invalidated',
     'shm_cache_sweep.c',
     'shm_cache_intent_sweep(cache, slot, now_us, debt);',
     'debt->due_us = now_us * 0; debt->count = 0;',
     'test_shm_cache_intent'),
    ('the segments of a dead worker stay its own',
     'shm_cache_sweep.c',
     'shm_cache_segment_sweep(cache, slot); SHM_CRASH',
     'SHM_CRASH',
     'stress_cache_crash'),
    ('the segment is written before the readers are told of its new life',
     'shm_cache_evict.c',
     'spare_set(cache, at, mine);\n}',
     'spare_set(cache, at, word);\n}',
     'test_shm_cache_put'),
    ('a write is answered before its key is invalidated',
     'shm_cache_intent.c',
     '''invalidate(cache, intent);
    intent_move(intent, SHM_CACHE_INTENT_FREE);
    SHM_CRASH_POINT("intent_close_state");''',
     '''intent_move(intent, SHM_CACHE_INTENT_FREE);
    SHM_CRASH_POINT("intent_close_state");''',
     'test_shm_cache_intent'),
    ('a load that ends wakes nobody',
     'shm_cache_flight.c',
     '''SHM_CRASH_POINT("flight_end_word_cleared");
    wake(cache, place);''',
     '''SHM_CRASH_POINT("flight_end_word_cleared");''',
     'test_shm_cache_flight'),
    ('a waiter does not look again after it has said that it waits',
     'shm_cache_flight.c',
     'return atomic_load(&place->word) == flight->seen; /* R1 */',
     'return true;',
     'test_shm_cache_flight'),
]
assert len(BUGS) >= 10

# Of a storm enough to be caught.
STORM = {'STORM_KILLS': '1500', 'CRASH_EVERY': '3'}


def build(folder, test):
    """The test's program from the sources in folder; None: it does not."""
    program = os.path.join(folder, test)
    flags = ['-DSHM_CRASH_POINTS'] if test == 'stress_cache_crash' else []
    sources = [os.path.join(folder, 'shm', name)
               for name in sorted(os.listdir(os.path.join(folder, 'shm')))
               if name.endswith('.c')]
    done = subprocess.run(
        [CC, '-std=gnu11', '-O1', '-w', '-D_GNU_SOURCE', *flags,
         '-I', folder, '-I', BUILD, '-o', program,
         os.path.join(folder, 'tests', test + '.c'), *sources,
         '-lcmocka', '-lm'], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        print('# ' + done.stderr.replace('\n', '\n# '))
        return None
    return program


def passes(program):
    """Does it pass?  What hangs does not."""
    child = subprocess.Popen(
        [program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **STORM, 'abs_top_srcdir': TOP,
             'CMOCKA_MESSAGE_OUTPUT': 'STDOUT'},
        start_new_session=True)
    try:
        child.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        child.communicate()
    return child.returncode == 0


def copy_to(folder):
    os.makedirs(folder)
    shutil.copytree(os.path.join(TOP, 'shm'), os.path.join(folder, 'shm'))
    shutil.copytree(os.path.join(TOP, 'tests'), os.path.join(folder, 'tests'),
                    ignore=shutil.ignore_patterns('*.py', '*.sh', 'corpus'))


def plant(folder, name, old, new):
    """False: there is no such text, or more than one.  All white space is
    alike."""
    path = os.path.join(folder, 'shm', name)
    pattern = r'\s+'.join(re.escape(word) for word in old.split())
    with open(path, encoding='utf-8') as file:
        text = file.read()
    text, count = re.subn(pattern, lambda _: new, text)
    if count != 1:
        print(f'# {name}: the text is there {count} times:\n# '
              + old.replace('\n', '\n# '))
        return False
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    return True


def main():
    tests = sorted({bug[4] for bug in BUGS})
    print(f'1..{len(tests) + len(BUGS)}', flush=True)
    failures = 0
    number = 0

    def result(is_ok, what):
        nonlocal number, failures
        number += 1
        failures += not is_ok
        print(f'{"ok" if is_ok else "not ok"} {number} - {what}', flush=True)

    with tempfile.TemporaryDirectory(prefix='cache_bugs.') as work:
        clean = os.path.join(work, 'clean')
        copy_to(clean)
        for test in tests:
            program = build(clean, test)
            result(program is not None and passes(program),
                   f'{test} passes without a bug')
        for at, (what, name, old, new, test) in enumerate(BUGS):
            folder = os.path.join(work, str(at))
            copy_to(folder)
            program = None
            if plant(folder, name, old, new):
                program = build(folder, test)
            result(program is not None and not passes(program),
                   f'{test} catches: {what}')
            shutil.rmtree(folder)
    return failures > 0


sys.exit(main())
