"""Ops whose results' sizes depend on data run as one, between ops that are planned as ever."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import dynaflow as df
from dynaflow.backend import enclose_unsized
from dynaflow.capture_unsized import UnsizedRegion
from dynaflow.errors import CaptureError

WIDTH = 8
STRATEGIES = ("sequential", df.NanoFlow(min_tokens=0))


@pytest.fixture(autouse=True)
def without_breaks():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(
        capture_dynamic_output_shape_ops=True, capture_scalar_outputs=True
    ):
        yield


class Experts(nn.Module):
    """Each row goes to the expert that its gate prefers."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, count)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero().flatten()
            out = out.index_add(0, rows, expert(x[rows]))
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(WIDTH, WIDTH)
        self.experts = Experts()
        self.after = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(torch.relu(self.before(x) + self.experts(x)))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: getattr(s, "name", s))
def test_experts_that_take_the_rows_of_their_choice(strategy):
    torch.manual_seed(0)
    model = Block().eval()
    compiled = df.compile(model, strategy)
    with torch.no_grad():
        for rows in (8, 9, 30):
            x = torch.randn(rows, WIDTH)
            torch.testing.assert_close(compiled(x), model(x))
        x = torch.randn(8, WIDTH)
        model.experts.gate.bias[0] = 1e6  # no row for the others
        torch.testing.assert_close(compiled(x), model(x))
    report = df.report(compiled)
    assert len(report.graphs) == 1 and not report.fallbacks
    assert not report.graphs[0]["break_reason"]


def test_what_they_allocate_is_counted_where_it_is_made():
    compiled = df.compile(Block().eval(), "sequential")
    x = torch.randn(8, WIDTH)
    with torch.no_grad():
        compiled(x)
        with df.count(compiled) as counts:
            compiled(x)
    made = [a for a in counts.allocations if "unsized_nonzero" in a.op]
    assert made and sum(a.bytes for a in made) >= 8 * 4 * WIDTH, counts.allocations


def test_what_stands_around_them_is_split():
    compiled = df.compile(Block().eval(), df.NanoFlow(min_tokens=0))
    with torch.no_grad():
        compiled(torch.randn(8, WIDTH))
    (graph,) = df.report(compiled).graphs
    (plan,) = graph["plans"]
    found = plan["segments"]["merged_because"]
    merged = {segment["name"]: segment["reason"] for segment in found}
    assert merged == {"experts": "it makes the host wait for the device"}
    assert plan["segments"]["split"] >= 2


def test_a_number_that_the_run_reads_scales_what_follows():
    def function(x):
        return (x * x.sum().item()).sin() + x.cos()

    compiled = df.compile(function, df.NanoFlow(min_tokens=0))
    with torch.no_grad():
        for rows in (4, 7):
            x = torch.randn(rows, WIDTH)
            torch.testing.assert_close(compiled(x), function(x))
    assert len(df.report(compiled).graphs) == 1 and not df.report(compiled).fallbacks


def test_a_result_of_unknown_size_stays_with_the_original():
    def function(x):
        return x[x[:, 0] > 0] + 1

    compiled = df.compile(function, "sequential")
    x = torch.randn(6, WIDTH)
    with torch.no_grad(), pytest.warns(df.DynaFlowWarning, match="the original model runs"):
        torch.testing.assert_close(compiled(x), function(x))


def traced(function, *args):
    return make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*args)


def test_groups_between_whose_ops_others_stand_become_one():
    def function(x):
        first = x.index_add(0, *picked(x, 0))
        between = first.sin()
        second = between.index_add(0, *picked(between + x, 1))
        return first + second, x.cos()

    def picked(x, column):
        rows = (x[:, column] > 0).nonzero().flatten()
        return rows, x[rows]

    x = torch.randn(6, WIDTH)
    gm = traced(function, x)
    enclose_unsized(gm)
    regions = [node for node in gm.graph.nodes if isinstance(node.target, UnsizedRegion)]
    names = {node.name for node in gm.graph.nodes}
    assert len(regions) == 2 and {"sin", "cos"} <= names and "nonzero" not in names
    gm.graph.lint()
    torch.testing.assert_close(gm(x), function(x))


def test_an_op_between_ops_of_one_group_joins_it():
    def function(x):
        rows = (x[:, 0] > 0).nonzero().flatten()
        count = torch.zeros(3) + rows.shape[0]
        return x.index_add(0, rows, x[rows] * count.exp().sum())

    x = torch.randn(6, WIDTH)
    gm = traced(function, x)
    enclose_unsized(gm)
    names = {node.name for node in gm.graph.nodes}
    assert "exp" not in names and sum("unsized" in name.lower() for name in names) == 1
    torch.testing.assert_close(gm(x), function(x))


def test_a_change_in_place_among_them_is_refused_by_name():
    def function(x):
        rows = (x[:, 0] > 0).nonzero().flatten()
        x.add_(1)
        return x.index_add(0, rows, x[rows])

    gm = traced(function, torch.randn(6, WIDTH))
    with pytest.raises(CaptureError, match=r"add_.* has an effect .* nonzero to index_add"):
        enclose_unsized(gm)


def test_random_draws_keep_their_order():
    def function(x):
        rows = (x[:, 0] > 0).nonzero().flatten()
        first = x.index_add(0, rows, x[rows])
        drawn = torch.rand_like(first)
        return x.index_add(0, rows, x[rows] * 2), drawn, torch.rand_like(x)

    gm = traced(function, torch.randn(6, WIDTH))
    with pytest.raises(CaptureError, match=r"rand.* has an effect"):
        enclose_unsized(gm)
