"""What the equivalence tests share: inputs, delays, and two ways to run a plan."""

from __future__ import annotations

import math
import os
import random
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

import dynaflow as df
from dynaflow import debug
from dynaflow.bench.numerics import SEEDS, TOLERATED, float64_reference, relative_rms
from dynaflow.bench.workload import LlamaShape, fixed_batch
from dynaflow.plans import CompiledGraph, Plan

SHAPE = LlamaShape(hidden=64, intermediate=128, layers=2, heads=4, kv_heads=2, vocabulary=256)

#: Forced splits: parts, and fractions of the batch where the cut is uneven.
CUTS: tuple[tuple[int, tuple[float, ...] | None], ...] = (
    (2, None),
    (3, None),
    (4, None),
    (2, (0.7, 0.3)),
    (3, (0.2, 0.5, 0.3)),
    (4, (0.1, 0.4, 0.2, 0.3)),
)
BATCHES = range(1, 34)
#: Where errors are measured: rows and columns.
SIZES = ((1, 8), (2, 8), (4, 16), (8, 32), (33, 8))
#: How late a run is that nobody waits for. What reads its results comes to them far sooner.
LATE_US = 200_000


def forced(parts: int, fractions: tuple[float, ...] | None = None) -> df.NanoFlow:
    """NanoFlow that splits every batch it can."""
    return df.NanoFlow(parts=parts, min_tokens=0, fractions=fractions)


def fresh_seed() -> int:
    """Another seed in every run, printed with a failure; DYNAFLOW_TEST_SEED repeats one."""
    seed = int(os.environ.get("DYNAFLOW_TEST_SEED", random.SystemRandom().randrange(1 << 31)))
    print(f"DYNAFLOW_TEST_SEED={seed}")
    return seed


def tokens(source: random.Random, rows: int, columns: int, **more: Any) -> dict[str, Any]:
    """The model's arguments: token ids, and a mask that pads some rows on the left."""
    generator = torch.Generator().manual_seed(source.randrange(1 << 31))
    ids = torch.randint(0, SHAPE.vocabulary, (rows, columns), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : source.choice((0, 0, 1, columns // 2))] = 0
    return dict(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1) | more


def expected_parts(asked: int, rows: int) -> int:
    """A part has two rows at least; batch 1 has a graph of its own, which cannot be split."""
    return max(1, min(asked, rows // 2))


def last_parts(compiled: Any, rows: int) -> list[int]:
    """The rows of each part in the last step with that batch, by the report."""
    for graph in df.report(compiled).graphs:
        if bool(graph["batch_symbol"]) == (rows > 1):
            return graph["last_parts"] or [rows] * graph["plans"][0]["parts"]
    raise AssertionError(f"no graph for {rows} rows")


def delays(source: random.Random) -> Callable[[int], list[int]]:
    """A sleep before one run in sixteen, of up to half a millisecond."""
    return lambda runs: [
        source.randrange(500) if source.randrange(16) == 0 else 0 for _ in range(runs)
    ]


def serial_and_overlapped(
    compiled: Any, arguments: dict[str, Any], late: Callable[[int], list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of two runs of the same plan over poisoned memory."""
    with debug.run_mode(compiled, serial=True, poison=True):
        serial = compiled(**arguments).logits
    with debug.run_mode(compiled, poison=True, delays_us=late):
        return serial, compiled(**arguments).logits


def check_every_batch(compiled: Any, asked: int, seed: int, rank: int, **more: Any) -> None:
    """Overlapped and serial runs give the same bits at every batch size, in the right parts."""
    kept: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=3)
    source, late = random.Random(seed), delays(random.Random(seed + 1 + rank))
    for rows in source.sample(BATCHES, len(BATCHES)):
        shape = (rows, source.randrange(5, 10))
        where = f"{asked} parts, batch {shape}, seed {seed}"
        first = compiled(**tokens(source, *shape, **more)).logits  # makes the plan where needed
        serial, overlapped = serial_and_overlapped(compiled, tokens(source, *shape, **more), late)
        kept.append((overlapped, overlapped.clone()))
        assert overlapped.isfinite().all(), where
        assert serial.equal(overlapped), where
        assert not first.equal(overlapped), f"the inputs were not fresh: {where}"
        assert all(result.equal(copy) for result, copy in kept), f"earlier outputs changed: {where}"
        parts = last_parts(compiled, rows)
        assert len(parts) == expected_parts(asked, rows) and sum(parts) == rows, (parts, where)
        assert min(parts) >= min(rows, 2), (parts, where)


def check_all_tokens(compiled: Any, seed: int) -> None:
    """Overlapped and serial runs give the same bits where every token's logits are wanted."""
    source = random.Random(seed)
    for rows in (2, 5, 8):
        arguments = tokens(source, rows, 8, logits_to_keep=0)
        overlapped = compiled(**arguments).logits
        assert overlapped.shape == (rows, 8, SHAPE.vocabulary)
        with debug.run_mode(compiled, serial=True, poison=True):
            assert compiled(**arguments).logits.equal(overlapped), (rows, seed)


def check_captured_once(compiled: Any, asked: int) -> None:
    """One dynamic graph and a static one for batch 1; a plan for each number of parts."""
    graphs = df.report(compiled).graphs
    assert sorted(bool(graph["batch_symbol"]) for graph in graphs) == [False, True]
    for graph in graphs:
        assert len(graph["plans"]) == (asked if graph["batch_symbol"] else 1)
        assert graph["original_runs"] == 0


def check_errors(model: Any, compiled: Any) -> None:
    """Relative RMS error against float64, over five seeds, is at most twice eager's own."""
    reference = float64_reference(SHAPE)
    for size in SIZES:
        squares = {"eager": 0.0, "ours": 0.0}
        for seed in SEEDS:
            arguments = fixed_batch(*size, SHAPE.vocabulary).inputs(seed)
            exact = reference(**arguments).logits
            squares["eager"] += relative_rms(model(**arguments).logits, exact) ** 2
            squares["ours"] += relative_rms(compiled(**arguments).logits, exact) ** 2
        ratio = math.sqrt(squares["ours"] / squares["eager"])
        print(f"batch {size}: {ratio:.3f} of eager's error", flush=True)
        assert ratio <= TOLERATED, (size, ratio)


def waits_of(plan_text: str) -> Iterator[tuple[str, int]]:
    """For each wait of a plan: the text without it, and the run whose end it waits for."""
    streams = list(re.finditer(r"^ *stream\((.*)\)$", plan_text, re.MULTILINE))
    recorded = {}
    for stream in streams:
        last = None
        for kind, number in re.findall(r"(launch|record)\((\d+)\)", stream[1]):
            if kind == "launch":
                last = int(number)
            else:
                recorded[number] = last
    for stream in streams:
        for wait in re.finditer(r"(wait\((\d+)\))(, )?", stream[1]):
            first, last = (stream.start(1) + end for end in wait.span())
            yield plan_text[:first] + plan_text[last:], recorded[wait[2]]


def plan_of(compiled: Any, parts: int) -> tuple[CompiledGraph, Plan]:
    """The plan with that many parts, and its graph."""
    return next(
        (graph, plan)
        for graph, plan in debug.plans(compiled)
        if graph.captured.batch.symbol and plan.plan.cut["parts"] == parts
    )
