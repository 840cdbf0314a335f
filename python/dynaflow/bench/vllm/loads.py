"""What the servers are asked: requests that arrive together."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dynaflow.bench.bounds import Collective
from dynaflow.bench.workload import LlamaShape, request_lengths


@dataclass(frozen=True)
class Load:
    """Requests by their prompts' and their outputs' lengths, in tokens."""

    name: str
    prompts: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return sum(self.prompts) + sum(self.outputs)

    def prompt_ids(self, vocabulary: int, seed: int) -> list[list[int]]:
        """Prompts drawn with `seed`; no two begin alike, so that no cache of prefixes helps."""
        source = random.Random(seed)
        return [[source.randrange(vocabulary) for _ in range(length)] for length in self.prompts]


#: One step of 2,048 tokens, and one of 1,200.
PREFILL = Load("prefill of 8 x 256", (256,) * 8, (1,) * 8)
LESS = Load("prefill of 6 x 200", (200,) * 6, (1,) * 6)
#: Steps that are too small to split, or hardly large enough.
SMALL = Load("8 x 16, 16 out", (16,) * 8, (16,) * 8)


def trace_load(trace: str, requests: int, longest: int, most_out: int) -> Load:
    """The first requests of a trace, prompts and outputs cut to at most so many tokens."""
    lengths = request_lengths(trace)[:requests]
    return Load(
        f"{trace}, {requests} requests",
        tuple(min(prompt, longest) for prompt, _ in lengths),
        tuple(min(output, most_out) for _, output in lengths),
    )


def step_collectives(shape: LlamaShape, tokens: int) -> list[Collective]:
    """Those of a step in float32: after the embedding, each attention and each MLP."""
    return [Collective("all_reduce", tokens * shape.hidden * 4)] * (2 * shape.layers + 1)
