"""Part of `host-cost`: what engines take for plans whose kernels do nothing."""

from __future__ import annotations

import statistics
import time

from dynaflow.bench.asyncio_engine import chain, run_step
from dynaflow.bench.native import run_program
from dynaflow.bench.records import Record, figure
from dynaflow.bench.stats import Summary, quartiles, ratio
from dynaflow.bench.ui import Display, times

OPERATORS = (10, 100, 1_000, 10_000)
ROUNDS = 15
#: The asyncio engine is slow: fewer steps tell as much.
ASYNCIO_RUNS = 20_000
OURS, FLOW_GRAPH, ASYNCIO = "executor", "flow graph", "asyncio"
#: Where the engines are compared.
COMPARED = 1_000


def run(
    show: Display, operators: tuple[int, ...] = OPERATORS, rounds: int = ROUNDS
) -> list[Record]:
    """Measures and shows a table; the records: nanoseconds per operator, and of a step without."""
    show.progress("timing empty kernels")
    measured = run_program("host_cost", rounds, *operators)
    found, rows, per_operator = [], [], {}
    for count, sample in zip(operators, measured, strict=True):
        sample[ASYNCIO] = _asyncio_ns(count, rounds)
        row = [f"{sample['runs']:,}", f"{sample['events']:,}"]
        for engine in (OURS, FLOW_GRAPH, ASYNCIO):
            own = quartiles([ns / sample["runs"] for ns in sample[engine]])
            per_operator[engine, count] = own
            found.append(figure(f"host-cost/empty/{count} operators/{engine}", own, "ns"))
            row.append(f"{own.median:,.0f} [{own.low:,.0f}, {own.high:,.0f}]")
        rows.append(row)
    show.finish()
    columns = ("operators", "events", *(f"{name}, ns each" for name in (OURS, FLOW_GRAPH, ASYNCIO)))
    show.table("empty kernels, one thread", columns, rows)
    return found + _summary(show, operators, measured, per_operator)


def _summary(show: Display, operators, measured, per_operator) -> list[Record]:
    """What a step takes beside its operators, how that grows, and how the engines compare."""
    smallest, largest = measured[0], measured[-1]
    slope = [
        (many - few) / (largest["runs"] - smallest["runs"])
        for few, many in zip(smallest[OURS], largest[OURS], strict=True)
    ]
    step = [few - smallest["runs"] * each for few, each in zip(smallest[OURS], slope, strict=True)]
    each = {count: per_operator[OURS, count].median for count in operators}
    spread = max(each.values()) / min(each.values())
    compared = measured[operators.index(COMPARED)] if COMPARED in operators else largest
    flow, engine = (ratio(compared[name], compared[OURS]) for name in (FLOW_GRAPH, ASYNCIO))
    show.say(
        f"an operator {statistics.median(slope):.0f} ns, a step {statistics.median(step):.0f} ns; "
        f"{spread:.2f}x between {operators[0]} and {operators[-1]:,} operators"
    )
    show.say(f"at {compared['runs']:,}: flow graph {times(flow)}, asyncio {times(engine)} our time")
    return [
        figure("host-cost/empty/operator", quartiles(slope), "ns"),
        figure("host-cost/empty/step", quartiles(step), "ns"),
        Record("host-cost/empty/largest over smallest", spread, "x"),
        _compared(FLOW_GRAPH, flow),
        _compared(ASYNCIO, engine),
    ]


def _compared(name: str, found: Summary) -> Record:
    return figure(f"host-cost/empty/{name} over executor", found, "x", OURS)


def _asyncio_ns(operators: int, rounds: int) -> list[float]:
    """Nanoseconds of a step, one for each round."""
    nodes = chain(operators)
    steps = max(ASYNCIO_RUNS // operators, 1)
    found = []
    for _ in range(rounds + 1):
        start = time.perf_counter_ns()
        for _ in range(steps):
            run_step(nodes)
        found.append((time.perf_counter_ns() - start) / steps)
    return found[1:]
