"""Figure `memory`: the most bytes that a step holds beside parameters, inputs and outputs.

Each batch is the largest of its bucket, for which the plans are packed: requests from traces,
padded to one rectangle. NanoFlow runs it in two parts: cut even, and at the border between requests
that comes closest to half of the tokens.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from dynaflow.bench import engine
from dynaflow.bench.experiment import Experiment
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.net import Loopback
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import Record
from dynaflow.bench.ui import Display
from dynaflow.bench.workload import Batch, LlamaShape, fixed_batch, trace_batch

TARGET = "dynaflow.bench.memory:measure"
#: The demo's model with two layers: more of them would hold no more at once.
SHAPE = LlamaShape(layers=2)
AT_BORDER = "nanoflow, cut at a request"
ARMS = (engine.EAGER, engine.SEQUENTIAL, engine.NANOFLOW, AT_BORDER)
#: Trace, requests, and the length to which they are cut; None: (8, 128) tokens.
CASES = (None, ("lmsys", 16, 128), ("sharegpt", 16, 256), ("splitwise", 8, 512))


@dataclass(frozen=True)
class Peaks:
    """The most bytes in use on one rank, by arm."""

    batch: Batch
    by_arm: dict[str, int]


def border(lengths: tuple[int, ...]) -> int:
    """How many requests the first part has when both have as nearly half the tokens as can be."""
    sums = [sum(lengths[:rows]) for rows in range(1, len(lengths))]
    return 1 + min(range(len(sums)), key=lambda at: abs(2 * sums[at] - sum(lengths)))


def measure(context: RankContext, shape: LlamaShape, case: tuple | None) -> Peaks:
    """On one rank: the peaks of a case."""
    sized = fixed_batch(8, 128, shape.vocabulary)
    batch = sized if case is None else trace_batch(*case, shape.vocabulary)
    context.progress(f"TP={context.world}: {batch.name}")
    lab = Experiment(context, shape, shaped=False)
    lab.build()
    lab.capture((engine.EAGER, engine.SEQUENTIAL, engine.NANOFLOW), batch)
    rows = border(batch.lengths)
    fractions = [rows / len(batch.lengths), 1 - rows / len(batch.lengths)]
    lab.arms[AT_BORDER] = engine.cut_arm(lab.arms[engine.SEQUENTIAL], fractions)
    inputs = batch.inputs()
    peaks = {
        name: engine.peak_bytes(lab.arms[name], lambda name=name: lab.run(name, inputs))
        for name in ARMS
    }
    return Peaks(batch, peaks)


def run(
    show: Display,
    shape: LlamaShape = SHAPE,
    worlds: tuple[int, ...] = (1, 2),
    cases: tuple = CASES,
    target: str = TARGET,
) -> list[Record]:
    """Measures every case and shows a table; the records."""
    found, rows = [], []
    for world, case in itertools.product(worlds, cases):
        peaks: Peaks = run_ranks(
            target,
            link=Loopback(),
            world=world,
            kwargs=dict(shape=shape, case=case),
            services={"progress": show.progress},
            timeout_s=3600,
        )[0]
        found += _records(f"memory/TP={world} {peaks.batch.name}", peaks.by_arm)
        rows.append([f"TP={world} {peaks.batch.name}", *_row(peaks.by_arm)])
    show.finish()
    columns = ("", "eager MiB", "sequential MiB", "over eager", "nanoflow over sequential",
               "cut at a request over sequential")  # fmt: skip
    show.table("the most bytes that a step holds", columns, rows)
    return found


def _records(name: str, peaks: dict[str, int]) -> list[Record]:
    records = [Record(f"{name}/{arm}", peak / 2**20, "MiB") for arm, peak in peaks.items()]
    for arm, baseline in ((engine.SEQUENTIAL, engine.EAGER), (engine.NANOFLOW, engine.SEQUENTIAL),
                          (AT_BORDER, engine.SEQUENTIAL)):  # fmt: skip
        share = peaks[arm] / peaks[baseline]
        records.append(Record(f"{name}/{arm} over {baseline}", share, "x", None, baseline))
    return records


def _row(peaks: dict[str, int]) -> list[str]:
    sequential = peaks[engine.SEQUENTIAL]
    return [
        f"{peaks[engine.EAGER] / 2**20:.1f}",
        f"{sequential / 2**20:.1f}",
        f"{sequential / peaks[engine.EAGER]:.3f}x",
        f"{peaks[engine.NANOFLOW] / sequential:.3f}x",
        f"{peaks[AT_BORDER] / sequential:.3f}x",
    ]
