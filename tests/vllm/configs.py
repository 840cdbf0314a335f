"""Makes configurations of vLLM and writes, as JSON, the compiler of each and what DynaFlow said.

The first argument is a JSON object: a name for each configuration, with its engine's arguments; the
second is the file to write.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(wanted: dict[str, dict[str, Any]], out: Path) -> None:
    from vllm.engine.arg_utils import EngineArgs

    found = {}
    for name, arguments in wanted.items():
        said = Lines()
        logging.getLogger("vllm").addHandler(said)
        config = EngineArgs(**arguments).create_engine_config()
        logging.getLogger("vllm").removeHandler(said)
        lines = [line for line in said.lines if "DynaFlow" in line]
        found[name] = [config.compilation_config.backend, lines]
    out.write_text(json.dumps(found), encoding="utf-8")


main(json.loads(sys.argv[1]), Path(sys.argv[2]))
