"""A compiled kernel's graph as a module of torch, for exporting and for trying it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from dynaflow import _core
from dynaflow.capture_schema import call_operator

#: A symbol's value in a trial; all different, as far as they go.
_TRIAL_SIZES = (13, 7, 5, 3)

#: Where a size comes from: the tensor, its dimension, and what the symbol is multiplied by there.
_Place = tuple[int, int, int]


class KernelModule(torch.nn.Module):
    """Computes a graph of `_core.kernels()`: takes its inputs, then the tensors for its outputs."""

    def __init__(self, graph: _core.Graph) -> None:
        """Raises ValueError naming a symbol that no tensor tells."""
        super().__init__()
        self.graph = graph
        values = {value["name"]: value for value in graph.values}
        self.inputs = [name for name, value in values.items() if value["input"]]
        self.outputs = [name for _, name in graph.outputs]
        self.tensors = [values[name] for name in self.inputs + self.outputs]
        self._places = {s["name"]: _find(s["name"], self.tensors) for s in graph.symbols}
        self._ops = graph.ops

    def forward(self, *tensors: torch.Tensor) -> tuple[()]:
        """Writes the outputs' tensors."""
        sizes = {
            name: tensors[tensor].shape[dim] // factor
            for name, (tensor, dim, factor) in self._places.items()
        }
        found = dict(zip(self.inputs, tensors, strict=False))
        for op in self._ops:
            results = call_operator(
                _overload(op["target"]), [_real(a, found, sizes) for a in op["args"]]
            )
            results = results if isinstance(results, (list, tuple)) else [results]
            found |= zip(op["outputs"], results, strict=True)
        for name, out in zip(self.outputs, tensors[len(self.inputs) :], strict=True):
            out.copy_(found[name])
        return ()

    def example(self) -> list[torch.Tensor]:
        """Tensors of the sizes that the graph hints at, not filled."""
        hints = {symbol["name"]: symbol["hint"] for symbol in self.graph.symbols}
        return [_tensor(value, hints) for value in self.tensors]

    def trial(self) -> list[torch.Tensor]:
        """Random tensors of other, small sizes; zeros where they are no floats."""
        names = [symbol["name"] for symbol in self.graph.symbols]
        sizes = dict(zip(names, itertools.cycle(_TRIAL_SIZES), strict=False))
        tensors = [_tensor(value, sizes) for value in self.tensors]
        return [t.normal_() if t.is_floating_point() else t.zero_() for t in tensors]

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """For torch.export: the dimensions that follow a symbol."""
        return tuple(
            {d: torch.export.Dim.AUTO for d, size in enumerate(value["shape"]) if _moves(size)}
            for value in self.tensors
        )


def _moves(size: str) -> bool:
    return not size.isdigit()


def _find(symbol: str, tensors: Sequence[dict[str, Any]]) -> _Place:
    form = re.compile(rf"(?:(\d+)\*)?{symbol}")
    for number, value in enumerate(tensors):
        for dim, size in enumerate(value["shape"]):
            if match := form.fullmatch(size):
                return number, dim, int(match[1] or 1)
    raise ValueError(f"no dimension of a tensor tells the size {symbol}")


def _evaluate(text: str, sizes: dict[str, Any]) -> Any:
    """A size in the core's grammar, which is Python's, too."""
    return eval(text, {"max": torch.sym_max, "min": torch.sym_min}, sizes)


def _tensor(value: dict[str, Any], sizes: dict[str, int]) -> torch.Tensor:
    shape = [_evaluate(size, sizes) for size in value["shape"]]
    strides = [_evaluate(stride, sizes) for stride in value["strides"]]
    return torch.empty_strided(shape, strides, dtype=getattr(torch, value["dtype"]))


def _overload(target: str) -> OpOverload:
    space, name, overload = target.split(".")
    return getattr(getattr(getattr(torch.ops, space), name), overload)


def _real(arg: Any, values: dict[str, torch.Tensor], sizes: dict[str, Any]) -> Any:
    if isinstance(arg, list):
        return [_real(item, values, sizes) for item in arg]
    if not isinstance(arg, tuple):
        return arg
    kind, content = arg
    if kind == "value":
        return values[content]
    if kind == "size":
        return _evaluate(content, sizes)
    if kind == "device":
        return torch.device(content)
    return getattr(torch, content)  # a dtype, a layout, a memory format
