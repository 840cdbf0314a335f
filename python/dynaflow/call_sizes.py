"""What a call's flat argument list says: sizes, tensors, and which plans hold for them.

Each is compiled to one expression, since every step begins with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dynaflow.captured import Captured


def values_of(captured: Captured) -> Callable[[list[Any]], list[int]]:
    """Reads the symbols' values from a call's arguments."""
    sources = []
    for symbol in captured.symbols:
        if symbol.argument is not None:
            sources.append(f"args[{symbol.argument}]")
        else:
            tensor, dim = symbol.dimension
            sources.append(f"args[{tensor}].shape[{dim}]")
    return eval(f"lambda args: [{', '.join(sources)}]", {})


def tensors_of(captured: Captured) -> Callable[[list[Any]], list[torch.Tensor]]:
    """Picks the tensors from a call's arguments."""
    picks = ", ".join(f"args[{position}]" for position in captured.tensor_arguments)
    return eval(f"lambda args: [{picks}]", {})


def accepts(
    captured: Captured, guards: Sequence[tuple[str, str, str, bool]]
) -> Callable[..., bool]:
    """A plan's guards, and the graph's equal sizes, as one function of the symbols' values.

    The texts are sizes in the core's grammar, which are Python expressions too.
    """
    conditions = [f"{left} == {right}" for left, right in captured.equal]
    conditions += [f"({left} {op} {right}) is {holds}" for left, op, right, holds in guards]
    names = ", ".join(symbol.name for symbol in captured.symbols)
    return eval(f"lambda {names}: {' and '.join(conditions) or 'True'}", {"max": max, "min": min})
