"""From a captured FX graph of dispatcher calls to the text of DynaFlow's graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses import FakeTensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from dynaflow.capture_batch import BatchChoice, choose_batch
from dynaflow.capture_nodes import (
    SIZE_CHECKS,
    alias_source,
    has_unknown_size,
    identifier,
    is_python_op,
    origin_attrs,
    print_float,
    shape_env,
    stand_in,
    storage_source,
)
from dynaflow.capture_opaque import Hole, OpaqueOps
from dynaflow.capture_schema import (
    call_argument,
    constant_of_type,
    facts,
    named_constant,
    quote,
    without_dropout,
)
from dynaflow.capture_sizes import Sizes, is_size
from dynaflow.capture_unsized import UnsizedRegion
from dynaflow.captured import Captured
from dynaflow.context import HostContext
from dynaflow.errors import CaptureError


def capture(
    gm: GraphModule,
    static_inputs: Sequence[int] = (),
    name: str = "graph",
    skip_collectives: bool = False,
    context: HostContext | None = None,
) -> Captured:
    """The text of `gm`, a functional graph of dispatcher calls with fake values in its nodes'
    metadata.

    `static_inputs` are the positions of parameters and buffers. `skip_collectives` leaves
    communication out: results are then wrong by design; it is for measuring. `context` says which
    ops read the host system's state. Raises CaptureError for what has no text form.
    """
    return _Capture(gm, frozenset(static_inputs), skip_collectives, context).run(name)


class _Capture:
    def __init__(
        self,
        gm: GraphModule,
        static_inputs: frozenset[int],
        skip_collectives: bool,
        context: HostContext | None,
    ) -> None:
        self.gm = gm
        self.context = context
        self.static_inputs = static_inputs
        self.skip_collectives = skip_collectives
        self.sizes = Sizes(shape_env(gm))
        self.lines: list[str] = []
        self.values: dict[Node, list[str]] = {}  # names of the tensors that a node returns
        self.constants: list[torch.Tensor] = []
        self.tensor_arguments: list[int] = []
        self.groups: dict[str, None] = {}
        self.opaque: OpaqueOps | None = None
        self.outputs: list[str] = []
        self.ops = 0

    def run(self, name: str) -> Captured:
        batch = self._arguments()
        for node in self.gm.graph.nodes:
            if node.op == "get_attr":
                self._constant(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self._output(node)
            elif node.op != "placeholder":
                raise CaptureError(
                    f"{node.format_node()}: a graph of dispatcher calls has no {node.op}"
                )
        self.sizes.check_bound()
        return Captured(
            name=name,
            text=self._text(name, batch),
            constants=self.constants,
            tensor_arguments=self.tensor_arguments,
            symbols=list(self.sizes.symbols.values()),
            equal=self.sizes.equal,
            outputs=self.outputs,
            groups=list(self.groups),
            static_inputs=tuple(sorted(self.static_inputs)),
            batch=batch,
            ops=self.ops,
            opaque=self.opaque,
        )

    def _text(self, name: str, batch: BatchChoice) -> str:
        attrs = (
            f"batch={batch.symbol}, tokens={batch.tokens}"
            if batch.symbol
            else f"tokens={batch.tokens}"
        )
        head = [f"graph: {identifier(name)} {{{attrs}}}"]
        head += [f"  {symbol.line()}" for symbol in self.sizes.symbols.values()]
        head += [f"  equal({left}, {right})" for left, right in self.sizes.equal]
        return "\n".join(head + [f"  {line}" for line in self.lines]) + "\n"

    def _arguments(self) -> BatchChoice:
        nodes = [node for node in self.gm.graph.nodes if node.op == "placeholder"]
        tensors = []
        for position, node in enumerate(nodes):
            value = node.meta.get("val")
            if isinstance(value, torch.SymInt):
                self.sizes.bind(value, position)
            elif isinstance(value, torch.Tensor):
                for dim, size in enumerate(value.shape):
                    self.sizes.bind_dimension(size, position, dim)
                tensors.append((position, node, value))
        users = [value for position, _, value in tensors if position not in self.static_inputs]
        batch = choose_batch(self.sizes, users)
        for index, (position, node, value) in enumerate(tensors):
            kind = "parameter" if position in self.static_inputs else "input"
            self.lines.append(f"%{node.name} = {kind}({index}, {self._meta(value)})")
            self.values[node] = [node.name]
            self.tensor_arguments.append(position)
        return batch

    def _constant(self, node: Node) -> None:
        value = self.gm
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            return  # a subgraph of a higher-order op, read by the op that uses it
        if isinstance(value, FakeTensor):
            raise CaptureError(f"{node.target} is a tensor that only the tracer has seen")
        self.lines.append(f"%{node.name} = constant({len(self.constants)}, {self._meta(value)})")
        self.values[node] = [node.name]
        self.constants.append(value)

    def _call(self, node: Node) -> None:
        value = node.meta.get("val")
        if is_size(value):
            return  # users of the node print its expression
        if node.target is operator.getitem and node.args[0] in self.values:
            self.values[node] = [self.values[node.args[0]][node.args[1]]]
        elif not isinstance(node.target, OpOverload):
            self._opaque_call(node)
        elif node.target._opname not in SIZE_CHECKS:
            self._dispatcher_call(node)

    def _output(self, node: Node) -> None:
        texts = []
        for item in pytree.tree_leaves(node.args[0], is_leaf=lambda leaf: leaf is None):
            text = self._argument(item, "")
            texts.append(text)
            self.outputs.append(
                "none" if text == "none" else "tensor" if text.startswith("%") else "size"
            )
        self.lines.append(f"output({', '.join(texts)})")

    def _dispatcher_call(self, node: Node) -> None:
        known = facts(node.target)
        if self.skip_collectives and self._skipped(node, known.collective):
            return
        args = [self._schema_argument(node, index) for index in range(len(known.arguments))]
        attrs = []
        if known.collective:
            group = self._group(node)
            attrs += ["kind=collective", f"group={quote(group)}"]
        written = [
            name
            for i, arg in enumerate(known.arguments)
            if arg.written
            for name in self._names(call_argument(node, i))
        ]
        names, metas, aliases = self._results(node)
        if not known.collective and not written and aliases and all(aliases):
            attrs.append("kind=view")
        elif is_python_op(node.target):
            attrs.append("kind=opaque")
        if any(aliases):
            attrs.append(
                f"alias=[{', '.join(f'%{alias}' if alias else 'none' for alias in aliases)}]"
            )
        if written:
            attrs.append(f"writes=[{', '.join(f'%{name}' for name in written)}]")
        if known.random and not without_dropout(node):
            attrs.append("random=true")
        if self.context is not None and self.context.is_read_by(known.target):
            attrs.append("reads_context=true")
        if self.context is not None and self.context.keeps_rows(known.target):
            attrs.append("by_rows=true")
        if known.host_sync and has_unknown_size(node):
            attrs.append("host_sync=true")
        if known.out_target:
            attrs.append(f"out_target={quote(known.out_target)}")
        if known.inplace_target:
            attrs.append(f"inplace_target={quote(known.inplace_target)}")
        if known.functional:
            attrs.append(f"functional={quote(known.functional)}")
        self._line(node, names, metas, known.target, args, attrs)

    def _skipped(self, node: Node, collective: bool) -> bool:
        """Writes a stand-in for a collective, and for the copy of its result into its source."""
        if collective:
            target, more, view = stand_in(node)
            source = node.args[0]
            if target == "aten.narrow.default":
                more = [*more, self.sizes.text(node.meta["val"].shape[0])]
        elif node.target._opname == "copy" and storage_source(node.args[0]) is storage_source(
            node.args[1]
        ):
            target, more, view, source = "aten.alias.default", [], True, node.args[1]
        else:
            return False
        name = self._names(source)[0]
        meta = source.meta["val"] if target == "aten.alias.default" else node.meta["val"]
        attrs = ["kind=view", f"alias=[%{name}]"] if view else []
        self._line(node, [node.name], [self._meta(meta)], target, [f"%{name}", *more], attrs)
        return True

    def _opaque_call(self, node: Node) -> None:
        """A call that only Python can make: wrapped as an op of ours."""
        self.opaque = self.opaque or OpaqueOps()
        value = node.meta.get("val")
        several = isinstance(value, (list, tuple))
        items = list(value) if several else [value]
        kept = [i for i, item in enumerate(items) if isinstance(item, torch.Tensor)]
        others = [item for i, item in enumerate(items) if i not in kept]
        if any(item is not None and not is_size(item) for item in others):
            raise CaptureError(
                f"{node.name} = {node.target} returns something that is not a tensor"
            )
        names = [f"{node.name}.{i}" if several else node.name for i in kept]
        metas = [self._meta(items[i]) for i in kept]
        args, kwargs = pytree.tree_map_only(Node, self._hole, (node.args, node.kwargs))
        target, contents = self.opaque.wrap(node.target, args, kwargs, kept)
        texts = [self._argument(content, "") for content in contents]
        waits = ["host_sync=true"] if isinstance(node.target, UnsizedRegion) else []
        self._line(node, names, metas, target, texts, ["kind=opaque", *waits])
        self.values[node] = [names[kept.index(i)] if i in kept else "" for i in range(len(items))]

    def _hole(self, node: Node) -> Any:
        value = node.meta.get("val")
        if node in self.values and len(self.values[node]) == 1:
            return Hole("Tensor", node)
        if isinstance(value, torch.SymInt):
            return Hole("SymInt", node)
        if node.op == "get_attr":
            return self.gm.get_submodule(str(node.target))
        raise CaptureError(
            f"{node.name} ({type(value).__name__}) cannot be an argument of an opaque op"
        )

    def _line(
        self,
        node: Node,
        names: list[str],
        metas: list[str],
        target: str,
        args: list[str],
        attrs: list[str],
    ) -> None:
        self.values[node] = names
        self.ops += 1
        attrs = [f"out=[{', '.join(metas)}]", *attrs, *origin_attrs(node)]
        if not names or names[0] != node.name:
            attrs.append(f"name={quote(node.name)}")
        results = ", ".join(f"%{name}" for name in names) + " = " if names else ""
        self.lines.append(f"{results}{target}({', '.join(args)}) {{{', '.join(attrs)}}}")

    def _results(self, node: Node) -> tuple[list[str], list[str], list[str]]:
        """Names, metas and aliases (or "") of what the node returns."""
        value = node.meta.get("val")
        several = isinstance(value, (list, tuple))
        tensors = list(value) if several else [] if value is None else [value]
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor):
                raise CaptureError(f"{node.name} = {node.target} returns a {type(tensor).__name__}")
        names = [f"{node.name}.{i}" if several else node.name for i in range(len(tensors))]
        metas = [self._meta(tensor) for tensor in tensors]
        return names, metas, [self._alias(node, i, tensor) for i, tensor in enumerate(tensors)]

    def _alias(self, node: Node, index: int, result: torch.Tensor) -> str:
        source = alias_source(node, index, result)
        return self._names(source)[0] if source else ""

    def _schema_argument(self, node: Node, index: int) -> str:
        argument = facts(node.target).arguments[index]
        value = call_argument(node, index)
        if argument.name in ("group_name", "group"):
            return quote(self._group(node))
        try:
            return constant_of_type(argument.type, value) or self._argument(value, argument.type)
        except CaptureError as error:
            raise CaptureError(
                f"{node.name} = {node.target}, argument '{argument.name}': {error}"
            ) from None

    def _argument(self, value: Any, schema_type: str) -> str:
        if isinstance(value, Node):
            return self._node_argument(value, schema_type)
        if value is None:
            return "none"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, torch.SymInt)):
            wants_float = isinstance(value, int) and "float" in schema_type
            return print_float(float(value)) if wants_float else self.sizes.text(value)
        if isinstance(value, float):
            return print_float(value)
        if isinstance(value, str):
            return quote(value)
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self._argument(item, schema_type) for item in value)}]"
        text = named_constant(value)
        if text is None:
            raise CaptureError(f"{value!r} ({type(value).__name__}) has no text form")
        return text

    def _node_argument(self, node: Node, schema_type: str) -> str:
        if node in self.values:
            names = self.values[node]
            single = isinstance(node.meta.get("val"), torch.Tensor) or node.op == "get_attr"
            return f"%{names[0]}" if single else f"[{', '.join(f'%{name}' for name in names)}]"
        value = node.meta.get("val")
        if isinstance(value, (int, float, torch.SymInt)):
            return self._argument(value, schema_type)
        raise CaptureError(
            f"{node.name} ({type(value).__name__}) is neither a tensor nor an integer size"
        )

    def _names(self, value: Any) -> list[str]:
        items = value if isinstance(value, (list, tuple)) else [value]
        return [name for item in items if isinstance(item, Node) for name in self.values[item]]

    def _meta(self, tensor: torch.Tensor) -> str:
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise CaptureError(f"a tensor of layout {tensor.layout} is not a dense one")
        if tensor.device.type != "cpu":
            raise CaptureError(f"a tensor lives on {tensor.device}; only the CPU is driven so far")
        shape = [self.sizes.expr(size) for size in tensor.shape]
        strides = [self.sizes.expr(stride) for stride in tensor.stride()]
        dense, step = [], 1
        for size in reversed(shape):
            dense.insert(0, step)
            step = step * size
        parts = [str(tensor.dtype).removeprefix("torch."), self._sizes(tensor.shape)]
        offset = self.sizes.text(tensor.storage_offset())
        if strides != dense or offset != "0":
            parts.append(self._sizes(tensor.stride()))
        if offset != "0":
            parts.append(offset)
        return f"tensor({', '.join(parts)})"

    def _sizes(self, sizes: Sequence[Any]) -> str:
        return f"[{', '.join(self.sizes.text(size) for size in sizes)}]"

    def _group(self, node: Node) -> str:
        known = facts(node.target)
        index = next(
            i for i, arg in enumerate(known.arguments) if arg.name in ("group_name", "group")
        )
        value = call_argument(node, index)
        if isinstance(value, Node):
            value = value.meta.get("val")
        name = value if isinstance(value, str) else getattr(value, "group_name", None)
        if not isinstance(name, str):
            raise CaptureError(
                f"{node.name} = {node.target}: its process group is {value!r}, which has no name"
            )
        self.groups.setdefault(name)
        return name
