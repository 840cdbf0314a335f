"""The exceptions that DynaFlow raises, all below `Error`."""

from __future__ import annotations

from dynaflow._core import (
    Error,
    ExecutionError,
    GraphError,
    ParameterError,
    ParseError,
    PlanError,
    ScheduleError,
)

__all__ = [
    "AgreementError",
    "CaptureError",
    "DynaFlowWarning",
    "EffectError",
    "Error",
    "ExecutionError",
    "GraphError",
    "IndependenceError",
    "LoadError",
    "ParameterError",
    "ParseError",
    "PlanError",
    "ReplacementError",
    "ScheduleError",
    "typed",
]


class CaptureError(Error):
    """A model, or a part of it, that has no form in DynaFlow's graph."""


class EffectError(Error):
    """An op that does not do what its schema and the table of corrections say."""


class IndependenceError(Error):
    """A region that mixes rows of the batch, though `rows_independent=True` says it does not."""


class ReplacementError(Error):
    """A kernel that does not compute what the segments compute in whose place it runs."""


class AgreementError(Error):
    """Ranks that would not run the same collectives in the same order."""


class LoadError(Error):
    """The torch adapter is missing, or was built for another torch."""


class DynaFlowWarning(UserWarning):
    """The model runs, but not as it was asked to."""


_BY_PREFIX = {
    kind.__name__: kind
    for kind in (ParseError, GraphError, ScheduleError, PlanError, ExecutionError, ParameterError)
}


def typed(error: RuntimeError) -> RuntimeError:
    """The typed form of an error that crossed the torch adapter as text: "PlanError: ..."."""
    message = str(error)
    prefix, _, rest = message.partition(": ")
    kind = _BY_PREFIX.get(prefix)
    return error if kind is None or isinstance(error, Error) else kind(rest)
