"""What steps cost: tensors allocated, bytes copied, memory in use, time on the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from dynaflow._loader import load_adapter
from dynaflow.api import session_of
from dynaflow.plan import Plan

#: (address, bytes, label); bytes are negative for what was given back; address 0: they were copied.
Entry = tuple[int, int, str]

_ARENA = "arena"  # label of the memory that frames hold


@dataclass(frozen=True)
class OpBytes:
    """What one op allocated, or had copied into its place: how often, and how many bytes. `op` is
    "output" for what the caller gets, and empty for what no op of a plan took.
    """

    op: str
    module: str
    count: int
    bytes: int


@dataclass
class Counts:
    """Totals over the steps of a block.

    `launches`: kernel calls, collectives included. `fresh_results`: results that kernels allocated
    for want of an out= form. `copied_bytes`: results copied into their place, listed in `copies`.
    `events`: points that one stream waits for in another; `handoffs`: waits for another thread, or
    a queue of its own.
    `arena_bytes`: planned memory held now. `peak_bytes`: the most in use at once beside parameters,
    inputs and outputs: the arena, and what kernels allocate. `host_us`: the calling thread's
    processor time outside of kernels; `kernel_us`: that of all threads inside them.
    """

    steps: int = 0
    launches: int = 0
    fresh_results: int = 0
    copied_bytes: int = 0
    events: int = 0
    handoffs: int = 0
    arena_bytes: int = 0
    peak_bytes: int = 0
    host_us: float = 0
    kernel_us: float = 0
    allocations: list[OpBytes] = field(default_factory=list)
    copies: list[OpBytes] = field(default_factory=list)


@contextmanager
def count(compiled: Any) -> Iterator[Counts]:
    """Counts what the calls of `compiled` in its block cost; the figures are there after it.

    Call it on the thread that makes the calls, and keep their results until the block ends: memory
    that is given back before counts as used by the step. Plans that the block itself makes are not
    counted: run a step of these sizes before. Steps are slower meanwhile.
    """
    plans = [plan for graph in session_of(compiled).graphs for plan in graph.every_plan()]
    before = [_counters(plan) for plan in plans]
    for plan in plans:
        plan.engine.measure(True)
    counts = Counts()
    try:
        with log_memory() as entries:
            yield counts
    finally:
        for plan in plans:
            plan.engine.measure(False)
    for plan, old in zip(plans, before, strict=True):
        _add(counts, _counters(plan), old)
    counts.allocations = allocations(entries)
    counts.copies = _by_label(e for e in entries if e[0] == 0)
    counts.peak_bytes = counts.arena_bytes + peak_bytes(entries)


@contextmanager
def log_memory() -> Iterator[list[Entry]]:
    """Logs what torch's allocator gives and takes back for this thread, and for streams' threads
    that work for it; the entries are there after the block.
    """
    load_adapter()
    log = torch.classes.dynaflow.MemoryLog()
    entries: list[Entry] = []
    log.start()
    try:
        yield entries
    finally:
        log.stop()
        entries.extend(log.entries())


def allocations(entries: Sequence[Entry]) -> list[OpBytes]:
    """What was taken, by op and module, in the order of first taking."""
    taken = (e for e in entries if e[0] != 0 and e[1] > 0 and e[2] != _ARENA)
    return _by_label(taken)


def _by_label(entries: Iterable[Entry]) -> list[OpBytes]:
    """In the order of first appearance."""
    times: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for _, size, label in entries:
        times[label] += 1
        sizes[label] += size
    found = []
    for label, number in times.items():
        op, _, module = label.partition(" in ")
        found.append(OpBytes(op, module, number, sizes[label]))
    return found


def peak_bytes(entries: Sequence[Entry]) -> int:
    """The most that was in use at once of what was both taken and given back in the block."""
    returned = _given_back(entries)
    now = peak = 0
    for at, (_, size, _) in enumerate(entries):
        if at in returned:
            now += size
            peak = max(peak, now)
    return peak


def _given_back(entries: Sequence[Entry]) -> set[int]:
    """Positions of the entries of memory that was taken, and given back, in the block."""
    taken: dict[int, int] = {}
    found: set[int] = set()
    for at, (address, size, label) in enumerate(entries):
        if address == 0:
            continue
        if size > 0 and label != _ARENA:
            taken[address] = at
        elif address in taken:
            found |= {taken.pop(address), at}
    return found


def _counters(plan: Plan) -> dict[str, int]:
    return {str(key): int(value) for key, value in plan.engine.counters().items()}


def _add(counts: Counts, now: dict[str, int], before: dict[str, int]) -> None:
    step = {key: value - before[key] for key, value in now.items()}
    for name in ("steps", "launches", "fresh_results", "copied_bytes", "events", "handoffs"):
        setattr(counts, name, getattr(counts, name) + step[name])
    if step["steps"]:
        counts.arena_bytes += now["arena_bytes"]
    counts.host_us += step["host_ns"] * 1e-3
    counts.kernel_us += step["kernel_ns"] * 1e-3
