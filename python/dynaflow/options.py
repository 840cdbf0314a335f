"""The options of a compilation, beside its strategy's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any

from dynaflow.context import HostContext
from dynaflow.errors import ScheduleError
from dynaflow.settings import SETTINGS
from dynaflow.strategy import Strategy, make_strategy


@dataclass(frozen=True)
class Options:
    """What every compilation takes.

    `serial`: every kernel ends before the next starts, for comparing with overlapped runs.
    `skip_collectives`: communication is left out; results are wrong by design, for measuring.
    `agree_timeout_s`: how long ranks wait for each other's plans.
    `verify`: every new plan is proved free of races before it runs.
    `check_effects`: the first call of a graph runs its ops one by one to see whether they do what
    their schemas say (also DYNAFLOW_CHECK=effects).
    `never_slower`: where measured steps say that the strategy's plan is no faster than the
    sequential one, the latter serves; on by default for a strategy given by name.
    `memory_limit`: bytes that a step may plan, beside parameters, inputs, outputs and what kernels
    allocate; where the strategy's plan needs more, a sequential one or parts in turn run, or the
    call fails with what each needs. Plans are then not measured against the sequential one.
    `cores`: the cores of a compute stream that has a thread of its own, by the stream's name; waits
    spin between threads that share no core, and park otherwise.
    `context`: the host system's state that some ops read, and how each part gets its own.
    `fuse`: chains of element-wise ops, norms and copies run as kernels that TorchInductor compiles,
    one for each distinct chain; they are kept on disk. Results differ in the last bits.
    """

    serial: bool = False
    skip_collectives: bool = False
    agree_timeout_s: float | None = None
    verify: bool = True
    check_effects: bool = SETTINGS.check_effects
    never_slower: bool | None = None
    memory_limit: int | None = None
    cores: Mapping[str, Sequence[int]] = field(default_factory=dict)
    context: HostContext | None = None
    fuse: bool = False


OWN = tuple(field.name for field in fields(Options))


def read_options(
    strategy: str | Strategy, given: Mapping[str, Any] | None
) -> tuple[Strategy, Options]:
    """The strategy and our own options. Raises ScheduleError that lists the valid ones for an
    unknown one.
    """
    rest = dict(given or {})
    own = Options(**{name: rest.pop(name) for name in OWN if name in rest})
    _check_types(own)
    try:
        return make_strategy(strategy, rest), own
    except ScheduleError as error:
        raise ScheduleError(f"{error}; besides, every strategy takes: {', '.join(OWN)}") from None


def _check_types(options: Options) -> None:
    if not isinstance(options.never_slower, (bool, NoneType)):
        raise ScheduleError(
            f"option never_slower is {options.never_slower!r}; use True, False or None"
        )
    for name in ("serial", "skip_collectives", "verify", "check_effects", "fuse"):
        if not isinstance(getattr(options, name), bool):
            raise ScheduleError(f"option {name} is {getattr(options, name)!r}; use True or False")
    timeout = options.agree_timeout_s
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
        raise ScheduleError(
            f"option agree_timeout_s is {timeout!r}; use a number of seconds above 0"
        )
    limit = options.memory_limit
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ScheduleError(f"option memory_limit is {limit!r}; use a number of bytes, or None")
    if not isinstance(options.context, (HostContext, NoneType)):
        raise ScheduleError(
            f"option context is {options.context!r}; use an instance of a subclass of HostContext"
        )
    if not _are_cores(options.cores):
        raise ScheduleError(
            f"option cores is {options.cores!r}; use a dict from the names of streams to lists of "
            f"cores, each from 0 to {(os.cpu_count() or 1) - 1}"
        )


def _are_cores(given: Any) -> bool:
    def is_core(core: Any) -> bool:
        return type(core) is int and 0 <= core < (os.cpu_count() or 1)

    return isinstance(given, Mapping) and all(
        isinstance(name, str)
        and isinstance(cores, (list, tuple))
        and cores
        and all(map(is_core, cores))
        for name, cores in given.items()
    )
