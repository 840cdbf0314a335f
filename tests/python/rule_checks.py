"""One sample call with one letter as the batch: as a graph for the analysis, in parts, on ranks."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rule_arguments import SIZES, Rows, Sample, Size, Tensor, evaluate
from torch.utils import _pytree as pytree

from dynaflow import _core
from dynaflow.capture_nodes import print_float
from dynaflow.capture_schema import constant_of_type, named_constant, quote

SOURCES = Path(__file__).parents[2] / "src" / "graph"
#: Kernels that only run on a CUDA device.
CUDA_ONLY = {
    "aten._scaled_dot_product_flash_attention.default",
    "aten._scaled_dot_product_efficient_attention.default",
    "aten._scaled_dot_product_cudnn_attention.default",
}


def targets() -> list[str]:
    """The targets that the rule table names, as its sources spell them."""
    found: set[str] = set()
    for source in SOURCES.glob("split_rules_*.cc"):
        found.update(re.findall(r'"((?:aten|_c10d_functional)\.\w+\.\w+)"', source.read_text()))
    return sorted(found)


@dataclass(frozen=True)
class Layout:
    """Dimension `dim` holds outer * rows * inner; see docs/split-safety.md."""

    dim: int
    outer: int
    inner: int

    def cut(self, whole: torch.Tensor, first: int, rows: int) -> torch.Tensor:
        """Some rows of a tensor."""
        blocks = whole.unflatten(self.dim, (self.outer, -1, self.inner))
        part = blocks.narrow(self.dim + 1, first, rows)
        return part.flatten(self.dim, self.dim + 2).contiguous()

    def join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """The tensor of which these are the rows, in order."""
        blocks = [part.unflatten(self.dim, (self.outer, -1, self.inner)) for part in parts]
        return torch.cat(blocks, self.dim + 1).flatten(self.dim, self.dim + 2)


@dataclass(frozen=True)
class Verdict:
    """What the analysis says: how each result lies, None for one that nobody may read."""

    split: bool
    reason: str
    results: tuple[Layout | None, ...] = ()
    local_rows: bool = False  # arange is made in parts, each of which counts from 0


def overload(target: str) -> Any:
    """The operator of that name."""
    namespace, packet, name = target.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), name)


class Call:
    """A sample with a batch letter."""

    def __init__(self, target: str, sample: Sample, batch: str) -> None:
        self.target, self.sample, self.batch = target, sample, batch
        self.op = overload(target)
        self.whole = SIZES[batch]
        self.device = "meta" if target in CUDA_ONLY else "cpu"

    def __str__(self) -> str:
        return f"{self.target}{self.sample.args}{self.sample.kwargs or ''}, batch {self.batch}"

    def arguments(self, rows: int, device: str = "") -> list[Any]:
        """The schema's arguments for so many rows, defaults included."""
        generator = torch.Generator().manual_seed(7)
        sizes = SIZES | {self.batch: rows}

        def make(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return leaf.make(sizes, generator).to(device or self.device)
            if isinstance(leaf, Rows):
                return torch.arange(sizes[leaf.letter])
            return evaluate(leaf.text, sizes) if isinstance(leaf, Size) else leaf

        return pytree.tree_map(make, self.all_arguments())

    def all_arguments(self) -> list[Any]:
        """The sample's arguments in the schema's order, defaults included."""
        names = [argument.name for argument in self.op._schema.arguments]
        given = dict(zip(names, self.sample.args)) | self.sample.kwargs
        return [
            given.get(argument.name, argument.default_value)
            for argument in self.op._schema.arguments
        ]

    def run(self, arguments: list[Any]) -> list[torch.Tensor]:
        """The tensors that the op returns."""
        schema = self.op._schema.arguments
        plain = [value for argument, value in zip(schema, arguments) if not argument.kwarg_only]
        named = {a.name: value for a, value in zip(schema, arguments) if a.kwarg_only}
        leaves = pytree.tree_leaves(self.op(*plain, **named))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def layout(self, leaf: Any) -> Layout | None:
        """Where an argument holds the batch."""
        if isinstance(leaf, Rows):
            return Layout(0, 1, 1) if leaf.letter == self.batch else None
        if not isinstance(leaf, Tensor):
            return None
        held = [d for d, size in enumerate(leaf.shape) if self.batch in size.split("*")]
        if not held:
            return None
        outer = leaf.outer if held[0] == 0 else 1
        return Layout(held[0], outer, leaf.sizes(SIZES)[held[0]] // self.whole // outer)

    def part(self, whole: list[Any], first: int, rows: int) -> list[Any]:
        """The arguments of one part: its rows of the whole's, and sizes with its rows."""

        def cut(leaf: Any, of_whole: Any, of_part: Any) -> Any:
            where = self.layout(leaf)
            if where is None or (isinstance(leaf, Rows) and self.verdict.local_rows):
                return of_part if isinstance(leaf, Size | Rows) else of_whole
            return where.cut(of_whole, first, rows)

        return pytree.tree_map(cut, self.all_arguments(), whole, self.arguments(rows))

    # As a graph.

    @functools.cached_property
    def shapes(self) -> list[tuple[str, list[str]]] | None:
        """Type and symbolic sizes of the results, from runs with three sizes of the batch; None
        where the call does not work for any size, or makes more results of more rows.
        """
        runs = []
        for rows in (self.whole, self.whole + 2, self.whole + 4):
            try:
                runs.append(self.run(self.arguments(rows)))
            except (RuntimeError, IndexError):
                return None
        if len({tuple(tensor.dim() for tensor in run) for run in runs}) > 1:
            return None
        return [
            (
                dtype_name(a),
                [size_text(*sizes, self.whole) for sizes in zip(a.shape, b.shape, c.shape)],
            )
            for a, b, c in zip(*runs)
        ]

    def graph(self, *more: str) -> _core.Graph:
        """The call as a graph of its own, with its results r0, r1..."""
        lines, makers = [], []
        arguments = pytree.tree_map(
            lambda leaf: self.argument_text(leaf, lines, makers), self.all_arguments()
        )
        text = []
        for argument, value in zip(self.op._schema.arguments, arguments):
            text.append(constant_of_type(str(argument.real_type), value) or list_text(value))
        shapes = self.shapes or []
        results = ", ".join(f"%r{index}" for index in range(len(shapes)))
        metas = ", ".join(meta_text(dtype, sizes) for dtype, sizes in shapes)
        call = f"{results} = {self.target}({', '.join(text)}) {{out=[{metas}]}}"
        head = ["graph: one {batch=s, tokens=s}", f"%s = symbol() {{min=2, hint={self.whole}}}"]
        body = [*head, *lines, *makers, call, *more, "output(none)"]
        return _core.parse_graph("\n  ".join(body))

    def argument_text(self, leaf: Any, lines: list[str], makers: list[str]) -> Any:
        """A leaf of the arguments in the grammar; defines the value that it names, if any."""
        if isinstance(leaf, Rows):
            makers.append(
                f"%rows = aten.arange.default({self.size(leaf.letter)}, none, none, "
                f'device("cpu"), false) {{out=[tensor(int64, [{self.size(leaf.letter)}])]}}'
            )
            return "%rows"
        if isinstance(leaf, Tensor):
            return self.tensor_text(leaf, lines, makers)
        return Text(self.size(leaf.text)) if isinstance(leaf, Size) else leaf

    def tensor_text(self, leaf: Tensor, lines: list[str], makers: list[str]) -> str:
        name, shape = f"%x{len(lines)}", [self.size(size) for size in leaf.shape]
        where = self.layout(leaf)
        if where is None or where.outer == 1:
            meta = meta_text(dtype_name(leaf), shape, where.dim if where else None)
            lines.append(f"{name} = input({len(lines)}, {meta})")
            return name
        apart = [str(leaf.outer), f"s*{where.inner}", *shape[1:]]
        meta = meta_text(dtype_name(leaf), apart, 1)
        lines.append(f"{name} = input({len(lines)}, {meta})")
        together = meta_text(dtype_name(leaf), shape)
        asked = ", ".join(shape)
        makers.append(f"{name}.b = aten.reshape.default({name}, [{asked}]) {{out=[{together}]}}")
        return f"{name}.b"

    def size(self, text: str) -> str:
        """A size with the batch's letter as the symbol."""
        factors = text.split("*")
        number = evaluate("*".join(f for f in factors if f != self.batch) or "1", SIZES)
        count = factors.count(self.batch)
        return (
            "*".join([str(number), *["s"] * count])
            if number != 1 or not count
            else "*".join(["s"] * count)
        )

    @functools.cached_property
    def verdict(self) -> Verdict:
        """The analysis of the graph."""
        split, reason = form_of(self.graph(), "r0")
        if not split:
            return Verdict(split, reason)
        results = tuple(self.result_layout(index) for index in range(len(self.shapes or ())))
        rows = any(isinstance(leaf, Rows) for leaf in pytree.tree_leaves(self.all_arguments()))
        local = rows and form_of(self.graph(), "rows")[0]
        return Verdict(True, "", results, local)

    def rows_by_shape(self) -> tuple[Layout | None, ...]:
        """For each result, its rows as its shape alone suggests them."""
        found: list[Layout | None] = []
        for _, sizes in self.shapes or []:
            held = [d for d, size in enumerate(sizes) if "s" in size]
            factor = re.fullmatch(r"(?:(\d+)\*)?s", sizes[held[0]]) if len(held) == 1 else None
            found.append(Layout(held[0], 1, int(factor[1] or 1)) if factor else None)
        return tuple(found)

    def result_layout(self, index: int) -> Layout | None:
        """A result's layout: its shape tells the dimension, and only a view that takes the true
        blocks apart stays split.
        """
        dtype, sizes = (self.shapes or [])[index]
        shaped = self.rows_by_shape()[index]
        if shaped is None:  # a random state, an empty result: nobody may read it
            return None
        dim, factor = shaped.dim, shaped.inner
        for outer in (o for o in range(1, factor + 1) if factor % o == 0):
            apart = [*sizes[:dim], str(outer), "s", str(factor // outer), *sizes[dim + 1 :]]
            meta = meta_text(dtype, apart)
            view = f"%v = aten.view.default(%r{index}, [{', '.join(apart)}]) {{out=[{meta}]}}"
            graph = self.graph(view)
            if form_of(graph, "v")[0] and form_of(graph, "r0")[0]:
                return Layout(dim, outer, factor // outer)
        return None


class Text(str):
    """Text that is printed as it is."""


def form_of(graph: _core.Graph, op: str) -> tuple[bool, str]:
    """Whether that op is split, and if not, why."""
    for segment in _core.partition(graph, []).segments:
        if op in segment["ops"]:
            return segment["form"] == "split", segment["reason"]
    raise AssertionError(f"no segment has {op}")


def dtype_name(tensor: torch.Tensor | Tensor) -> str:
    # Graphs have no uint64, which a kernel's random state is; nothing reads it.
    return str(tensor.dtype).removeprefix("torch.").replace("uint64", "int64")


def size_text(first: int, second: int, third: int, rows: int) -> str:
    """The size that has these values for so many rows, two more, and four more. One that is no sum
    of rows is shown as a square, which no rule may split.
    """
    if first == second == third:
        return str(first)
    slope, rest = divmod(second - first, 2)
    if rest or third - second != second - first:
        return "s*s"
    offset = first - slope * rows
    sized = "s" if slope == 1 else f"{slope}*s"
    return f"{sized} + {offset}" if offset > 0 else f"{sized} - {-offset}" if offset else sized


def meta_text(dtype: str, sizes: list[str], outermost: int | None = None) -> str:
    """A tensor, contiguous but for one dimension that is outermost in memory."""
    if not outermost:
        return f"tensor({dtype}, [{', '.join(sizes)}])"
    order = [outermost, *(d for d in range(len(sizes)) if d != outermost)]
    strides = ["1"] * len(sizes)
    for at, d in enumerate(order):
        strides[d] = "*".join(sizes[inner] for inner in order[at + 1 :]) or "1"
    return f"tensor({dtype}, [{', '.join(sizes)}], [{', '.join(strides)}])"


def list_text(value: Any) -> str:
    """An argument in the grammar of the text forms."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(list_text, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Text) or (isinstance(value, str) and value.startswith("%")):
        return str(value)
    if isinstance(value, float):
        return print_float(value)
    return named_constant(value) or (quote(value) if isinstance(value, str) else str(value))
