"""The one place where the benchmarks touch DynaFlow: the arms that they compare."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EAGER = "eager"
SEQUENTIAL = "sequential"
NANOFLOW = "nanoflow"
#: As a user asks for it by name: below 64 tokens it declines, above it must win in measured steps.
GUARDED = "nanoflow, guarded"
#: The sequential plan with its collectives removed: its results are wrong, its time is C.
COMPUTE = "compute only"


def compile_arm(model, arm: str, parts: int = 2) -> Callable[..., Any]:
    """`model` as the arm runs it; its batch and sequence dimensions are dynamic in one graph.

    NanoFlow splits every batch into `parts` here, whatever its size, so that the figures show what
    splitting does rather than when the strategy declines to.
    """
    if arm == EAGER:
        return model
    import dynaflow as df

    dims = (0, 1)
    if arm == SEQUENTIAL:
        return df.compile(model, strategy="sequential", dynamic_dims=dims)
    if arm == NANOFLOW:
        strategy = df.NanoFlow(min_tokens=0, parts=parts)
        return df.compile(model, strategy=strategy, dynamic_dims=dims)
    if arm == COMPUTE:
        options = {"skip_collectives": True}
        return df.compile(model, strategy="sequential", dynamic_dims=dims, options=options)
    raise ValueError(f"no arm {arm!r}; there are: {[EAGER, SEQUENTIAL, NANOFLOW, COMPUTE]}")


def variant_arm(compiled, arm: str, parts: int = 2) -> Callable[..., Any]:
    """Another arm on the capture of `compiled`, which has run once: without the wait."""
    import dynaflow as df
    from dynaflow import debug

    if arm == NANOFLOW:
        return debug.variant(compiled, df.NanoFlow(min_tokens=0, parts=parts))
    if arm == GUARDED:
        return debug.variant(compiled, NANOFLOW)
    if arm == COMPUTE:
        return debug.variant(compiled, "sequential", {"skip_collectives": True})
    raise ValueError(f"no variant {arm!r}; there are: {[NANOFLOW, GUARDED, COMPUTE]}")


def guard_steps() -> int:
    """Steps of one range of sizes after which NanoFlow, asked for by name, has decided."""
    from dynaflow.never_slower import measured_steps
    from dynaflow.strategy import make_strategy

    return measured_steps(len(make_strategy(NANOFLOW, {}).alternatives()))


def cut_arm(compiled, fractions: list[float]) -> Callable[..., Any]:
    """NanoFlow on the capture of `compiled`, with these shares of the batch as its parts."""
    import dynaflow as df
    from dynaflow import debug

    return debug.variant(compiled, df.NanoFlow(min_tokens=0, fractions=fractions))


def peak_bytes(arm: Callable[..., Any], call: Callable[[], Any]) -> int:
    """The most bytes that one step holds at once beside parameters, inputs and outputs. `call` runs
    a step of `arm`, which may be eager PyTorch, and returns its outputs.
    """
    import dynaflow as df
    from dynaflow.api import SESSION
    from dynaflow.counting import log_memory
    from dynaflow.counting import peak_bytes as peak_of

    call()  # makes the plan
    if not hasattr(arm, SESSION):
        with log_memory() as entries:
            kept = call()
        peak = peak_of(entries)
    else:
        with df.count(arm) as counts:
            kept = call()
        peak = counts.peak_bytes
    del kept  # outputs that end in the block would count as the step's own
    return peak


def report(compiled) -> dict[str, Any]:
    """What DynaFlow says about a compiled model, as plain data."""
    import dynaflow as df

    found = df.report(compiled).to_json()
    return json.loads(found) if isinstance(found, str) else found


def traced(compiled, run: Callable[[], Any], path: str | None = None) -> list[dict[str, Any]]:
    """The events of one run: name, stream, part, start_us and end_us (microseconds). Writes a
    Perfetto timeline to `path` where one is given.
    """
    import dynaflow as df

    with df.trace(compiled) as trace:
        run()
    if path is not None:
        trace.save(path)
    return list(trace.events)


def time_lookup(compiled, arguments: list, rounds: int, repeats: int) -> list[float]:
    """Seconds that it takes to find the plan for a call's sizes, once for each round. `arguments`:
    those of the graph.
    """
    from dynaflow import debug

    graph, _ = debug.plans(compiled)[0]
    own = timeit.Timer(lambda: graph.find_plan(arguments))
    return [seconds / repeats for seconds in own.repeat(rounds, repeats)]


@dataclass(frozen=True)
class LastCall:
    """The plan that a call ran, with what it was given."""

    engine: Any
    tensors: list
    sizes: list[int]

    def time_against_bare_calls(self, rounds: int, repeats: int) -> tuple[list[int], list[int]]:
        """Nanoseconds of a replay, and of its kernels' calls alone; one of each for each round."""
        return self.engine.time_against_bare_calls(self.tensors, self.sizes, rounds, repeats)


def last_call(compiled, call: Callable[[], Any]) -> tuple[LastCall, Any, list]:
    """What `call` runs, which is one step of `compiled`: its plan, its graph in FX's form, and the
    graph's arguments.
    """
    from dynaflow import debug

    graph, plan = debug.plans(compiled)[0]
    seen: list[LastCall] = []
    flat: list[list] = []
    run, find_plan = plan.run, graph.find_plan

    def observed(tensors, sizes):
        seen.append(LastCall(plan.engine, list(tensors), list(sizes)))
        return run(tensors, sizes)

    def observed_arguments(arguments):
        flat.append(list(arguments))
        return find_plan(arguments)

    plan.run, graph.find_plan = observed, observed_arguments
    try:
        call()
    finally:
        plan.run, graph.find_plan = run, find_plan
    return seen[-1], graph._original, flat[-1]


def plan_count(found: dict[str, Any]) -> tuple[int, int]:
    """(graphs, plans) in a report."""
    graphs = found.get("graphs", [])
    return len(graphs), sum(len(graph.get("plans", [])) for graph in graphs)
