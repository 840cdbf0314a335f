"""The queues that collectives of a plan go through, one for each process group."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import (
    ProcessGroup,
    _register_process_group,
    _resolve_process_group,
    _unregister_process_group,
)

from dynaflow.errors import CaptureError

_PREFIX = "dynaflow/queue"
#: The thread of a Gloo device that reads from its sockets.
_READER = "gloo_tcp_loop"


@dataclass
class Queue:
    """Where a group's collectives are issued: a registered process group, and whether it is first
    in first out.
    """

    group: str
    name: str
    fifo: bool
    owner: ProcessGroup | None = None  # what keeps the queue alive


def open_queue(group: str) -> Queue:
    """The queue for the process group of that name.

    Gloo runs the collectives of one group on several threads, so that a small one overtakes a large
    one. Its queue is therefore a Gloo group of ours over the same ranks with one thread. Every rank
    of the group must call this. NCCL runs them in order; other backends are used as they are, one
    collective at a time.
    """
    original = resolve(group)
    backend = _cpu_backend(original)
    if backend is None or backend.name() != "gloo":
        return Queue(group, group, fifo="nccl" in original.name().lower())
    name = f"{_PREFIX}/{group}"
    owner = _registered(name) or _one_thread_gloo(name, original, backend)
    _calm_readers()
    return Queue(group, name, fifo=True, owner=owner)


def resolve(group: str) -> ProcessGroup:
    """The process group of that name. Raises CaptureError when this process has none."""
    found = _registered(group)
    if found is None:
        raise CaptureError(
            f"the process group '{group}' of the captured graph does not exist in this process"
        )
    return found


def group_timeout(group: ProcessGroup) -> timedelta:
    """How long the group's own collectives wait for a peer."""
    backend = _cpu_backend(group)
    options = getattr(backend, "options", None)
    return getattr(options, "_timeout", dist.default_pg_timeout)


def _one_thread_gloo(name: str, original: ProcessGroup, backend: Any) -> ProcessGroup:
    """A Gloo group over the ranks of `original`, registered under `name` for as long as it is
    referenced.
    """
    store = _fresh_store(original, name)
    rank, size = original.rank(), original.size()
    options = dist.ProcessGroupGloo._Options()
    options._threads = 1
    options._timeout = backend.options._timeout
    options._devices = backend.options._devices or [dist.ProcessGroupGloo.create_default_device()]
    queue = dist.ProcessGroupGloo(dist.PrefixStore("cpu", store), rank, size, options)
    group = ProcessGroup(store, rank, size)
    group._register_backend(torch.device("cpu"), ProcessGroup.BackendType.GLOO, queue)
    group._set_default_backend(ProcessGroup.BackendType.GLOO)
    group._set_group_name(name)
    # The registry holds groups weakly: a dead one of this name may still have its entry.
    with contextlib.suppress(RuntimeError):
        _unregister_process_group(name)
    _register_process_group(name, group)
    return group


def _calm_readers() -> None:
    """Makes batch work (SCHED_BATCH) of Gloo's reading threads.

    Woken by every segment that arrives, such a thread would take the core from the thread that
    computes there a thousand times a step. As batch work it gets the core at the scheduler's next
    tick, or at once where nothing computes, and finds more to read. Devices are shared between
    groups, so this holds for all of the process's. A policy that somebody else chose stays.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return  # not Linux
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended, or the system forbids it
            thread = int(task.name)
            reads = (task / "comm").read_text().strip() == _READER
            if reads and os.sched_getscheduler(thread) == os.SCHED_OTHER:
                os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _fresh_store(group: ProcessGroup, name: str) -> dist.Store:
    """A part of the group's store that no earlier queue of this name has used; every rank counts
    its own.
    """
    store = group.get_group_store()
    generation = store.add(f"{name}/generation/{group.rank()}", 1)
    return dist.PrefixStore(f"{name}/{generation}", store)


def _registered(name: str) -> ProcessGroup | None:
    try:
        return _resolve_process_group(name)
    except RuntimeError:
        return None


def _cpu_backend(group: ProcessGroup) -> Any:
    try:
        return group._get_backend(torch.device("cpu"))
    except RuntimeError:
        return None
