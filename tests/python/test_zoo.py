"""Models of many families: overlapped steps against serial ones, eager and float64."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from equivalence import (
    Lanes,
    check_control,
    check_error,
    check_every_batch,
    forced,
    fresh_seed,
)
from zoo import FAMILIES

import dynaflow as df
from dynaflow import debug
from dynaflow.bench.numerics import SEEDS, in_float64

pytestmark = pytest.mark.usefixtures("inference", "one_thread")


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request):
    """A family, its model and its capture, which takes far longer than the steps."""
    torch.compiler.reset()
    family = FAMILIES[request.param]
    model = family.build()
    options = {"check_effects": True}  # every op does what its schema says
    return family, model, df.compile(model, "sequential", options, family.dynamic_dims)


def fresh_inputs(family, rows):
    return [family.inputs(random.Random(seed), rows) for seed in SEEDS]


def test_overlapped_steps_equal_serial_ones_at_every_batch_size(subject):
    family, _, compiled = subject
    lanes = [(3, Lanes(3, family.cut))]
    nanoflow = [(2, forced(2)), (4, forced(4, (0.1, 0.4, 0.2, 0.3)))]
    for parts, strategy in (*nanoflow, *lanes):
        debug.replan(compiled, strategy)
        check_every_batch(compiled, parts, fresh_seed(), family=family, sizes=8)
    assert df.report(compiled).to_json()["fallbacks"] == []


def test_without_any_one_of_its_waits_a_plan_fails_or_gives_other_results(subject):
    family, _, compiled = subject
    debug.replan(compiled, Lanes(2, family.cut))
    waits = check_control(compiled, 2, fresh_seed(), family)
    # Where nothing is shared by the parts, no stream waits for another.
    assert (waits == 0) == (family.name in ("vit", "resnet")), waits


def test_errors_against_float64_are_at_most_twice_those_of_eager(subject):
    family, model, compiled = subject
    reference = in_float64(family.reference(copy.deepcopy(model)))
    for strategy in ("sequential", forced(2), Lanes(2, family.cut)):
        debug.replan(compiled, strategy)
        for rows in (1, 4, 9):
            check_error(reference, model, compiled, fresh_inputs(family, rows), family)


@pytest.mark.parametrize("name", ["llama", "qwen3", "bert"])
def test_bfloat16_models_are_as_exact_as_eager(name):
    family = FAMILIES[name]
    model = family.build().bfloat16()
    compiled = df.compile(model, dynamic_dims=family.dynamic_dims)
    reference = in_float64(model)
    for strategy in ("sequential", forced(2), Lanes(2, family.cut)):
        debug.replan(compiled, strategy)
        check_error(reference, model, compiled, fresh_inputs(family, 8), family)
        if strategy != "sequential":
            check_every_batch(compiled, 2, fresh_seed(), family=family, sizes=6)
