"""A call reads little of the model: what guards would read is watched, and no change is missed."""

from __future__ import annotations

import threading

import pytest
import torch
from small_models import Mlp, stack
from test_changes import (
    add_hook,
    add_in_place,
    assign_state,
    exchange_data,
    exchange_layer,
    exchange_method,
    insert_adapter,
)
from torch import nn

import dynaflow as df
from dynaflow import entry


@pytest.fixture(autouse=True)
def from_scratch():
    torch._dynamo.reset()
    with torch.no_grad():
        yield


def watched(compiled) -> int:
    return df.report(compiled).watched


def same(compiled, model, x):
    torch.testing.assert_close(compiled(x), model(x))


def test_this_interpreter_counts_changes():
    assert entry.versions_count()


def test_a_model_that_stays_as_it_is_is_watched():
    model = stack()
    compiled = df.compile(model)
    assert watched(compiled) == 0
    for rows in (6, 7, 1, 6):
        same(compiled, model, torch.randn(rows, 8))
    assert watched(compiled) > 3 * len(list(model.modules()))


@pytest.mark.parametrize("change", [add_in_place, exchange_data], ids=lambda f: f.__name__)
def test_other_numbers_in_a_parameter_are_no_change(change):
    model = stack()
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    same(compiled, model, x)
    change(model)
    same(compiled, model, x)
    assert watched(compiled) > 0


@pytest.mark.parametrize(
    "change",
    [
        add_hook,
        assign_state,
        exchange_layer,
        exchange_method,
        insert_adapter,
        lambda model: model.train(),
        lambda model: model.layers.append(Mlp()),
        lambda model: setattr(model.layers[2], "note", 1),
        lambda model: setattr(model.layers[0], "__class__", type("Other", (Mlp,), {})),
        lambda model: setattr(model.layers[0], "__dict__", dict(model.layers[1].__dict__)),
    ],
)
def test_after_any_other_change_every_guard_is_checked(change):
    model = stack()
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    same(compiled, model, x)
    change(model)
    same(compiled, model, x)
    assert watched(compiled) == 0
    model.layers[1].register_forward_hook(lambda module, args, result: result - 1)
    same(compiled, model, x)


@pytest.mark.parametrize(
    "exchange",
    [
        lambda weight: weight.t(),  # the same bytes read otherwise
        lambda weight: weight.double().float().t().contiguous().t(),
        lambda weight: weight.to(torch.bfloat16),
    ],
    ids=["transposed", "other strides", "other dtype"],
)
def test_data_exchanged_in_place_for_what_the_plan_was_not_made_for(exchange):
    class Mul(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))

        def forward(self, x):
            return x @ self.weight.to(x.dtype)

    model = Mul()
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    same(compiled, model, x)
    model.weight.data = exchange(model.weight.data)
    same(compiled, model, x)
    same(compiled, model, x)


class Nested(nn.Module):
    """Calls another of its class, behind a graph break of some kind."""

    def __init__(self, depth: int, breaks: str) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.scale = float(depth)
        self.inner = Nested(depth - 1, breaks) if depth else None
        self.breaks = breaks

    def forward(self, x):
        if self.breaks == "first":
            torch._dynamo.graph_break()
        x = self.linear(x) * self.scale
        if self.inner is None:
            return x
        if self.breaks == "call":
            torch._dynamo.graph_break()
        if self.breaks == "branch" and x.sum() == 1e9:
            return x
        return self.inner(x + 1)


@pytest.mark.parametrize("breaks", ["", "first", "call", "branch"])
def test_modules_of_one_class_within_each_other(breaks):
    torch.manual_seed(0)
    model = Nested(3, breaks)
    compiled = df.compile(model)
    for rows in (6, 7, 6):
        same(compiled, model, torch.randn(rows, 8))
    model.inner.inner.scale = 7.0
    same(compiled, model, torch.randn(6, 8))


def test_a_model_that_changes_itself_in_every_call():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.linear(x) + self.calls

    torch.manual_seed(0)
    model = Counting()
    twin = Counting()
    twin.load_state_dict(model.state_dict())
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    for _ in range(5):
        same(compiled, twin, x)
    assert (model.calls, watched(compiled)) == (5, 0)


class Reading(nn.Module):
    """Reads of one of its tensors no more than `read` does."""

    def __init__(self, read) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.other = nn.Parameter(torch.randn(3, 2))
        self.read = read

    def forward(self, x):
        return self.read(x @ self.weight.to(x.dtype), self.other)


@pytest.mark.parametrize(
    "read, change",
    [
        (lambda y, other: y.to(other.dtype), lambda p: setattr(p, "data", p.data.double())),
        (lambda y, other: y * other.shape[0], lambda p: setattr(p, "data", torch.ones(5, 2))),
        (lambda y, other: y if other.requires_grad else -y, lambda p: p.requires_grad_(False)),
        (
            lambda y, other: y[y > 0] if other.dtype == torch.float32 else y,
            lambda p: setattr(p, "data", p.data.double()),
        ),
    ],
    ids=["dtype", "shape", "requires_grad", "run by the original"],
)
@pytest.mark.filterwarnings("ignore::dynaflow.DynaFlowWarning")
def test_what_only_decided_the_capture_is_seen(read, change):
    model = Reading(read)
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    same(compiled, model, x)
    change(model.other)
    same(compiled, model, x)


def test_threads_meet_a_change_together():
    model = stack()
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    same(compiled, model, x)
    add_hook(model)
    expected = model(x)
    found = []

    def call():
        with torch.no_grad():
            found.append(compiled(x))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for result in found:
        torch.testing.assert_close(result, expected)


def test_gradients_asked_for_after_a_capture_without():
    model = stack().requires_grad_(False)
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    with torch.enable_grad():
        same(compiled, model, x)
        model.layers[0].up.weight.requires_grad_(True)
        with pytest.warns(df.DynaFlowWarning, match="gradients"):
            assert compiled(x).requires_grad


def test_where_changes_are_not_counted_every_guard_is_checked(monkeypatch):
    monkeypatch.setattr(entry, "versions_count", lambda: False)
    model = stack()
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    same(compiled, model, x)
    assert watched(compiled) == 0
    add_hook(model)
    same(compiled, model, x)


def test_functions_are_guarded_as_ever():
    model = stack()
    compiled = df.compile(lambda x: model(x) + 1)
    x = torch.randn(6, 8)
    torch.testing.assert_close(compiled(x), model(x) + 1)
    add_hook(model)
    torch.testing.assert_close(compiled(x), model(x) + 1)


def test_what_was_changed_and_put_back_is_no_change():
    model = stack()
    compiled = df.compile(model)
    x = torch.randn(6, 8)
    for _ in range(3):
        same(compiled, model, x)
        model.train()
        model.eval()
        handle = model.layers[0].register_forward_hook(lambda *_: None)
        handle.remove()
    same(compiled, model, x)
    assert watched(compiled) > 0
