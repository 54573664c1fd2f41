#!/usr/bin/env python3
"""Goal: the manual pages are well formed and say what the programs do.
Method: mandoc lints each page; then what the programs print (settings with
their defaults, flags, commands) and what the sources hold (signals, exit
codes, routes) is compared with the pages, in both directions where both
directions can be read.  The comparison is first tried with two sets that
differ.
"""
import os
import re
import shutil
import subprocess
import sys

TOP = os.environ.get("abs_top_srcdir") or os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))
BOOKSD = os.environ.get("BOOKSD", os.path.join(os.getcwd(), "booksd"))
BOOKSCTL = os.environ.get("BOOKSCTL", os.path.join(os.getcwd(), "booksctl"))
PAGES = ("booksd.8", "booksd.conf.5", "books-api.7", "books-counters.7",
         "books-tuning.7", "booksctl.1")

SYSEXITS = {"EX_USAGE": 64, "EX_DATAERR": 65, "EX_NOINPUT": 66,
            "EX_NOUSER": 67, "EX_NOHOST": 68, "EX_UNAVAILABLE": 69,
            "EX_SOFTWARE": 70, "EX_OSERR": 71, "EX_OSFILE": 72,
            "EX_CANTCREAT": 73, "EX_IOERR": 74, "EX_TEMPFAIL": 75,
            "EX_PROTOCOL": 76, "EX_NOPERM": 77, "EX_CONFIG": 78}

number = 0
failed = False


def page(name):
    with open(os.path.join(TOP, "man", name), encoding="utf-8") as file:
        return file.read()


