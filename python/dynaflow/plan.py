"""One plan of a captured graph, ready to run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from dynaflow import _core
from dynaflow.context import ContextSteps
from dynaflow.replace import Kernels

if TYPE_CHECKING:
    from dynaflow.never_slower import Contest


class Plan:
    """A lowered schedule with the engine that replays it."""

    def __init__(
        self,
        plan: _core.Plan,
        partition: _core.Partition,
        engine: Any,
        accepts: Callable[..., bool],
        made_for: dict[str, int],
        serial: bool,
        kernels: Kernels,
        agreed: dict[str, str],
        steps: ContextSteps | None,
    ) -> None:
        self.plan = plan
        self.partition = partition
        self.engine = engine
        self.accepts = accepts  # whether the plan's bucket holds these values of the symbols
        self.made_for = made_for  # sizes by symbol, the parts' included, in the call that needed it
        self.kernels = kernels  # of replacements: what Python registered for the engine
        self.agreed = agreed  # by group of its collectives: what its ranks call the plan
        self._ranges = _parts_with_context(plan)
        self._steps = steps if self._ranges else None
        self.run = engine.run
        if serial or self._steps is not None:
            self.run = functools.partial(self.run_with, serial=serial)
        self.contest: Contest | None = None  # with its rivals, where it must win that
        # By run of a collective: microseconds hidden and exposed in the last traced step.
        self.measured: dict[int, tuple[float, float]] = {}

    def run_with(
        self,
        tensors: list[torch.Tensor],
        values: list[int],
        serial: bool = False,
        poison: bool = False,
        delays: Sequence[int] = (),
    ) -> Any:
        """A step as tests and measurements ask for it, each part with its own state of the host."""
        how = (serial, poison, list(delays))
        if self._steps is None:
            return self.engine.run_with(tensors, values, *how)
        with self._steps.step(self.engine.parts(values), self._ranges) as number:
            return self.engine.run_with(tensors, values, *how, number)


def _parts_with_context(plan: _core.Plan) -> list[tuple[int, int]]:
    """Parts, not all of them, for which a launch of the plan reads the host's state."""
    every = (0, plan.cut["parts"])
    ranges = {(r["first_part"], r["last_part"]) for r in plan.runs if r["reads_context"]}
    return sorted(ranges - {every})
