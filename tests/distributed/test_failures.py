"""What ranks see when one of them dies, is silent, or would run something else."""

from __future__ import annotations

import functools
import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ranks import Dead, Ranks
from torch.distributed._functional_collectives import all_reduce

import dynaflow as df

#: Of the group that fails. The processes' own is longer, for they start at their own pace.
TIMEOUT_S = 3
#: How long ranks wait for each other's plans: compilation takes one longer than the other.
PATIENT = {"agree_timeout_s": 60}


@pytest.fixture
def ranks(tmp_path):
    with Ranks(tmp_path) as ranks:
        yield ranks


@functools.cache
def group_name():
    return dist.new_group([0, 1], timeout=timedelta(seconds=TIMEOUT_S)).group_name


def reducer(before=lambda x: x):
    name = group_name()

    def reduced(x):
        first = all_reduce(before(x) * 2, "sum", name)
        return all_reduce(first + 1, "sum", name)

    return reduced


@functools.cache
def compiled():
    strategy = df.NanoFlow(parts=2, min_tokens=0)
    return df.compile(reducer(), strategy=strategy, options=PATIENT)


@torch.no_grad()
def step(rank):
    return compiled()(torch.ones(4, 2)).tolist()


@torch.no_grad()
def step_without_peer(rank, peer_dies):
    """Of the first rank: the error, its seconds, the next call's error, and the report's line."""
    if rank == 1:
        os._exit(1) if peer_dies else time.sleep(TIMEOUT_S + 2)
        return None
    start = time.monotonic()
    with pytest.raises(df.ExecutionError) as first:
        compiled()(torch.ones(4, 2))
    seconds = time.monotonic() - start
    start = time.monotonic()
    with pytest.raises(df.ExecutionError) as later:
        compiled()(torch.ones(4, 2))
    assert time.monotonic() - start < 1, "later calls fail at once"
    return str(first.value), seconds, str(later.value), df.report(compiled()).broken


@pytest.mark.parametrize("peer_dies", [True, False], ids=["dead", "silent"])
def test_without_a_peer_a_step_fails_in_time_and_later_ones_say_that_the_group_is_broken(
    ranks, peer_dies
):
    assert ranks.run(step) == [[[10.0, 10.0]] * 4] * 2
    (first, seconds, later, broken), peer = ranks.run(step_without_peer, peer_dies)
    assert peer is (Dead if peer_dies else None)
    assert "all_reduce" in first and "stream 'network'" in first
    assert seconds < TIMEOUT_S + 2
    assert "is broken" in later and "is broken" in broken


class Order(df.Strategy):
    """Two parts, whose collectives go out in one order or the other."""

    def __init__(self, backwards: bool) -> None:
        self.backwards = backwards

    def partition(self):
        return [df.SplitFunc("all_reduce", tag="network")]

    def schedule(self, s, batch):
        s.split(2)
        while ops := s.get_ready_ops():
            for op in reversed(ops) if self.backwards else ops:
                s.execute(op, stream="network" if op.has_tag("network") else "compute")


@torch.no_grad()
def differing_orders(rank):
    step = df.compile(reducer(), strategy=Order(rank == 1), options=PATIENT)
    with pytest.raises(df.AgreementError) as caught:
        step(torch.ones(4, 2))
    return str(caught.value)


@torch.no_grad()
def differing_graphs(rank):
    step = df.compile(reducer(torch.exp if rank == 1 else torch.sin), options=PATIENT)
    with pytest.raises(df.AgreementError) as caught:
        step(torch.ones(4, 2))
    return str(caught.value)


@torch.no_grad()
def plan_of_one_rank(rank):
    """Of the first rank: the error of making a plan that the other never makes."""
    if rank == 1:
        return ""
    with pytest.raises(df.AgreementError) as caught:
        df.compile(reducer())(torch.ones(4, 2))
    return str(caught.value)


def test_ranks_that_would_run_something_else_learn_the_first_difference(ranks):
    start = time.monotonic()
    for message in ranks.run(differing_orders):
        assert "First difference" in message
        assert "parts 0:1 of 2" in message and "parts 1:2 of 2" in message
    for message in ranks.run(differing_graphs):
        assert "First difference" in message
        assert "aten.sin.default" in message and "aten.exp.default" in message
    assert time.monotonic() - start < PATIENT["agree_timeout_s"], "a difference is told at once"
    assert ranks.run(step) == [[[10.0, 10.0]] * 4] * 2
    message, _ = ranks.run(plan_of_one_rank)
    assert "rank 1 of group" in message and f"within {TIMEOUT_S} s" in message
