"""Some ops of a captured graph, run by themselves, to be compared with another way to do it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

import sympy
import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from dynaflow import _core
from dynaflow.capture_nodes import SIZE_CHECKS
from dynaflow.capture_sizes import is_size

Sizes = Mapping[str, int]  # values of a graph's symbols, by name


class Region:
    """The ops of `gm` with these names, in program order. They need not be neighbours.

    `nodes` are theirs in the graph, `inputs` those outside whose tensors they read, and `outputs`
    those among them whose tensors are read outside, each in program order. A node with several
    results is read through the nodes that pick one of them; where the list itself is an argument,
    the node stands for it.
    """

    def __init__(self, gm: GraphModule, op_names: Iterable[str]) -> None:
        names = set(op_names)
        self._gm = gm
        self.nodes: dict[Node, None] = {}
        for node in gm.graph.nodes:
            if node.name in names or (is_pick(node) and node.args[0] in self.nodes):
                self.nodes[node] = None
        read = {source for node in self.nodes for source in node.all_input_nodes}
        self.inputs = tuple(
            node
            for node in gm.graph.nodes
            if node in read and node not in self.nodes and self._is_value(node)
        )
        self.outputs = tuple(node for node in self.nodes if self.readers(node))

    def readers(self, node: Node) -> list[Node]:
        """Who reads the tensors of one of the region's nodes outside of it."""
        return [user for user in node.users if user not in self.nodes and _reads(user)]

    def run(self, env: Mapping[Node, Any], sizes: Sizes) -> dict[Node, Any]:
        """What the outputs are for the tensors that `env` gives for the inputs.

        `sizes` has the values of the symbols in all sizes among the ops' arguments. Tensors that an
        op changes in place are changed. Call it under no_grad.
        """
        values = dict(env)
        for node in self.nodes:
            arguments = torch.fx.map_arg(
                (node.args, node.kwargs), lambda arg: self._argument(arg, values, sizes)
            )
            args, kwargs = _with_sizes(arguments, sizes)
            values[node] = node.target(*args, **kwargs)
        return {node: values[node] for node in self.outputs}

    def _argument(self, node: Node, values: Mapping[Node, Any], sizes: Sizes) -> Any:
        if node in values:
            return values[node]
        if node.op == "get_attr":
            return _attribute(self._gm, node)
        if is_size(node.meta.get("val")):
            return number(node.meta["val"], sizes)
        raise KeyError(f"{node.name} is an input of the region and has no value")

    def _is_value(self, node: Node) -> bool:
        if node.op == "get_attr":
            return isinstance(_attribute(self._gm, node), torch.Tensor)
        return not is_size(node.meta.get("val"))


def written_storages(graph: _core.Graph) -> set[str]:
    """The values that own the storage which the graph's ops change in place."""
    alias_of = {value["name"]: value["alias_of"] for value in graph.values}
    roots = set()
    for name in (name for op in graph.ops for name in op["writes"]):
        while alias_of[name]:
            name = alias_of[name]
        roots.add(name)
    return roots


def value_names(node: Node) -> list[str]:
    """What the captured graph calls the tensors that a node returns."""
    if is_pick(node):
        return [f"{node.args[0].name}.{node.args[1]}"]
    value = node.meta.get("val")
    if not isinstance(value, (list, tuple)):
        return [node.name]
    return [f"{node.name}.{i}" for i, item in enumerate(value) if isinstance(item, torch.Tensor)]


def number(value: Any, sizes: Sizes) -> Any:
    """A size that the tracer knows as an expression, for these values of its symbols."""
    if not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return value
    expr = sympy.sympify(value.node.expr)
    known = expr.xreplace(
        {symbol: sympy.Integer(sizes[str(symbol)]) for symbol in expr.free_symbols}
    )
    kind = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(value)]
    return kind(known)


def _with_sizes(tree: Any, sizes: Sizes) -> Any:
    return torch.utils._pytree.tree_map(lambda leaf: number(leaf, sizes), tree)


def is_pick(node: Node) -> bool:
    """Whether a node only picks one of several results of another."""
    return node.op == "call_function" and node.target is operator.getitem


def _reads(node: Node) -> bool:
    """Whether a node uses the tensors that it is given, not only their sizes."""
    if is_size(node.meta.get("val")):
        return False
    return not (isinstance(node.target, OpOverload) and node.target._opname in SIZE_CHECKS)


def _attribute(gm: GraphModule, node: Node) -> Any:
    return reduce(getattr, str(node.target).split("."), gm)
