"""Ops that do something else than they say are named when effects are observed."""

from __future__ import annotations

import re

import pytest
import torch
import torch.distributed as dist
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.distributed.fake_pg import FakeStore

import dynaflow as df
from dynaflow import _core
from dynaflow.capture import capture
from dynaflow.effects import check_effects
from dynaflow.settings import Settings

LIBRARY = torch.library.Library("liars", "DEF")


def define(schema, run, fake=lambda x: torch.empty_like(x)):
    """An op whose kernel is `run`; what tracing sees is `fake`."""
    name = LIBRARY.define(schema)
    LIBRARY.impl(name, run, "CPU")
    torch.library.register_fake(f"liars::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.liars, name)


writes_input = define("writes_input(Tensor x) -> Tensor", lambda x: x.add_(1).clone())
returns_input = define("returns_input(Tensor x) -> Tensor", lambda x: x)
draws = define("draws(Tensor x) -> Tensor", lambda x: x + torch.rand(()))
honest = define("honest(Tensor x) -> Tensor", lambda x: x + 1)


def checked(function):
    return df.compile(function, options={"check_effects": True})


@pytest.mark.parametrize(
    ("op", "what"),
    [
        (writes_input, "it writes its input"),
        (returns_input, "lies in the storage of"),
        (draws, "it draws random numbers"),
    ],
)
# Where CI is set, torch's own check of custom ops would speak first, of one of the three.
@torch.no_grad()
@torch._functorch.config.patch(error_on_custom_op_aliasing=False)
def test_an_op_with_a_lying_schema_is_named(op, what):
    compiled = checked(lambda x: op(x * 2) + 1)
    with pytest.raises(df.EffectError, match=what) as raised:
        compiled(torch.randn(4, 3))
    assert str(op) in str(raised.value)


@torch.no_grad()
def test_an_honest_op_runs_and_is_checked_in_the_first_call_only():
    compiled = checked(lambda x: honest(x * 2) + 1)
    for rows in (4, 5):
        x = torch.randn(rows, 3)
        assert compiled(x).equal(x * 2 + 1 + 1)


@pytest.fixture
def one_rank():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def reduced_in_place(x):
    x = x * 2
    total = torch.ops._c10d_functional.all_reduce(x, "sum", "0")
    return torch.ops.aten.copy(x, torch.ops._c10d_functional.wait_tensor(total)) + 1


CORRECTED = {
    "_unsafe_view": lambda x: torch.ops.aten._unsafe_view(x * 2, [12]) + 1,
    "wait_tensor": lambda x: torch.ops._c10d_functional.wait_tensor(x * 2) + 1,
    "copy back": reduced_in_place,
}


@pytest.mark.parametrize("name", CORRECTED)
def test_the_table_of_corrections_says_what_is_observed(one_rank, name):
    x = torch.randn(4, 3)
    gm = make_fx(CORRECTED[name])(x)
    graph = _core.parse_graph(capture(gm).text)
    check_effects(gm, _core.apply_corrections(graph), [x])
    with pytest.raises(df.EffectError, match="lies in the storage of"):
        check_effects(gm, graph, [x])


def test_a_correction_that_is_not_so_is_an_error():
    x = torch.randn(4, 3)
    gm = make_fx(lambda x: torch.ops.aten.relu(x * 2) + 1)(x)
    text = capture(gm).text
    claimed = re.sub(r"(%relu = .*\[4, 3\]\)\])", r"\1, kind=view, alias=[%mul]", text)
    assert claimed != text
    with pytest.raises(df.EffectError, match="its result %relu is fresh"):
        check_effects(gm, _core.parse_graph(claimed), [x])


def test_the_environment_turns_it_on():
    assert Settings.read({"DYNAFLOW_CHECK": "effects"}).check_effects
    assert not Settings.read({}).check_effects
    with pytest.raises(ValueError, match="DYNAFLOW_CHECK is 'all'; use effects"):
        Settings.read({"DYNAFLOW_CHECK": "all"})
