"""Fails on files above 400 lines and functions above 50."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import tree

FILE_LINES = 400
FUNCTION_LINES = 50
FOLDERS = ("include", "src", "cli", "python", "tests", "benchmarks", "examples", "tools")

# Comments, strings and preprocessor lines, which may hold braces that mean nothing.
NOISE = re.compile(
    r'R"([^()\s\\]{0,16})\(.*?\)\1"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'"
    r"|//[^\n]*|/\*.*?\*/"
    r"|^[ \t]*#(?:\\\n|[^\n])*",
    re.DOTALL | re.MULTILINE,
)
CONTAINER = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
NAME = re.compile(r"([~\w:]+|operator\s*\S+)\s*\(")
INITIALISER = re.compile(r"\)[^:;{}]*:(?!:).*[\w>]$", re.DOTALL)  # A() : a_{1}


def blank(match: re.Match[str]) -> str:
    """The same number of lines, with nothing in them; a string stays a string."""
    quote = '""' if match[0][0] in "R\"'" else ""
    return quote + "\n" * match[0].count("\n")


def brace_kind(head: str) -> str:
    """What a brace outside of functions opens, by the text before it."""
    text = head.strip()
    if INITIALISER.search(head) or text.endswith(("=", ",", "(")):
        return "value"
    if CONTAINER.search(re.sub(r"\([^()]*\)|<[^<>]*>", "", text)) and not text.endswith(")"):
        return "container"
    if "(" in text and "=" not in re.sub(r"operator\s*\S+|\([^()]*\)|[=!<>]=", "", text):
        return "function"
    return "container" if not text else "value"


def cpp_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of each C++ function: by its braces, not by a parser."""
    text = NOISE.sub(blank, source)
    stack: list[tuple[str, str, int]] = []  # kind, name, first line
    head, first, line = "", 1, 1
    for char in text:
        inside = any(kind in ("function", "value") for kind, _, _ in stack)
        if char == "\n":
            line += 1
        if char == "{":
            kind = "block" if inside else brace_kind(head)
            name = NAME.search(head)
            stack.append((kind, name[1] if name else "?", first))
            if kind in ("function", "container"):
                head = ""
        elif char == "}" and stack:
            kind, name, start = stack.pop()
            if kind == "function":
                yield name, start, line
            if kind in ("function", "container"):
                head = ""
        elif not inside and char == ";":
            head = ""
        elif not inside:
            if not head.strip():
                first = line
            head = head + char if head or not char.isspace() else ""


def python_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of each Python function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, node.end_lineno or node.lineno


def check(root: Path) -> list[str]:
    """All complaints about a tree."""
    problems = []
    for path in tree.files(root, FOLDERS, (".h", ".cc", ".py")):
        place, source = path.relative_to(root).as_posix(), path.read_text()
        lines = len(source.splitlines())
        if lines > FILE_LINES:
            problems.append(f"{place}:{lines}: {lines} lines, at most {FILE_LINES} are allowed")
        functions = python_functions if path.suffix == ".py" else cpp_functions
        for name, start, end in functions(source):
            length = end - start + 1
            if length > FUNCTION_LINES:
                limit = f"at most {FUNCTION_LINES} are allowed"
                problems.append(f"{place}:{start}: function {name} has {length} lines, {limit}")
    return problems


if __name__ == "__main__":
    sys.exit(tree.main(check))
