"""Tensors that a model changes: caches are updated where they lie, by parts, without a copy."""

from __future__ import annotations

import random
import re

import pytest
import torch
from equivalence import Lanes, delays, fresh_seed
from torch import nn

import dynaflow as df
from dynaflow import debug
from dynaflow.api import session_of

pytestmark = pytest.mark.usefixtures("inference", "one_thread")

ROWS, HEADS, LENGTH, WIDTH = 6, 2, 32, 8


class Attention(nn.Module):
    """One step of attention over a cache, which `update` changes."""

    def __init__(self, update) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * WIDTH)
        self.update = update

    def forward(self, x, keys, values, at):
        q, k, v = self.qkv(x).view(x.shape[0], 1, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        self.update(keys, k, at)
        self.update(values, v, at)
        scores = torch.matmul(q, keys.transpose(-1, -2))
        return torch.matmul(scores.softmax(-1), values).flatten(1)


def index_copy(cache, new, at):
    cache.index_copy_(2, at, new)


def index_put(cache, new, at):
    cache[:, :, at] = new


def own_rows(cache, new, at):
    rows = torch.arange(new.shape[0])
    cache[rows[:, None], :, at] = new.transpose(1, 2)


def slices(cache, new, at):
    cache[: new.shape[0]][:, :, 3:4] = new


def scaled(cache, new, at):
    cache.mul_(0.5)
    cache[:, :, at] += new


UPDATES = (index_copy, index_put, own_rows, slices, scaled)


def step(seed, rows=ROWS):
    generator = torch.Generator().manual_seed(seed)
    caches = [torch.randn(rows, HEADS, LENGTH, WIDTH, generator=generator) for _ in range(2)]
    return torch.randn(rows, WIDTH, generator=generator), *caches, torch.tensor([5])


def run(function, seed, rows=ROWS):
    """The output and the caches after one step."""
    x, keys, values, at = step(seed, rows)
    return function(x, keys, values, at), keys, values


def only_plan(compiled):
    ((_, plan),) = debug.plans(compiled)
    return plan


@pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.__name__)
@pytest.mark.parametrize(
    "strategy", [df.NanoFlow(parts=3, min_tokens=0), Lanes(2)], ids=["nanoflow", "lanes"]
)
def test_caches_are_updated_by_parts_where_they_lie(update, strategy):
    torch.manual_seed(0)
    model = Attention(update)
    compiled = df.compile(model, strategy)
    seed = fresh_seed()
    source = random.Random(seed)
    for rows in (ROWS, 9, 13):
        run(compiled, seed, rows)
        with debug.run_mode(compiled, poison=True, serial=True):
            serial = run(compiled, seed, rows)
        with debug.run_mode(compiled, poison=True, delays_us=delays(source)):
            overlapped = run(compiled, seed, rows)
        for a, b, c in zip(serial, overlapped, run(model, seed, rows), strict=True):
            assert a.equal(b)
            torch.testing.assert_close(b, c)
    (graph,) = df.report(compiled).graphs
    assert len(graph["last_parts"]) == (3 if strategy.name == "nanoflow" else 2)
    assert graph["plans"][0]["counters"]["copied_bytes"] == 0
    # Each part its own slice of the keys and of the values.
    text = only_plan(compiled).plan.text
    first, second = (
        set(re.findall(rf"slot\(%\S+, {part}, {part + 1}, (argument\(\d+\))", text))
        for part in (0, 1)
    )
    assert len(first & second) >= 2


def test_what_a_step_takes_does_not_grow_with_the_cache():
    """Eager's in-place update takes no second cache; neither does ours."""
    model = Attention(index_copy)
    compiled = df.compile(model, df.NanoFlow(min_tokens=0))
    x, keys, values, at = step(0)
    compiled(x, keys, values, at)
    arena = df.report(compiled).graphs[0]["plans"][0]["counters"]["arena_bytes"]
    assert arena < keys.numel() * keys.element_size()


def test_a_change_is_counted_as_one_for_who_saved_the_tensor():
    compiled = df.compile(lambda cache, x: cache.add_(x).sum())
    with torch.inference_mode(False), torch.no_grad():
        cache = torch.zeros(4, 3)
        version = cache._version
        compiled(cache, torch.ones(4, 3))
    assert cache._version > version and cache.equal(torch.ones(4, 3))


def test_old_contents_that_are_still_read_are_kept():
    def model(cache, x):
        new = cache + x
        old = cache * 2
        cache.copy_(new)
        return old, new

    compiled = df.compile(model, df.NanoFlow(min_tokens=0))
    for rows in (4, 7):
        cache, x = torch.randn(rows, 3), torch.randn(rows, 3)
        again = cache.clone()
        old, new = compiled(cache, x)
        expected = model(again, x)
        assert old.equal(expected[0]) and new.equal(expected[1]) and cache.equal(again)
        assert new.untyped_storage().data_ptr() != cache.untyped_storage().data_ptr()


def random_program(source):
    """A function of three tensors that reads and changes them in random order."""
    steps = [
        (source.choice(STATEMENTS), source.randrange(5), source.randrange(5), source.randrange(3))
        for _ in range(source.randrange(2, 9))
    ]
    kept = source.sample(range(5), source.randrange(1, 4))

    def program(a, b, c):
        values = [a, b, c, a + b, b * c]
        for statement, to, x, y in steps:
            statement(values, to, values[x], values[y])
        return [values[i] * 1 if i < 3 else values[i] for i in kept]

    program.text = f"{[(s.__name__, *more) for s, *more in steps]} -> {kept}"
    return program


