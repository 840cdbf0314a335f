"""Values whose size only the run knows: the ops that make and read them become one opaque op.

Inside of it they are allocated as they come; what leaves it has a size that the graph can state.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.passes.utils.fuser_utils import fuse_as_graphmodule
from torch.utils import _pytree as pytree

from dynaflow.capture_schema import facts, without_dropout
from dynaflow.errors import CaptureError


class UnsizedRegion:
    """Some ops of a graph as one function of tensors and sizes, which returns a tuple."""

    def __init__(self, body: GraphModule, name: str) -> None:
        self.body = body
        self.__name__ = name

    def __call__(self, *values: Any) -> Any:
        """What the ops give outside, for what they read there."""
        return self.body(*values)


def enclose_unsized(gm: GraphModule) -> None:
    """Replaces each group of ops that share values of unknown size by a call of an `UnsizedRegion`.

    Raises CaptureError where such a group has an op in it that must stay an op of the graph.
    """
    for region in _regions(gm):
        _enclose(gm, region)


def _is_unsized(node: Node) -> bool:
    """Whether a call makes a value whose size, or a number that, only the run knows."""
    if node.op != "call_function":
        return False
    kinds = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return any(isinstance(leaf, kinds) and free_unbacked_symbols(leaf) for leaf in leaves)


def _regions(gm: GraphModule) -> list[set[Node]]:
    """Sets of ops, each with all that reads its unsized values and all between its members."""
    regions: list[set[Node]] = []
    for node in gm.graph.nodes:
        if _is_unsized(node):
            readers = {user for user in node.users if user.op == "call_function"}
            _join(regions, {node} | readers)
    waiting = list(regions)
    while waiting:
        region = waiting.pop()
        if region not in regions:
            continue  # part of a larger one by now
        between = _reached(region, _users) & _reached(region, _inputs)
        if not between <= region:
            waiting.append(_join(regions, region | between))
    return regions


def _join(regions: list[set[Node]], members: set[Node]) -> set[Node]:
    """Adds a region, made one with those that it meets."""
    for region in [region for region in regions if region & members]:
        regions.remove(region)
        members = members | region
    regions.append(members)
    return members


def _users(node: Node) -> Iterable[Node]:
    return node.users


def _inputs(node: Node) -> Iterable[Node]:
    return node.all_input_nodes


def _reached(region: set[Node], step: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """What comes after the members of a region by one or more steps."""
    seen: set[Node] = set()
    waiting = list(region)
    while waiting:
        for node in step(waiting.pop()):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen


def _enclose(gm: GraphModule, members: set[Node]) -> None:
    """Puts one call in the place of the last member, and what reads its results behind it."""
    nodes = [node for node in gm.graph.nodes if node in members]
    readers = _readers_before(nodes)
    _check(nodes, readers)
    body, inputs, outputs = fuse_as_graphmodule(gm, nodes, "Unsized", always_return_tuple=True)
    with gm.graph.inserting_after(nodes[-1]):
        call = gm.graph.call_function(UnsizedRegion(body, f"unsized_{nodes[0].name}"), inputs)
    call.meta = {**nodes[0].meta, "val": tuple(node.meta["val"] for node in outputs)}
    last = call
    for index, output in enumerate(outputs):
        with gm.graph.inserting_after(last):
            last = gm.graph.call_function(operator.getitem, (call, index))
        output.replace_all_uses_with(last, lambda user: user not in members, propagate_meta=True)
    for reader in readers:
        last.append(reader)
        last = reader
    for node in reversed(nodes):
        gm.graph.erase_node(node)
    gm.recompile()


def _span(nodes: list[Node]) -> list[Node]:
    """The nodes of the graph from the first to the last of `nodes`."""
    span = [nodes[0]]
    while span[-1] is not nodes[-1]:
        span.append(span[-1].next)
    return span


def _readers_before(nodes: list[Node]) -> list[Node]:
    """What stands between `nodes` and needs some of them, directly or not."""
    members = set(nodes)
    needing = set(nodes)
    for node in _span(nodes):
        if not needing.isdisjoint(node.all_input_nodes):
            needing.add(node)
    needing -= members
    return [node for node in _span(nodes) if node in needing]


def _check(nodes: list[Node], readers: list[Node]) -> None:
    """Raises CaptureError where `nodes` cannot become one call, or `readers` cannot follow it."""
    moved = {*nodes, *readers}
    for node in _span(nodes):
        if not isinstance(node.target, OpOverload):
            continue
        known = facts(node.target)
        writes = any(argument.written for argument in known.arguments)
        ordered = known.collective or (known.random and not without_dropout(node))
        if writes or (ordered and node in moved):
            raise CaptureError(
                f"{node.name} = {node.target} has an effect and stands among ops whose sizes only "
                f"the run knows, {nodes[0].name} to {nodes[-1].name}"
            )
