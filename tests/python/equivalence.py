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
from zoo import Family, logits

import dynaflow as df
from dynaflow import _core, debug
from dynaflow.bench.numerics import SEEDS, TOLERATED, float64_reference, relative_rms
from dynaflow.bench.workload import LlamaShape, build_model, fixed_batch
from dynaflow.plan import Plan
from dynaflow.plans import CompiledGraph

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
DRAWS = range(4)  # of inputs: poison may be what belongs there, as in a mask that is all true


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


def _tokens_of_some_length(source: random.Random, rows: int) -> dict[str, Any]:
    return tokens(source, rows, source.randrange(5, 10))


LLAMA = Family(
    "llama", lambda: build_model(SHAPE), _tokens_of_some_length, logits, "LlamaAttention"
)


def expected_parts(asked: int, rows: int, least: int) -> int:
    """A part has its least rows; batch 1 has a graph of its own, which cannot be split."""
    return max(1, min(asked, rows // least))


def last_parts(compiled: Any, rows: int) -> list[int]:
    """The rows of each part in the last step with that batch, by the report."""
    graphs = df.report(compiled).graphs
    for graph in graphs:
        if sum(graph["last_parts"]) == rows:
            return graph["last_parts"]
    assert any(not graph["batch_symbol"] for graph in graphs), f"no graph for {rows} rows"
    return [rows]


def delays(source: random.Random) -> Callable[[int], list[int]]:
    """A sleep before one run in sixteen, of up to half a millisecond."""
    return lambda runs: [
        source.randrange(500) if source.randrange(16) == 0 else 0 for _ in range(runs)
    ]


def serial_and_overlapped(
    compiled: Any, arguments: dict[str, Any], late: Callable[[int], list[int]], family: Family
) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of two runs of the same plan over poisoned memory."""
    with debug.run_mode(compiled, serial=True, poison=True):
        serial = family.output(compiled(**arguments))
    with debug.run_mode(compiled, poison=True, delays_us=late):
        return serial, family.output(compiled(**arguments))


def check_every_batch(
    compiled: Any,
    asked: int,
    seed: int,
    rank: int = 0,
    family: Family = LLAMA,
    sizes: int = len(BATCHES),
) -> None:
    """Overlapped and serial runs give the same bits at every batch size, or at `sizes` of them, in
    the right parts.
    """
    kept: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=3)
    source, late = random.Random(seed), delays(random.Random(seed + 1 + rank))
    for rows in source.sample(BATCHES, sizes):
        where = f"{family.name}, {asked} parts, batch {rows}, seed {seed}"
        arguments = family.inputs(source, rows)
        first = family.output(compiled(**family.inputs(source, rows)))  # makes a plan where needed
        serial, overlapped = serial_and_overlapped(compiled, arguments, late, family)
        kept.append((overlapped, overlapped.clone()))
        assert overlapped.isfinite().all(), where
        assert serial.equal(overlapped), where
        assert not torch.equal(first, overlapped), f"the inputs were not fresh: {where}"
        assert all(result.equal(copy) for result, copy in kept), f"earlier outputs changed: {where}"
        parts, least = last_parts(compiled, rows), family.least(rows)
        assert len(parts) == expected_parts(asked, rows, least), (parts, where)
        assert sum(parts) == rows and min(parts) >= min(rows, least), (parts, where)


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


def check_error(
    reference: Callable[..., Any], eager: Any, ours: Any, inputs: Any, family: Family = LLAMA
) -> None:
    """The relative RMS error of `ours` against `reference`, over some inputs, is at most twice that
    of `eager`.
    """
    squares = {"eager": 0.0, "ours": 0.0}
    for arguments in inputs:
        exact = family.output(reference(**arguments))
        squares["eager"] += relative_rms(family.output(eager(**arguments)), exact) ** 2
        squares["ours"] += relative_rms(family.output(ours(**arguments)), exact) ** 2
    ratio = math.sqrt(squares["ours"] / squares["eager"])
    print(f"{family.name}: {ratio:.3f} of eager's error", flush=True)
    assert ratio <= TOLERATED, ratio


def check_errors(model: Any, compiled: Any) -> None:
    """Errors at five sizes, each over five seeds."""
    reference = float64_reference(SHAPE)
    for size in SIZES:
        batch = fixed_batch(*size, SHAPE.vocabulary)
        check_error(reference, model, compiled, map(batch.inputs, SEEDS))


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


class Lanes(df.Strategy):
    """Each part on a stream of its own, cut at some modules: overlap without a network."""

    def __init__(self, parts: int, cut: str = LLAMA.cut) -> None:
        self.parts = parts
        self.cut = cut

    def partition(self):
        return [df.SplitModule(self.cut)]

    def schedule(self, s, batch):
        s.split(self.parts)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op, stream="compute" if op.part == 0 else f"side{op.part}")


def _without(
    compiled: Any, graph: CompiledGraph, plan: Plan, text: str, late: int, call: Callable[[], Any]
) -> torch.Tensor | None:
    """The output of a step that runs `text` while one run is late; None when the step fails."""
    whole, plan.engine = plan.engine, debug.engine_for(compiled, graph, text)
    lateness = [LATE_US * (run == late) for run in range(len(plan.plan.runs))]
    try:
        with debug.run_mode(compiled, poison=True, delays_us=lambda _: lateness):
            return call()
    except df.ExecutionError:
        return None
    finally:
        plan.engine = whole


def _is_caught(
    compiled: Any,
    graph: CompiledGraph,
    plan: Plan,
    without_it: str,
    late: int,
    source: random.Random,
    family: Family,
) -> bool:
    """Whether a plan without a wait fails or gives other results on one draw of inputs, on which
    the whole plan gives the same.
    """
    arguments = family.inputs(source, 8)

    def call():
        return family.output(compiled(**arguments))

    with debug.run_mode(compiled, serial=True, poison=True):
        serial = call()
    broken = _without(compiled, graph, plan, without_it, late, call)
    assert serial.equal(_without(compiled, graph, plan, plan.plan.text, late, call))
    return broken is None or not serial.equal(broken)


def check_control(compiled: Any, parts: int, seed: int, family: Family = LLAMA) -> int:
    """Without any one of its waits a plan fails or gives other results, and the verifier objects to
    it. Returns how many it has.
    """
    source = random.Random(seed)
    compiled(**family.inputs(source, 8))
    graph, plan = plan_of(compiled, parts)
    uncaught, waits = [], list(waits_of(plan.plan.text))
    for without_it, late in waits:
        assert _core.verify(_core.parse_plan(without_it)), plan.plan.runs[late]["name"]
        if family.fragile:
            continue
        if not any(
            _is_caught(compiled, graph, plan, without_it, late, source, family) for _ in DRAWS
        ):
            uncaught.append(plan.plan.runs[late]["name"])
    assert uncaught == [], (family.name, seed)
    return len(waits)
