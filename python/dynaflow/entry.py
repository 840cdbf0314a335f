"""The way from a Python call to its plan: through Dynamo, with few of its guards.

Nearly all guards read the model: in every call thousands of attributes, hooks and parameters, layer
after layer. Those of a compiled module are left out, and what they would read is watched instead:
CPython counts the changes of each dictionary. With the first change all guards come back for good.
"""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch._dynamo import source as sources
from torch._dynamo.types import GuardFilterEntry
from torch._dynamo.utils import counters

from dynaflow import _core
from dynaflow.errors import ParameterError

_DICTS = (dict, OrderedDict)
_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_ATTRIBUTES = (
    sources.AttrSource,
    sources.ParamBufferSource,
    sources.UnspecializedParamBufferSource,
)
#: Guards that ask what a dictionary holds, and those that ask what an object has itself.
_OF_DICTS = frozenset(
    (
        "DICT_CONTAINS",
        "DICT_KEYS_MATCH",
        "DICT_NOT_CONTAINS",
        "EMPTY_NN_MODULE_HOOKS_DICT",
        "SEQUENCE_LENGTH",
        "TYPE_MATCH",
    )
)
_OF_OBJECTS = frozenset(("NOT_PRESENT_IN_GENERIC_DICT", "TYPE_MATCH"))

_COMPILE_OPTIONS = inspect.signature(torch.compile).parameters


class Entry:
    """`function` through Dynamo and `backend`; called as the function is.

    `model`: the module whose forward pass it is, if it is one. Thread-safe.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        backend: Callable[[Any, Sequence[Any]], Callable[..., Any]],
        model: nn.Module | None,
    ) -> None:
        self._function = function
        self._backend = backend
        self._watched = WatchedModel(model) if model is not None and versions_count() else None
        self._compiled = self._compile()

    @property
    def watches(self) -> int:
        """How many dictionaries are watched in place of guards; 0 where every guard is checked."""
        return 0 if self._watched is None else len(self._watched)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the plans for this call, captured first where guards say so."""
        if self._watched is None:
            return self._compiled(*args, **kwargs)
        self._watched.note_breaks()
        if not self._watched.changed():
            try:
                return self._compiled(*args, **kwargs)
            except ParameterError:
                pass  # its data were exchanged: no dictionary knows
        self._watched = None
        self._compiled = self._compile()
        return self._compiled(*args, **kwargs)

    def _compile(self) -> Callable[..., Any]:
        # Dynamo's cached code belongs to the backend that made it: a new one begins anew. Other
        # compilations of the same code have guard lists of their own, where torch offers that.
        own: dict[str, Any] = {}
        if "isolate_recompiles" in _COMPILE_OPTIONS:
            own["isolate_recompiles"] = True
        if self._watched is not None:
            own["options"] = {"guard_filter_fn": self._watched.keep_guards}
        return torch.compile(
            self._function, backend=lambda gm, inputs: self._backend(gm, inputs), **own
        )


