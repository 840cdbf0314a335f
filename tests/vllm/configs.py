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


def main(wanted: dict[str, dict[str, Any]], out: Path) -> None:
    from vllm.engine.arg_utils import EngineArgs

    said: list[str] = []
    # A filter stays where vLLM, on its first configuration, takes handlers away.
    logging.getLogger("vllm.dynaflow").addFilter(
        lambda record: said.append(record.getMessage()) or True
    )
    found = {}
    for name, arguments in wanted.items():
        said.clear()
        config = EngineArgs(**arguments).create_engine_config()
        found[name] = [config.compilation_config.backend, list(said)]
    out.write_text(json.dumps(found), encoding="utf-8")


main(json.loads(sys.argv[1]), Path(sys.argv[2]))
