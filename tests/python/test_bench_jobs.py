"""Jobs side by side: commands, answers and failures."""

import os
import signal
from pathlib import Path

import pytest

from dynaflow.bench import jobs
from dynaflow.bench.launch import RankError

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Ranks import their functions from this file."""
    monkeypatch.syspath_prepend(str(HERE))


def adding(context, start):
    def fail(rank):
        if context.rank == rank:
            raise ArithmeticError("one is not two")

    def add(value):
        return start + context.rank + value

    jobs.serve(context, {"add": add, "fail": fail, "process": os.getpid})


def raising(context):
    raise ArithmeticError("before it serves")


def job(start):
    return jobs.Job(f"{__name__}:adding", kwargs=dict(start=start), world=2, timeout_s=60)


def test_jobs_take_turns():
    one, other = job(10), job(20)
    try:
        for value in range(3):
            assert one.call("add", value=value) == [10 + value, 11 + value]
            assert other.call("add", value=value) == [20 + value, 21 + value]
    finally:
        one.close()
        other.close()


def test_a_handler_that_fails_ends_its_job_and_no_other():
    one, other = job(10), job(20)
    with pytest.raises(RankError, match="rank 1: ArithmeticError: one is not two"):
        one.call("fail", rank=1)
    with pytest.raises(RankError, match="one is not two"):
        one.call("add", value=0)
    assert other.call("add", value=0) == [20, 21]
    one.close()
    other.close()


def test_a_rank_that_dies_while_it_waits_fails_the_next_command():
    one = job(10)
    processes = one.call("process")
    os.kill(processes[0], signal.SIGKILL)
    with pytest.raises(RankError, match=r"rank 0: died \(exit status -9\)"):
        one.call("add", value=0)
    one.close()


def test_a_job_that_cannot_start_says_why():
    with pytest.raises(RankError, match="before it serves"):
        jobs.Job(f"{__name__}:raising", world=2, timeout_s=60)
