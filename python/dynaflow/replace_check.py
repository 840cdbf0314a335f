"""Whether a replacement computes what the segments compute that it runs for.

Tried once, on the tensors of the first call that launches it: a kernel that promises equal bits, or
a tolerance, and gives something else would never be noticed otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from dynaflow import _core
from dynaflow.compare import difference, magnitude
from dynaflow.errors import ReplacementError
from dynaflow.region import is_pick, value_names, written_storages
from dynaflow.replace import Launched


def check_replacements(
    gm: GraphModule, graph: _core.Graph, launched: Sequence[Launched], args: Sequence[Any]
) -> None:
    """Runs `gm`, of which `graph` is the capture, on `args`, and each kernel on what its segments
    read there. Arguments that `gm` changes are copied first.

    Raises ReplacementError for the first result that is farther from theirs than the kernel
    promises. Collectives are run: every rank has to call it.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        written = written_storages(graph)
        names = [node.name for node in gm.graph.find_nodes(op="placeholder")]
        pairs = zip(names, args, strict=True)
        copies = [arg.clone() if name in written else arg for name, arg in pairs]
        trier = _Trier(gm, [_Trial(kernel) for kernel in launched])
        trier.run(*copies)
    if trier.error is not None:
        raise trier.error


@dataclass
class _Trial:
    """One kernel, and the values that have been seen of those that it needs."""

    kernel: Launched
    seen: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.kernel.inputs, *self.kernel.outputs)

    def see(self, name: str, tensor: torch.Tensor) -> None:
        self.seen[name] = tensor
        if len(self.seen) == len(set(self.names)):
            self._compare()
            self.seen.clear()

    def _compare(self) -> None:
        results = self.kernel.call(*(self.seen[name] for name in self.kernel.inputs))
        results = results if isinstance(results, (list, tuple)) else [results]
        for name, result in zip(self.kernel.outputs, results, strict=True):
            expected = self.seen[name]
            if result.shape != expected.shape or result.dtype != expected.dtype:
                raise self._error(
                    f"%{name} is {_kind(result)}, where the segments make {_kind(expected)}"
                )
            self._compare_values(name, result, expected)

    def _compare_values(self, name: str, result: torch.Tensor, expected: torch.Tensor) -> None:
        if expected.numel() == 0:
            return
        apart = float(difference(result, expected).max())
        largest = float(magnitude(expected).nan_to_num(posinf=0.0).max())
        if apart > self.kernel.tolerance * largest:
            promised = (
                f"within {self.kernel.tolerance:g} of the largest"
                if self.kernel.tolerance
                else "equal bits, as it has no tolerance"
            )
            raise self._error(
                f"%{name} differs by up to {apart:.3g}, where the largest value is {largest:.3g}; "
                f"it promises {promised}"
            )

    def _error(self, observed: str) -> ReplacementError:
        return ReplacementError(
            f"'{self.kernel.name}' does not compute what {self.kernel.segments} computes: "
            f"{observed}. Mend the kernel, or give what it may differ by: "
            "df.Replacement(..., tolerance=...)"
        )


class _Trier(Interpreter):
    """Runs a graph op by op and shows each trial the values that it waits for."""

    def __init__(self, gm: GraphModule, trials: list[_Trial]) -> None:
        super().__init__(gm)
        self.error: ReplacementError | None = None  # the first; raised in run(), it would grow
        self._waiting: dict[str, list[_Trial]] = {}
        for trial in trials:
            for name in dict.fromkeys(trial.names):
                self._waiting.setdefault(name, []).append(trial)

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        for name, tensor in _named(n, result):
            for trial in self._waiting.get(name, ()):
                self._show(trial, name, tensor)
        return result

    def _show(self, trial: _Trial, name: str, tensor: torch.Tensor) -> None:
        try:
            trial.see(name, tensor)
        except ReplacementError as error:
            self.error = self.error or error


def _named(node: Node, result: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if node.op == "output" or is_pick(node):
        return iter(())
    tensors = result if isinstance(result, (list, tuple)) else [result]
    kept = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
    return zip(value_names(node), kept, strict=True) if kept else iter(())


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
