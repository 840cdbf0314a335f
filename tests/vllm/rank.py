"""One rank of a job: generates tokens and writes them, and what DynaFlow reports, as JSON.

The job is the JSON object in the first argument; the second is the file to write.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any


def prompts(count: int, longest: int) -> list[dict[str, list[int]]]:
    """Some begin alike, so that a cache of prefixes has something to find."""
    source = random.Random(0)
    common = [source.randrange(2048) for _ in range(longest // 2)]
    made = []
    for number in range(count):
        own = [source.randrange(2048) for _ in range(source.randint(3, longest // 2))]
        made.append({"prompt_token_ids": common + own if number % 3 == 0 else own})
    return made


def enter_wrong_parts() -> None:
    """For the control: each part is given the state of another."""
    from dynaflow.integrations.vllm import ForwardContext

    right = ForwardContext.prepare

    def wrong(self: Any, batch: int, cuts: Any) -> list[Any]:
        return list(reversed(right(self, batch, cuts)))

    ForwardContext.prepare = wrong


def keep_graphs() -> list[Any]:
    """The graphs that DynaFlow compiles from now on."""
    from dynaflow.plans import CompiledGraph

    made: list[Any] = []
    begin = CompiledGraph.__init__

    def init(self: Any, *args: Any) -> None:
        made.append(self)
        begin(self, *args)

    CompiledGraph.__init__ = init
    return made


def reported(graphs: list[Any]) -> list[dict[str, Any]]:
    from dynaflow.report import _plan

    return [
        {"fallbacks": graph._session.fallbacks, "plans": [_plan(p) for p in graph.every_plan()]}
        for graph in graphs
    ]


def main(job: dict[str, Any], out: Path) -> None:
    from vllm import LLM, SamplingParams

    graphs = keep_graphs()
    if job.get("wrong"):
        enter_wrong_parts()
    llm = LLM(
        seed=0,
        dtype="float32",
        skip_tokenizer_init=True,
        distributed_executor_backend="external_launcher",
        **job["engine"],
    )
    asked = SamplingParams(
        temperature=0, max_tokens=job["tokens"], ignore_eos=True, detokenize=False
    )
    done = llm.generate(prompts(job["count"], job["longest"]), asked, use_tqdm=False)
    tokens = [list(result.outputs[0].token_ids) for result in done]
    results = {"tokens": tokens, "reports": reported(graphs)}
    out.write_text(json.dumps(results), encoding="utf-8")


main(json.loads(sys.argv[1]), Path(sys.argv[2]))
