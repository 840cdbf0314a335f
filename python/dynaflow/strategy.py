"""Strategies: where to cut a graph, and the schedule of its pieces."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch.fx.traceback import annotate

from dynaflow import _core
from dynaflow._core import Batch, Op
from dynaflow.capture_nodes import MARK_PREFIX
from dynaflow.errors import ScheduleError
from dynaflow.replace import Replacement
from dynaflow.scheduler import Scheduler

__all__ = [
    "Batch",
    "NanoFlow",
    "Op",
    "Replacement",
    "Scheduler",
    "Sequential",
    "SplitFunc",
    "SplitMark",
    "SplitModule",
    "Strategy",
    "make_strategy",
    "mark",
]


@dataclass(frozen=True, init=False)
class _Split:
    tags: tuple[str, ...]
    rows_independent: bool

    def _set(self, tag: str | None, tags: Sequence[str], rows_independent: bool) -> None:
        both = (*tags, tag) if tag is not None else tuple(tags)
        object.__setattr__(self, "tags", both)
        object.__setattr__(self, "rows_independent", rows_independent)


@dataclass(frozen=True, init=False)
class SplitFunc(_Split):
    """Cuts around operators: "all_reduce", or a sequence of neighbours ["mm", "all_reduce"].

    '*' in a pattern matches any text; patterns match the short or the full name. For
    `rows_independent` see SplitModule.
    """

    patterns: tuple[str, ...]

    def __init__(
        self,
        pattern: str | Sequence[str],
        tag: str | None = None,
        tags: Sequence[str] = (),
        rows_independent: bool = False,
    ) -> None:
        object.__setattr__(
            self, "patterns", (pattern,) if isinstance(pattern, str) else tuple(pattern)
        )
        self._set(tag, tags, rows_independent)

    def lower(self) -> _core.Annotation:
        """The core's form."""
        return _core.split_func(list(self.patterns), list(self.tags), self.rows_independent)


@dataclass(frozen=True, init=False)
class SplitModule(_Split):
    """Cuts around instances of a module: its class, the class's name, or a path
    ("model.layers.*.mlp").

    `rows_independent=True` is your word that each instance computes every row of the batch from the
    same row of what it reads, such as a mixture of experts that sorts rows by expert: it may then
    run in parts though no rule shows that it can. The first call that splits it tries it, and
    raises IndependenceError where it is not so.
    """

    pattern: str

    def __init__(
        self,
        pattern: str | type,
        tag: str | None = None,
        tags: Sequence[str] = (),
        rows_independent: bool = False,
    ) -> None:
        object.__setattr__(
            self, "pattern", pattern if isinstance(pattern, str) else pattern.__name__
        )
        self._set(tag, tags, rows_independent)

    def lower(self) -> _core.Annotation:
        """The core's form."""
        return _core.split_module(self.pattern, list(self.tags), self.rows_independent)


@dataclass(frozen=True, init=False)
class SplitMark(_Split):
    """Cuts around the regions that the model's code put under `df.mark(name)`. For
    `rows_independent` see SplitModule.
    """

    name: str

    def __init__(
        self,
        name: str,
        tag: str | None = None,
        tags: Sequence[str] = (),
        rows_independent: bool = False,
    ) -> None:
        object.__setattr__(self, "name", name)
        self._set(tag, tags, rows_independent)

    def lower(self) -> _core.Annotation:
        """The core's form."""
        return _core.split_mark(self.name, list(self.tags), self.rows_independent)


Annotation = SplitFunc | SplitModule | SplitMark


def mark(name: str) -> AbstractContextManager[None]:
    """Names a region of a model's code, for `SplitMark(name)`. Regions may nest; costs nothing
    uncompiled.
    """
    return annotate({MARK_PREFIX + name: True})


class Strategy:
    """A program that annotates a graph and writes its schedule. Subclass it.

    Both methods run when a plan is made, never in a step.
    """

    #: Asked for by its name: a wish for speed, so that measured steps may overrule it.
    by_name = False

    @property
    def name(self) -> str:
        """What messages and reports call it."""
        return type(self).__name__

    def partition(self) -> Sequence[Annotation]:
        """Where to cut the graph; nothing by default."""
        return ()

    def schedule(self, s: Scheduler, batch: Batch) -> None:
        """Executes every op that `s` offers. Comparisons of `batch` with numbers become the plan's
        bucket.
        """
        raise NotImplementedError(f"{type(self).__name__} has no schedule(self, s, batch)")

    def alternatives(self) -> Sequence[Strategy]:
        """Others that serve in its place where measured steps are faster with them (option
        `never_slower`); none by default.
        """
        return ()

    def annotations(self) -> list[_core.Annotation]:
        """partition() in the core's form."""
        return [_lower(self.name, annotation) for annotation in self.partition()]


def _lower(strategy: str, annotation: Any) -> _core.Annotation:
    if isinstance(annotation, (SplitFunc, SplitModule, SplitMark)):
        return annotation.lower()
    if isinstance(annotation, _core.Annotation):
        return annotation
    raise ScheduleError(
        f"partition() of strategy '{strategy}' returned {annotation!r}; "
        "use SplitFunc, SplitModule or SplitMark"
    )


class _Builtin(Strategy):
    """A strategy written in C++, by name."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self._core = _core.make_strategy(name, options)
        self._recipe = (name, options)

    @property
    def name(self) -> str:
        return self._core.name

    def partition(self) -> Sequence[_core.Annotation]:
        return self._core.partition()

    def schedule(self, s: Scheduler, batch: Batch) -> None:
        self._core.schedule(s, batch)

    def alternatives(self) -> Sequence[Strategy]:
        name, options = self._recipe
        if not self.by_name or name != "nanoflow" or {"parts", "fractions"} & options.keys():
            return ()
        return (_Builtin(name, options | {"parts": 3}),)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_core"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._core = _core.make_strategy(*self._recipe)

    def __repr__(self) -> str:
        name, options = self._recipe
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


class Sequential(_Builtin):
    """Runs everything once, in program order, on one stream."""

    def __init__(self) -> None:
        super().__init__("sequential", {})


class NanoFlow(_Builtin):
    """Splits the batch and lets each part's collectives run under the others' compute.

    Batches of fewer than `min_tokens` tokens run sequentially. `fractions` cut the batch unevenly.
    """

    def __init__(
        self, parts: int = 2, min_tokens: int = 64, fractions: Sequence[float] | None = None
    ) -> None:
        options: dict[str, Any] = {"parts": parts, "min_tokens": min_tokens}
        if fractions is not None:
            options = {"fractions": list(fractions), "min_tokens": min_tokens}
        super().__init__("nanoflow", options)


def make_strategy(strategy: str | Strategy, options: dict[str, Any]) -> Strategy:
    """The strategy that a user named, or gave. Raises ScheduleError listing names or options it
    knows.
    """
    if isinstance(strategy, str):
        made = _Builtin(strategy, options)
        made.by_name = True
        return made
    if not isinstance(strategy, Strategy):
        raise ScheduleError(
            f"{strategy!r} is not a strategy; use an instance of a subclass of "
            f"dynaflow.Strategy or one of the names {', '.join(_core.strategy_names())}"
        )
    if options:
        raise ScheduleError(
            f"unknown options {', '.join(sorted(options))}: "
            "a strategy given as an object has its own"
        )
    return strategy
