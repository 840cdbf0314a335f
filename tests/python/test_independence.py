"""Regions whose rows are independent by the user's word: split on it, and tried once."""

from __future__ import annotations

import random

import pytest
import torch
from equivalence import Lanes, check_error, check_every_batch, fresh_seed
from small_models import EXPERTS, WIDTH, Moe
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from zoo import FAMILIES

import dynaflow as df
from dynaflow import debug
from dynaflow.bench.numerics import SEEDS, in_float64
from dynaflow.independence import tolerance
from dynaflow.region import Region

pytestmark = pytest.mark.usefixtures("inference", "one_thread")


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Ranked(nn.Module):
    def forward(self, x):
        return x.sort(0).values


class Loaded(Moe):
    """Tells how many rows each expert has."""

    def forward(self, x):
        load = torch.histc(self.gate(x).argmax(-1).float(), EXPERTS, 0, EXPERTS - 1)
        return super().forward(x) * load.max()


class Block(nn.Module):
    """A mixture, or what takes its place, between layers that split anyway."""

    def __init__(self, inner):
        super().__init__()
        self.before = nn.Linear(WIDTH, WIDTH)
        self.inner = inner
        self.after = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.after(x + self.inner(torch.tanh(self.before(x))))


class Parts(df.Strategy):
    """Even parts, each on a stream of its own, cut at `annotations`."""

    def __init__(self, *annotations, parts=2):
        self.given = annotations
        self.parts = parts

    def partition(self):
        return self.given

    def schedule(self, s, batch):
        s.split(self.parts)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op, stream="compute" if op.part == 0 else f"side{op.part}")


def block(inner):
    torch.manual_seed(0)
    return Block(inner()).eval()


def word(pattern):
    return df.SplitModule(pattern, tag="moe", rows_independent=True)


def segments(compiled):
    return df.report(compiled).graphs[0]["plans"][-1]["segments"]


def test_without_the_word_a_mixture_runs_merged_and_with_it_in_parts():
    model = block(Moe)
    bare = df.compile(model, strategy=Parts(df.SplitModule(Moe)))
    bare(torch.randn(9, WIDTH))
    reasons = " ".join(item["reason"] for item in segments(bare)["merged_because"])
    assert "it mixes the rows of the batch" in reasons
    assert segments(bare)["independent"] == []

    compiled = df.compile(model, strategy=Parts(word(Moe)))
    for rows in (9, 4, 16):
        x = torch.randn(rows, WIDTH)
        torch.testing.assert_close(compiled(x), model(x))
    assert df.report(compiled).graphs[0]["last_parts"] == [8, 8]
    assert segments(compiled)["merged"] == 0
    (region,) = segments(compiled)["independent"]
    assert region["name"] == "inner" and region["refusal"] == "" and region["ops"] > 5
    assert f"rows_independent of inner: splits {region['ops']} ops" in str(df.report(compiled))


@pytest.mark.parametrize("parts", [2, 3])
def test_overlapped_parts_give_the_bits_of_serial_ones(parts):
    compiled = df.compile(block(Moe), strategy=Parts(word("inner"), parts=parts))
    for rows in (8, 7, 32):
        x = torch.randn(rows, WIDTH)
        expected = compiled(x)
        with debug.run_mode(compiled, serial=True, poison=True):
            assert compiled(x).equal(expected)
        delays = [300 * (i % 3) for i in range(100)]
        with debug.run_mode(compiled, poison=True, delays_us=lambda n, d=delays: d[:n]):
            assert compiled(x).equal(expected)


def test_the_experts_of_a_mixtral_run_in_parts():
    family = FAMILIES["mixtral"]
    model = family.build()

    class Experts(Lanes):
        def partition(self):
            return [*super().partition(), word("MixtralSparseMoeBlock")]

    compiled = df.compile(model, Experts(2, family.cut), dynamic_dims=family.dynamic_dims)
    check_every_batch(compiled, 2, fresh_seed(), family=family, sizes=6)
    found = segments(compiled)
    assert found["merged"] == 0, found["merged_because"]
    assert [item["refusal"] for item in found["independent"]] == ["", ""]
    reference = in_float64(family.reference(family.build()))
    inputs = [family.inputs(random.Random(seed), 8) for seed in SEEDS]
    check_error(reference, model, compiled, inputs, family)


@pytest.mark.parametrize("kind", [Centred, Ranked], ids=["mean", "sort"])
def test_a_module_that_mixes_rows_is_named(kind):
    compiled = df.compile(block(kind), strategy=Parts(word(kind)))
    x = torch.randn(9, WIDTH)
    for _ in range(2):  # no later call gets through
        with pytest.raises(df.IndependenceError) as raised:
            compiled(x)
    message = str(raised.value)
    assert "'inner' does not treat rows of the batch independently" in message
    assert "run on parts of [5, 4] rows" in message and "rows_independent out" in message
    assert ("%sub" if kind is Centred else "%sort.0") in message
    assert "differs in rows 0" in message and "torch.float32" in message


def test_what_has_no_rows_cannot_leave_the_region():
    def model(x):
        with df.mark("count"):
            load = torch.histc(x.argmax(-1).float(), EXPERTS, 0, EXPERTS - 1)
        return x * load.amax()

    compiled = df.compile(model, strategy=Parts(df.SplitMark("count", rows_independent=True)))
    x = torch.randn(8, WIDTH)
    torch.testing.assert_close(compiled(x), model(x))
    (region,) = segments(compiled)["independent"]
    assert region["refusal"].startswith("%histc has no rows for each part, and 'amax' reads it")
    assert "does not help" in segments(compiled)["merged_because"][0]["reason"]
    assert "rows_independent of count: no help, %histc" in str(df.report(compiled))


