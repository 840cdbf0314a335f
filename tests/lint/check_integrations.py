"""Fails where the integration with a host system grows, or assigns to what is the host's.

Prints how many lines each integration has: every file of the package that imports or
names the host, benchmarks apart.
"""

import ast
import sys
from pathlib import Path

import tree

# The most lines that may know of a host.
HOSTS = {"vllm": 200}


def bound_names(module: ast.Module, host: str) -> set[str]:
    """Names that imports bind to the host's modules, classes and functions."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {
                (alias.asname or alias.name).split(".")[0]
                for alias in node.names
                if alias.name.split(".")[0] == host
            }
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == host:
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def root_name(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def assignments(module: ast.Module, names: set[str]) -> list[int]:
    """Lines that assign to or delete a part of something in `names`, or call setattr on it."""
    found = []
    for node in ast.walk(module):
        targets = []
        if isinstance(node, (ast.Assign, ast.Delete)):
            targets = node.targets
        if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
            targets = [ast.Attribute(value=node.args[0], attr="")]
        found += [
            node.lineno
            for target in targets
            if isinstance(target, (ast.Attribute, ast.Subscript)) and root_name(target) in names
        ]
    return found


def check(root: Path) -> list[str]:
    """All complaints about a tree."""
    found = []
    for host, most in HOSTS.items():
        lines = 0
        for path in sorted((root / "python" / "dynaflow").rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if host not in text.lower() or "bench" in path.parts:
                continue
            lines += len(text.splitlines())
            module = ast.parse(text)
            found += [
                f"{path.relative_to(root)}:{line}: assigns to what is {host}'s"
                for line in assignments(module, bound_names(module, host))
            ]
        print(f"{host}: {lines} lines of at most {most}")
        if lines > most:
            found.append(f"the integration of {host} has {lines} lines, at most {most} are allowed")
    return found


if __name__ == "__main__":
    sys.exit(tree.main(check))
