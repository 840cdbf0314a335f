"""What no schedule can beat, and how much of the possible a schedule reached.

C is the time of the unsplit plan with its collectives removed, N the bytes sent over the link's
rate, G the processor time of the communication itself, which on a host without a network engine
runs on the same core. No schedule is faster than max(C + G, N).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dynaflow.bench.stats import Summary, bootstrap

#: N/C at which figures are taken, so that they do not depend on the luck of a machine.
NETWORK_SHARE = 0.6


@dataclass(frozen=True)
class Collective:
    """One collective of a step: its kind, and the bytes of its tensor.

    For a gather the tensor is the whole result; else the tensor that each rank contributes.
    """

    kind: str
    bytes: int

    def sent(self, world: int) -> float:
        """Bytes that each rank sends. Gloo reduces in two halves, scatter then gather, so that of n
        bytes 2 n (w - 1) / w leave each rank: on two ranks n.
        """
        share = (world - 1) / world
        return self.bytes * share * (2 if self.kind == "all_reduce" else 1)


@dataclass(frozen=True)
class Bound:
    """The parts of the bound, in seconds."""

    compute_s: float
    network_s: float
    host_s: float

    @property
    def seconds(self) -> float:
        """max(C + G, N)."""
        return max(self.compute_s + self.host_s, self.network_s)


def hidden_share(
    sequential: Sequence[float],
    arm: Sequence[float],
    compute: Sequence[float],
    network_s: float,
    host_s: float,
) -> Summary:
    """Share of what could be hidden that `arm` did hide of the sequential plan's time, with its
    95 % interval; not a number where there is nothing to hide. Times in seconds, one a round.
    """

    def share(before, after, alone):
        before, after, alone = (np.median(times, axis=-1) for times in (before, after, alone))
        room = before - np.maximum(alone + host_s, network_s)
        return np.where(room > 0, (before - after) / room, np.nan)

    return bootstrap(share, sequential, arm, compute)


def bytes_sent(collectives: list[Collective], world: int) -> float:
    """Bytes that each rank sends in one step."""
    return sum(collective.sent(world) for collective in collectives)


def link_rate(
    collectives: list[Collective], world: int, compute_s: float, share: float = NETWORK_SHARE
) -> float:
    """Link rate in bits per second at which N is `share` of C."""
    return 8 * bytes_sent(collectives, world) / (share * compute_s)


def observe_collectives(run: Callable[[], object]) -> list[Collective]:
    """The collectives that `run` issues through PyTorch, in order, with their sizes in bytes."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    seen: list[Collective] = []

    class Observer(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            kind = _kind(func._schema.name)
            if kind is not None:
                measured = result if kind == "all_gather" else args
                tensors = [leaf for leaf in tree_leaves(measured) if isinstance(leaf, torch.Tensor)]
                seen.append(Collective(kind, sum(t.nbytes for t in tensors)))
            return result

    with Observer():
        run()
    return seen


def _kind(operator: str) -> str | None:
    """The kind of collective that an operator issues: all_reduce, all_gather, ... or None."""
    namespace, _, name = operator.partition("::")
    if namespace not in ("c10d", "_c10d_functional", "_c10d_functional_autograd"):
        return None
    for kind, marks in {
        "all_reduce": ("all_reduce", "allreduce"),
        "all_gather": ("all_gather", "allgather"),
        "reduce_scatter": ("reduce_scatter",),
        "all_to_all": ("all_to_all", "alltoall"),
    }.items():
        if any(mark in name for mark in marks):
            return kind
    return None


@dataclass(frozen=True)
class Communication:
    """A run of a step's all-reduces alone: seconds of wall time, seconds of processor time of the
    rank's process, and bytes that its interface sent.
    """

    wall_s: float
    host_s: float
    sent: float


def communicate(collectives: list[Collective], context, repeats: int = 3) -> Communication:
    """Issues a step's collectives one after the other with the caller blocked; medians over
    `repeats` runs of the slowest rank. Every rank calls it.
    """
    import torch
    import torch.distributed as dist

    from dynaflow.bench.net import interface_bytes

    tensors = [torch.zeros(max(1, collective.bytes // 4)) for collective in collectives]
    walls, hosts, counts = [], [], []
    for repeat in range(repeats + 1):
        context.meeting.barrier()
        sent = interface_bytes(context.interface)[1]
        host, wall = time.process_time(), time.perf_counter()
        for collective, tensor in zip(collectives, tensors, strict=True):
            if collective.kind == "all_gather":
                part = tensor[: max(1, len(tensor) // context.world)]
                dist.all_gather_into_tensor(part.new_empty(len(part) * context.world), part)
            else:
                dist.all_reduce(tensor)
        if repeat > 0:  # the first run is for warm-up
            walls.append(time.perf_counter() - wall)
            hosts.append(time.process_time() - host)
            context.meeting.barrier()
            counts.append(interface_bytes(context.interface)[1] - sent)
    own = [statistics.median(values) for values in (walls, hosts, counts)]
    return Communication(
        *(max(values) for values in zip(*context.meeting.gather(own), strict=True))
    )
