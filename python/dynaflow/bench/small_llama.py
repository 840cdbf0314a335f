"""Part of `host-cost`: a Llama on tensors of 16 elements, where all time is the host's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from dynaflow.bench import engine
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.net import Loopback
from dynaflow.bench.rank import RankContext
from dynaflow.bench.records import Record, figure
from dynaflow.bench.stats import Rounds, Samples, Summary, interleave, quartiles, ratio
from dynaflow.bench.ui import Display, times
from dynaflow.bench.workload import LlamaShape, build_model

SHAPE = LlamaShape(hidden=8, intermediate=8, layers=4, heads=2, kv_heads=2, vocabulary=16)
SIZE = (2, 1)
ROUNDS = Rounds(least=31, most=31, warmup=3)
CALLS = 50
EAGER, COMPILED, INTERPRETER = "eager", "compiled", "torch.fx.Interpreter"
REPLAY, BARE = "replay", "bare calls"
TARGET = "dynaflow.bench.small_llama:measure"


@dataclass(frozen=True)
class Found:
    """Whole calls from Python by arm; nanoseconds of replays, and of bare calls; seconds to find
    the plan for a call's sizes.
    """

    samples: Samples
    replay: list[int]
    bare: list[int]
    lookup: list[float]


def measure(context: RankContext, rounds: Rounds) -> Found:
    """On one rank."""
    import torch

    model = build_model(SHAPE)
    source = torch.Generator().manual_seed(0)
    inputs = dict(input_ids=torch.randint(0, SHAPE.vocabulary, SIZE, generator=source))
    inputs["use_cache"] = False
    compiled = engine.compile_arm(model, engine.SEQUENTIAL)
    with torch.no_grad():
        compiled(**inputs)
        plan, graph, arguments = engine.last_call(compiled, lambda: compiled(**inputs))
        interpreter = torch.fx.Interpreter(graph)
        arms = {
            EAGER: lambda: model(**inputs),
            COMPILED: lambda: compiled(**inputs),
            INTERPRETER: lambda: interpreter.run(*arguments),
        }
        calls = {name: _repeated(call) for name, call in arms.items()}
        samples = interleave(calls, rounds, context.meeting, clock=time.perf_counter)
        replay, bare = plan.time_against_bare_calls(rounds.least, CALLS)
        lookup = engine.time_lookup(compiled, arguments, rounds.least, 1000)
    return Found(samples, replay, bare, lookup)


def _repeated(call) -> Any:
    def run() -> None:
        for _ in range(CALLS):
            call()

    return run


def run(show: Display, rounds: Rounds = ROUNDS, target: str = TARGET) -> list[Record]:
    """Measures and shows a table; the records."""
    show.progress("timing a Llama on tensors of 16 elements")
    found: Found = run_ranks(target, link=Loopback(), world=1, kwargs=dict(rounds=rounds))[0]
    show.finish()
    own = {name: [s / CALLS for s in times] for name, times in found.samples.times.items()}
    own |= {REPLAY: [ns * 1e-9 for ns in found.replay], BARE: [ns * 1e-9 for ns in found.bare]}
    records = [
        figure(f"host-cost/llama/{name}", quartiles(seconds).scaled(1e6), "us")
        for name, seconds in own.items()
    ]
    rows = [[name, _microseconds(quartiles(seconds))] for name, seconds in own.items()]
    show.table(
        f"a Llama of {SHAPE.layers} layers on tensors of 16 elements", ("", "us a step"), rows
    )
    above, whole = ratio(own[REPLAY], own[BARE]), ratio(own[COMPILED], own[EAGER])
    lookup = quartiles(found.lookup).scaled(1e6)
    show.say(
        f"replay over bare calls: {times(above)}; compiled over eager: {times(whole)}; "
        f"finding a plan: {lookup.median:.2f} us"
    )
    return [
        *records,
        figure("host-cost/plan lookup", lookup, "us"),
        figure(f"host-cost/llama/{REPLAY} over {BARE}", above, "x", BARE),
        figure(f"host-cost/llama/{COMPILED} over {EAGER}", whole, "x", EAGER),
    ]


def _microseconds(summary: Summary) -> str:
    found = summary.scaled(1e6)
    return f"{found.median:,.0f} [{found.low:,.0f}, {found.high:,.0f}]"
