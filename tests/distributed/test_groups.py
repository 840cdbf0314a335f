import gc
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from dynaflow.agreement import agree
from dynaflow.errors import AgreementError, CaptureError
from dynaflow.groups import open_queue, resolve


def overtakes(group) -> bool:
    """Whether a small all-reduce, issued behind a large one, ends before it."""
    large, small = torch.ones(1 << 23), torch.ones(4)
    options = dist.AllreduceOptions()
    first, second = group.allreduce([large], options), group.allreduce([small], options)
    while not second.is_completed():
        time.sleep(0.0002)
    early = not first.is_completed()
    first.wait()
    second.wait()
    assert small.eq(dist.get_world_size()).all() and large.eq(dist.get_world_size()).all()
    return early


def queue_body(rank):
    name = dist.group.WORLD.group_name
    queue = open_queue(name)
    shared = open_queue(name)
    results = [overtakes(resolve(queue.name)) for _ in range(5)]
    same = shared.owner is queue.owner
    del queue, shared
    gc.collect()
    with pytest.raises(CaptureError):
        resolve(f"dynaflow/queue/{name}")
    again = open_queue(name)
    results.append(overtakes(resolve(again.name)))
    return results, same, again.fifo


def test_a_gloo_queue_is_first_in_first_out_shared_and_released(tmp_path):
    for results, same, fifo in run_ranks(queue_body, tmp_path):
        assert not any(results) and same and fifo


def readers_body(rank):
    open_queue(dist.group.WORLD.group_name)
    tasks = Path("/proc/self/task").iterdir()
    names = {int(task.name): (task / "comm").read_text().strip() for task in tasks}
    return {(name, os.sched_getscheduler(thread)) for thread, name in names.items()}


def test_gloos_reading_threads_do_not_take_the_core_of_a_thread_that_computes(tmp_path):
    for policies in run_ranks(readers_body, tmp_path):
        assert ("gloo_tcp_loop", os.SCHED_BATCH) in policies
        assert {policy for name, policy in policies if name != "gloo_tcp_loop"} == {os.SCHED_OTHER}


def agreement_body(rank):
    name = dist.group.WORLD.group_name
    agree(name, ["op a", "op b"])
    with pytest.raises(AgreementError) as different:
        agree(name, ["op a", f"op {'bc'[rank]}", "op d"])
    missing = ""
    if rank == 0:
        with pytest.raises(AgreementError) as alone:
            agree(name, ["op a"], timeout_s=0.5)
        missing = str(alone.value)
    return str(different.value), missing


def test_ranks_that_differ_see_the_first_difference_and_missing_ranks_are_named(tmp_path):
    (zero, missing), (one, _) = run_ranks(agreement_body, tmp_path)
    for message in (zero, one):
        assert "line 2" in message and "rank 0: op b" in message and "rank 1: op c" in message
    assert "rank 1 of group" in missing and "0.5 s" in missing
