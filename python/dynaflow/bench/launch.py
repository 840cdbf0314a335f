"""Starts the ranks of a job, serves their requests, brings back results or the first failure."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, BinaryIO

from dynaflow.bench.net import Loopback, ShapedLink
from dynaflow.bench.rank import RankSpec, receive, send

#: Seconds that the other ranks get, after a rank has failed, to say what they saw.
GRACE_SECONDS = 1.0
_OUTPUT_TAIL = 4000


class RankError(RuntimeError):
    """A rank raised, died, or ran out of time. The message holds its traceback or last output."""

    def __init__(self, rank: int, what: str, detail: str = "") -> None:
        super().__init__(f"rank {rank}: {what}" + (f"\n{detail.rstrip()}" if detail else ""))
        self.rank = rank


@dataclass
class _Rank:
    index: int
    process: subprocess.Popen
    connection: Connection
    output: BinaryIO
    result: Any = None
    done: bool = False

    def tail(self) -> str:
        """The last characters that the rank wrote to its output and error streams."""
        size = self.output.seek(0, os.SEEK_END)
        self.output.seek(max(0, size - _OUTPUT_TAIL))
        return self.output.read().decode(errors="replace")


def run_ranks(
    target: str,
    *,
    link: ShapedLink | Loopback | None = None,
    world: int = 2,
    kwargs: dict[str, Any] | None = None,
    services: dict[str, Callable[..., Any]] | None = None,
    timeout_s: float = 600.0,
) -> list[Any]:
    """Runs `target` ("module:function") on `world` ranks; their results, by rank.

    Rank r is pinned to a core of its own where there are enough, and runs in the link's namespace
    r. `services` are functions that ranks may call in this process (`RankContext.ask`). Raises
    RankError with the rank's traceback; no process is left behind. Times in seconds.
    """
    link = link or Loopback()
    environment = link.environment(world)
    ranks: list[_Rank] = []
    try:
        for index in range(world):
            spec = RankSpec(
                target, kwargs or {}, index, world, core_of(index), link.interface(index),
                timeout_s, environment,
            )  # fmt: skip
            ranks.append(_start(spec, link.prefix(index)))
        _serve(ranks, services or {}, time.monotonic() + timeout_s)
        for rank in ranks:
            send(rank.connection, "leave")
        for rank in ranks:
            rank.process.wait(timeout=10)
        return [rank.result for rank in ranks]
    finally:
        _stop(ranks)


def core_of(rank: int) -> int:
    """The core that a rank is pinned to: the rank-th of those this process may use, going round."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[rank % len(cores)]


def _start(spec: RankSpec, prefix: list[str]) -> _Rank:
    ours, theirs = Pipe()
    output = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the rank)
    environment = dict(os.environ, **spec.environment, GLOO_SOCKET_IFNAME=spec.interface)
    environment.update(RANK=str(spec.rank), LOCAL_RANK=str(spec.rank), WORLD_SIZE=str(spec.world))
    environment.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    command = [*prefix, sys.executable, "-m", "dynaflow.bench.rank", str(theirs.fileno())]
    process = subprocess.Popen(
        command,
        env=environment,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    theirs.close()
    send(ours, spec)
    return _Rank(spec.rank, process, ours, output)


def _serve(ranks: list[_Rank], services: dict[str, Callable[..., Any]], deadline: float) -> None:
    """Answers requests until every rank has sent its result."""
    while pending := [rank for rank in ranks if not rank.done]:
        ready = wait([rank.connection for rank in pending], deadline - time.monotonic())
        if not ready:
            late = pending[0]
            raise RankError(late.index, "ran out of time", late.tail())
        for rank in pending:
            if rank.connection in ready:
                _answer(rank, ranks, services)


def _answer(rank: _Rank, ranks: list[_Rank], services: dict[str, Callable[..., Any]]) -> None:
    try:
        kind, *rest = receive(rank.connection)
    except (EOFError, ConnectionResetError):
        raise _death(rank, ranks) from None
    if kind == "result":
        rank.result, rank.done = rest[0], True
    elif kind == "error":
        rank.done = True
        raise RankError(rank.index, rest[0], rest[1] + _other_failures(ranks))
    else:
        name, args = rest
        if name not in services:
            raise RankError(rank.index, f"asked for {name!r}; known: {sorted(services)}")
        answer = services[name](*args)
        try:
            send(rank.connection, answer)
        except (BrokenPipeError, ConnectionResetError):
            raise _death(rank, ranks) from None


def _death(rank: _Rank, ranks: list[_Rank]) -> RankError:
    rank.done = True
    code = rank.process.wait()
    return RankError(rank.index, f"died (exit status {code})", rank.tail() + _other_failures(ranks))


def _other_failures(ranks: list[_Rank]) -> str:
    """What further ranks say within the grace period, one line each."""
    lines = []
    deadline = time.monotonic() + GRACE_SECONDS
    while pending := [rank for rank in ranks if not rank.done]:
        for connection in wait([r.connection for r in pending], deadline - time.monotonic()) or []:
            rank = next(r for r in pending if r.connection is connection)
            rank.done = True
            try:
                kind, *rest = receive(connection)
            except (EOFError, ConnectionResetError):
                kind, rest = "error", ["died"]
            if kind == "error":
                lines.append(f"\nrank {rank.index} then: {rest[0]}")
        if time.monotonic() >= deadline:
            break
    return "".join(lines)


def _stop(ranks: list[_Rank]) -> None:
    for rank in ranks:
        if rank.process.poll() is None:
            rank.process.kill()
        rank.process.wait()
        rank.connection.close()
        rank.output.close()
