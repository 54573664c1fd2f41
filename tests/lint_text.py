#!/usr/bin/env python3
"""Goal: the files read alike, and speak of the project alone.
Method: each rule is a function from a file's name and text to complaints;
every text file below the top folder goes through every rule, and each rule
first has to complain about a planted text that breaks it.  clang-format and
bash are used when they are there.
"""
import os
import re
import shutil
import subprocess
import sys

TOP = os.environ.get("abs_top_srcdir") or os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))
ROOMS = ("master", "worker", "ops", "api", "shm", "ctl")
SUFFIXES = (".c", ".h", ".sh", ".py", ".md", ".am", ".ac", ".sql", ".yml",
            ".json", ".conf", ".lua", ".go", ".js", ".ts", ".mjs", ".csv",
            ".1", ".5", ".7", ".8")
NO_TABS = (".py", ".md", ".sql", ".yml", ".json", ".js", ".ts",
           ".csv")
README_LINES_MAX = 15
ESSAY_CHARACTERS_MIN = 40
CLANG_FORMAT_MAJOR = "14"

# Made by autoconf, automake, make and the scripts; none of it is text of ours.
GENERATED_FOLDERS = {".git", ".deps", "autom4te.cache", "build-aux", "var",
                     "corpus", "node_modules", "__pycache__"}
GENERATED_FILES = {"aclocal.m4", "config.h", "configure", "Makefile",
                   "Makefile.in", "api/api_migrations.c", "libtool",
                   "package-lock.json", "compile_commands.json"}

# Addresses that the texts may name (and names without a dot); anything else
# is a slip of the machine on which the text was made.
HOSTS = ("127.0.0.1", "169.254.169.254", "169.254.170.2",
         "169.254.170.23", "169.254.170.25", "192.0.2.1", "amazonaws.com",
         "amazonaws.com.cn", "w3.org",
         "example.com", "example.net", "example.org",
         "github.com", "keepachangelog.com", "semver.org", "postgresql.org",
         "rfc-editor.org", "datatracker.ietf.org", "docs.aws.amazon.com",
         "debian.org", "nginx.org", "gnu.org", "json.schemastore.org",
         "catalogue.internal", "token.actions.githubusercontent.com", "w3.org")

# Written in pieces, so that the list does not find itself.
FORBIDDEN = [re.compile(p, re.IGNORECASE if i else 0) for i, p in (
    (False, r"\bTO" r"DO\b(?!\|)"),  # a directive of TAP is none
    (False, r"\bFIX" r"ME\b"),
    (False, r"\bX" r"XX\b"),
    (True, r"(?<!\w)(?<!\w\.)/wo" r"rk/"),
    (True, r"/tmp/te" r"am\b"),
    (True, r"(?<!\w)/ro" r"ot/"),
    (True, r"(?<!user-)(?<!user )(?<!managed-)\bag" r"ents?\b"),
    (True, r"\blanguage mo" r"dels?\b"),
    (True, r"\bas an a" r"i\b"),
    (True, r"\bcl" r"aude\b|\bchat" r"gpt\b|(?<!cloud-)\bcop" r"ilot\b"),
    (True, r"\bour work" r"place\b"),
)]


def comment_of(text):
    """The text of the comment or docstring at the start of a file."""
    text = re.sub(r"\A#!.*\n", "", text)
    for pattern in (r'\A\s*"""(.*?)"""', r"\A\s*/\*(.*?)\*/",
                    r"\A\s*((?:#.*\n)+)", r"\A\s*((?://.*\n)+)"):
        found = re.match(pattern, text, re.DOTALL)
        if found:
            return found.group(1)
    return ""


def columns(line):
    return len(line.expandtabs(8))


def is_script(name, text):
    return text.startswith("#!") or name.endswith((".sh", ".py"))


def rule_white_space(name, text):
    for number, line in enumerate(text.split("\n"), 1):
        if "\r" in line:
            yield number, "a carriage return"
        if line != line.rstrip():
            yield number, "white space at the end of the line"
        if "\t" in line and name.endswith(NO_TABS):
            yield number, "a tab"
        if name.endswith((".c", ".h")) and columns(line) > 80:
            yield number, "more than 80 columns"