def test_a_load_of_all_rows_is_found_out():
    compiled = df.compile(block(Loaded), strategy=Parts(word(Loaded)))
    with pytest.raises(df.IndependenceError, match="%mul"):
        compiled(torch.randn(16, WIDTH))


def test_a_region_is_tried_once_whatever_the_batch():
    class Late(nn.Module):
        """Mixes rows of large values only."""

        def forward(self, x):
            large = x.abs().amax() > 100
            return torch.where(large, x - x.mean(0), x)

    model = nn.Sequential(Late())
    compiled = df.compile(model, strategy=Parts(word("0"), parts=3))
    x = torch.randn(12, WIDTH)
    assert compiled(x).equal(x)
    compiled(1000 * torch.randn(12, WIDTH))
    compiled(1000 * torch.randn(5, WIDTH))  # two parts: another plan of the same region
    assert [plan["parts"] for plan in df.report(compiled).graphs[0]["plans"]] == [3, 2]
    other = df.compile(model, strategy=Parts(word("0")))
    with pytest.raises(df.IndependenceError):
        other(1000 * torch.randn(12, WIDTH))


def test_marks_and_sequences_of_operators_can_be_called_independent_too():
    def model(x):
        with df.mark("there and back"):
            order = x[:, 0].argsort()
            sorted_rows = x[order]
            back = order.argsort()
            x = (sorted_rows * 2)[back]
        return x + 1

    x = torch.randn(10, WIDTH)
    marked = df.compile(
        model, strategy=Parts(df.SplitMark("there and back", rows_independent=True))
    )
    assert marked(x).equal(model(x))
    assert segments(marked)["merged"] == 0

    functions = ["sort", "index", "sort", "mul", "index"]
    listed = df.compile(model, strategy=Parts(df.SplitFunc(functions, rows_independent=True)))
    assert listed(x).equal(model(x))
    found = segments(listed)
    assert found["independent"][0]["name"] == "sort, index, sort, mul, index"
    assert found["merged"] == 0, found["merged_because"]


def test_row_numbers_from_outside_are_those_of_the_whole_batch():
    class Picks(nn.Module):
        def forward(self, x, numbers):
            return x[numbers.flip(0)].flip(0)

    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.picks = Picks()

        def forward(self, x):
            return self.picks(x, torch.arange(x.shape[0]))

    compiled = df.compile(Numbered(), strategy=Parts(word(Picks)))
    with pytest.raises(df.IndependenceError, match="run on rows 4 to 7 alone, it fails with Index"):
        compiled(torch.randn(8, WIDTH))


def test_random_draws_in_a_region_are_those_of_the_whole_batch():
    class Noisy(Moe):
        def forward(self, x):
            return super().forward(x * (1 + torch.rand_like(x)))

    model = block(Noisy)
    compiled = df.compile(model, strategy=Parts(word(Noisy)))
    x = torch.randn(8, WIDTH)
    compiled(x)
    torch.manual_seed(3)
    expected = model(x)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(x), expected)
    (merged,) = segments(compiled)["merged_because"]
    assert merged["reason"] == "it draws random numbers"


def test_the_trial_changes_nothing_that_the_caller_has():
    class Counting(Moe):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return super().forward(x) + self.calls

    model = block(Counting)
    compiled = df.compile(model, strategy=Parts(word(Counting)))
    x = torch.randn(8, WIDTH)
    seed = torch.get_rng_state()
    kept = x.clone()
    torch.testing.assert_close(compiled(x), model(x) - model.after.weight.sum(1))
    assert model.inner.calls == 2 and x.equal(kept)
    assert torch.get_rng_state().equal(seed)


def test_sizes_that_only_a_run_knows_are_no_error():
    class Listed(nn.Module):
        def forward(self, x):
            rows = (x[:, 0] > 0).nonzero().flatten()
            return torch.zeros_like(x).index_copy(0, rows, x[rows])

    model = block(Listed)
    compiled = df.compile(model, strategy=Parts(word(Listed)))
    for rows in (8, 9):
        x = torch.randn(rows, WIDTH)
        torch.testing.assert_close(compiled(x), model(x))
    graphs = df.report(compiled).graphs
    assert any(graph["break_reason"] for graph in graphs) or df.report(compiled).fallbacks


def test_the_tolerance_is_half_of_the_digits_and_none_for_integers():
    assert tolerance(torch.float32) == pytest.approx(3.5e-4, rel=0.02)
    assert tolerance(torch.bfloat16) == pytest.approx(0.088, rel=0.02)
    assert tolerance(torch.float64) < 2e-8
    assert tolerance(torch.int64) == tolerance(torch.bool) == 0


def test_a_region_runs_some_ops_of_a_graph_by_themselves():
    def function(x):
        y = x.sin()
        low, high = torch.ops.aten.split.Tensor(y, y.shape[0] // 2)
        return (low + high).reshape(x.shape[0] * 2, -1).cos()

    gm = make_fx(function, tracing_mode="symbolic")(torch.randn(8, 4))
    names = {node.name: node for node in gm.graph.nodes}
    region = Region(gm, ["split", "add", "view"])
    assert [node.name for node in region.inputs] == ["sin"]
    assert [node.name for node in region.outputs] == ["view"]
    y = torch.randn(6, 4)
    symbols = {str(size): 6 for size in names["sin"].meta["val"].shape[:1]}
    symbols |= {str(size): 4 for size in names["sin"].meta["val"].shape[1:]}
    (result,) = region.run({names["sin"]: y}, symbols).values()
    assert result.equal((y[:3] + y[3:]).reshape(12, 1))
