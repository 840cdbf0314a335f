"""`python -m dynaflow demo`: a Llama on two ranks, overlapped, checked and explained."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dynaflow.bench import engine, explain, timeline
from dynaflow.bench.bounds import NETWORK_SHARE, bytes_sent
from dynaflow.bench.demo_rank import DemoResult
from dynaflow.bench.experiment import Comparison
from dynaflow.bench.launch import core_of, run_ranks
from dynaflow.bench.net import Loopback, open_link
from dynaflow.bench.numerics import SEEDS, TOLERATED
from dynaflow.bench.records import NOT_APPLICABLE, Record, figure, timing, write
from dynaflow.bench.stats import Rounds
from dynaflow.bench.ui import Display, milliseconds, percent, times
from dynaflow.bench.workload import FULL, Batch, LlamaShape, trace_batch

#: How often the demo measures each arm.
ROUNDS = Rounds(least=7, most=7, warmup=1)
_ARMS = (engine.EAGER, engine.SEQUENTIAL, engine.NANOFLOW)


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo writes, and how much it does. Times in seconds."""

    records: Path = Path("dynaflow-demo.json")
    timeline: Path = Path("dynaflow-timeline.json")
    loopback: bool = False
    rounds: Rounds = ROUNDS
    shape: LlamaShape = FULL
    timeout_s: float = 600.0
    target: str = "dynaflow.bench.demo_rank:main"


def batches(shape: LlamaShape = FULL) -> list[Batch]:
    """The demo's batches, composed from traces; the first sets the rate, the last is smallest."""
    return [
        trace_batch("sharegpt", 8, 128, shape.vocabulary),
        trace_batch("lmsys", 4, 64, shape.vocabulary),
    ]


def run(options: DemoOptions = DemoOptions(), display: Display | None = None) -> int:
    """Runs the demo; the exit status: 0, or 1 where an output is less exact than it should be."""
    started = time.monotonic()
    with (
        display or Display() as show,
        Loopback() if options.loopback else open_link() as link,
        tempfile.TemporaryDirectory(prefix="dynaflow-") as folder,
    ):
        show.say(f"link: {link.note}")
        show.say(f"ranks: 2, over Gloo, on cores {core_of(0)} and {core_of(1)}, a thread each")
        results: list[DemoResult] = run_ranks(
            options.target,
            link=link,
            kwargs=dict(
                shape=options.shape, batches=batches(options.shape), shaped=link.shaped,
                rounds=options.rounds, folder=folder,
            ),
            services={"progress": show.progress, "set_rate": link.set_rate},
            timeout_s=options.timeout_s,
        )  # fmt: skip
        show.finish()
        paths = [Path(result.timeline) for result in results if result.timeline]
        events = timeline.merge(paths, options.timeline)
    result = results[0]
    write(options.records, records(result))
    _show(show, result)
    show.say(f"timeline: {options.timeline} ({events} events; open it in ui.perfetto.dev)")
    show.say(f"records: {options.records}; {time.monotonic() - started:.0f} s in all")
    return 0 if accurate(result) else 1


def accurate(result: DemoResult) -> bool:
    """Whether every arm's error is at most TOLERATED times eager's own."""
    limit = TOLERATED * result.errors[engine.EAGER]
    return all(error <= limit for error in result.errors.values())


def records(result: DemoResult) -> list[Record]:
    """The demo's figures as records."""
    found = []
    for comparison in result.comparisons:
        found += _comparison_records(comparison)
    for arm, error in result.errors.items():
        found.append(Record(f"demo/error against float64/{arm}", error, "relative RMS"))
    if result.rate_bps:
        found.append(Record("demo/link rate", result.rate_bps / 1e9, "Gbit/s"))
    return found


