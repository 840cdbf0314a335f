"""Processes that end, or destroy their process group, while a step is under way."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed._functional_collectives import all_reduce

import dynaflow as df

#: Of collectives: what a rank waits for a peer that has left.
TIMEOUT_S = 5
#: A process that hangs is found out after so many seconds.
LIMIT_S = 120


def stepping(rank: int, folder: str, end: str) -> None:
    """Steps on a thread, and in the middle of them `end`s; writes what came of the steps."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=TIMEOUT_S)
    )
    group = dist.group.WORLD.group_name
    compiled = df.compile(
        lambda x: all_reduce(all_reduce(x * 2, "sum", group) + 1, "sum", group),
        df.NanoFlow(parts=2, min_tokens=0),
        options={"agree_timeout_s": 60},
    )
    x, steps, errors = torch.ones(64, 4096), [0], []

    def run() -> None:
        with torch.no_grad():
            while not errors:
                try:
                    assert compiled(x)[0, 0] == 10
                    steps[0] += 1
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=run, daemon=end == "exit")
    thread.start()
    while steps[0] < 5 and not errors:
        time.sleep(0.001)
    if end == "destroy":
        dist.destroy_process_group()
        thread.join(LIMIT_S / 2)
        told = {"steps": steps[0], "errors": errors, "stopped": not thread.is_alive()}
        Path(f"{folder}/told{rank}").write_text(json.dumps(told))


@pytest.mark.parametrize("end", ["destroy", "exit"])
def test_ranks_end_in_the_middle_of_a_step(tmp_path, end):
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=stepping, args=(rank, str(tmp_path), end)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + LIMIT_S
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
    hung = [process.pid for process in processes if process.is_alive()]
    for process in processes:
        process.kill()
    assert not hung
    if end == "exit":
        return
    assert [process.exitcode for process in processes] == [0, 0]
    for rank in range(2):
        told = json.loads((tmp_path / f"told{rank}").read_text())
        assert told["stopped"] and told["steps"] >= 5 and len(told["errors"]) == 1
        assert told["errors"][0].startswith("ExecutionError"), told["errors"]
