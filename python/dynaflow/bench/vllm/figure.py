"""Figure `vllm`: stock vLLM, DynaFlow's sequential plan and NanoFlow on a shaped link.

Every arm runs vLLM's own engine in two processes, a core each, over Gloo: the ranks share no memory
in any of them, as if each were a machine. NanoFlow runs as a user asks for it, guard included.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from dynaflow.bench.engine import guard_steps
from dynaflow.bench.net import Loopback, ShapedLink
from dynaflow.bench.records import Record, figure, timing
from dynaflow.bench.stats import quartiles
from dynaflow.bench.ui import Display, milliseconds, percent, times
from dynaflow.bench.vllm.loads import LESS, PREFILL, SMALL, Load, trace_load
from dynaflow.bench.vllm.servers import (
    ARMS,
    COMPUTE,
    ENGINE,
    NANOFLOW,
    SEQUENTIAL,
    STOCK,
    Outcome,
    Servers,
    start,
)
from dynaflow.bench.workload import FULL, LlamaShape, build_model
from dynaflow.never_slower import row_text


@dataclass(frozen=True)
class Case:
    """A load over a link: of this N/C, or else of this rate in bits per second.

    `warm`: loads whose steps are of the sizes that are worth splitting. NanoFlow forgets what it
    decided over other links, and serves each of them until it has decided again.
    """

    name: str
    load: Load
    share: float | None = None
    rate_bps: float = 1e9
    rounds: int = 7
    warm: tuple[Load, ...] = (PREFILL,)


CASES = (
    Case("prefill, N/C = 0.9", PREFILL, share=0.9),
    Case("prefill, N/C = 0.5", PREFILL, share=0.5),
    Case("prefill, 1 Gbit/s", PREFILL),
    Case("prefill, 2 Gbit/s", PREFILL, rate_bps=2e9),
    Case("sharegpt, 1 Gbit/s", trace_load("sharegpt", 48, 1024, 32), warm=(PREFILL, LESS)),
    Case("small batches, 1 Gbit/s", SMALL, rounds=31, warm=(SMALL,)),
)
#: What one rank serves, which has no link.
ALONE = (Case("one rank, prefill", PREFILL, rounds=15), Case("one rank, small", SMALL, rounds=15))


def run(
    show: Display,
    shape: LlamaShape = FULL,
    cases: tuple[Case, ...] = CASES,
    alone: tuple[Case, ...] = ALONE,
) -> list[Record]:
    """Measures every case, showing each as it comes; the records.

    Raises LinkError where no link can be shaped.
    """
    found: list[Record] = []
    with ShapedLink() as link, tempfile.TemporaryDirectory(prefix="dynaflow-") as folder:
        show.say(f"link: {link.note}")
        show.say("shared-memory all-reduce: off in every arm, by dynaflow.bench.vllm.no_shm")
        show.say(f"vLLM: {ENGINE}, else its defaults; DynaFlow: {ARMS[NANOFLOW]}")
        build_model(shape).save_pretrained(folder)
        with start(show, link, folder, shape) as servers:
            for number, case in enumerate(cases):
                show.progress(f"measuring {case.name}", 0.15 + 0.85 * number / len(cases))
                outcome = _measure(servers, case)
                show.finish()
                _show(show, case, outcome)
                _show_decisions(show, servers.report(NANOFLOW))
                found += _records(f"vllm/{case.name}", outcome)
        found += _measure_alone(show, shape, folder, alone)
    return found


def _measure(servers: Servers, case: Case) -> Outcome:
    if case.share is None:
        servers.set_rate(case.rate_bps)
    else:
        servers.set_share(case.load, case.share)
    servers.forget_decisions(NANOFLOW)
    for load in case.warm:
        servers.serve(NANOFLOW, load, guard_steps())
    return servers.compare(case.load, case.rounds)


def _measure_alone(
    show: Display, shape: LlamaShape, folder: str, cases: tuple[Case, ...]
) -> list[Record]:
    """Without a link: what compiled segments cost, or gain, beside stock's compiler."""
    found, rows = [], []
    arms = (STOCK, SEQUENTIAL)
    with start(show, Loopback(), folder, shape, arms, world=1) as servers:
        for case in cases:
            show.progress(f"measuring {case.name}")
            outcome = servers.compare(case.load, case.rounds)
            summaries = [outcome.summary(arm) for arm in arms]
            over = outcome.ratio(SEQUENTIAL, STOCK)
            rows.append([case.name, *map(milliseconds, summaries), times(over)])
            found.append(timing(f"vllm/{case.name}/{SEQUENTIAL}", summaries[1], over, STOCK))
        show.finish()
        _show_decisions(show, servers.report(SEQUENTIAL))
    columns = ("case", "stock ms [quartiles]", "sequential ms", "over stock [95 %]")
    show.table("one rank, no link", columns, rows)
    return found


