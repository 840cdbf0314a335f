"""Collectives of the torch adapter on plans written by hand, over two ranks with Gloo."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dynaflow._loader import load_adapter


@pytest.fixture(autouse=True, scope="module")
def adapter():
    load_adapter()


def make_engine(text: str, runtime=None):
    runtime = torch.classes.dynaflow.Runtime() if runtime is None else runtime
    return torch.classes.dynaflow.Engine(runtime, text, [], {})


COLLECTIVE = """
graph: net {{tokens=1}}
  %x = input(0, tensor(float32, [4]))
  %r = _c10d_functional.{call} {{out=[tensor(float32, [{size}])], kind=collective, group="tp"}}
  %o = aten.add.Tensor(%r, 1, 1) {{out=[tensor(float32, [{size}])], out_target="aten.add.out"}}
  output(%o)
plan: plan() {{strategy="by hand", cut=even(1, 1), events=1}}
  buffer(32, [])
  storage(float32, {size})
  slot(%x, 0, 1, argument(0), [4], [1], 0)
  slot(%r, 0, 1, arena(0), [{size}], [1], 0)
  slot(%o, 0, 1, output(0), [{size}], [1], 0)
  run("net", 0, 0, 1, 1)
  call("r", [0], [1], out)
  run("add", 1, 0, 1, 0)
  call("o", [1], [2], out)
  stream("compute", host, [wait(0), launch(1)])
  stream("network", async, [launch(0), record(0)])
  result(slot(2))
"""
ALL_REDUCE = COLLECTIVE.format(call='all_reduce.default(%x, "sum", "tp")', size=4)
# By collective: its call, the elements of its result, and the result for two ranks' inputs.
COLLECTIVES = [
    ('all_reduce.default(%x, "max", "tp")', 4, lambda rank, x: torch.maximum(*x)),
    ('all_gather_into_tensor.default(%x, 2, "tp")', 8, lambda rank, x: torch.cat(x)),
    (
        'reduce_scatter_tensor.default(%x, "sum", 2, "tp")',
        2,
        lambda rank, x: (x[0] + x[1]).chunk(2)[rank],
    ),
    (
        'all_to_all_single.default(%x, [2, 2], [2, 2], "tp")',
        4,
        lambda rank, x: torch.cat([t.chunk(2)[rank] for t in x]),
    ),
    ('broadcast.default(%x, 1, "tp")', 4, lambda rank, x: x[1]),
]


def on_two_ranks(body, tmp_path: Path) -> None:
    mp.spawn(_rank, args=(body, str(tmp_path / "store")), nprocs=2)


def _rank(rank: int, body, store: str) -> None:
    torch.set_num_threads(1)
    load_adapter()
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=30),
    )
    body(rank)


def runtime_of(group) -> object:
    runtime = torch.classes.dynaflow.Runtime()
    runtime.add_group("tp", group.group_name, False)
    return runtime


def _collectives(rank: int) -> None:
    runtime = runtime_of(dist.group.WORLD)
    for call, size, reference in COLLECTIVES:
        engine = make_engine(COLLECTIVE.format(call=call, size=size), runtime=runtime)
        for step in range(3):
            torch.manual_seed(step)
            inputs = [torch.randn(4), torch.randn(4)]
            before = inputs[rank].clone()
            (output,), _ = engine.run_with([inputs[rank]], [], step == 1, True, [])
            torch.testing.assert_close(output, reference(rank, inputs) + 1)
            assert torch.equal(inputs[rank], before)
        engine.start_trace()
        engine.run([inputs[rank]], [])
        assert [line.split()[0] for line in engine.take_trace().splitlines()] == ["clock", "0", "1"]
    assert runtime.broken() == ""
    dist.barrier()
    dist.destroy_process_group()


def test_collectives_equal_torchs_own(tmp_path):
    on_two_ranks(_collectives, tmp_path)


def _absent_peer(rank: int) -> None:
    group = dist.new_group([0, 1], timeout=timedelta(seconds=2))
    engine = make_engine(ALL_REDUCE, runtime=(runtime := runtime_of(group)))
    engine.run([torch.ones(4)], [])
    if rank == 0:
        with pytest.raises(
            RuntimeError, match=r"ExecutionError: net failed on stream 'network'.*group 'tp' failed"
        ):
            engine.run([torch.ones(4)], [])
        assert runtime.broken().startswith("group 'tp' is broken: ")
        start = time.monotonic()
        with pytest.raises(
            RuntimeError, match="ExecutionError: group 'tp' is broken since an earlier step"
        ):
            engine.run([torch.ones(4)], [])
        assert time.monotonic() - start < 1
    dist.barrier()


def test_a_group_whose_peer_does_not_answer_is_broken_and_later_steps_say_so(tmp_path):
    on_two_ranks(_absent_peer, tmp_path)


FAILS_FIRST = """
graph: net {tokens=1}
  %x = input(0, tensor(float32, [4]))
  %a = adapter_test.fails.default(%x) {out=[tensor(float32, [4])], kind=opaque}
  %r = _c10d_functional.all_reduce.default(%a, "sum", "tp") {kind=collective, group="tp", OUT}
  output(%r)
