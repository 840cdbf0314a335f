"""State of the host system that ops of the model read: each part of a batch gets its own."""

from __future__ import annotations

import itertools
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch

NAMESPACE = "dynaflow_context"

#: Parts [first, last).
Parts = tuple[int, int]


class HostContext:
    """What a serving system keeps about the batch that it runs, and some of the model's ops read
    behind the graph's back: attention metadata, slots of the KV cache. Subclass it, and pass an
    instance as the option `context`.

    It is the subclass's word that an op in `ops`, while the state of some rows is entered, computes
    those rows of its results from those rows of its arguments, all along their batch dimension.
    Such ops run one after the other, each for earlier parts before later ones: what part 0 writes
    to a cache, part 1 finds there.
    """

    #: The ops that read the state: "attention", "mylib.attention" or with the overload; '*' matches
    #: any text.
    ops: Sequence[str] = ()

    #: Other ops without a split rule, or that change an argument in place: a part's rows of what
    #: they make and write need only the part's rows of what they read. Named as `ops` are.
    row_ops: Sequence[str] = ()

    def prepare(self, batch: int, cuts: Sequence[slice]) -> Sequence[Any]:
        """A state for each of `cuts`, rows of the present batch of `batch` rows. Called by the
        caller's thread before a step that needs any, not in steps that run the batch as a whole.
        """
        raise NotImplementedError(f"{type(self).__name__} has no prepare(self, batch, cuts)")

    def enter(self, state: Any | None) -> None:
        """Lets ops see `state`, one of those that prepare() made; None: that of the whole batch, as
        the host left it. Called before an op needs another than the one before, and at the end of a
        step; by the thread that launches the op, in the ops' order.
        """
        raise NotImplementedError(f"{type(self).__name__} has no enter(self, state)")

    def is_read_by(self, target: str) -> bool:
        """Whether the op "namespace.name.overload" is one of `ops`."""
        return _is_named(target, self.ops)

    def keeps_rows(self, target: str) -> bool:
        """Whether the op "namespace.name.overload" is one of `row_ops`."""
        return _is_named(target, self.row_ops)


def _is_named(target: str, patterns: Sequence[str]) -> bool:
    full, name = target.rpartition(".")[0], target.split(".")[1]
    return any(fnmatchcase(text, pattern) for pattern in patterns for text in (name, full, target))


class ContextSteps:
    """The steps under way that run with a host's context, and the op by which C++ enters it."""

    def __init__(self, context: HostContext) -> None:
        self.context = context
        self._states: dict[int, dict[Parts, Any]] = {}  # by step
        self._numbers = itertools.count(1)
        self._library = torch.library.Library(NAMESPACE, "FRAGMENT")
        weakref.finalize(self, self._library._destroy).atexit = False
        name = f"enter_{uuid.uuid4().hex[:12]}"
        self._library.define(f"{name}(int step, int first_part, int last_part) -> ()")
        states = self._states

        def enter(step: int, first_part: int, last_part: int) -> None:
            context.enter(states[step][first_part, last_part])

        self._library.impl(name, enter, "CompositeExplicitAutograd")
        self.op = f"{NAMESPACE}::{name}"

    @contextmanager
    def step(self, rows: Sequence[int], ranges: Sequence[Parts]) -> Iterator[int]:
        """The number of a step whose parts have `rows` rows and whose readers need the states of
        `ranges`, which are parts of the batch.
        """
        borders = list(itertools.accumulate(rows, initial=0))
        cuts = [slice(borders[first], borders[last]) for first, last in ranges]
        states = list(self.context.prepare(borders[-1], cuts))
        if len(states) != len(cuts):
            raise ValueError(
                f"{type(self.context).__name__}.prepare() returned {len(states)} states for "
                f"{len(cuts)} cuts"
            )
        number = next(self._numbers)
        whole = (0, len(rows))
        self._states[number] = {whole: None, **dict(zip(ranges, states, strict=True))}
        try:
            yield number
        finally:
            del self._states[number]
