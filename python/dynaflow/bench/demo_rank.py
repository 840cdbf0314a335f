"""The demo as each rank runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynaflow.bench import engine, numerics
from dynaflow.bench.experiment import Comparison, Experiment
from dynaflow.bench.rank import RankContext
from dynaflow.bench.stats import Rounds
from dynaflow.bench.workload import Batch, LlamaShape

#: Arms of the demo, in the order of its table.
ARMS = (engine.EAGER, engine.SEQUENTIAL, engine.NANOFLOW, engine.COMPUTE)


@dataclass
class DemoResult:
    """What a rank brings back. Errors are relative RMS errors by arm; the report is NanoFlow's."""

    rate_bps: float | None
    comparisons: list[Comparison]
    errors: dict[str, float]
    error_batch: Batch
    report: dict[str, Any]
    plans_before: tuple[int, int]
    timeline: str | None
    first_step_s: dict[str, float] = field(default_factory=dict)


def main(
    context: RankContext,
    shape: LlamaShape,
    batches: list[Batch],
    shaped: bool,
    rounds: Rounds,
    folder: str | None,
) -> DemoResult:
    """Runs the demo on one rank. The first batch sets the link's rate; the last, which should be
    the smallest, is the one whose errors are taken. Timelines go to `folder`.
    """
    lab = Experiment(context, shape, shaped)
    context.progress("building the model", 0.02)
    lab.build()
    for index, arm in enumerate(ARMS):
        context.progress(f"first step: {arm}", 0.08 + 0.06 * index)
        lab.capture([arm], batches[0])
    compiled = lab.arms[engine.NANOFLOW]
    for batch in batches[1:]:  # plans of all sizes exist before anything is timed
        for arm in ARMS:
            lab.run(arm, batch.inputs())
    plans_before = engine.plan_count(engine.report(compiled))
    context.progress("choosing the link's rate", 0.32)
    rate = lab.choose_rate(batches[0])
    comparisons = []
    for index, batch in enumerate(batches):
        context.progress(f"measuring {batch.name} {batch.shape}", 0.36 + 0.4 * index / len(batches))
        comparisons.append(lab.compare(batch, rate, rounds))
    context.progress("recording a timeline", 0.78)
    timeline = _timeline(lab, batches[0], folder)
    report = engine.report(compiled)
    context.progress("comparing with float64", 0.82)
    found = _errors(lab, batches[-1])
    return DemoResult(
        rate, comparisons, found, batches[-1], report, plans_before, timeline, lab.first_step_s
    )


def _timeline(lab: Experiment, batch: Batch, folder: str | None) -> str | None:
    if folder is None:
        return None
    path = str(Path(folder) / f"rank{lab.context.rank}.json")
    inputs = batch.inputs()
    lab.context.meeting.barrier()
    engine.traced(lab.arms[engine.NANOFLOW], lambda: lab.run(engine.NANOFLOW, inputs), path)
    return path


def _errors(lab: Experiment, batch: Batch) -> dict[str, float]:
    lab.set_rate(None)
    names = (engine.EAGER, engine.SEQUENTIAL, engine.NANOFLOW)
    runs = {name: lambda name=name, **inputs: lab.run(name, inputs) for name in names}
    return numerics.errors(runs, batch, lab.shape, lab.context)
