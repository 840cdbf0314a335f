"""Figure `overlap`: NanoFlow over the sequential plan, by batch and link.

Two ways: split whatever comes of it, and as a user asks for it by name, after the steps in which
the guard decides whether splitting stays. The link's rate is chosen from C for each batch, so that
N/C does not depend on the machine; at the demo's size plain 1 Gbit/s is measured too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from dynaflow.bench import engine
from dynaflow.bench.bounds import NETWORK_SHARE
from dynaflow.bench.experiment import Comparison, Experiment
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.net import open_link
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import NOT_APPLICABLE, Record, figure, timing
from dynaflow.bench.stats import Rounds, narrow_enough
from dynaflow.bench.ui import Display, milliseconds, percent, times
from dynaflow.bench.workload import FULL, LlamaShape, fixed_batch

ARMS = (engine.SEQUENTIAL, engine.NANOFLOW, engine.COMPUTE)
#: Short steps vary more: their cells take as many rounds as the interval of the guarded arm needs.
ROUNDS = Rounds(least=31, most=601, every=30, budget_s=240)
HALF_WIDTH = 0.0075
PLAIN_RATE = 1e9
TARGET = "dynaflow.bench.overlap:measure"


@dataclass(frozen=True)
class Cell:
    """A batch of (rows, columns) tokens over a link: at this N/C, or at PLAIN_RATE where None."""

    size: tuple[int, int]
    share: float | None

    @property
    def name(self) -> str:
        """ "1024 tokens, N/C = 0.6"."""
        link = "1 Gbit/s" if self.share is None else f"N/C = {self.share}"
        return f"{self.size[0] * self.size[1]} tokens, {link}"


SIZES = ((2, 8), (4, 16), (8, 32), (8, 128), (16, 128))
SHARES = (0.2, NETWORK_SHARE, 1.2)
CELLS = (
    *(Cell(*cell) for cell in itertools.product(SIZES, SHARES)),
    Cell((8, 128), None),
)


def measure(
    context: RankContext, shape: LlamaShape, cells: tuple[Cell, ...], shaped: bool, rounds: Rounds
) -> None:
    """On one rank: tells the launcher of each cell's comparison as soon as it has been made."""
    lab = Experiment(context, shape, shaped)
    context.progress("building and compiling", 0.02)
    lab.build()
    lab.capture(ARMS, fixed_batch(8, 128, shape.vocabulary))
    for index, cell in enumerate(cells):
        context.progress(f"measuring {cell.name}", 0.05 + 0.95 * index / len(cells))
        batch = fixed_batch(*cell.size, shape.vocabulary)
        if cell.share is not None:
            rate = lab.choose_rate(batch, share=cell.share)
        else:
            rate = lab.set_rate(PLAIN_RATE) if shaped else None
        lab.warm_guard(batch)
        narrow = narrow_enough(engine.GUARDED, engine.SEQUENTIAL, HALF_WIDTH)
        context.once("measured", lab.compare(batch, rate, rounds, narrow))


def run(
    show: Display,
    shape: LlamaShape = FULL,
    cells: tuple[Cell, ...] = CELLS,
    rounds: Rounds = ROUNDS,
    target: str = TARGET,
) -> list[Record]:
    """Measures every cell, showing each as it comes, and all in a table; the records."""
    found: list[Record] = []
    rows: list[list[str]] = []

    def measured(comparison: Comparison) -> None:
        name = cells[len(rows)].name
        found.extend(_records(comparison, f"overlap/{name}"))
        rows.append(_row(comparison, name))
        show.say(", ".join(f"{key} {text}" for key, text in zip(_COLUMNS, rows[-1], strict=True)))

    with open_link() as link:
        show.say(f"link: {link.note}")
        run_ranks(
            target,
            link=link,
            kwargs=dict(shape=shape, cells=cells, shaped=link.shaped, rounds=rounds),
            services={
                "progress": show.progress,
                "set_rate": link.set_rate,
                "measured": measured,
            },
            timeout_s=7200,
        )
    show.finish()
    show.table("NanoFlow over the sequential plan", _COLUMNS, rows)
    return found


_COLUMNS = ("cell", "Gbit/s", "N/C", "sequential ms", "nanoflow ms", "speed-up [95 %]",
            "guarded [95 %]", "bound ms", "hidden share", "guarded hides")  # fmt: skip


def _row(comparison: Comparison, name: str) -> list[str]:
    samples, bound, rate = comparison.samples, comparison.bound, comparison.rate_bps
    measured = [milliseconds(samples.summary(arm)) for arm in (engine.SEQUENTIAL, engine.NANOFLOW)]
    guarded = times(samples.ratio(engine.GUARDED, engine.SEQUENTIAL))
    if rate is None:
        return [name + ", loopback", "-", "-", *measured, NOT_APPLICABLE, guarded, *["-"] * 3]
    return [
        name,
        f"{rate / 1e9:.3f}",
        f"{bound.network_s / bound.compute_s:.2f}",
        *measured,
        times(samples.ratio(engine.NANOFLOW, engine.SEQUENTIAL)),
        guarded,
        f"{bound.seconds * 1e3:,.1f}",
        percent(comparison.hidden_share(engine.NANOFLOW)),
        percent(comparison.hidden_share(engine.GUARDED)),
    ]


def _records(comparison: Comparison, prefix: str) -> list[Record]:
    samples = comparison.samples
    arm, baseline = engine.NANOFLOW, engine.SEQUENTIAL
    guarded = timing(
        f"{prefix}/{engine.GUARDED}",
        samples.summary(engine.GUARDED),
        samples.ratio(engine.GUARDED, baseline),
        baseline,
    )
    if comparison.rate_bps is None:
        plain = timing(prefix, samples.summary(arm), None, baseline)
        split = Record(**{**plain.__dict__, "ratio": NOT_APPLICABLE, "low": None, "high": None})
        return [split, guarded]
    ratio, bound = samples.ratio(arm, baseline), comparison.bound.seconds
    shares = {name: comparison.hidden_share(name) for name in (arm, engine.GUARDED)}
    return [
        timing(prefix, samples.summary(arm), ratio, baseline, bound),
        guarded,
        timing(f"{prefix}/{baseline}", samples.summary(baseline), None, None, bound),
        figure(f"{prefix}/hidden share", shares[arm], "of 1", baseline),
        figure(f"{prefix}/{engine.GUARDED}/hidden share", shares[engine.GUARDED], "of 1", baseline),
        Record(f"{prefix}/link rate", comparison.rate_bps / 1e9, "Gbit/s"),
    ]
