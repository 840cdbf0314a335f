"""The figures of what the host does: planning, and engines on kernels that do nothing."""

from __future__ import annotations

import pytest

from dynaflow.bench import memory, native, plan_time, small_llama
from dynaflow.bench.asyncio_engine import Node, chain, run_step
from dynaflow.bench.stats import Rounds
from dynaflow.bench.ui import Display
from dynaflow.bench.workload import TINY


@pytest.fixture
def display():
    with Display() as show:
        yield show


def test_the_asyncio_engine_runs_each_operator_once_after_what_it_needs():
    order = []
    needs = [(), (0,), (0,), (1, 2), ()]
    run_step([Node(lambda at=at: order.append(at), of) for at, of in enumerate(needs)])
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert all(order.index(need) < order.index(at) for at, of in enumerate(needs) for need in of)


def test_a_chain_has_two_parts_that_meet_at_every_collective():
    nodes = chain(8)
    assert [node.needs for node in nodes] == [(), (), (0,), (1, 2), (2,), (3,), (3, 4), (5, 6)]


def test_figure_plan_time(display):
    found = {row.name: row for row in plan_time.run(display, layers=(1, 2), rounds=2)}
    whole = found["plan-time/2 layers"]
    assert whole.value > found["plan-time/2 layers/lower"].value > 0
    assert found["plan-time/2 over 1 layers"].unit == "x"


def test_a_program_says_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="cannot read"):
        native.run_program("plan_time", tmp_path / "nothing", "nanoflow", 2, 1)
    monkeypatch.setattr(native, "BUILD", tmp_path)
    with pytest.raises(native.NotBuiltError, match="make bench-programs"):
        native.run_program("plan_time")


def test_figure_small_llama(display):
    found = {row.name: row for row in small_llama.run(display, Rounds(least=3, most=3, warmup=1))}
    assert found["host-cost/llama/replay over bare calls"].value > 0
    assert {"eager", "compiled", "replay", "bare calls", "torch.fx.Interpreter"} <= {
        name.removeprefix("host-cost/llama/") for name in found
    }


def test_figure_memory(display):
    cases = (None, ("lmsys", 4, 16))
    found = {row.name: row.value for row in memory.run(display, TINY, (1,), cases)}
    for batch in ("(8, 128)", "lmsys 4 requests"):
        assert 0 < found[f"memory/TP=1 {batch}/sequential over eager"] <= 1
        assert 0 < found[f"memory/TP=1 {batch}/nanoflow over sequential"] <= 1.02


def test_requests_are_cut_where_the_tokens_are_halved():
    assert memory.border((1, 1, 1, 1)) == 2
    assert memory.border((8, 1, 1, 1)) == 1
    assert memory.border((1, 1, 1, 8)) == 3
