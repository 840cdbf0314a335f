"""A Llama on one rank: overlapped steps against serial ones, eager and float64."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from equivalence import (
    CUTS,
    SHAPE,
    Lanes,
    check_all_tokens,
    check_captured_once,
    check_control,
    check_errors,
    check_every_batch,
    forced,
    fresh_seed,
    tokens,
)

import dynaflow as df
from dynaflow import debug
from dynaflow.bench.workload import build_model

pytestmark = pytest.mark.usefixtures("inference")


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
    check_every_batch(compiled, parts, fresh_seed())
    check_captured_once(compiled, parts)


def test_without_any_one_of_its_waits_a_plan_fails_or_gives_other_results(compiled):
    debug.replan(compiled, Lanes(3))
    assert check_control(compiled, 3, fresh_seed()) >= 3


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
