"""Ranks in step: barrier, broadcast and gather through a c10d store.

Nothing here uses the process group, so it neither disturbs nor depends on the traffic measured.
"""

from __future__ import annotations

import pickle
from typing import Any


class Meeting:
    """A place where all ranks of a job meet. Every rank makes the same calls in the same order."""

    def __init__(self, rank: int, world: int, store=None) -> None:
        """`store` is a `torch.distributed.Store`; it may be None when `world` is 1."""
        if world > 1 and store is None:
            raise ValueError("a store is needed for more than one rank")
        self.rank = rank
        self.world = world
        self._store = store
        self._count = 0

    def barrier(self) -> None:
        """Returns once every rank has called it."""
        if self.world == 1:
            return
        key = self._next()
        if self._store.add(f"{key}/arrived", 1) == self.world:
            self._store.set(f"{key}/open", b"1")
        self._store.wait([f"{key}/open"])

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        if self.world == 1:
            return value
        key = self._next()
        if self.rank == 0:
            self._store.set(key, pickle.dumps(value))
            return value
        return pickle.loads(self._store.get(key))

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, by rank, on every rank."""
        if self.world == 1:
            return [value]
        key = self._next()
        self._store.set(f"{key}/{self.rank}", pickle.dumps(value))
        return [pickle.loads(self._store.get(f"{key}/{rank}")) for rank in range(self.world)]

    def _next(self) -> str:
        self._count += 1
        return f"meeting/{self._count}"
