"""One rank of a job: generates tokens and writes them, and what DynaFlow reports, as JSON.

The job is a JSON object in the first argument's file; the second is the file to write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def enter_wrong_parts() -> None:
    """For the control: each part is given the state of another."""
    from dynaflow.integrations.vllm import ForwardContext

    right = ForwardContext.prepare

    def wrong(self: Any, batch: int, cuts: Any) -> list[Any]:
        return list(reversed(right(self, batch, cuts)))

    ForwardContext.prepare = wrong


def first_logits(result: Any) -> list[float]:
    """Log-probabilities of all tokens at the first place, by token."""
    (found, *_) = result.outputs[0].logprobs
    return [found[token].logprob for token in range(len(found))]


def main(job: dict[str, Any], out: Path) -> None:
    from vllm import LLM, SamplingParams

    if job["wrong"]:
        enter_wrong_parts()
    llm = LLM(
        seed=0,
        skip_tokenizer_init=True,
        distributed_executor_backend="external_launcher",
        max_logprobs=-1,
        **job["engine"],
    )
    asked = SamplingParams(
        temperature=0,
        max_tokens=job["tokens"],
        ignore_eos=True,
        detokenize=False,
        logprobs=-1 if job["logits"] else None,
    )
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
    done = llm.generate(prompts, asked, use_tqdm=False)
    import dynaflow as df  # only now: an engine without it must not know of it

    results = {
        "tokens": [list(result.outputs[0].token_ids) for result in done],
        "logits": [first_logits(result) for result in done] if job["logits"] else [],
        "reports": [report.to_json() for report in df.reports()],
    }
    out.write_text(json.dumps(results), encoding="utf-8")


main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
