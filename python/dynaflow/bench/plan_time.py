"""Figure `plan-time`: how long it takes to make a plan of a Llama of 80 layers, and of 160.

The graph is that of a tensor-parallel Llama with the ops and layers of the 70B model and small
tensors: what is timed sees sizes, not data. One thread, a strategy in C++.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from dynaflow.bench.launch import run_ranks
from dynaflow.bench.native import run_program
from dynaflow.bench.net import Loopback
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import Record, timing
from dynaflow.bench.stats import Summary, quartiles
from dynaflow.bench.ui import Display
from dynaflow.bench.workload import TINY, LlamaShape, build_model, fixed_batch

LAYERS = (80, 160)
STRATEGY = "nanoflow"
PARTS = 2
ROUNDS = 7
REPEATS = 5
STAGES = ("partition", "schedule", "lower", "verify")
TARGET = "dynaflow.bench.plan_time:capture_text"


def capture_text(context: RankContext, shape: LlamaShape) -> str:
    """On one rank: the text of the model's graph."""
    import dynaflow as df

    model = build_model(shape, context.world)
    inputs = fixed_batch(8, 16, shape.vocabulary).inputs()
    (graph,) = df.capture(model, dynamic_dims=(0, 1), **inputs)
    return graph.text


def run(
    show: Display,
    layers: tuple[int, ...] = LAYERS,
    rounds: int = ROUNDS,
    target: str = TARGET,
) -> list[Record]:
    """Captures all, then measures them in turns, and shows a table; the records."""
    texts = {}
    for count in layers:
        show.progress(f"capturing {count} layers")
        shape = LlamaShape(**{**vars(TINY), "layers": count})
        kwargs = dict(shape=shape)
        texts[count] = run_ranks(target, link=Loopback(), world=2, kwargs=kwargs, timeout_s=3600)[0]
    show.progress("planning")
    found, rows, totals = [], [], {}
    for count, made in _measure(texts, rounds).items():
        stages = {name: [ms * 1e-3 for ms in made["ms"][name]] for name in STAGES}
        whole = [sum(repeat) for repeat in zip(*stages.values(), strict=True)]
        totals[count] = quartiles(whole)
        found.append(timing(f"plan-time/{count} layers", totals[count]))
        found += [
            timing(f"plan-time/{count} layers/{name}", quartiles(stages[name])) for name in STAGES
        ]
        rows.append(_row(count, made, stages, totals[count]))
    show.finish()
    columns = ("layers", "ops", "launches", "parts", *STAGES, "all, ms [quartiles]")
    show.table(f"making a plan, strategy {STRATEGY}, one thread", columns, rows)
    if len(layers) > 1:
        growth = totals[layers[-1]].median / totals[layers[0]].median
        found.append(Record(f"plan-time/{layers[-1]} over {layers[0]} layers", growth, "x"))
        show.say(f"{layers[-1]} over {layers[0]} layers: {growth:.2f}x the time")
    return found


def _measure(graphs: dict[int, str], rounds: int) -> dict[int, dict]:
    """What the program says of each graph, with the times of all rounds."""
    found: dict[int, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count, text in graphs.items():
            (Path(folder) / f"{count}.txt").write_text(text, encoding="utf-8")
        for _ in range(rounds):
            for count in graphs:
                path = Path(folder) / f"{count}.txt"
                made = run_program("plan_time", path, STRATEGY, PARTS, REPEATS)[0]
                if count not in found:
                    found[count] = made
                    continue
                for stage, times in made["ms"].items():
                    found[count]["ms"][stage] += times
    return found


def _row(count: int, made: dict, stages: dict[str, list[float]], whole: Summary) -> list[str]:
    medians = [f"{statistics.median(stages[name]) * 1e3:.1f}" for name in STAGES]
    ends = f"{whole.median * 1e3:.1f} [{whole.low * 1e3:.1f}, {whole.high * 1e3:.1f}]"
    return [str(count), *(str(made[key]) for key in ("ops", "runs", "parts")), *medians, ends]
