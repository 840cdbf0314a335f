"""What a strategy writes its schedule with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynaflow import _core
from dynaflow._core import Op
from dynaflow.replace import Kernels


class Scheduler(_core.Scheduler):
    """What a strategy writes its schedule with. Lives for one call of its `schedule`."""

    def __init__(self, partition: _core.Partition, strategy: str, sizes: Mapping[str, int]) -> None:
        super().__init__(partition, strategy, dict(sizes))
        self.kernels = Kernels()  # of the replacements; their plan needs them as long as it lives

    def next_ops(self, ops: Op | Sequence[Op]) -> list[Op]:
        """What would become ready through `ops` once they were executed, in program order: what to
        launch with them.
        """
        return super().next_ops(_list(ops))

    def signature(self, ops: Op | Sequence[Op]) -> _core.Signature:
        """What a replacement of `ops` takes and returns: `inputs` and `outputs` are (name, dtype,
        shape) each. Raises ScheduleError for ops that make no launch.
        """
        return super().signature(_list(ops))

    def irreplaceable(self, ops: Op | Sequence[Op]) -> str:
        """Why no kernel can take the place of `ops`: a collective, an effect; empty where one
        can.
        """
        return super().irreplaceable(_list(ops))

    def execute(
        self,
        ops: Op | Sequence[Op],
        *,
        stream: str = "compute",
        after: Sequence[Op] = (),
        replace_func: Any = None,
    ) -> None:
        """Issues an op, or neighbouring segments on neighbouring parts as one launch.

        `after`: executed ops that must end first. `replace_func`: a kernel that runs in place of
        the ops' own: a callable of tensors, a dispatcher op or its name, or a `Replacement`. Raises
        ScheduleError where the launch is not possible or the kernel does not fit.
        """
        listed = _list(ops)
        kernel = None
        if replace_func is not None:
            kernel = self.kernels.lower(self, listed, replace_func)
        super().execute(listed, stream=stream, after=list(after), replacement=kernel)


def _list(ops: Op | Sequence[Op]) -> list[Op]:
    return [ops] if isinstance(ops, Op) else list(ops)
