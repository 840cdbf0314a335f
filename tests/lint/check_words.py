"""Fails on left-over notes, paths of one machine, and headers that leak or lack a guard."""

import re
import sys
from pathlib import Path

import tree

NOTES = re.compile(r"\b(TODO|FIXME|XXX)\b")
MACHINE = re.compile(r"(?<![\w.~$}-])/(?:work|root|home|Users|opt)/\w")
USING = re.compile(r"^\s*using\s+namespace\b")

NOTED = ("include/", "src/", "python/")
FOLDERS = (".", "include", "src", "python", "cli", "cmake", "tests", "tools", "docs", "examples")
FOLDERS += ("benchmarks", ".ci", ".github")
TEXT = (".h", ".cc", ".py", ".md", ".toml", ".txt", ".cmake", ".sh", ".json", ".yml", ".yaml")
TEXT += (".case", ".html", "")
PLANTED = "tests/lint/test_lints.py"


def check_file(place: str, text: str) -> list[str]:
    """All complaints about one file."""
    header = place.endswith(".h")
    noted = place.startswith(NOTED) and place.endswith((".h", ".cc", ".py"))
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        note = noted and NOTES.search(line)
        if note:
            problems.append(f"{place}:{number}: {note[1]} left in the source")
        if MACHINE.search(line):
            problems.append(f"{place}:{number}: a path of one machine")
        if header and USING.match(line):
            problems.append(f"{place}:{number}: `using namespace` in a header")
    if header and not re.search(r"^#pragma once$", text, re.MULTILINE):
        problems.append(f"{place}:1: the header has no `#pragma once`")
    return problems


def check(root: Path) -> list[str]:
    """All complaints about a tree."""
    problems = []
    for path in tree.files(root, FOLDERS, TEXT):
        place = path.relative_to(root).as_posix()
        if place != PLANTED:
            problems += check_file(place, path.read_text(errors="replace"))
    return problems


if __name__ == "__main__":
    sys.exit(tree.main(check))
