"""Figure `host-cost`: what a step costs the host.

Measured here: a step whose batch and part sizes change, against fixed ones. Then engines on empty
kernels (empty_kernels.py), and a Llama on tiny tensors (small_llama.py).

Host time is the calling thread's processor time from the call to its return, less the time inside
kernels, which a traced run of the same sizes gives. A part's tensors hold about 16 elements, so
that kernels do next to nothing.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass

from dynaflow.bench import empty_kernels, engine, small_llama
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.net import Loopback
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import Record, figure
from dynaflow.bench.stats import Rounds, Samples, Summary, interleave, quartiles, ratio
from dynaflow.bench.ui import Display, times

FIXED_ROWS = (8,)
#: Rows of successive steps: they average FIXED_ROWS, no two neighbours are equal, and each is
#: enough for two parts.
CHANGING_ROWS = (8, 4, 12, 6, 10, 9, 11, 4)
FEATURES = 4
LAYERS = 16
CALLS = 200
ROUNDS = Rounds(least=31, most=31, warmup=3)
TARGET = "dynaflow.bench.host_cost:measure"
FIXED, CHANGING = "fixed sizes", "changing sizes"


@dataclass
class HostCost:
    """Thread and kernel time of a call, in seconds by arm; (graphs, plans) before and after."""

    samples: Samples
    kernels_s: dict[str, float]
    plans: tuple[tuple[int, int], tuple[int, int]]

    def host(self, arm: str) -> list[float]:
        """Host time of a call in seconds, one for each round."""
        return [seconds / CALLS - self.kernels_s[arm] for seconds in self.samples.times[arm]]


def build_layers():
    """A chain of small linear layers with residuals."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(FEATURES, FEATURES, bias=False)

        def forward(self, hidden):
            return hidden + nn.functional.silu(self.up(hidden))

    torch.manual_seed(0)
    return nn.Sequential(*(Layer() for _ in range(LAYERS))).eval()


def compile_split(model):
    """`model` under a strategy that cuts it at every linear layer and splits the batch in two."""
    import dynaflow as df

    class Halves(df.Strategy):
        def partition(self):
            return [df.SplitFunc("mm", tag="linear")]

        def schedule(self, s, batch):
            s.split(2)
            while ops := s.get_ready_ops():
                for op in ops:
                    s.execute(op, stream="compute")

    return df.compile(model, strategy=Halves(), dynamic_dims=(0,))


def measure(context: RankContext, rounds: Rounds) -> HostCost:
    """On one rank: host cost of both arms."""
    import torch

    compiled = compile_split(build_layers())
    tensors = {rows: torch.randn(rows, FEATURES) for rows in sorted({*FIXED_ROWS, *CHANGING_ROWS})}
    arms = {FIXED: FIXED_ROWS, CHANGING: CHANGING_ROWS}
    with torch.no_grad():
        for tensor in tensors.values():
            compiled(tensor)
        before = engine.plan_count(engine.report(compiled))
        calls = {name: _calls(compiled, [tensors[rows] for rows in arms[name]]) for name in arms}
        samples = interleave(calls, rounds, context.meeting, clock=time.thread_time)
        kernels = {
            name: statistics.mean(_kernel_seconds(compiled, tensors[rows]) for rows in arms[name])
            for name in arms
        }
    after = engine.plan_count(engine.report(compiled))
    return HostCost(samples, kernels, (before, after))


def _calls(compiled, inputs: list):
    def run() -> None:
        for tensor in itertools.islice(itertools.cycle(inputs), CALLS):
            compiled(tensor)

    return run


def _kernel_seconds(compiled, tensor, repeats: int = 15) -> float:
    """Median over traced runs of the time inside kernels of one call."""
    totals = []
    for _ in range(repeats):
        events = engine.traced(compiled, lambda: compiled(tensor))
        totals.append(sum(event["end_us"] - event["start_us"] for event in events) * 1e-6)
    return statistics.median(totals)


def run(show: Display) -> list[Record]:
    """Measures and shows tables; the records. Raises if a size made a new graph or plan."""
    return [*changing_sizes(show), *empty_kernels.run(show), *small_llama.run(show)]


def changing_sizes(show: Display, rounds: Rounds = ROUNDS, target: str = TARGET) -> list[Record]:
    """The first part."""
    show.progress("measuring the host time of a step")
    found: HostCost = run_ranks(target, link=Loopback(), world=1, kwargs=dict(rounds=rounds))[0]
    show.finish()
    before, after = found.plans
    if before != after:
        raise RuntimeError(f"sizes made new (graphs, plans): {before} before, {after} after")
    cost = ratio(found.host(CHANGING), found.host(FIXED))  # a cost: changing over fixed
    records, rows = [], []
    for arm in (FIXED, CHANGING):
        own = quartiles(found.host(arm)).scaled(1e6)
        records.append(figure(f"host-cost/{arm}", own, "us"))
        rows.append([arm, _microseconds(own), f"{found.kernels_s[arm] * 1e6:.1f}"])
    records.append(figure("host-cost/changing over fixed", cost, "x", FIXED))
    columns = ("", "host us a step [quartiles]", "kernel us")
    show.table(f"host time, {LAYERS} layers, two parts, {CALLS} steps a round", columns, rows)
    show.say(
        f"changing over fixed: {times(cost)}; graphs and plans: {after}, none made while timing"
    )
    return records


def _microseconds(summary: Summary) -> str:
    return f"{summary.median:.1f} [{summary.low:.1f}, {summary.high:.1f}]"