plan: plan() {strategy="by hand", cut=even(1, 1), events=0}
  storage(float32, 4)
  slot(%x, 0, 1, argument(0), [4], [1], 0)
  slot(%a, 0, 1, kernel(1), [4], [1], 0)
  slot(%r, 0, 1, output(0), [4], [1], 0)
  run("all", 0, 0, 1, 0)
  call("a", [0], [1], fresh)
  call("r", [1], [2], out)
  stream("compute", host, [launch(0), free(1)])
  result(slot(2))
""".replace("OUT", "out=[tensor(float32, [4])]")


def _failure_before_the_collective(rank: int) -> None:
    library = torch.library.Library("adapter_test", "DEF")
    library.define("fails(Tensor x) -> Tensor")

    def fails(x):
        if x[0] == 0:
            raise ValueError("zero")
        return x.clone()

    library.impl("fails", fails, "CompositeExplicitAutograd")
    engine = make_engine(FAILS_FIRST, runtime_of(dist.group.WORLD))
    assert torch.equal(engine.run([torch.ones(4)], [])[0][0], torch.full((4,), 2.0))
    with pytest.raises(RuntimeError, match="ValueError: zero"):
        engine.run([torch.zeros(4)], [])
    with pytest.raises(RuntimeError, match=r"group 'tp' is broken(.|\n)*ValueError: zero"):
        engine.run([torch.ones(4)], [])
    dist.barrier()


def test_a_step_that_fails_before_its_collectives_are_issued_breaks_their_group(tmp_path):
    on_two_ranks(_failure_before_the_collective, tmp_path)


def _refused_argument(rank: int) -> None:
    engine = make_engine(ALL_REDUCE, runtime=(runtime := runtime_of(dist.group.WORLD)))
    with pytest.raises(RuntimeError, match="has shape"):
        engine.run([torch.ones(5)], [])
    assert runtime.broken() == ""
    assert torch.equal(engine.run([torch.ones(4)], [])[0][0], torch.full((4,), 3.0))
    dist.barrier()


def test_an_argument_refused_before_the_step_began_breaks_no_group(tmp_path):
    on_two_ranks(_refused_argument, tmp_path)


def test_a_group_that_was_not_added_is_named():
    with pytest.raises(
        RuntimeError, match=r"^PlanError: op 'r' uses group 'tp', which was not added"
    ):
        make_engine(ALL_REDUCE)


def test_a_process_group_that_does_not_exist_is_named():
    runtime = torch.classes.dynaflow.Runtime()
    with pytest.raises(RuntimeError, match=r"^PlanError: there is no process group 'nowhere'"):
        runtime.add_group("tp", "nowhere", True)
