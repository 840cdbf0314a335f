"""Runs a function on real ranks: processes of this machine with a Gloo group between them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))


def run_ranks(
    body: Callable[..., Any], folder: Path, *args: Any, world: int = 2, timeout_s: float = 120
) -> list[Any]:
    """What `body(rank, *args)` returned on each rank. A failure on a rank is raised here."""
    mp.spawn(_rank, (body, str(folder), world, timeout_s, args), nprocs=world)
    return [torch.load(folder / f"result{rank}", weights_only=False) for rank in range(world)]


def _rank(rank: int, body: Callable[..., Any], folder: str, world: int, timeout_s: float, args: tuple) -> None:
    torch.set_num_threads(1)
    # Transformers' tensor parallelism reads these.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    store = dist.FileStore(f"{folder}/store", world)
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)
    torch.save(body(rank, *args), f"{folder}/result{rank}")
    dist.barrier()
    dist.destroy_process_group()