def assign(values, to, x, y):
    values[3 + to % 2] = x + y


def change(values, to, x, y):
    values[to].add_(x * y)


def replace(values, to, x, y):
    values[to].copy_(x)


def change_slice(values, to, x, y):
    values[to][:, 1:3] += x[:, 2:4]


def replace_slice(values, to, x, y):
    values[to][:, :2][:, 1] = y[:, 0]


def put(values, to, x, y):
    values[to][:, torch.tensor([0, 3])] = x[:, 1:3]


STATEMENTS = (assign, change, replace, change_slice, replace_slice, put)


def test_random_programs_leave_what_eager_leaves():
    seed = fresh_seed()
    source = random.Random(seed)
    for number in range(40):
        program = random_program(source)
        torch.compiler.reset()
        compiled = df.compile(program, df.NanoFlow(min_tokens=0))
        for rows in (4, 7):
            ours = [torch.randn(rows, 4) for _ in range(3)]
            eager = [tensor.clone() for tensor in ours]
            results = compiled(*ours), program(*eager)
            for a, b in zip([*results[0], *ours], [*results[1], *eager], strict=True):
                where = f"program {number} of seed {seed}, {rows} rows: {program.text}"
                torch.testing.assert_close(a, b, msg=lambda m, where=where: f"{where}\n{m}")
        assert df.report(compiled).fallbacks == []


LIBRARY = torch.library.Library("dynaflow_in_place", "DEF")


def _write_rows(cache, new, at):
    cache[:, :, at] = new.to(cache.dtype)


def _attend(q, keys, values, out):
    scores = torch.matmul(q.to(keys.dtype), keys.transpose(-1, -2))
    out.copy_(torch.matmul(scores.softmax(-1), values))


for schema, kernel in (
    ("write_rows(Tensor(a!) cache, Tensor new, Tensor at) -> ()", _write_rows),
    ("attend(Tensor q, Tensor keys, Tensor values, Tensor(a!) out) -> ()", _attend),
):
    _name = LIBRARY.define(schema)
    LIBRARY.impl(_name, kernel, "CPU")
    torch.library.register_fake(f"dynaflow_in_place::{_name}", lambda *a: None, lib=LIBRARY)


class Served(Attention):
    """As serving systems write it: custom ops that change their arguments."""

    def __init__(self) -> None:
        super().__init__(torch.ops.dynaflow_in_place.write_rows)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, keys, values, at):
        q, k, v = self.qkv(x).view(x.shape[0], 1, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        self.update(keys, k, at)
        self.update(values, v, at)
        out = torch.empty_like(q)
        torch.ops.dynaflow_in_place.attend(q, keys, values, out)
        return self.dropout(out.flatten(1)).relu_() + x.repeat(1, HEADS)


def test_custom_ops_that_change_arguments_are_called_as_they_are():
    torch.manual_seed(0)
    model = Served().eval()
    compiled = df.compile(model, df.NanoFlow(min_tokens=0), options={"check_effects": True})
    for rows in (ROWS, 9):
        for seed in range(2):
            for a, b in zip(run(compiled, seed, rows), run(model, seed, rows), strict=True):
                torch.testing.assert_close(a, b)
    (graph,) = session_of(compiled).graphs
    targets = [op["target"] for op in graph.graph.ops]
    assert targets.count("dynaflow_in_place.write_rows.default") == 2
    assert targets.count("dynaflow_in_place.attend.default") == 1
    assert "aten.linear.default" in targets  # composite ops stay whole
    report = df.report(compiled)
    assert report.fallbacks == [] and report.graphs[0]["last_parts"] == [5, 4]
    assert report.graphs[0]["plans"][0]["counters"]["copied_bytes"] == 0


class Scaled(Served):
    """Reads a parameter behind autograd's back, as layers of serving systems do."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(2 * WIDTH * HEADS // 2))

    def forward(self, *args):
        return super().forward(*args) * self.scale.data


def test_the_data_of_a_parameter_is_the_parameters_own():
    torch.manual_seed(0)
    model = Scaled().eval()
    compiled = df.compile(model, df.NanoFlow(min_tokens=0))
    for _ in range(2):
        for a, b in zip(run(compiled, 0, ROWS), run(model, 0, ROWS), strict=True):
            torch.testing.assert_close(a, b)
        model.scale.mul_(2)
    assert df.report(compiled).fallbacks == []


def test_under_autocast_custom_ops_take_the_functional_way():
    model = Served().eval()
    compiled = df.compile(model)
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(run(compiled, 0), run(model, 0), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    assert df.report(compiled).fallbacks == []


def test_running_statistics_are_updated_in_place():
    torch.manual_seed(0)
    model, again = (nn.BatchNorm1d(3) for _ in range(2))
    compiled = df.compile(model, df.NanoFlow(min_tokens=0))
    for rows in (4, 6):
        x = torch.randn(rows, 3)
        torch.testing.assert_close(compiled(x), again(x))
        for ours, eager in zip(model.buffers(), again.buffers(), strict=True):
            torch.testing.assert_close(ours, eager)
