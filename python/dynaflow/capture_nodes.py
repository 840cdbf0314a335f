"""What an FX node says beside its call: its origin, its storage, its numbers."""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv, free_unbacked_symbols
from torch.utils import _pytree as pytree

from dynaflow.capture_schema import call_argument, facts, quote
from dynaflow.errors import CaptureError

# Prefix of the annotations that df.mark() leaves on nodes.
MARK_PREFIX = "dynaflow.mark."

# Checks of sizes that Dynamo's guards have made before the graph runs.
SIZE_CHECKS = frozenset(
    (
        "_assert_scalar",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    )
)


def shape_env(gm: GraphModule) -> ShapeEnv | None:
    """The environment that owns the graph's symbols."""
    for node in gm.graph.nodes:
        value = node.meta.get("val")
        mode = getattr(value, "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            return mode.shape_env
        if isinstance(value, torch.SymInt):
            return value.node.shape_env
    return None


def storage(value: Any) -> int | None:
    """An identity of a tensor's storage; None for what is no tensor."""
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def alias_source(node: Node, index: int, result: torch.Tensor) -> Node | None:
    """The argument whose storage a result has: `reshape` and its like decide case by case."""
    known = facts(node.target)
    if not known.composite and not known.returns_alias[min(index, len(known.returns_alias) - 1)]:
        return None
    # Composite ops may return what they are given whatever their schemas say, as dropout does.
    shared = [i for i, arg in enumerate(known.arguments) if arg.shared or known.composite]
    leaves = pytree.tree_leaves([call_argument(node, i) for i in shared])
    sources = [leaf for leaf in leaves if isinstance(leaf, Node)]

    def source_of(tensor: torch.Tensor) -> Node | None:
        return next((n for n in sources if storage(n.meta.get("val")) == storage(tensor)), None)

    # A pass may have put another node in an argument's place: what that returns is not what the
    # result was made from.
    return source_of(result) or (source_of(_result_again(node, index)) if sources else None)


def _result_again(node: Node, index: int) -> torch.Tensor:
    """What the op returns for its arguments' present metadata."""
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda arg: arg.meta["val"])
    mode = getattr(pytree.tree_leaves(node.meta["val"])[index], "fake_mode", None)
    env = mode.shape_env if mode else None
    with mode or nullcontext(), env.suppress_guards() if env else nullcontext():
        value = node.target(*args, **kwargs)
    return pytree.tree_leaves(value)[index]


def is_python_op(op: OpOverload) -> bool:
    """Whether a dispatcher op's kernel is a Python function: it needs the interpreter."""
    return f"{op.namespace}::{op._opname}" in OPDEFS


def has_unknown_size(node: Node) -> bool:
    """Whether the op makes a size or a number that only the run knows: the host must wait for it.

    The tag alone does not tell: index.Tensor carries it, but only a mask among its indices needs
    it.
    """
    for value in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(value, torch.Tensor):
            if free_unbacked_symbols(value):
                return True
        elif not isinstance(value, torch.SymInt) or free_unbacked_symbols(value):
            return True
    return False


def print_float(value: float) -> str:
    """A float in the grammar of the text forms."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = repr(value)
    return text if any(c in text for c in ".e") else f"{text}.0"


def identifier(text: str) -> str:
    """The text as a name of the grammar."""
    name = re.sub(r"[^A-Za-z0-9_.]", "_", text)
    return name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"


def origin_attrs(node: Node) -> list[str]:
    """The attributes that say which module called the op, and under which marks."""
    attrs = []
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if stack:
        path = module_path(stack[-1][0])
        if path:
            attrs.append(f"module={quote(path)}")
            attrs.append(f"type={quote(_class_chain(path, stack))}")
    custom = node.meta.get("custom") or {}
    marks = [key.removeprefix(MARK_PREFIX) for key in custom if str(key).startswith(MARK_PREFIX)]
    if marks:
        attrs.append(f"marks=[{', '.join(map(quote, marks))}]")
    return attrs


def _class_chain(path: str, stack: list[tuple[str, Any]]) -> str:
    """The class at each component of the path, "-" where it is a mere container: one entry a
    component.
    """
    chain = ["-"] * len(path.split("."))
    for source, kind in stack:
        prefix = module_path(source)
        if prefix and path.startswith(prefix):
            chain[len(prefix.split(".")) - 1] = _class_name(kind)
    return "/".join(chain)


def module_path(source: str) -> str:
    """ "model.layers.0.mlp" from how Dynamo writes it: "L['self'].model.layers['0'].mlp"."""
    path = re.sub(r"\._modules\b|\.?\b__self__\b", "", source)
    path = re.sub(r"^[LG]\[['\"](\w+)['\"]\]", "", path)
    path = re.sub(r"\[['\"]?([^\]'\"]+)['\"]?\]", r".\1", path)
    path = re.sub(r"\.__(?:closure|kwdefaults|defaults)__(?:\.\d+)?(?:\.cell_contents)?", "", path)
    return path.strip(".")


def _class_name(kind: Any) -> str:
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return name.rpartition(".")[2]


def stand_in(node: Node) -> tuple[str, list[str], bool]:
    """An op of the same result shape that does not communicate: target, further arguments, and
    whether it is a view.
    """
    name = node.target._opname
    source, result = node.args[0].meta["val"], node.meta["val"]
    kept = ("all_reduce", "all_reduce_", "broadcast", "broadcast_", "all_to_all_single")
    if name in kept and source.shape == result.shape:
        return "aten.alias.default", [], True
    if name == "all_gather_into_tensor":
        repeats = [str(node.args[1]), *["1"] * (source.dim() - 1)]
        return "aten.repeat.default", [f"[{', '.join(repeats)}]"], False
    if name == "reduce_scatter_tensor":
        return "aten.narrow.default", ["0", "0"], True
    raise CaptureError(f"{node.name} = {node.target} has no stand-in without communication")


def storage_source(node: Node) -> Node:
    """The node whose storage `node` has once collectives are left out."""
    while node.op == "call_function" and isinstance(node.target, OpOverload) and node.args:
        follows = (
            node.target.namespace == "_c10d_functional" or node.target._opname == "_unsafe_view"
        )
        returns = facts(node.target).returns_alias
        if not follows and not (returns and returns[0]):
            break
        if not isinstance(node.args[0], Node):
            break
        node = node.args[0]
    return node