class WatchedModel:
    """What a model's guards would read, watched for changes of any kind."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._watch = _core.Watch()
        self._held: dict[int, Any] = {}  # what is watched, by identity
        self._breaks = 0

    def __len__(self) -> int:
        return len(self._watch)

    def note_breaks(self) -> None:
        """Before each call: graphs that break from now on are its own, or may be."""
        self._breaks = _graph_breaks()

    def changed(self) -> bool:
        """Whether anything watched is no longer as it was when guards on it were left out."""
        return self._watch.changed()

    def keep_guards(self, entries: Sequence[GuardFilterEntry]) -> list[bool]:
        """For each guard of a capture whether it is kept; what the others read is watched."""
        # A gradient mode that may change makes `requires_grad` matter. After a graph break other
        # modules of the same class may be called with the code of this one.
        if torch.is_grad_enabled() or _graph_breaks() != self._breaks:
            return [True] * len(entries)
        names = {
            root.local_name
            for entry in entries
            if isinstance(root := _unwrapped(entry.orig_guard.originating_source), _LOCAL)
            and entry.has_value
            and entry.value is self._model
        }
        reader = _Reader(self._model, names)
        kept = []
        for entry in entries:
            seen = reader.what_is_read(entry)
            kept.append(seen is None)
            for thing in seen or ():
                self._add(thing)
        return kept

    def _add(self, thing: Any) -> None:
        if id(thing) in self._held:
            return
        self._held[id(thing)] = thing
        if type(thing) in _DICTS:
            self._watch.add_dict(thing)
        else:
            self._watch.add_object(thing)


_LOCAL = sources.LocalSource


class _UnwatchableError(Exception):
    """A guard reads something whose changes nobody counts."""


class _Reader:
    """Finds what guards on a model read, by the way that Dynamo reaches it."""

    def __init__(self, model: nn.Module, names: set[str]) -> None:
        self._model = model
        self._names = names  # of the local variables that are the model
        self._found: dict[Any, tuple[Any, list[Any]]] = {}

    def what_is_read(self, entry: GuardFilterEntry) -> list[Any] | None:
        """The dictionaries and objects whose constancy implies that the guard holds; None where
        that cannot be said.
        """
        try:
            value, owners = self._reach(entry.orig_guard.originating_source)
        except _UnwatchableError:
            return None
        if not entry.has_value or entry.value is not value:
            return None
        if isinstance(value, _CONSTANTS):
            return owners
        if type(value) in (torch.Tensor, nn.Parameter):
            # Data exchanged in place are refused by the plan that gets them.
            return owners if entry.guard_type == "TENSOR_MATCH" else None
        if type(value) in _DICTS:
            ordered = type(value) is OrderedDict and value  # moves within it are not counted
            return None if ordered or entry.guard_type not in _OF_DICTS else [*owners, value]
        if (
            entry.guard_type not in _OF_OBJECTS
            or type(getattr(value, "__dict__", None)) is not dict
        ):
            return None
        return [*owners, value]

    def _reach(self, source: Any) -> tuple[Any, list[Any]]:
        """The value behind a source, and what must stay the same for it to stay behind it."""
        source = _unwrapped(source)
        if isinstance(source, _LOCAL):
            if source.local_name in self._names:
                return self._model, []
            raise _UnwatchableError
        if source not in self._found:
            if type(source) in _ATTRIBUTES:
                self._found[source] = self._attribute(source)
            elif type(source) is sources.DictGetItemSource:
                self._found[source] = self._item(source)
            else:
                raise _UnwatchableError
        return self._found[source]

    def _attribute(self, source: Any) -> tuple[Any, list[Any]]:
        owner, owners = self._reach(source.base)
        kind, attributes = type(owner), getattr(owner, "__dict__", None)
        own = type(attributes) is dict and source.member in attributes
        if not own or kind.__getattribute__ is not object.__getattribute__:
            raise _UnwatchableError
        if hasattr(getattr(kind, source.member, None), "__set__"):
            raise _UnwatchableError  # the class decides what is read
        return attributes[source.member], [*owners, owner]

    def _item(self, source: Any) -> tuple[Any, list[Any]]:
        owner, owners = self._reach(source.base)
        if type(owner) not in _DICTS or isinstance(source.index, sources.Source):
            raise _UnwatchableError
        return owner[source.index], [*owners, owner]


def _unwrapped(source: Any) -> Any:
    """The source without the marks that it is a module."""
    while isinstance(source, sources.NNModuleSource):
        source = source.base
    return source


def _graph_breaks() -> int:
    return sum(counters["graph_break"].values())


@functools.lru_cache
def versions_count() -> bool:
    """Whether this interpreter counts every change of a dictionary, an object's own included."""

    class Thing:
        pass

    class Other(Thing):
        pass

    thing = Thing()
    thing.kept = 0
    held = thing.__dict__
    entries: OrderedDict[str, int] = OrderedDict(a=1)
    changes: list[Callable[[], Any]] = [
        lambda: setattr(thing, "kept", 1),
        lambda: setattr(thing, "new", 1),
        lambda: delattr(thing, "new"),
        lambda: held.update(kept=2),
        lambda: held.pop("kept"),
        lambda: setattr(thing, "__class__", Other),
        lambda: entries.update(b=2),
        lambda: entries.popitem(),
        lambda: entries.clear(),
        lambda: setattr(thing, "__dict__", {}),
    ]
    for change in changes:
        watch = _core.Watch()
        watch.add_object(thing)
        watch.add_dict(entries)
        if watch.changed():
            return False
        change()
        if not watch.changed():
            return False
    return True
