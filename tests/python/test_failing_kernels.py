"""Kernels that throw in the middle of a plan, and Python ops on streams of their own."""

from __future__ import annotations

import os
import threading

import pytest
import torch
from torch import nn

import dynaflow as df


class Switch:
    """Makes the test's op fail, and lets it wait for another Python thread."""

    def __init__(self) -> None:
        self.fails = False
        self.threads: list[int] = []
        self.cores: list[set[int]] = []
        self.meeting: threading.Barrier | None = None


SWITCH = Switch()


@torch.library.custom_op("dynaflow_test::guarded", mutates_args=())
def guarded(x: torch.Tensor) -> torch.Tensor:
    SWITCH.threads.append(threading.get_ident())
    SWITCH.cores.append(os.sched_getaffinity(0))
    if SWITCH.meeting is not None:
        SWITCH.meeting.wait(timeout=20)
    if SWITCH.fails:
        raise ValueError("the switch is on")
    return x * 2


@guarded.register_fake
def _(x):
    return torch.empty_like(x)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 4)
        self.up = nn.Linear(4, 4)

    def forward(self, ids):
        x = self.table(ids)
        return guarded(x) + self.up(x).cos()


class Side(df.Strategy):
    """The opaque op on a stream with a thread of its own."""

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts

    def partition(self):
        return [
            df.SplitFunc("embedding|index_select", tag="table"),
            df.SplitFunc("guarded", tag="side"),
        ]

    def schedule(self, s, batch):
        s.split(self.parts)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op, stream="side" if op.has_tag("side") else "compute")


@pytest.fixture(autouse=True)
def inference():
    SWITCH.__init__()
    with torch.no_grad():
        yield


def compiled_model(parts=1, **options):
    torch.manual_seed(0)
    model = Model().eval()
    return model, df.compile(model, strategy=Side(parts), options=options)


def check_next_call(model, compiled):
    ids = torch.randint(0, 8, (6, 3))
    torch.testing.assert_close(compiled(ids), model(ids))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_custom_op_that_throws_is_named_and_the_next_call_works(parts):
    model, compiled = compiled_model(parts)
    check_next_call(model, compiled)
    SWITCH.fails = True
    for _ in range(3):
        with pytest.raises(df.ExecutionError) as caught:
            compiled(torch.zeros(6, 3, dtype=torch.long))
        message = str(caught.value)
        assert "dynaflow_test.guarded.default" in message and "the switch is on" in message
        # Without a split rule it runs once for both parts, and has none in its name.
        assert "guarded failed on stream 'side'" in message
    SWITCH.fails = False
    check_next_call(model, compiled)


@pytest.mark.parametrize("part", [0, 1])
def test_a_kernel_that_throws_in_one_part_names_the_part(part):
    model, compiled = compiled_model(parts=2)
    check_next_call(model, compiled)
    ids = torch.zeros(6, 3, dtype=torch.long)
    ids[5 * part, 2] = 1000
    with pytest.raises(df.ExecutionError) as caught:
        compiled(ids)
    message = str(caught.value)
    assert f"[{part}] failed on stream 'compute'" in message
    assert "embedding" in message and "out of range" in message
    check_next_call(model, compiled)


def test_a_python_op_runs_on_the_second_stream_while_the_caller_waits():
    model, compiled = compiled_model()
    ids = torch.randint(0, 8, (6, 3))
    expected = model(ids)
    compiled(ids)  # captures and plans, which other threads may run during
    SWITCH.threads.clear()
    SWITCH.meeting = threading.Barrier(2)
    other = threading.Thread(target=lambda: SWITCH.meeting.wait(timeout=20))
    other.start()  # another Python thread gets on while the step is under way: the GIL is free
    torch.testing.assert_close(compiled(ids), expected)
    other.join()
    assert len(SWITCH.threads) == 1
    assert SWITCH.threads[0] != threading.get_ident()
    streams = df.report(compiled).graphs[0]["plans"][0]["streams"]
    assert [stream["kind"] for stream in streams] == ["host", "thread"]


def test_a_stream_keeps_to_its_cores_and_the_caller_to_its_own():
    own, core = os.sched_getaffinity(0), max(os.sched_getaffinity(0))
    model, compiled = compiled_model(cores={"side": [core]})
    ids = torch.randint(0, 8, (6, 3))
    compiled(ids)
    SWITCH.cores.clear()
    compiled(ids)
    assert [core] == [min(cores) for cores in SWITCH.cores] == [max(c) for c in SWITCH.cores]
    assert os.sched_getaffinity(0) == own
    for wrong in ({"side": []}, {"side": [-1]}, {"side": 0}, [0]):
        with pytest.raises(df.ScheduleError, match="lists of cores"):
            df.compile(model, options={"cores": wrong})
