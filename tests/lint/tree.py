"""What the lint scripts share: walking the tree, reporting problems."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SKIP = {".git", ".venv", "build", "dist", "__pycache__", ".hypothesis", ".cache"}


def files(root: Path, folders: tuple[str, ...], suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files with one of the suffixes under root's folders ("." is root's own files)."""
    for folder in folders:
        found = root.iterdir() if folder == "." else (root / folder).rglob("*")
        for path in sorted(found):
            parts = path.relative_to(root).parts
            if path.is_file() and path.suffix in suffixes and not SKIP.intersection(parts):
                yield path


def main(check: Callable[[Path], list[str]]) -> int:
    """Run a check on the tree given as argument (default: this one); 1 if it found anything."""
    here = Path(__file__).resolve().parents[2]
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else here
    problems = check(root)
    for problem in problems:
        print(problem)
    name = Path(sys.argv[0]).stem
    print(f"{name}: {len(problems)} problem(s)" if problems else f"{name}: clean")
    return 1 if problems else 0
