"""The side of a job that runs in a rank's process: `python -m dynaflow.bench.rank FD`."""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import sys
import traceback
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from dynaflow.bench.sync import Meeting

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclass(frozen=True)
class RankSpec:
    """What the launcher tells a rank. `target` is "package.module:function"; times in seconds."""

    target: str
    kwargs: dict[str, Any]
    rank: int
    world: int
    core: int
    interface: str
    timeout_s: float
    environment: dict[str, str] = field(default_factory=dict)


class RankContext:
    """What a rank's function gets: who it is, the other ranks, and the launcher's services."""

    def __init__(self, spec: RankSpec, meeting: Meeting, connection: Connection) -> None:
        self.rank = spec.rank
        self.world = spec.world
        self.core = spec.core
        self.interface = spec.interface
        self.meeting = meeting
        self._connection = connection

    def ask(self, service: str, *args: Any) -> Any:
        """Calls one of the launcher's services and returns its answer; for this rank alone."""
        send(self._connection, ("ask", service, args))
        return receive(self._connection)

    def once(self, service: str, *args: Any) -> Any:
        """As `ask`, but called by all ranks: rank 0 asks, all get the answer, none goes ahead."""
        return self.meeting.broadcast(self.ask(service, *args) if self.rank == 0 else None)

    def progress(self, text: str, fraction: float | None = None) -> None:
        """Shows what the job does; all ranks call it and go on when it has been drawn."""
        self.once("progress", text, fraction)


def send(connection: Connection, message: Any) -> None:
    """Sends by plain pickle: torch hooks `Connection.send` to share tensors between relatives."""
    connection.send_bytes(pickle.dumps(message))


def receive(connection: Connection) -> Any:
    """The next message that the other side sent."""
    return pickle.loads(connection.recv_bytes())


def load_target(path: str):
    """The function that "package.module:function" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _join_world(spec: RankSpec) -> Meeting:
    """Sets torch's thread counts and, for more than one rank, the Gloo process group."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    if spec.world == 1:
        return Meeting(0, 1)
    store = dist.TCPStore(
        spec.environment["MASTER_ADDR"],
        int(spec.environment["MASTER_PORT"]),
        spec.world,
        is_master=spec.rank == 0,
        timeout=timedelta(seconds=spec.timeout_s),
    )
    dist.init_process_group(
        "gloo",
        store=dist.PrefixStore("group", store),
        rank=spec.rank,
        world_size=spec.world,
        timeout=timedelta(seconds=spec.timeout_s),
    )
    return Meeting(spec.rank, spec.world, dist.PrefixStore("bench", store))


def main(descriptor: int) -> int:
    """Runs one rank over the connection with this file descriptor; returns the exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # however the launcher ends
    connection = Connection(descriptor)
    try:
        spec: RankSpec = receive(connection)
        os.sched_setaffinity(0, {spec.core})  # before torch starts any thread
        meeting = _join_world(spec)
        result = load_target(spec.target)(RankContext(spec, meeting, connection), **spec.kwargs)
        send(connection, ("result", result))
        receive(connection)  # the launcher lets go of all ranks together
    except EOFError:
        return 1  # the launcher has gone
    except BaseException as error:
        send(connection, ("error", f"{type(error).__name__}: {error}", traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    status = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a group whose peer has died must not hold the process back
