"""Experts on two ranks: a region that ends in a collective runs in parts, and hides it."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from ranks import run_ranks
from small_models import WIDTH, Moe
from torch import nn

import dynaflow as df
from dynaflow import debug


class Shared(Moe):
    """Each rank has experts of its own for all rows; what they give is summed."""

    def forward(self, x):
        return functional.all_reduce(super().forward(x), "sum", dist.group.WORLD)


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Overlapped(df.Strategy):
    def partition(self):
        words = [df.SplitModule(kind, rows_independent=True) for kind in (Shared, Centred)]
        return [df.SplitFunc("all_reduce", tag="network"), *words]

    def schedule(self, s, batch):
        s.split(2)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op, stream="network" if op.has_tag("network") else "compute")


@torch.no_grad()
def experts(rank):
    torch.manual_seed(rank)
    model = nn.Sequential(Shared(), nn.Tanh())
    compiled = df.compile(model, strategy=Overlapped())
    for rows in (8, 9, 31):
        x = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows))
        overlapped = compiled(x)
        torch.testing.assert_close(overlapped, model(x))
        with debug.run_mode(compiled, serial=True, poison=True):
            assert compiled(x).equal(overlapped)
    plan = df.report(compiled).graphs[0]["plans"][0]
    assert plan["segments"]["merged"] == 0
    assert all(item["overlapped"] for item in plan["collectives"])
    with pytest.raises(df.IndependenceError):
        df.compile(nn.Sequential(Shared(), Centred()), strategy=Overlapped())(x)


def test_a_region_that_ends_in_a_collective_runs_in_parts(tmp_path):
    run_ranks(experts, tmp_path)
