"""A tensor-parallel Llama on two ranks: overlapped steps against serial ones, eager and float64."""

from __future__ import annotations

import functools
import random

import pytest
import torch
import torch.distributed as dist
from equivalence import (
    CUTS,
    LATE_US,
    SHAPE,
    check_all_tokens,
    check_captured_once,
    check_errors,
    check_every_batch,
    forced,
    fresh_seed,
    plan_of,
    tokens,
    waits_of,
)
from ranks import Ranks

import dynaflow as df
from dynaflow import debug
from dynaflow.bench.workload import build_model


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    with Ranks(tmp_path_factory.mktemp("ranks")) as ranks:
        yield ranks


@functools.cache
def llama():
    """One model in each rank's process, and its capture: both take far longer than the steps."""
    model = build_model(SHAPE, world=2).requires_grad_(False)
    return model, df.compile(model, dynamic_dims=(0, 1))


@torch.no_grad()
def every_batch(rank, cut, seed):
    _, compiled = llama()
    debug.replan(compiled, forced(*cut))
    check_every_batch(compiled, cut[0], seed, rank)
    check_captured_once(compiled, cut[0])
    assert any(item["overlapped"] for item in collectives(compiled))


def collectives(compiled):
    graph = next(graph for graph in df.report(compiled).graphs if graph["batch_symbol"])
    return [item for plan in graph["plans"] for item in plan["collectives"]]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_overlapped_steps_equal_serial_ones_at_every_batch_size(ranks, cut):
    ranks.run(every_batch, cut, fresh_seed())


def without(compiled, graph, plan, text, arguments, late, rank):
    """A step in which the first rank runs `text`, and its peer is late for the run `late`."""
    whole = plan.engine
    if rank == 0:
        plan.engine = debug.engine_for(compiled, graph, text)
    lateness = [LATE_US * (rank == 1 and run == late) for run in range(len(plan.plan.runs))]
    dist.barrier()
    try:
        with debug.run_mode(compiled, poison=True, delays_us=lambda _: lateness):
            return compiled(**arguments).logits
    finally:
        plan.engine = whole


@torch.no_grad()
def every_wait(rank, seed):
    """For each wait: its run, and whether results without it, and with it, are the serial ones."""
    _, compiled = llama()
    debug.replan(compiled, forced(2))
    source = random.Random(seed)
    compiled(**tokens(source, 8, 8))
    graph, plan = plan_of(compiled, 2)
    text = plan.plan.text
    found = []
    for without_it, late in waits_of(text):
        arguments = tokens(source, 8, 8)
        with debug.run_mode(compiled, serial=True, poison=True):
            serial = compiled(**arguments).logits
        run = functools.partial(without, compiled, graph, plan)
        broken = run(without_it, arguments, late, rank)
        whole = run(text, arguments, late, rank)
        found.append((plan.plan.runs[late]["name"], serial.equal(broken), serial.equal(whole)))
    network = [run["name"] for run in plan.plan.runs if run["stream"] == "network"]
    return found, network


def test_without_any_one_of_its_waits_a_plan_gives_other_results(ranks):
    (found, network), _ = ranks.run(every_wait, fresh_seed())
    assert [name for name, _, _ in found] == network, "one wait for each collective"
    assert len(network) == 2 * (2 * SHAPE.layers + 2)
    assert [name for name, unchanged, _ in found if unchanged] == []
    assert all(same for _, _, same in found), "being late alone changes nothing"


@torch.no_grad()
def all_tokens(rank, seed):
    model, _ = llama()
    check_all_tokens(df.compile(model, strategy=forced(2), dynamic_dims=(0, 1)), seed)


def test_all_tokens_logits_are_the_same_too(ranks):
    ranks.run(all_tokens, fresh_seed())


@torch.no_grad()
def errors_of(rank, strategy):
    model, compiled = llama()
    debug.replan(compiled, strategy)
    check_errors(model, compiled)


@pytest.mark.parametrize("strategy", ["sequential", forced(2)], ids=["sequential", "nanoflow"])
def test_errors_against_float64_are_at_most_twice_those_of_eager(ranks, strategy):
    ranks.run(errors_of, strategy)


@torch.no_grad()
def sizes_of_one_graph(rank):
    model = build_model(SHAPE, world=2)
    compiled = df.compile(model, strategy=forced(2), dynamic_dims=(0, 1))
    source = random.Random(0)
    parts = []
    for rows in (4, 6, 33):
        compiled(**tokens(source, rows, 8))
        parts.append(df.report(compiled).graphs[0]["last_parts"])
    return parts, df.report(compiled).to_json()["graphs"]


def test_the_batch_symbol_of_the_tensor_parallel_graph_stays_free(ranks):
    for parts, graphs in ranks.run(sizes_of_one_graph):
        assert parts == [[2, 2], [3, 3], [17, 16]]
        assert len(graphs) == 1 and len(graphs[0]["plans"]) == 1
        batch = next(s for s in graphs[0]["symbols"] if s["name"] == graphs[0]["batch_symbol"])
        assert batch["min"] <= 2 and batch["max"] is None
