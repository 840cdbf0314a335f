"""A Llama on one rank: overlapped steps against serial ones, eager and float64."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from equivalence import (
    CUTS,
    LATE_US,
    SHAPE,
    check_all_tokens,
    check_captured_once,
    check_errors,
    check_every_batch,
    forced,
    fresh_seed,
    plan_of,
    tokens,
    waits_of,
)

import dynaflow as df
from dynaflow import debug
from dynaflow.bench.workload import build_model


class Lanes(df.Strategy):
    """Each part on a stream of its own, cut at the attention: overlap without a network."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def partition(self):
        return [df.SplitModule("LlamaAttention")]

    def schedule(self, s, batch):
        s.split(self.parts)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op, stream="compute" if op.part == 0 else f"side{op.part}")


@pytest.fixture(autouse=True)
def inference():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return build_model(SHAPE)


@pytest.fixture(scope="module")
def compiled(model):
    return df.compile(model, dynamic_dims=(0, 1))


STRATEGIES = [(cut[0], forced(*cut)) for cut in CUTS] + [(n, Lanes(n)) for n in (2, 3, 4)]
NAMES = [f"nanoflow {cut}" for cut in CUTS] + [f"lanes {n}" for n in (2, 3, 4)]


@pytest.mark.parametrize(("parts", "strategy"), STRATEGIES, ids=NAMES)
def test_overlapped_steps_equal_serial_ones_at_every_batch_size(compiled, parts, strategy):
    debug.replan(compiled, strategy)
    check_every_batch(compiled, parts, fresh_seed(), rank=0)
    check_captured_once(compiled, parts)


def without(compiled, graph, plan, text, late, arguments):
    """The logits of a step that runs `text` while one run is late; None when the step fails."""
    whole, plan.engine = plan.engine, debug.engine_for(compiled, graph, text)
    lateness = [LATE_US * (run == late) for run in range(len(plan.plan.runs))]
    try:
        with debug.run_mode(compiled, poison=True, delays_us=lambda _: lateness):
            return compiled(**arguments).logits
    except df.ExecutionError:
        return None
    finally:
        plan.engine = whole


def test_without_any_one_of_its_waits_a_plan_fails_or_gives_other_results(compiled):
    debug.replan(compiled, Lanes(2))
    source = random.Random(fresh_seed())
    compiled(**tokens(source, 8, 8))
    graph, plan = plan_of(compiled, 2)
    found = []
    for without_it, late in waits_of(plan.plan.text):
        arguments = tokens(source, 8, 8)
        with debug.run_mode(compiled, serial=True, poison=True):
            serial = compiled(**arguments).logits
        broken = without(compiled, graph, plan, without_it, late, arguments)
        found.append((plan.plan.runs[late]["name"], broken is None or not serial.equal(broken)))
        assert serial.equal(without(compiled, graph, plan, plan.plan.text, late, arguments))
    assert len(found) >= 3
    assert [name for name, caught in found if not caught] == []


def test_all_tokens_logits_are_the_same_too(model):
    check_all_tokens(df.compile(model, strategy=Lanes(2), dynamic_dims=(0, 1)), fresh_seed())


@pytest.mark.parametrize(
    "strategy", ["sequential", forced(2), Lanes(2)], ids=["sequential", "nanoflow", "lanes"]
)
def test_errors_against_float64_are_at_most_twice_those_of_eager(model, compiled, strategy):
    debug.replan(compiled, strategy)
    check_errors(model, compiled)


@pytest.mark.parametrize("strategy", [forced(2), Lanes(2)], ids=["nanoflow", "lanes"])
def test_earlier_outputs_stay_as_they_were_with_two_frames_in_flight(compiled, strategy):
    debug.replan(compiled, strategy)
    seed = fresh_seed()
    compiled(**tokens(random.Random(seed), 8, 8))
    both = threading.Barrier(2)
    failures: list[str] = []

    def caller(number):
        source, kept = random.Random(seed + number), []
        with torch.no_grad():
            for step in range(40):
                arguments = tokens(source, source.randrange(4, 34), 8)
                both.wait(timeout=60)
                result = compiled(**arguments).logits
                kept = [*kept[-2:], (result, result.clone(), arguments)]
                if not all(result.equal(copy) for result, copy, _ in kept):
                    failures.append(f"caller {number}, step {step}: an earlier output changed")
            for result, _, arguments in kept:
                if not compiled(**arguments).logits.equal(result):
                    failures.append(f"caller {number} got another caller's numbers")

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(2)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not failures, (failures, seed)
