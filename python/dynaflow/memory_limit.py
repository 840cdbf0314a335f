"""A bound on planned memory: a step runs a plan that keeps to it, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from dynaflow.errors import PlanError
from dynaflow.strategy import Batch, Sequential, Strategy

if TYPE_CHECKING:
    from dynaflow.plan import Plan
    from dynaflow.scheduler import Scheduler

#: Parts that are tried one after the other, where neither the strategy's plan nor a sequential one
#: keeps to the bound.
_PARTS = (2, 4, 8)


class InTurn(Strategy):
    """Each part runs as far as it can before the next one begins: only one is in memory."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    @property
    def name(self) -> str:
        """How messages tell how many parts there are."""
        return f"{self.parts} parts in turn"

    def schedule(self, s: Scheduler, batch: Batch) -> None:
        """Of what is ready, the foremost part's is executed."""
        s.split(self.parts)
        while ops := s.get_ready_ops():
            s.execute(min(ops, key=lambda op: op.part))


class MemoryLimit:
    """Chooses among a graph's plans by the bytes that they need."""

    def __init__(
        self,
        limit: int,
        splits: bool,
        make: Callable[[Strategy, list[int]], Plan | None],
        say: Callable[[str], None],
    ) -> None:
        """`splits`: whether the graph has a batch to split. `make`: a plan for these sizes. `say`:
        told once why another plan than the strategy's runs.
        """
        self.limit = limit
        self.plans: list[Plan] = []  # made for the bound's sake
        self._makers = [Sequential(), *(InTurn(parts) for parts in _PARTS if splits)]
        self._make = make
        self._say = say

    def choose(self, plan: Plan, values: list[int]) -> Plan:
        """`plan`, or the first other one that keeps to the bound at these sizes. Raises PlanError
        with what each of them needs where none does.
        """
        needs: list[str] = []
        for candidate in self._candidates(plan, values):
            need = candidate.engine.planned_bytes(values)
            if need <= self.limit:
                if needs:
                    self._say(f"{', '.join(needs)}; memory_limit is {self.limit}: "
                              f"'{candidate.plan.strategy}' runs, with {need}")  # fmt: skip
                return candidate
            needs.append(f"'{candidate.plan.strategy}' plans {need} bytes")
        raise PlanError(
            f"no plan for sizes {values} keeps to memory_limit {self.limit}: {', '.join(needs)}; "
            "allow more, or call with smaller batches"
        )

    def _candidates(self, plan: Plan, values: list[int]) -> Iterator[Plan]:
        """The strategy's plan, then others, made when they are reached."""
        yield plan
        for strategy in self._makers:
            if strategy.name != plan.plan.strategy:
                yield from self._known(strategy, values)

    def _known(self, strategy: Strategy, values: list[int]) -> Sequence[Plan]:
        for known in self.plans:
            if known.plan.strategy == strategy.name and known.accepts(*values):
                return [known]
        made = self._make(strategy, values)
        if made is None or made.plan.cut["parts"] != getattr(strategy, "parts", 1):
            return []  # too few rows for so many parts
        self.plans.append(made)
        return [made]
