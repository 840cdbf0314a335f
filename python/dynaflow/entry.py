"""The way from a Python call to its plan: through Dynamo, with few of its guards.

Nearly all guards read the model: in every call thousands of attributes, hooks and parameters, layer
after layer. Those of a compiled module are left out, and what they would read is watched instead:
CPython counts the changes of each dictionary. With the first change that stays, all guards come
back for good.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch._dynamo import source as sources
from torch._dynamo.guards import GuardBuilder
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._guards import Guard, TracingContext
from torch.fx import GraphModule

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

Backend = Callable[[GraphModule, Sequence[Any]], Callable[..., Any]]

_COMPILE_OPTIONS = inspect.signature(torch.compile).parameters


class Entry:
    """`function` through Dynamo and `backend`; called as the function is.

    `model`: the module whose forward pass it is, if it is one. Thread-safe.
    """

    def __init__(
        self, function: Callable[..., Any], backend: Backend, model: nn.Module | None
    ) -> None:
        self._function = function
        self._backend = backend
        self._lock = threading.Lock()
        watched = WatchedModel(model) if model is not None and versions_count() else None
        self._way = self._compile(watched), watched  # exchanged together

    @property
    def watches(self) -> int:
        """How many dictionaries are watched in place of guards; 0 where every guard is checked."""
        _, watched = self._way
        return 0 if watched is None else len(watched)

    def distrust(self) -> None:
        """From the next call on every guard is checked."""
        _, watched = self._way
        if watched is not None:
            watched.give_up()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the plans for this call, captured first where guards say so."""
        compiled, watched = self._way
        if watched is None:
            return compiled(*args, **kwargs)
        if not watched.changed():
            try:
                return compiled(*args, **kwargs)
            except ParameterError:
                pass  # its data were exchanged: no dictionary knows
        with self._lock:
            if self._way[1] is watched:
                self._way = self._compile(None), None
        return self._way[0](*args, **kwargs)

    def _compile(self, watched: WatchedModel | None) -> Callable[..., Any]:
        own: dict[str, Any] = {}
        if "isolate_recompiles" in _COMPILE_OPTIONS:
            # Other compilations of the same code have guard lists of their own.
            own["isolate_recompiles"] = True
        backend = self._backend
        if watched is not None:
            backend = functools.partial(watched.capture, backend)
        # Dynamo's cached code belongs to the backend that made it: a new one begins anew.
        return torch.compile(self._function, backend=lambda *args: backend(*args), **own)


class WatchedModel:
    """What a model's guards would read, watched for changes of any kind."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._watch = _core.Watch()
        self._held: dict[int, Any] = {}  # what is watched, by identity
        self._given_up = False

    def __len__(self) -> int:
        return 0 if self._given_up else len(self._watch)

    def give_up(self) -> None:
        """No guard is left out any more, and those that were must come back."""
        self._given_up = True

    def changed(self) -> bool:
        """Whether guards that were left out must be checked again."""
        return (self._given_up and len(self._watch) > 0) or self._watch.changed()

    def capture(self, backend: Backend, gm: GraphModule, inputs: Sequence[Any]) -> Any:
        """What `backend` makes of a graph. Leaves guards out of Dynamo's code for it, and watches
        what they would read.
        """
        compiled = backend(gm, inputs)
        # Where the original runs no plan checks its tensors. With gradients on, guards say when
        # they are needed.
        if compiled != gm.forward and not self._given_up and not torch.is_grad_enabled():
            self._prune(gm)
        return compiled

    def _prune(self, gm: GraphModule) -> None:
        guards = TracingContext.get().guards_context.dynamo_guards
        scope = InstructionTranslator.current_tx().output.local_scope
        names = {name for name, value in scope.items() if value is self._model}
        reader = _Reader(self._model, names, _static_tensors(gm))
        for guard in list(guards):
            seen = reader.what_is_read(guard)
            if seen is not None:
                guards.inner.discard(guard)
            for thing in seen or ():
                self._add(thing)
        for name in names:
            # Behind a graph break others of its class may be called with the same code.
            guards.add(sources.LocalSource(name, is_input=True).make_guard(GuardBuilder.ID_MATCH))

    def _add(self, thing: Any) -> None:
        if id(thing) in self._held:
            return
        copy = None
        if type(thing) in _DICTS:
            copy = dict(thing)
            self._watch.add_dict(thing, copy)
        elif isinstance(thing, torch.Tensor):
            self._watch.add_attribute(thing, "requires_grad")
        else:
            self._watch.add_object(thing, thing.__dict__)
            self._add(thing.__dict__)
        self._held[id(thing)] = thing, copy


def _static_tensors(gm: GraphModule) -> set[int]:
    """The parameters and buffers among a graph's arguments, by identity."""
    return {
        id(node.meta["grapharg"].example)
        for node in gm.graph.nodes
        if node.op == "placeholder"
        and "grapharg" in node.meta
        and "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})
    }


class _UnwatchableError(Exception):
    """A guard reads something whose changes nobody counts."""


class _Reader:
    """Finds what guards on a model read, by the way that Dynamo reaches it."""

    def __init__(self, model: nn.Module, names: set[str], checked: set[int]) -> None:
        self._model = model
        self._names = names  # of the local variables that are the model
        self._checked = checked  # tensors that a plan checks in every run, by identity
        self._found: dict[Any, tuple[Any, list[Any]]] = {}

    def what_is_read(self, guard: Guard) -> list[Any] | None:
        """The dictionaries and objects whose constancy implies that the guard holds; None where
        that cannot be said.
        """
        kind = guard.create_fn_name()
        try:
            value, owners = self._reach(guard.originating_source)
        except _UnwatchableError:
            return None
        if isinstance(value, _CONSTANTS):
            return owners
        if type(value) in (torch.Tensor, nn.Parameter):
            checked = kind == "TENSOR_MATCH" and id(value) in self._checked
            return [*owners, value] if checked else None
        if type(value) in _DICTS:
            # Moves within an ordered one are not counted.
            told = type(value) is dict or len(value) == 0
            return [*owners, value] if told and kind in _OF_DICTS else None
        if kind not in _OF_OBJECTS or type(getattr(value, "__dict__", None)) is not dict:
            return None
        return [*owners, value]

    def _reach(self, source: Any) -> tuple[Any, list[Any]]:
        """The value behind a source, and what must stay the same for it to stay behind it."""
        source = _unwrapped(source)
        if isinstance(source, sources.LocalSource):
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
        if hasattr(type(inspect.getattr_static(kind, source.member, None)), "__set__"):
            raise _UnwatchableError  # the class decides what is read
        return attributes[source.member], [*owners, owner]

    def _item(self, source: Any) -> tuple[Any, list[Any]]:
        owner, owners = self._reach(source.base)
        if isinstance(source.index, sources.Source):
            raise _UnwatchableError
        if type(owner) not in _DICTS or source.index not in owner:
            raise _UnwatchableError
        return owner[source.index], [*owners, owner]


def _unwrapped(source: Any) -> Any:
    """The source without the marks that it is a module."""
    while isinstance(source, sources.NNModuleSource):
        source = source.base
    return source


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
        lambda: setattr(thing, "kept", [thing.kept]),
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
    for change in [*changes[:1] * 20, *changes]:  # the interpreter specializes what it repeats
        watch = _core.Watch()
        seen = (thing.__dict__, dict(thing.__dict__), dict(entries))
        watch.add_object(thing, seen[0])
        watch.add_dict(*seen[:2])
        watch.add_dict(entries, seen[2])
        if watch.changed():
            return False
        change()
        if not watch.changed():
            return False
    return True