def rule_last_line(name, text):
    if text and not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end of the file"
    if text.endswith("\n\n"):
        yield text.count("\n"), "empty lines at the end of the file"


def rule_readme(name, text):
    folder, base = os.path.split(name)
    if name == "deploy/README.md":
        return  # a runbook
    if base == "README.md" and folder and text.count("\n") > README_LINES_MAX:
        yield README_LINES_MAX + 1, (
            "a folder's README has at most %d lines" % README_LINES_MAX)


def rule_words(name, text):
    if name.endswith(".csv"):
        return  # titles of books
    for number, line in enumerate(text.split("\n"), 1):
        for pattern in FORBIDDEN:
            if pattern.search(line):
                yield number, "says " + pattern.search(line).group(0)


def rule_addresses(name, text):
    for number, line in enumerate(text.split("\n"), 1):
        for host in re.findall(r"https?://(\[[0-9a-f:]+\]|[\w.-]+)", line):
            host = host.rstrip(".").lower()
            if "." in host and not any(host == h or host.endswith("." + h) for h in HOSTS):
                yield number, "names the host %s" % host


def rule_script(name, text):
    if not is_script(name, text):
        return
    if name.endswith(".py") or "python" in text.split("\n", 1)[0]:
        try:
            compile(text, name, "exec", dont_inherit=True)
        except SyntaxError as error:
            yield error.lineno or 1, "python3: %s" % error.msg
        return
    shell = "bash" if "bash" in text.split("\n", 1)[0] else "sh"
    if "node" in text.split("\n", 1)[0] or shutil.which(shell) is None:
        return
    done = subprocess.run([shell, "-n"], input=text.encode(),
                          stderr=subprocess.PIPE)
    if done.returncode != 0:
        yield 1, "%s -n: %s" % (shell, done.stderr.decode().strip())


def rule_goal(name, text):
    if re.match(r"tests/(test|it|lint|fuzz|stress|regress)_|"
                r"tests/corpus_main\.c", name):
        head = comment_of(text)
        if not re.search(r"\bGoal:.*\bMethod:", head, re.DOTALL):
            yield 1, "a test starts with its Goal: and Method:"


def rule_essay(name, text):
    if name.endswith((".c", ".h")):
        head = re.sub(r"[\s*]+", " ", comment_of(text))
        if len(head) < ESSAY_CHARACTERS_MIN:
            yield 1, "a source file opens with a comment that says why"


def rule_guard(name, text):
    if name.endswith(".h"):
        folder, base = os.path.split(name)
        guard = re.sub(r"\W", "_", base).upper()
        if not guard.startswith(folder.upper() + "_"):
            guard = "(?:%s_)?%s" % (folder.upper(), guard)
        if not re.search(r"^#ifndef %s\n#define %s$" % (guard, guard), text,
                         re.MULTILINE):
            yield 1, "the header's guard is " + guard


def rule_config(name, text):
    if name.endswith(".c") and name.split("/")[0] in ROOMS:
        found = re.search(r"^#\s*include\s+(\S+)", text, re.MULTILINE)
        if found is None or found.group(1) != '"config.h"':
            yield 1, '"config.h" is the first include'


def rule_links(name, text):
    if not name.endswith(".md"):
        return
    for number, line in enumerate(text.split("\n"), 1):
        for link in re.findall(r"\]\(([^)\s]+)\)", line):
            path = link.split("#")[0]
            if path and "://" not in path and not os.path.exists(
                    os.path.join(TOP, os.path.dirname(name), path)):
                yield number, "links to %s, which is not there" % link


