"""Whether a region treats rows of the batch independently, as `rows_independent=True` says it does.

No rule shows it, so it is tried once, on the tensors of a graph's first split call: the region runs
on each part's rows alone, and must give the rows that the model gives as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_map_only

from dynaflow import _core
from dynaflow.compare import difference, magnitude
from dynaflow.errors import IndependenceError
from dynaflow.region import Region, is_pick, value_names, written_storages

_SHOWN = 8  # rows that a message names


@dataclass(frozen=True)
class Cut:
    """How a call's batch is cut."""

    rows: tuple[int, ...]  # of each part
    sizes: Mapping[str, int]  # the symbols' values in the call
    batch: frozenset[str]  # the symbols whose value is the batch's

    def parts(self) -> Iterator[tuple[int, int, dict[str, int]]]:
        """First row, rows and the symbols' values of each part."""
        first = 0
        for rows in self.rows:
            yield first, rows, {**self.sizes, **dict.fromkeys(self.batch, rows)}
            first += rows


def check_independence(
    gm: GraphModule,
    graph: _core.Graph,
    regions: Sequence[Mapping[str, Any]],
    layouts: Mapping[str, Mapping[str, Any]],
    args: Sequence[Any],
    cut: Cut,
) -> None:
    """Runs `gm`, of which `graph` is the capture, on `args`, and then each of `regions` part by
    part on what it read there. Regions and layouts are as a `Partition` has them.

    Raises IndependenceError for the first result of a region that is another one in parts, by more
    than `tolerance`. Arguments that `gm` changes are copied first. Collectives are run: every rank
    has to call it.
    """
    trials = [_Trial(gm, region, layouts, cut) for region in regions]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        recorder = _Recorder(gm, [trial.region for trial in trials], written_storages(graph))
        values = recorder.observe(args)
        for trial in trials:
            trial.run(values)


def tolerance(dtype: torch.dtype) -> float:
    """By how much a row may differ, relative to its largest value: half of the dtype's digits.

    The kernel of a matrix product may sum fewer rows in another order. That costs a sum of n terms
    at most n times the dtype's epsilon, of which the square root leaves room for thousands; what
    other rows contribute is far larger as a rule. Integers and booleans must be equal.
    """
    return torch.finfo(dtype).eps ** 0.5 if dtype.is_floating_point or dtype.is_complex else 0.0


class _Recorder(Interpreter):
    """Runs a graph and keeps what regions of it read, and what they give."""

    def __init__(self, gm: GraphModule, regions: Sequence[Region], written: set[str]) -> None:
        super().__init__(gm)
        self._outputs = {node for region in regions for node in region.outputs}
        self._inputs = {
            node: set(region.inputs).intersection(node.all_input_nodes)
            for region in regions
            for node in region.nodes
        }
        self._written = written
        self._kept: dict[Node, Any] = {}

    def observe(self, args: Sequence[Any]) -> dict[Node, Any]:
        names = [node.name for node in self.module.graph.nodes if node.op == "placeholder"]
        pairs = zip(names, args, strict=True)
        self.run(*[arg.clone() if name in self._written else arg for name, arg in pairs])
        return self._kept

    def run_node(self, n: Node) -> Any:
        for source in self._inputs.get(n, ()):
            self._keep(source, self.env[source])
        result = super().run_node(n)
        if n in self._outputs:
            self._keep(n, result)
        return result

    def _keep(self, node: Node, value: Any) -> None:
        """As it is now, whatever is changed in place later on."""
        if node not in self._kept:
            copy = bool(self._written)
            self._kept[node] = tree_map_only(torch.Tensor, torch.clone, value) if copy else value


