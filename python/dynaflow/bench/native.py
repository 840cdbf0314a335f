"""The benchmarks in C++ (benchmarks/), which need neither torch nor Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

BUILD = Path(__file__).parents[3] / "build" / "release" / "benchmarks"


class NotBuiltError(RuntimeError):
    """A benchmark's program is not there."""


def run_program(name: str, *arguments: str | int | Path) -> list[dict[str, Any]]:
    """The JSON objects that a program printed, one a line. Raises NotBuiltError, and RuntimeError
    with its message when it fails.
    """
    program = BUILD / f"dynaflow_bench_{name}"
    if not program.exists():
        raise NotBuiltError(f"{program.name} is not built; run `make bench-programs`")
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return [json.loads(line) for line in done.stdout.splitlines()]