def section(text, title):
    """The lines of a section, without its heading."""
    found = re.search(r"^\.Sh %s\n(.*?)(?=^\.Sh |\Z)" % title, text,
                      re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


def items(text, macro):
    """The first argument of each list item that starts with the macro."""
    return re.findall(r"^\.It %s (\S+)" % macro, text, re.MULTILINE)


def ok(good, sentence, lines=(), skip=""):
    global number, failed
    number += 1
    failed |= not good
    for line in lines:
        print("# " + line)
    print("%sok %d - %s%s" % ("" if good else "not ", number, sentence,
                              " # SKIP " + skip if skip else ""))


def show(member):
    return " = ".join(member) if isinstance(member, tuple) else member


def differences(left, right, where):
    """Sentences about the members that only one of two sets has."""
    return (["%s is missing in %s" % (show(x), where)
             for x in sorted(set(left) - set(right))] +
            ["%s stands in %s only" % (show(x), where)
             for x in sorted(set(right) - set(left))])


def same(left, right, where, sentence):
    lines = differences(left, right, where)
    if not left:
        lines.append("nothing was found to compare with %s" % where)
    ok(not lines, sentence, lines)


def output_of(*command):
    """What a program prints, on either stream, or None."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BOOKS_")}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, env=clean,
                              stderr=subprocess.STDOUT, timeout=20,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace")


def sources(*names):
    """The text of C files; a name that ends in / is a whole folder."""
    text = ""
    for name in names:
        path = os.path.join(TOP, name)
        files = [os.path.join(path, f) for f in sorted(os.listdir(path))
                 if f.endswith((".c", ".h"))] if name.endswith("/") else [path]
        for each in files:
            with open(each, encoding="utf-8") as file:
                text += file.read()
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def check_form():
    if shutil.which("mandoc") is None:
        ok(True, "mandoc finds nothing to warn about", skip="no mandoc")
        return
    lines = []
    for name in PAGES:
        done = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning",
             os.path.join(TOP, "man", name)], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        lines += done.stdout.decode().splitlines()
    ok(not lines, "mandoc finds nothing to warn about", lines)


def check_sentences():
    """One sentence per line: differences stay readable."""
    lines = []
    for name in PAGES:
        literal = False
        for count, line in enumerate(page(name).split("\n"), 1):
            if line.startswith((".Bd -literal", ".Bd -unfilled")):
                literal = True
            if line == ".Ed":
                literal = False
            if not literal and not line.startswith(".") and re.search(
                    r"[a-z)][.?!] +[A-Z]", line):
                lines.append("%s:%d: two sentences" % (name, count))
    ok(not lines, "each sentence has a line of its own", lines)


def check_sections():
    wanted = {
        "booksd.8": ("SIGNALS", "ENVIRONMENT", "FILES", "EXIT STATUS",
                     "EXAMPLES", "SEE ALSO"),
        "booksd.conf.5": ("ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"),
        "books-api.7": ("EXAMPLES", "SEE ALSO", "STANDARDS"),
        "books-counters.7": ("EXAMPLES", "SEE ALSO"),
        "books-tuning.7": ("EXAMPLES", "SEE ALSO"),
        "booksctl.1": ("ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES",
                       "SEE ALSO"),
    }
    lines = ["%s has no section %s" % (name, title)
             for name in PAGES for title in wanted[name]
             if not section(page(name), title)]
    ok(not lines, "the sections that people look for are there", lines)


def check_sorted():
    text = page("booksd.8")
    flags = items(section(text, "DESCRIPTION"), "Fl")
    settings = items(page("booksd.conf.5"), "Ic")
    commands = items(page("booksctl.1"), "Ic")
    lines = []
    for what, found in (("flags", flags), ("settings", settings),
                        ("commands", commands)):
        # Aa Bb ... and then the long ones
        rank = sorted(found, key=lambda f: (f.startswith("-"), f.lower(),
                                            not f.isupper()))
        if what != "settings" and found != rank:
            lines.append("%s are not sorted: %s" % (what, " ".join(found)))
        if len(found) != len(set(found)):
            lines.append("%s stand twice" % what)
    ok(not lines, "flags and commands are sorted and stand once", lines)


def documented_settings():
    """Key and default of each item of booksd.conf(5)."""
    result = {}
    for body in re.split(r"^\.It Ic ", page("booksd.conf.5"),
                         flags=re.MULTILINE)[1:]:
        key = body.split()[0]
        default = re.search(r"^Default:(?: (none)\.)?\n(?:\.Ql (.*?) \.\n)?",
                            body, re.MULTILINE)
        result[key] = None if default is None else (default.group(2) or "")
    return result


def check_settings():
    dump = output_of(BOOKSD, "-T")
    printed = dict(
        (key, value) for key, value in re.findall(
            r"^#?\s*([a-z][a-z_]*) = ?(.*?)\s*$", dump or "", re.MULTILINE))
    pages = documented_settings()
    same(printed, pages, "booksd.conf(5)",
         "booksd.conf(5) has every setting that booksd -T prints, and no other")
    lines = []
    for key in sorted(set(printed) & set(pages)):
        # behind the value stands where it came from
        value = re.sub(r"\s+# default$", "", printed[key]).strip('"')
        if pages[key] is None:
            lines.append("%s: the page names no default" % key)
        elif pages[key] != value:
            lines.append("%s: booksd has %r, the page %r" %
                         (key, value, pages[key]))
    ok(not lines, "the defaults are the same", lines)

    usage = output_of(BOOKSD, "-h") or ""
    kept = re.findall(r"^ +([a-z_]+) .* \(restart\)$", usage, re.MULTILINE)
    marked = [body.split()[0] for body in re.split(
        r"^\.It Ic ", page("booksd.conf.5"), flags=re.MULTILINE)[1:]
        if re.search(r"^Change: restart\.$", body, re.MULTILINE)]
    same(kept, marked, "booksd.conf(5)",
         "the settings that a reload keeps are the same")
    ranges = dict(re.findall(
        r"^ +([a-z_]+) .*\n +(?:auto or )?([0-9]\w* to [0-9]\w*) .*; default ",
        usage, re.MULTILINE))
    written = dict(re.findall(
        r"^\.It Ic ([a-z_]+) (?:(?!^\.It).)*?^Range: ([^\n]*)\.$",
        page("booksd.conf.5"), re.MULTILINE | re.DOTALL))
    same(ranges.items(), written.items(), "booksd.conf(5)",
         "the ranges are the same")


def check_flags():
    usage = output_of(BOOKSD, "-h") or ""
    printed = set(re.findall(r"(?<![\w-])(-[A-Za-z])\b", usage))
    printed |= set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", usage))
    text = section(page("booksd.8"), "DESCRIPTION")
    pages = set("-" + flag for flag in items(text, "Fl"))
    same(printed, pages, "booksd(8)",
         "booksd(8) has every flag of booksd -h, and no other")
    words = re.findall(r"\bFl (\S+)", section(page("booksd.8"), "SYNOPSIS"))
    synopsis = set("-" + word for word in words if word.startswith("-"))
    synopsis |= set("-" + letter for word in words
                    if not word.startswith("-") for letter in word)
    same(synopsis, pages, "the list of booksd(8)",
         "the synopsis of booksd(8) has the same flags")


def check_signals():
    code = sources("master/", "worker/worker_loop.c", "worker/worker_main.c")
    ignored = {"SIGPIPE", "SIGKILL", "SIGCHLD", "SIGABRT", "SIGCONT", "SIGIO"}
    handled = set(re.findall(r"\bSIG(?!_)[A-Z]+[0-9]?\b", code)) - ignored
    pages = set(items(section(page("booksd.8"), "SIGNALS"), "Dv"))
    same(handled, pages, "booksd(8)",
         "booksd(8) has every signal that booksd handles, and no other")


def documented_codes(name):
    return dict((code, int(value)) for value, code in re.findall(
        r"^\.It ([0-9]+) Pq Dv (EX_\w+)", section(page(name), "EXIT STATUS"),
        re.MULTILINE))


def check_codes():
    for name, rooms in (("booksd.8", ("master/", "worker/")),
                        ("booksctl.1", ("ctl/",))):
        used = set(re.findall(r"\bEX_[A-Z]+\b", sources(*rooms))) - {"EX_OK"}
        pages = documented_codes(name)
        same(used, pages, name,
             "%s has every exit code of the sources, and no other" % name)
        lines = ["%s is %d" % (code, SYSEXITS.get(code, -1))
                 for code, value in pages.items()
                 if SYSEXITS.get(code) != value]
        ok(not lines, "%s numbers them as sysexits.h does" % name, lines)


def check_commands():
    usage = output_of(BOOKSCTL, "help") or ""
    printed = set(re.findall(r"^(?: {2,}|\t)([a-z]+)(?= |$)", usage,
                             re.MULTILINE))
    pages = set(items(page("booksctl.1"), "Ic"))
    same(printed, pages, "booksctl(1)",
         "booksctl(1) has every command of booksctl help, and no other")


def check_routes():
    code = sources("api/api_route.c")
    routes = set(re.findall(r'"(/[a-z{}/]*)"', code))
    pages = set(re.findall(r"^\.It (?:Ic )?(/\S*)", page("books-api.7"),
                           re.MULTILINE))
    same(routes, pages, "books-api(7)",
         "books-api(7) has every route of the table, and no other")


def check_answers():
    """The sentences and the statuses that clients are told."""
    text = re.sub(r"\s+", " ", page("books-api.7"))
    sentences = re.findall(r'"(The (?:book|ISBN) [^"]+\.)"',
                           sources("api/api_book.c"))
    lines = ["api_book.c says: " + each for each in sorted(set(sentences))
             if each not in text]
    if len(sentences) < 10:
        lines.append("only %d sentences were found" % len(sentences))
    ok(not lines, "books-api(7) has every sentence about a book's fields",
       lines)

    told = set(re.findall(
        r"\b(?:api_done_problem|reject|conn_refuse|scan_limit|"
        r"api_problem_detail|api_problem|api_reply_written)"
        r"\([^;]*?\b([1-5][0-9][0-9])\b", sources("api/", "worker/")))
    told |= set(re.findall(r"\.status = ([1-5][0-9][0-9])\b",
                           sources("api/", "worker/")))
    items_ = re.findall(r"^\.It ([1-5][0-9][0-9](?: , [1-5][0-9][0-9])*)$",
                        page("books-api.7"), re.MULTILINE)
    pages = set(code for item in items_ for code in item.split(" , "))
    lines = ["%s is missing in books-api(7)" % x for x in sorted(told - pages)]
    if len(told) < 10:
        lines.append("only %d statuses were found" % len(told))
    ok(not lines, "books-api(7) has every status that is answered", lines)


def main():
    ok(len(differences({"a", "b"}, {"b", "c"}, "a page")) == 2 and
       not differences({"a"}, {"a"}, "a page"),
       "a difference in either direction is seen")
    check_form()
    check_sentences()
    check_sections()
    check_sorted()
    check_settings()
    check_flags()
    check_signals()
    check_codes()
    check_commands()
    check_routes()
    check_answers()
    print("1..%d" % number)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
