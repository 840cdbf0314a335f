"""Figure `eager`: the sequential plan against eager PyTorch, with no shaped link."""

from __future__ import annotations

from dynaflow.bench import engine
from dynaflow.bench.experiment import Experiment
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.net import Loopback
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import Record, timing
from dynaflow.bench.stats import Rounds, Samples, narrow_enough
from dynaflow.bench.ui import Display, milliseconds, times
from dynaflow.bench.workload import FULL, LlamaShape, fixed_batch

SIZES = ((2, 8), (4, 16), (8, 32), (8, 128))
HALF_WIDTH = 0.01
ROUNDS = Rounds(least=15, most=2000, every=10, warmup=3, budget_s=120)
TARGET = "dynaflow.bench.eager:measure"


def measure(
    context: RankContext, shape: LlamaShape, sizes: list[tuple[int, int]], rounds: Rounds
) -> list[Samples]:
    """On one rank: samples of both arms for each size."""
    lab = Experiment(context, shape, shaped=False)
    context.progress(f"TP={context.world}: building and compiling")
    lab.build()
    lab.capture((engine.EAGER, engine.SEQUENTIAL), fixed_batch(*sizes[0], shape.vocabulary))
    stop = narrow_enough(engine.SEQUENTIAL, engine.EAGER, HALF_WIDTH)
    found = []
    for size in sizes:
        context.progress(f"TP={context.world}: measuring {size}")
        batch = fixed_batch(*size, shape.vocabulary)
        found.append(lab.time((engine.EAGER, engine.SEQUENTIAL), batch, rounds, stop))
    return found


def run(
    show: Display,
    shape: LlamaShape = FULL,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    rounds: Rounds = ROUNDS,
    target: str = TARGET,
) -> list[Record]:
    """Measures TP=1 and TP=2 at `sizes` (rows, columns) and shows a table; the records."""
    found, rows = [], []
    for world in (1, 2):
        results = run_ranks(
            target,
            link=Loopback(),
            world=world,
            kwargs=dict(shape=shape, sizes=list(sizes), rounds=rounds),
            services={"progress": show.progress},
            timeout_s=3600,
        )
        for size, samples in zip(sizes, results[0], strict=True):
            ratio = samples.ratio(engine.SEQUENTIAL, engine.EAGER)
            name = f"eager/TP={world} {size}"
            after = samples.summary(engine.SEQUENTIAL)
            found.append(timing(name, after, ratio, engine.EAGER))
            before = milliseconds(samples.summary(engine.EAGER))
            label = f"TP={world} {size}"
            rows.append([label, before, milliseconds(after), times(ratio), str(samples.rounds)])
    show.finish()
    columns = ("", "eager ms", "sequential plan ms", "speed-up [95 %]", "rounds")
    show.table("the sequential plan against eager PyTorch", columns, rows)
    return found
