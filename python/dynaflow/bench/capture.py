"""Figure `capture`: time from compile to first step, against torch.compile's `aot_eager`."""

from __future__ import annotations

import time

from dynaflow.bench import engine
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.net import Loopback
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import Record, figure, timing
from dynaflow.bench.stats import quartiles, ratio
from dynaflow.bench.ui import Display, milliseconds, times
from dynaflow.bench.workload import FULL, LlamaShape, build_model, fixed_batch

BASELINE = "aot_eager"
SIZE = (4, 16)
ROUNDS = 5
TARGET = "dynaflow.bench.capture:measure"


def measure(context: RankContext, shape: LlamaShape, size: tuple[int, int], arm: str) -> float:
    """On one rank of a fresh process: seconds from the compile call to the first result.

    What both arms would import on the way is imported before, so as not to dilute the ratio.
    """
    import torch
    import torch._dynamo
    import torch._functorch.aot_autograd
    from torch._dynamo.backends.common import aot_autograd  # noqa: F401

    model = build_model(shape, context.world)
    inputs = fixed_batch(*size, shape.vocabulary).inputs()
    if arm != BASELINE:
        import dynaflow  # noqa: F401
    with torch.no_grad():
        model(**inputs)
        context.meeting.barrier()
        start = time.perf_counter()
        _compile(model, arm, inputs)(**inputs)
        seconds = time.perf_counter() - start
    return max(context.meeting.gather(seconds))


def _compile(model, arm: str, inputs):
    import torch

    if arm != BASELINE:
        return engine.compile_arm(model, arm)
    for tensor in (inputs["input_ids"], inputs["attention_mask"]):
        for dim in range(2):
            torch._dynamo.mark_dynamic(tensor, dim)
    return torch.compile(model, backend=BASELINE)


def run(
    show: Display,
    shape: LlamaShape = FULL,
    worlds: tuple[int, ...] = (1, 2),
    rounds: int = ROUNDS,
    target: str = TARGET,
) -> list[Record]:
    """Measures in fresh processes, arms in turn, and shows a table; the records."""
    found, rows = [], []
    for world in worlds:
        seconds = _rounds(show, world, shape, rounds, target)
        for arm in (engine.SEQUENTIAL, engine.NANOFLOW):
            cost = ratio(seconds[arm], seconds[BASELINE])  # this figure is a cost: ours over theirs
            own = quartiles(seconds[arm])
            found.append(timing(f"capture/TP={world} {arm}", own))
            found.append(figure(f"capture/TP={world} {arm} cost", cost, "x", BASELINE))
            theirs = milliseconds(quartiles(seconds[BASELINE]))
            rows.append([f"TP={world} {arm}", theirs, milliseconds(own), times(cost)])
    show.finish()
    columns = ("", f"{BASELINE} ms", "dynaflow ms", "cost [95 %]")
    show.table("compile to first step, fresh process", columns, rows)
    return found


def _rounds(show: Display, world: int, shape, rounds: int, target: str) -> dict[str, list[float]]:
    arms = [BASELINE, engine.SEQUENTIAL, engine.NANOFLOW]
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for index in range(rounds):
        turn = index % len(arms)
        for arm in arms[turn:] + arms[:turn]:
            show.progress(f"TP={world}: round {index + 1} of {rounds}, {arm}")
            kwargs = dict(shape=shape, size=SIZE, arm=arm)
            seconds[arm].append(run_ranks(target, link=Loopback(), world=world, kwargs=kwargs)[0])
    return seconds