def _comparison_records(comparison: Comparison) -> list[Record]:
    shaped = comparison.rate_bps is not None
    prefix = f"demo/{comparison.batch.name}"
    bound = comparison.bound.seconds if shaped else None
    found = []
    for arm in _ARMS:
        ratio = baseline = None
        if arm == engine.NANOFLOW:
            baseline = engine.SEQUENTIAL
            ratio = comparison.samples.ratio(arm, baseline) if shaped else None
        name = f"{prefix}/{arm}"
        found.append(timing(name, comparison.samples.summary(arm), ratio, baseline, bound))
        if arm == engine.NANOFLOW and not shaped:
            found[-1] = _not_applicable(found[-1])
    if shaped:
        share = comparison.hidden_share(engine.NANOFLOW)
        found.append(figure(f"{prefix}/hidden share", share, "of 1"))
    return found


def _not_applicable(record: Record) -> Record:
    return Record(**{**record.__dict__, "ratio": NOT_APPLICABLE, "low": None, "high": None})


def _show(show: Display, result: DemoResult) -> None:
    rate = result.rate_bps
    if rate:
        show.say(f"link rate: {rate / 1e9:.3f} Gbit/s, chosen so that N/C = {NETWORK_SHARE}")
    for comparison in result.comparisons:
        _show_comparison(show, comparison)
    _show_errors(show, result)
    _show_plans(show, result)


def _show_comparison(show: Display, comparison: Comparison) -> None:
    batch, bound = comparison.batch, comparison.bound
    samples, shaped = comparison.samples, comparison.rate_bps is not None
    rows = []
    for arm in _ARMS:
        against = times(samples.ratio(arm, engine.SEQUENTIAL)) if shaped else NOT_APPLICABLE
        against = "1" if arm == engine.SEQUENTIAL else against
        hidden = percent(comparison.hidden_share(arm)) if arm == engine.NANOFLOW and shaped else ""
        rows.append([arm, milliseconds(samples.summary(arm)), against, hidden])
    if shaped:
        sequential = samples.summary(engine.SEQUENTIAL).median
        rows.append(
            ["bound max(C+G, N)", f"{bound.seconds * 1e3:,.1f}",
             f"{sequential / bound.seconds:.3f}x", "100%"]
        )  # fmt: skip
    share = batch.real_tokens / batch.padded_tokens
    title = (
        f"{batch.name}, padded to {batch.shape}: {batch.real_tokens} real of "
        f"{batch.padded_tokens} tokens ({share:.0%}); {samples.rounds} rounds"
    )
    columns = ("", "ms a step [quartiles]", "over sequential [95 %]", "hidden share [95 %]")
    show.table(title, columns, rows)
    sent = bytes_sent(comparison.collectives, comparison.world)
    parts = f"C {bound.compute_s * 1e3:,.0f} ms, G {bound.host_s * 1e3:,.0f} ms"
    if shaped:
        alone = comparison.communication
        parts += (
            f", N {bound.network_s * 1e3:,.0f} ms (N/C {bound.network_s / bound.compute_s:.2f})"
        )
        parts += f"; communication alone {alone.wall_s * 1e3:,.0f} ms"
        parts += f", {alone.sent / 2**20:.1f} MiB seen on the wire"
    show.say(
        f"  {parts}; {len(comparison.collectives)} collectives, {sent / 2**20:.1f} MiB each way"
    )


def _show_errors(show: Display, result: DemoResult) -> None:
    own = result.errors[engine.EAGER]
    rows = [[arm, f"{error:.3e}", f"{error / own:.2f}"] for arm, error in result.errors.items()]
    title = f"error against float64, all outputs of {result.error_batch.shape}, {len(SEEDS)} seeds"
    show.table(title, ("", "relative RMS", "of eager's"), rows)
    if not accurate(result):
        show.say(f"ERROR: an error is more than {TOLERATED:g} times eager's own")


def _show_plans(show: Display, result: DemoResult) -> None:
    rows = explain.overlap_rows(result.report)
    show.table("what NanoFlow overlapped", explain.COLUMNS, rows)
    graphs, plans = engine.plan_count(result.report)
    again = "" if (graphs, plans) == result.plans_before else "; some were made while timing"
    first = ", ".join(f"{arm} {seconds:.1f} s" for arm, seconds in result.first_step_s.items())
    show.say(f"graphs: {graphs}, plans: {plans}, for {len(result.comparisons)} batches{again}")
    show.say(f"compile to first step: {first}")
