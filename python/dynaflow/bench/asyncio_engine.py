"""A scheduler of the published kind, for comparison: Python coroutines, queues and events.

Each operator goes through two queues, from the scheduler to a worker and back, and has an event
that those wait for that need it; every step has an event loop of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """An operator: what it calls, and the positions of the operators that it needs."""

    call: Callable[[], object]
    needs: tuple[int, ...]


def run_step(nodes: Sequence[Node]) -> None:
    """Calls every operator once, after those that it needs."""
    asyncio.run(_step(nodes))


async def _step(nodes: Sequence[Node]) -> None:
    ready: asyncio.Queue[int | None] = asyncio.Queue()
    done: asyncio.Queue[int] = asyncio.Queue()
    finished = [asyncio.Event() for _ in nodes]
    waiting = [len(node.needs) for node in nodes]
    users: list[list[int]] = [[] for _ in nodes]
    for at, node in enumerate(nodes):
        for need in node.needs:
            users[need].append(at)
    worker = asyncio.create_task(_work(nodes, ready, done, finished))
    for at, count in enumerate(waiting):
        if count == 0:
            await ready.put(at)
    for _ in nodes:
        ended = await done.get()
        for user in users[ended]:
            waiting[user] -= 1
            if waiting[user] == 0:
                await ready.put(user)
    await ready.put(None)
    await worker


async def _work(
    nodes: Sequence[Node],
    ready: asyncio.Queue[int | None],
    done: asyncio.Queue[int],
    finished: Sequence[asyncio.Event],
) -> None:
    while (at := await ready.get()) is not None:
        for need in nodes[at].needs:
            await finished[need].wait()
        nodes[at].call()
        finished[at].set()
        await done.put(at)


def chain(operators: int, parts: int = 2) -> list[Node]:
    """The operators of benchmarks/host_cost.cc: `parts` chains in which every second operator also
    needs the one before it in the other chain.
    """
    nodes: list[Node] = []
    last = [-1] * parts
    last_collective = -1
    for depth in range(1, operators // parts + 1):
        for part in range(parts):
            needs = {last[part]}
            if depth % 2 == 0:
                needs.add(last_collective)
                last_collective = len(nodes)
            last[part] = len(nodes)
            nodes.append(Node(_nothing, tuple(sorted(needs - {-1}))))
    return nodes


def _nothing() -> None:
    pass
