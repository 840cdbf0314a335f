"""Equal scalars of a graph become one: every layer of a model makes its own -inf and 0."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from dynaflow.capture_schema import call_argument, facts


def share_scalars(gm: GraphModule) -> None:
    """Replaces each op that makes a tensor of no dimensions from constants by the first equal one.

    They are made in the first moments of a step and kept to their layer's turn, so that a model of
    many layers would hold many. One that is changed in place is left alone.
    """
    first: dict[Hashable, Node] = {}
    for node in list(gm.graph.nodes):
        if not _makes_scalar(node) or any(_changes(user, node) for user in node.users):
            continue
        key = (node.target, repr(node.args), repr(sorted(node.kwargs.items())))
        known = first.setdefault(key, node)
        if known is not node:
            node.replace_all_uses_with(known)
            gm.graph.erase_node(node)
    gm.recompile()


def _makes_scalar(node: Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    value = node.meta.get("val")
    known = facts(node.target)
    return (
        isinstance(value, torch.Tensor)
        and value.dim() == 0
        and not node.all_input_nodes
        and not known.random
        and not known.host_sync
    )


def _changes(user: Node, scalar: Node) -> bool:
    """Whether a call writes to the scalar, or may return it."""
    if not isinstance(user.target, OpOverload):
        return True
    return any(
        argument.shared and scalar in _nodes(call_argument(user, i))
        for i, argument in enumerate(facts(user.target).arguments)
    )


def _nodes(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
