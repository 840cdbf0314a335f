"""Plans of real models and their mutants: the verifier against an oracle that tries timings."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from equivalence import Lanes, forced, fresh_seed
from torch.testing._internal.distributed.fake_pg import FakeStore
from zoo import FAMILIES

import dynaflow as df
from dynaflow import _core
from dynaflow.bench.workload import LlamaShape, build_model, fixed_batch

MUTANTS = Path(__file__).parents[2] / "build/dev/tests/cpp/dynaflow_mutants"
TINY = LlamaShape(hidden=16, intermediate=32, layers=2, heads=4, kv_heads=2, vocabulary=32)
#: Random interleavings of a mutant, beside those where one stream is early or late throughout.
RUNS = 2
#: Mutants of a kind that are tried. Waits, records and frees are fewer.
LIMIT = 20


def run_mutants(*words: object) -> list[dict]:
    """The program's lines; it fails where the verifier misses a mutant that misbehaves."""
    assert MUTANTS.exists(), f"{MUTANTS} is missing: make test-python builds it"
    done = subprocess.run([MUTANTS, *map(str, words)], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def plan_of(graph: _core.Graph, strategy: df.Strategy) -> _core.Plan:
    graph = _core.reinplace(_core.apply_corrections(graph))
    partition = _core.partition(graph, strategy.annotations())
    hints = {symbol["name"]: symbol["hint"] for symbol in graph.symbols}
    scheduler = _core.Scheduler(partition, strategy.name, hints)
    strategy.schedule(scheduler, scheduler.batch())
    return _core.lower(scheduler.finish())


def try_mutants(
    graph: _core.Graph, strategy: df.Strategy, folder: Path, rows: int = 5
) -> dict[str, dict]:
    """By kind: how many mutants of the plan there are, and how many of them misbehave."""
    path = folder / "plan.txt"
    path.write_text(plan_of(graph, strategy).text)
    batch = {graph.batch_symbol, *re.findall(r"equal\((\w+), " + graph.batch_symbol, graph.text)}
    sizes = [rows if symbol["name"] in batch else 3 for symbol in graph.symbols]
    lines = run_mutants("plan", path, fresh_seed(), RUNS, LIMIT, *sizes)
    return {line["kind"]: line for line in lines}


def check_events(tallies: dict[str, dict]) -> None:
    """No wait or record is redundant, and the verifier objects to no plan that is right."""
    for kind in ("wait deleted", "wait moved", "record deleted", "record moved"):
        tally = tallies.get(kind, {"mutants": 0, "harmful": 0})
        assert tally["harmful"] == tally["mutants"], tally
    for kind in ("free deleted", "free moved", "wait doubled"):
        assert tallies.get(kind, {"refused": 0})["refused"] == 0, tallies[kind]


@pytest.fixture
def two_ranks(monkeypatch):
    """This process as rank 0 of two, with collectives that do nothing: enough to capture."""
    for name, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, MASTER_PORT=0).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("parts", "fractions"), [(2, None), (3, None), (4, None), (3, (0.2, 0.5, 0.3))]
)
@torch.no_grad()
def test_mutants_of_a_tensor_parallel_llama(two_ranks, tmp_path, parts, fractions):
    torch.compiler.reset()
    arguments = fixed_batch(8, 16, TINY.vocabulary).inputs()
    (graph,) = df.capture(build_model(TINY, world=2), **arguments, dynamic_dims=(0, 1))
    tallies = try_mutants(graph, forced(parts, fractions), tmp_path, 2 * parts + 1)
    check_events(tallies)
    collectives = parts * (2 * TINY.layers + 2)
    tried = min(collectives, LIMIT)
    assert tallies["wait deleted"]["harmful"] >= tried <= tallies["record deleted"]["harmful"]
    assert tallies["collectives swapped"]["harmful"] == min(collectives - 1, LIMIT)
    assert tallies["free moved"]["harmful"] > 0


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_mutants_of_every_family(name, tmp_path):
    torch.compiler.reset()
    family = FAMILIES[name]
    arguments = family.inputs(random.Random(0), 8)
    (graph,) = df.capture(family.build(16), **arguments, dynamic_dims=family.dynamic_dims)
    for strategy in (forced(2), Lanes(2, family.cut)):
        tallies = try_mutants(graph, strategy, tmp_path)
        check_events(tallies)
        assert (
            tallies["offset shifted"]["harmful"] > 0
            and tallies["lifetime shortened"]["harmful"] > 0
        )


class ExpertsInParts(Lanes):
    """Lanes whose experts run in parts too, each with values of its own."""

    def partition(self):
        experts = df.SplitModule("MixtralSparseMoeBlock", rows_independent=True)
        return [*super().partition(), experts]


@torch.no_grad()
def test_mutants_of_experts_that_run_in_parts(tmp_path):
    torch.compiler.reset()
    family = FAMILIES["mixtral"]
    arguments = family.inputs(random.Random(0), 8)
    (graph,) = df.capture(family.build(16), **arguments, dynamic_dims=family.dynamic_dims)
    partition = _core.partition(graph, ExpertsInParts(2, family.cut).annotations())
    assert not any(segment["form"] == "merged" for segment in partition.segments)
    check_events(try_mutants(graph, ExpertsInParts(2, family.cut), tmp_path))


def test_random_plans_are_right():
    (counts,) = run_mutants("random", 10_000, fresh_seed())
    assert counts["reusing"] >= 5_000 and counts["complete"] == counts["plans"], counts
