"""df.compile and df.capture."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._dynamo import external_utils, trace_rules
from torch._dynamo.decorators import maybe_mark_dynamic

from dynaflow import _core
from dynaflow.backend import compile_graph
from dynaflow.entry import Entry
from dynaflow.options import Options, read_options
from dynaflow.session import Session
from dynaflow.settings import SETTINGS
from dynaflow.strategy import Sequential, Strategy

# Where a compiled object keeps its session: on the class of a module, on a function itself.
SESSION = "_dynaflow_session"
ORIGINAL = "_dynaflow_original"


def compile(
    model: Any,
    strategy: str | Strategy = "sequential",
    options: Mapping[str, Any] | None = None,
    dynamic_dims: Sequence[int] = (0,),
) -> Any:
    """`model` with its forward pass captured, scheduled by `strategy` and replayed from C++.

    A module comes back as an object of its own class that shares everything with it: parameters,
    hooks, attributes, `state_dict` keys. A function comes back as a function. `dynamic_dims` are
    the dimensions of every tensor argument that may change between calls; dimension 0 is the batch.
    `options` are those of a strategy given by name, and those of `dynaflow.options.Options`.
    """
    strategy, own = read_options(strategy, options)
    if SETTINGS.disabled:
        return model
    if not callable(model):
        raise TypeError(f"{model!r} cannot be compiled: it is neither a module nor a function")
    model = original_of(model)
    session = Session(_name(model), strategy, own)
    dims = tuple(dynamic_dims)
    if isinstance(model, torch.nn.Module):
        return _compiled_module(model, session, dims)
    function = _compiled_function(model, session, dims)
    setattr(function, SESSION, session)
    setattr(function, ORIGINAL, model)
    return function


def capture(
    model: Callable[..., Any], *args: Any, dynamic_dims: Sequence[int] = (0,), **kwargs: Any
) -> list[_core.Graph]:
    """The graphs of `model(*args, **kwargs)`, one for each piece between graph breaks.

    Runs the model once, without gradients: what follows a graph break depends on what came before.
    """
    model = original_of(model)
    session = Session(_name(model), Sequential(), Options(), capture_only=True)
    forward = model.forward if isinstance(model, torch.nn.Module) else model
    with torch.no_grad():
        _compiled_function(forward, session, tuple(dynamic_dims))(*args, **kwargs)
    return [compiled.graph for compiled in session.graphs]


def session_of(compiled: Any) -> Session:
    """The session behind what df.compile returned. Raises TypeError for anything else."""
    session = getattr(type(compiled), SESSION, None) or getattr(compiled, SESSION, None)
    if not isinstance(session, Session):
        raise TypeError(
            f"{type(compiled).__name__} is not something that dynaflow.compile returned"
        )
    return session


def original_of(model: Any) -> Any:
    """What was compiled, for something that df.compile returned; else `model` itself."""
    return getattr(type(model), ORIGINAL, None) or getattr(model, ORIGINAL, None) or model


def _name(model: Any) -> str:
    return (
        type(model).__name__
        if isinstance(model, torch.nn.Module)
        else getattr(model, "__name__", "function")
    )


def _compiled_function(
    function: Callable[..., Any], session: Session, dims: tuple[int, ...]
) -> Callable[..., Any]:
    """`function` through Dynamo and our backend; tensor arguments are marked dynamic on the way."""
    inner = function
    if trace_rules.check(function):
        # Dynamo skips the frames of torch's own modules; a frame of the caller's makes it look
        # inside.
        inner = external_utils.wrap_inline(function)
    owner = getattr(function, "__self__", None)
    model = owner if isinstance(owner, torch.nn.Module) else None
    entry = Entry(inner, lambda gm, inputs: compile_graph(gm, inputs, session), model)
    session.entry = entry

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _mark(args, dims)
        if kwargs:
            _mark(kwargs.values(), dims)
        return entry(*args, **kwargs)

    return call


def _mark(values: Any, dims: tuple[int, ...]) -> None:
    """Marks dimensions of the tensors among `values` dynamic, each tensor once."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if not hasattr(value, "_dynamo_weak_dynamic_indices"):
                shape = value.shape
                for dim in dims:
                    # Sizes 0 and 1 behave differently from all others: they get graphs of their
                    # own.
                    if dim < len(shape) and shape[dim] > 1:
                        maybe_mark_dynamic(value, dim)
        elif type(value) in _CONTAINERS:
            _mark(value.values() if type(value) is dict else value, dims)


_CONTAINERS = (list, tuple, dict)


def _compiled_module(
    model: torch.nn.Module, session: Session, dims: tuple[int, ...]
) -> torch.nn.Module:
    """An object of a subclass of the model's class that shares its state, with a compiled
    `forward`.

    `forward` is a property: it wins over a `forward` that someone put on the instance, and that one
    is then what is compiled. Everything else is the model's own, hooks included, so code that takes
    the model takes this.
    """
    forward = _compiled_function(model.forward, session, dims)

    def rebuild(self: Any, protocol: Any) -> Any:
        return compile, (model, session.strategy, dict(vars(session.options)), dims)

    members = {
        "forward": property(lambda self: forward),
        "__reduce_ex__": rebuild,
        "__module__": type(model).__module__,
        "__qualname__": type(model).__qualname__,
        "__doc__": type(model).__doc__,
        SESSION: session,
        ORIGINAL: model,
    }
    kind = type(type(model).__name__, (type(model),), members)
    compiled = object.__new__(kind)
    compiled.__dict__ = model.__dict__
    return compiled
