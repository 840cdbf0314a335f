"""A bound on planned memory is kept, by other plans where need be, or the call says why not."""

from __future__ import annotations

import re

import pytest
import torch
from small_models import Mlp, llama, prompt, stack
from torch import nn

import dynaflow as df
from dynaflow import debug


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Mlp(), Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


def planned(model, strategy, x):
    """Bytes that a step plans without a bound."""
    torch._dynamo.reset()
    compiled = df.compile(model, strategy)
    compiled(x)
    (graph,) = df.report(compiled).graphs
    return graph["plans"][0]["counters"]["arena_bytes"]


@pytest.fixture
def bounded():
    torch._dynamo.reset()
    return lambda model, limit, strategy="sequential": df.compile(
        model, strategy, options={"memory_limit": limit}
    )


@torch.no_grad()
def test_a_plan_within_the_bound_runs_as_it_is(bounded):
    model, x = stack(), torch.randn(16, 8)
    compiled = bounded(model, planned(model, "sequential", x))
    torch.testing.assert_close(compiled(x), model(x))
    ((_, plan),) = debug.plans(compiled)
    assert plan.plan.strategy == "sequential"


@torch.no_grad()
def test_a_larger_batch_runs_in_parts_one_after_the_other(bounded):
    model, x = stack(), torch.randn(16, 8)
    limit = planned(model, "sequential", x)
    compiled = bounded(model, limit)
    compiled(x)
    larger = torch.randn(64, 8)
    with pytest.warns(
        df.DynaFlowWarning, match=rf"memory_limit is {limit}: '4 parts in turn' runs"
    ):
        result = compiled(larger)
    torch.testing.assert_close(result, model(larger))
    with df.count(compiled) as counts:
        kept = [compiled(rows) for rows in (larger, x, torch.randn(60, 8))]
    assert len(kept) == 3
    for graph, plan in debug.plans(compiled):
        assert plan.engine.counters()["arena_bytes"] <= limit, graph.captured.name
    assert counts.steps == 3


@torch.no_grad()
def test_a_bound_that_no_plan_keeps_to_is_refused_with_what_each_needs(bounded):
    compiled = bounded(stack(), 100)
    x = torch.randn(16, 8)
    message = (
        "sizes .16. keeps to memory_limit 100: 'sequential' plans [0-9]+ bytes, '2 parts in turn' "
        "plans [0-9]+ bytes, '4 parts in turn' plans [0-9]+ bytes, '8 parts in turn' plans [0-9]+ "
        "bytes; allow more, or call with smaller batches"
    )
    for _ in range(2):
        with pytest.raises(df.PlanError, match=message):
            compiled(x)


@torch.no_grad()
def test_the_sequential_plan_comes_before_others_where_a_strategy_needs_more(bounded):
    class BothAtOnce(df.Strategy):
        """A stream for each branch: the hidden values of both are in memory at once."""

        def partition(self):
            return [df.SplitModule("left"), df.SplitModule("right")]

        def schedule(self, s, batch):
            while ops := s.get_ready_ops():
                for op in ops:
                    s.execute(op, stream="side" if "right" in op.name else "compute")

    model, x = Branches(), torch.randn(32, 8)
    both, sequential = planned(model, BothAtOnce(), x), planned(model, "sequential", x)
    assert sequential < both
    torch._dynamo.reset()
    compiled = bounded(model, sequential, BothAtOnce())
    with pytest.warns(df.DynaFlowWarning, match="'sequential' runs"):
        torch.testing.assert_close(compiled(x), model(x))


@torch.no_grad()
def test_a_llama_within_half_of_its_memory(bounded):
    model, inputs = llama(), prompt(16, 12)
    compiled = bounded(model, None)
    compiled(**inputs, use_cache=False)
    ((_, plan),) = debug.plans(compiled)
    limit = plan.engine.counters()["arena_bytes"] // 2
    torch._dynamo.reset()
    compiled = bounded(model, limit, "nanoflow")
    with pytest.warns(df.DynaFlowWarning, match="parts in turn"):
        logits = compiled(**inputs, use_cache=False).logits
    torch.testing.assert_close(logits, model(**inputs, use_cache=False).logits)


@pytest.mark.parametrize("limit", [-1, 1.5, "1 MiB", True])
def test_a_bound_is_a_number_of_bytes(limit):
    with pytest.raises(df.ScheduleError, match=f"memory_limit is {re.escape(repr(limit))}"):
        df.compile(stack(), options={"memory_limit": limit})