_COLUMNS = ("arm", "ms [quartiles]", "tokens/s", "first token ms", "between ms",
            "over stock [95 %]", "over sequential [95 %]", "hidden share")  # fmt: skip


def _show(show: Display, case: Case, outcome: Outcome) -> None:
    rows = [_row(outcome, arm) for arm in ARMS if arm != COMPUTE]
    bounds = outcome.bounds()
    bound_s = sum(bound.seconds for bound in bounds)
    rows.append(["bound", f"{bound_s * 1e3:,.1f}", f"{outcome.load.tokens / bound_s:,.0f}",
                 "", "", "", "", ""])  # fmt: skip
    title = f"{case.name}: {outcome.load.name}, {outcome.rate_bps / 1e9:.3f} Gbit/s"
    show.table(title, _COLUMNS, rows)
    compute, network, host = (
        sum(getattr(bound, part) for bound in bounds) * 1e3
        for part in ("compute_s", "network_s", "host_s")
    )
    equal = ", ".join(
        f"{arm} in {outcome.tokens_equal(arm, STOCK)}" for arm in (SEQUENTIAL, NANOFLOW)
    )
    show.say(
        f"  {len(bounds)} steps; C {compute:,.0f} ms, N {network:,.0f} ms (N/C "
        f"{network / compute:.2f}), G {host:,.0f} ms; tokens equal stock's: {equal} of "
        f"{case.rounds} rounds"
    )


def _row(outcome: Outcome, arm: str) -> list[str]:
    median = outcome.summary(arm).median
    between = outcome.between_tokens(arm)
    return [
        arm,
        milliseconds(outcome.summary(arm)),
        f"{outcome.load.tokens / median:,.0f}",
        milliseconds(outcome.first_token(arm)),
        milliseconds(between) if between else "-",
        "1" if arm == STOCK else times(outcome.ratio(arm, STOCK)),
        "1" if arm == SEQUENTIAL else times(outcome.ratio(arm, SEQUENTIAL)),
        percent(outcome.hidden_share(arm)) if arm == NANOFLOW else "",
    ]


def _records(prefix: str, outcome: Outcome) -> list[Record]:
    bound_s = sum(bound.seconds for bound in outcome.bounds())
    found = [Record(f"{prefix}/link rate", outcome.rate_bps / 1e9, "Gbit/s")]
    for arm in (STOCK, SEQUENTIAL, NANOFLOW):
        summary = outcome.summary(arm)
        for baseline in (STOCK, SEQUENTIAL):
            if arm == baseline:
                continue
            over = outcome.ratio(arm, baseline)
            name = f"{prefix}/{arm} over {baseline}"
            found.append(timing(name, summary, over, baseline, bound_s))
        rates = [outcome.load.tokens / seconds for seconds in outcome.seconds(arm)]
        found.append(figure(f"{prefix}/{arm}/tokens", quartiles(rates), "tokens/s"))
        found.append(timing(f"{prefix}/{arm}/first token", outcome.first_token(arm)))
        if between := outcome.between_tokens(arm):
            found.append(timing(f"{prefix}/{arm}/between tokens", between))
    share = outcome.hidden_share(NANOFLOW)
    found.append(figure(f"{prefix}/hidden share", share, "of 1", SEQUENTIAL))
    return found


def _show_decisions(show: Display, reports: list[dict]) -> None:
    for report in reports:
        for fallback in report["fallbacks"]:
            show.say(f"fallback: {fallback}")
        for target, reason in report["uncompiled"].items():
            show.say(f"not compiled: {target}: {reason}")
        for graph in report["graphs"]:
            for plan in graph["plans"]:
                for row in plan["never_slower"]:
                    show.say(f"{plan['strategy']}: {row_text(row)}")
