"""Ranks keep the same plan, whatever each of them measures."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from torch.distributed._functional_collectives import all_reduce

import dynaflow as df
from dynaflow import debug, never_slower

STEPS = 2 * (never_slower.PAIRS + 1) + 4


@pytest.fixture
def ranks(tmp_path):
    with Ranks(tmp_path) as ranks:
        yield ranks


class Clock:
    """Only steps move it: by so many seconds for a plan of so many parts."""

    def __init__(self, seconds: dict[int, float], compiled) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.compiled = compiled

    def perf_counter(self) -> float:
        return self.now

    def watch(self) -> None:
        """Times the plans that there are by now."""
        for _, plan in debug.plans(self.compiled):
            if not hasattr(plan, "watched"):
                seconds = self.seconds[plan.plan.cut["parts"]]
                plan.watched, plan.run = True, functools.partial(self._timed, plan.run, seconds)

    def _timed(self, run, seconds, tensors, values):
        self.now += seconds
        return run(tensors, values)


@torch.no_grad()
def steps(rank, first_rank_says_slow):
    """Verdicts and the result of steps in which this rank's clock says the other thing."""
    group = dist.group.WORLD.group_name

    def model(x):
        return all_reduce(x * 2, "sum", group) + 1

    compiled = df.compile(model, "nanoflow", {"min_tokens": 0, "parts": 2})
    slow = (rank == 0) is first_rank_says_slow
    clock = Clock({1: 1.0, 2: 2.0} if slow else {1: 2.0, 2: 1.0}, compiled)
    never_slower.time = clock
    x = torch.ones(4, 2)
    for _ in range(STEPS):
        result = compiled(x)
        clock.watch()
    nanoflow, sequential = df.report(compiled).graphs[0]["plans"]
    (row,) = nanoflow["never_slower"]
    return row, [plan["counters"]["steps"] for plan in (nanoflow, sequential)], result.tolist()


@pytest.mark.parametrize("slow", [True, False])
def test_ranks_keep_what_the_first_one_measured(ranks, slow):
    first, second = ranks.run(steps, slow)
    assert first == second
    row, counts, result = first
    assert row["keeps"] is not slow
    pairs = never_slower.PAIRS + 1
    assert counts == ([pairs, pairs + 4] if slow else [pairs + 4, pairs])
    assert result == [[5.0, 5.0]] * 4


@torch.no_grad()
def steps_of_three(rank):
    """The first rank's clock prefers three parts, the other's two."""
    group = dist.group.WORLD.group_name

    def model(x):
        return all_reduce(x * 2, "sum", group) + 1

    compiled = df.compile(model, "nanoflow", {"min_tokens": 0})
    clock = Clock({1: 3.0, 2: 2.0, 3: 1.0} if rank == 0 else {1: 3.0, 2: 1.0, 3: 2.0}, compiled)
    never_slower.time = clock
    x = torch.ones(6, 2)
    for _ in range(never_slower.measured_steps(alternatives=1) + 2):
        result = compiled(x)
        clock.watch()
    graph = df.report(compiled).graphs[0]
    (row,) = graph["plans"][0]["never_slower"]
    return row, graph["last_parts"], result.tolist()


def test_ranks_take_the_number_of_parts_that_the_first_one_measured(ranks):
    first, second = ranks.run(steps_of_three)
    assert first == second
    row, parts, result = first
    assert row["parts"] == 3 and row["keeps"] and parts == [2, 2, 2]
    assert result == [[5.0, 5.0]] * 6
