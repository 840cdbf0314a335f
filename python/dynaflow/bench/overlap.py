"""Figure `overlap`: NanoFlow over the sequential plan at a fixed N/C, and over plain 1 Gbit/s."""

from __future__ import annotations

from dynaflow.bench import engine
from dynaflow.bench.bounds import NETWORK_SHARE
from dynaflow.bench.experiment import Comparison, Experiment
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.net import open_link
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import NOT_APPLICABLE, Record, figure, timing
from dynaflow.bench.stats import Rounds
from dynaflow.bench.ui import Display, milliseconds, percent, times
from dynaflow.bench.workload import FULL, LlamaShape, fixed_batch

ARMS = (engine.SEQUENTIAL, engine.NANOFLOW, engine.COMPUTE)
ROUNDS = Rounds(least=31, most=31)
PLAIN_RATE = 1e9
TARGET = "dynaflow.bench.overlap:measure"


def measure(
    context: RankContext, shape: LlamaShape, size: tuple[int, int], shaped: bool, rounds: Rounds
) -> list[Comparison]:
    """On one rank: the comparison at N/C = NETWORK_SHARE, then at PLAIN_RATE bits per second."""
    lab = Experiment(context, shape, shaped)
    batch = fixed_batch(*size, shape.vocabulary)
    context.progress("building and compiling", 0.05)
    lab.build()
    lab.capture(ARMS, batch)
    rate = lab.choose_rate(batch)
    context.progress(f"measuring at N/C = {NETWORK_SHARE}", 0.3)
    found = [lab.compare(batch, rate, rounds)]
    if shaped:
        context.progress("measuring at 1 Gbit/s", 0.65)
        found.append(lab.compare(batch, lab.set_rate(PLAIN_RATE), rounds))
    return found


def run(
    show: Display,
    shape: LlamaShape = FULL,
    size: tuple[int, int] = (8, 128),
    rounds: Rounds = ROUNDS,
    target: str = TARGET,
) -> list[Record]:
    """Measures at `size` (rows, columns) tokens and shows a table; the records."""
    with open_link() as link:
        show.say(f"link: {link.note}")
        results = run_ranks(
            target,
            link=link,
            kwargs=dict(shape=shape, size=size, shaped=link.shaped, rounds=rounds),
            services={"progress": show.progress, "set_rate": link.set_rate},
            timeout_s=3600,
        )
    show.finish()
    found, rows, names = [], [], (f"N/C = {NETWORK_SHARE}", "1 Gbit/s")
    for comparison, name in zip(results[0], names, strict=False):
        found += _records(comparison, f"overlap/{name}")
        rows.append(_row(comparison, name))
    show.table(f"NanoFlow over the sequential plan, {size} tokens", _COLUMNS, rows)
    return found


_COLUMNS = ("link", "Gbit/s", "N/C", "sequential ms", "nanoflow ms", "speed-up [95 %]", "bound ms",
            "hidden share")  # fmt: skip


def _row(comparison: Comparison, name: str) -> list[str]:
    samples, bound, rate = comparison.samples, comparison.bound, comparison.rate_bps
    measured = [milliseconds(samples.summary(arm)) for arm in (engine.SEQUENTIAL, engine.NANOFLOW)]
    if rate is None:
        return ["loopback", "-", "-", *measured, NOT_APPLICABLE, "-", "-"]
    return [
        name,
        f"{rate / 1e9:.3f}",
        f"{bound.network_s / bound.compute_s:.2f}",
        *measured,
        times(samples.ratio(engine.NANOFLOW, engine.SEQUENTIAL)),
        f"{bound.seconds * 1e3:,.1f}",
        percent(comparison.hidden_share(engine.NANOFLOW)),
    ]


def _records(comparison: Comparison, prefix: str) -> list[Record]:
    samples = comparison.samples
    arm, baseline = engine.NANOFLOW, engine.SEQUENTIAL
    if comparison.rate_bps is None:
        plain = timing(prefix, samples.summary(arm), None, baseline)
        return [Record(**{**plain.__dict__, "ratio": NOT_APPLICABLE, "low": None, "high": None})]
    ratio, bound = samples.ratio(arm, baseline), comparison.bound.seconds
    share = comparison.hidden_share(arm)
    return [
        timing(prefix, samples.summary(arm), ratio, baseline, bound),
        timing(f"{prefix}/{baseline}", samples.summary(baseline), None, None, bound),
        figure(f"{prefix}/hidden share", share, "of 1", baseline),
        Record(f"{prefix}/link rate", comparison.rate_bps / 1e9, "Gbit/s"),
    ]