# A rule, what it says, and a file that breaks it.
RULES = (
    (rule_white_space, "lines end in text and fit",
     ("api/a.c", "int \n")),
    (rule_last_line, "files end with one newline",
     ("a.md", "text")),
    (rule_readme, "a folder's README is short",
     ("api/README.md", "line\n" * (README_LINES_MAX + 1))),
    (rule_words, "the texts speak of the project alone",
     ("a.md", "left TO" + "DO here\n")),
    (rule_addresses, "addresses are public ones",
     ("a.md", "see http://" + "10.9.8.7/index\n")),
    (rule_script, "scripts parse",
     ("a.sh", "#!/bin/sh\nif true; then\n")),
    (rule_goal, "tests say their goal and method",
     ("tests/test_a.c", "/* Some tests. */\n")),
    (rule_essay, "sources open with the reason why they exist",
     ("api/a.c", "/* A file. */\n")),
    (rule_guard, "headers have a guard of their own name",
     ("api/api_a.h", "#ifndef API_B_H\n#define API_B_H\n#endif\n")),
    (rule_config, "sources include config.h first",
     ("api/a.c", '#include <stdio.h>\n#include "config.h"\n')),
    (rule_links, "links in documents lead somewhere",
     ("README.md", "[here](docs/NOWHERE.md)\n")),
)


def has_shebang(path):
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def wanted(name, path):
    if name in GENERATED_FILES or os.path.basename(name) in GENERATED_FILES:
        return False
    if name.endswith("~") or os.path.islink(path) or not os.path.isfile(path):
        return False
    if name in ("LICENSE", ".clang-format", ".editorconfig", ".gitignore"):
        return True
    if os.sep not in name and name.startswith("config."):
        return False
    return name.endswith(SUFFIXES) or (
        "." not in os.path.basename(name) and has_shebang(path))


def texts():
    """Name and text of every file that people write."""
    for folder, folders, files in os.walk(TOP):
        inside = os.path.relpath(folder, TOP)
        folders[:] = sorted(
            f for f in folders if f not in GENERATED_FOLDERS and not (
                inside == "." and re.match(r"build|awsome-books-|=|_", f)))
        for base in sorted(files):
            path = os.path.join(folder, base)
            name = os.path.normpath(os.path.join(inside, base))
            if wanted(name, path):
                with open(path, encoding="utf-8", newline="") as file:
                    yield name, file.read()


def complain(rule, name, text):
    return ["%s:%d: %s" % (name, number, what)
            for number, what in rule(name, text)]


def report(number, complaints, sentence, skip=""):
    for line in complaints:
        print("# " + line.replace("\n", "\n# "))
    print("%sok %d - %s%s" % ("not " if complaints else "", number, sentence,
                              " # SKIP " + skip if skip else ""))
    return not complaints


def clang_format(sources):
    """Complaints, and why the check was not made."""
    program = shutil.which("clang-format")
    if program is None:
        return [], "clang-format is not installed"
    version = subprocess.run([program, "--version"], stdout=subprocess.PIPE,
                             check=True).stdout.decode()
    if not re.search(r"version %s\." % CLANG_FORMAT_MAJOR, version):
        return [], "clang-format %s judges the format" % CLANG_FORMAT_MAJOR
    done = subprocess.run(
        [program, "--dry-run", "-Werror", "--style=file"] + sources, cwd=TOP,
        stderr=subprocess.PIPE)
    if done.returncode == 0:
        return [], ""
    lines = done.stderr.decode(errors="replace").split("\n")
    return [line for line in lines if ": error: " in line] or lines, ""


def main():
    files = list(texts())
    names = [name for name, _ in files]
    good = True
    number = 0
    print("1..%d" % (2 * len(RULES) + 3))
    for rule, sentence, (name, text) in RULES:
        number += 1
        found = [line for name_, text_ in files
                 for line in complain(rule, name_, text_)]
        good &= report(number, found, sentence)
        number += 1
        missed = [] if complain(rule, name, text) else [
            "%s let the planted text through" % rule.__name__]
        good &= report(number, missed, "a breach is seen: " + sentence)

    number += 1
    few = [] if len(files) > 60 else ["only %d files in %s" % (len(files), TOP)]
    good &= report(number, few, "the files were looked at")

    number += 1
    still = [name for name in names
             if os.sep not in name and has_shebang(os.path.join(TOP, name))
             and not os.access(os.path.join(TOP, name), os.X_OK)]
    good &= report(number, [n + ": not executable" for n in still],
                   "scripts at the top can be run")

    number += 1
    sources = [name for name in names if name.endswith((".c", ".h"))]
    found, skip = clang_format(sources)
    good &= report(number, found, "clang-format has nothing to change", skip)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
