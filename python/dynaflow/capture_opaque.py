"""Calls that the dispatcher cannot make: higher-order ops and Python functions, wrapped as ops."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

NAMESPACE = "dynaflow_opaque"


class OpaqueOps:
    """The wrapped calls of one captured graph. The ops are unregistered when this object goes."""

    def __init__(self) -> None:
        self._library = torch.library.Library(NAMESPACE, "FRAGMENT")
        weakref.finalize(self, self._library._destroy).atexit = False

    def wrap(
        self, call: Callable[..., Any], args: Any, kwargs: Any, kept: list[int]
    ) -> tuple[str, list[Any]]:
        """Registers `call(*args, **kwargs)` with tensors and sizes as its parameters.

        The op returns those of the call's results that are at the positions `kept`, which are
        tensors.

        `args` and `kwargs` hold `Hole`s where a call differs from the next. Returns the op's target
        and the holes' contents in the order of its parameters.
        """
        leaves, spec = pytree.tree_flatten(
            (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Hole)
        )
        holes = [(i, leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, Hole)]
        parameters = ", ".join(f"{hole.type} a{n}" for n, (_, hole) in enumerate(holes))
        returns = "(" + ", ".join(["Tensor"] * len(kept)) + ")"
        name = f"{getattr(call, '__name__', type(call).__name__)}_{uuid.uuid4().hex[:12]}"
        name = "".join(c if c.isalnum() else "_" for c in name)
        self._library.define(f"{name}({parameters}) -> {returns}")
        implementation = _implementation(call, leaves, [i for i, _ in holes], spec, kept)
        self._library.impl(name, implementation, "CompositeExplicitAutograd")
        return f"{NAMESPACE}.{name}.default", [hole.content for _, hole in holes]


class Hole:
    """A place in a call's arguments that every run fills: a tensor or a size."""

    def __init__(self, type: str, content: Any) -> None:
        self.type = type
        self.content = content


def _implementation(
    call: Callable[..., Any],
    leaves: Sequence[Any],
    places: Sequence[int],
    spec: pytree.TreeSpec,
    kept: list[int],
) -> Callable[..., Any]:
    template = [None if isinstance(leaf, Hole) else leaf for leaf in leaves]

    def run(*values: Any) -> Any:
        filled = list(template)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        args, kwargs = pytree.tree_unflatten(filled, spec)
        result = call(*args, **kwargs)
        several = [result] if isinstance(result, torch.Tensor) or result is None else list(result)
        fresh = _unshared(
            [several[i] for i in kept],
            [value for value in values if isinstance(value, torch.Tensor)],
        )
        return fresh[0] if len(fresh) == 1 else tuple(fresh)

    return run


def _unshared(results: list[torch.Tensor], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Results with storage of their own: a graph's op must not return what it was given."""
    taken = {tensor.untyped_storage()._cdata for tensor in inputs}
    fresh = []
    for tensor in results:
        shares = tensor.untyped_storage()._cdata in taken
        fresh.append(tensor.clone() if shares else tensor)
        taken.add(fresh[-1].untyped_storage()._cdata)
    return fresh
