"""Runs functions on real ranks: processes of this machine with a Gloo group between them."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(
    body: Callable[..., Any], folder: Path, *args: Any, world: int = 2, timeout_s: float = 120
) -> list[Any]:
    """What `body(rank, *args)` returned on each rank. A failure on a rank is raised here."""
    mp.spawn(_rank, (body, str(folder), world, timeout_s, args), nprocs=world)
    return [torch.load(folder / f"result{rank}", weights_only=False) for rank in range(world)]


def _rank(
    rank: int, body: Callable[..., Any], folder: str, world: int, timeout_s: float, args: tuple
) -> None:
    _join_group(rank, folder, world, timeout_s)
    torch.save(body(rank, *args), f"{folder}/result{rank}")
    dist.barrier()
    dist.destroy_process_group()


def _join_group(rank: int, folder: str, world: int, timeout_s: float) -> None:
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= world:
        os.sched_setaffinity(0, cores[rank : rank + 1])
    # Transformers' tensor parallelism reads these.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    store = dist.FileStore(f"{folder}/store", world)
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)


class Dead:
    """What a rank that died returns."""


class Ranks:
    """Ranks that stay for several functions, with all that those leave in their modules."""

    def __init__(self, folder: Path, world: int = 2, timeout_s: float = 120) -> None:
        context = mp.get_context("spawn")
        self._processes, self._pipes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            arguments = (rank, theirs, str(folder), world, timeout_s)
            self._processes.append(context.Process(target=_serve, args=arguments, daemon=True))
            self._processes[-1].start()
            theirs.close()
            self._pipes.append(ours)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def run(self, body: Callable[..., Any], *args: Any, timeout_s: float = 240) -> list[Any]:
        """What `body(rank, *args)` returned on each rank; Dead for one that ended itself."""
        for pipe in self._pipes:
            pipe.send((body, args))
        deadline = time.monotonic() + timeout_s
        answers = [self._answer(rank, deadline) for rank in range(len(self._pipes))]
        failures = [f"rank {rank}: {text}" for rank, (text, _) in enumerate(answers) if text]
        assert not failures, "\n".join(failures)
        return [result for _, result in answers]

    def _answer(self, rank: int, deadline: float) -> tuple[str, Any]:
        pipe = self._pipes[rank]
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            return "no answer in time", None
        try:
            return pipe.recv()
        except EOFError:
            return "", Dead


def _serve(rank: int, pipe: Connection, folder: str, world: int, timeout_s: float) -> None:
    _join_group(rank, folder, world, timeout_s)
    while True:
        body, args = pipe.recv()
        try:
            pipe.send(("", body(rank, *args)))
        except BaseException:
            pipe.send((traceback.format_exc(), None))