class _Trial:
    """One region and how its values lie."""

    def __init__(
        self, gm: GraphModule, facts: Mapping[str, Any], layouts: Mapping[str, Any], cut: Cut
    ) -> None:
        self.region = Region(gm, facts["ops"])
        self._claim = (
            f"'{facts['name']}' does not treat rows of the batch independently, as "
            "rows_independent=True says it does"
        )
        self._layouts = layouts
        self._cut = cut

    def run(self, values: Mapping[Node, Any]) -> None:
        """Compares what the region gives in parts with `values`, the nodes' in the whole run."""
        results = []
        for first, rows, sizes in self._cut.parts():
            own = {
                node: self._slice(node, values[node], first, rows) for node in self.region.inputs
            }
            try:
                results.append(self.region.run(own, sizes))
            except Exception as error:
                last = first + rows - 1
                raise self._error(
                    f"run on rows {first} to {last} alone, it fails with {type(error).__name__}: "
                    f"{error}"
                ) from error
        for node in self.region.outputs:
            names = value_names(node)
            wholes = _as_list(values[node])
            parts = zip(*(_as_list(result[node]) for result in results), strict=True)
            for name, whole, own in zip(names, wholes, parts, strict=True):
                if self._layouts[name]["kind"] == "shard":
                    op = node.args[0] if is_pick(node) else node
                    reader = self.region.readers(node)[0]
                    who = "the caller" if reader.op == "output" else f"'{reader.name}'"
                    what = f"%{name} ({op.target}), which {who} reads,"
                    self._compare(what, name, whole, own)

    def _factor(self, name: str, key: str) -> int:
        """A factor of a dimension; its text is a size in the core's grammar, and Python's too."""
        return eval(self._layouts[name][key], {"max": max, "min": min}, dict(self._cut.sizes))

    def _slice(self, node: Node, value: Any, first: int, rows: int) -> Any:
        """A part's rows, in memory of their own: the region may change them."""
        tensors = [
            self._rows_of(name, tensor, first, rows).clone()
            for name, tensor in zip(value_names(node), _as_list(value), strict=True)
        ]
        return tensors if isinstance(value, (list, tuple)) else tensors[0]

    def _rows_of(self, name: str, tensor: torch.Tensor, first: int, rows: int) -> torch.Tensor:
        layout = self._layouts[name]
        if layout["kind"] == "whole":
            return tensor
        dim, outer, inner = layout["dim"], self._factor(name, "outer"), self._factor(name, "inner")
        if outer == 1:
            return tensor.narrow(dim, first * inner, rows * inner)
        blocks = tensor.unflatten(dim, (outer, sum(self._cut.rows), inner))
        return blocks.narrow(dim + 1, first, rows).flatten(dim, dim + 2)

    def _compare(
        self, what: str, name: str, whole: torch.Tensor, own: Sequence[torch.Tensor]
    ) -> None:
        dim, inner = self._layouts[name]["dim"], self._factor(name, "inner")
        for (first, rows, _), tensor in zip(self._cut.parts(), own, strict=True):
            expected = list(whole.shape)
            expected[dim] = rows * inner
            if list(tensor.shape) != expected:
                raise self._error(
                    f"run on rows {first} to {first + rows - 1} alone, {what} has the shape "
                    f"{list(tensor.shape)}, not {expected}"
                )
        if whole.numel() == 0:
            return
        count = sum(self._cut.rows)
        found, expected = (
            tensor.movedim(dim, 0).reshape(count, -1) for tensor in (torch.cat(own, dim), whole)
        )
        largest = magnitude(expected).nan_to_num(posinf=0.0).amax(1)
        # A row of small values may be the rest of large ones that cancel.
        allowed = tolerance(whole.dtype) * largest.maximum(largest.median())
        apart = difference(found, expected).amax(1)
        wrong = (apart > allowed).nonzero().flatten().tolist()
        if not wrong:
            return
        worst = max(wrong, key=lambda row: float(apart[row]))
        raise self._error(
            f"run on parts of {list(self._cut.rows)} rows, {what} differs in rows {_listed(wrong)} "
            f"by up to {float(apart[worst]):.3g} (in row {worst}, whose largest value is "
            f"{float(largest[worst]):.3g}; {float(allowed[worst]):.3g} is allowed in {whole.dtype})"
        )

    def _error(self, observed: str) -> IndependenceError:
        return IndependenceError(
            f"{self._claim}: {observed}. Leave rows_independent out, and what cannot be split runs "
            "merged; or let the annotation match less, without the op that mixes rows"
        )


def _as_list(value: Any) -> list[torch.Tensor]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _listed(rows: list[int]) -> str:
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return ", ".join(map(str, rows[:_SHOWN])) + more
