"""A graph of custom ops that change their arguments, traced as it is: nothing is made functional.

AOTAutograd would wrap each such op in a higher-order one that copies what it changes, and that only
Python can call. Traced before dispatch, they stay ops of the dispatcher, and composite ops whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._guards import TracingContext
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

# Namespaces whose in-place ops have functional forms.
_FUNCTIONALISED = frozenset(("aten", "prims", "prim", "_c10d_functional", "c10d", "quantized"))


def wants_in_place(gm: GraphModule, inputs: Sequence[Any]) -> bool:
    """Whether Dynamo's graph calls a custom op that changes an argument, and can be traced so.

    It cannot with tensor subclasses, under autocast, or where two inputs share memory: those are
    AOTAutograd's to resolve.
    """
    targets = [node.target for node in gm.graph.nodes if node.op == "call_function"]
    if not any(_changes_arguments(target) for target in targets):
        return False
    if torch.amp.autocast_mode._enter_autocast in targets or any(
        torch.is_autocast_enabled(device) for device in ("cpu", "cuda")
    ):
        return False
    if any(is_traceable_wrapper_subclass(value) for value in inputs):
        return False
    dense = [t for t in inputs if isinstance(t, torch.Tensor) and t.layout is torch.strided]
    return len({t.untyped_storage()._cdata for t in dense}) == len(dense)


def trace_in_place(gm: GraphModule) -> GraphModule:
    """The dispatcher calls that `gm` makes, before autograd and functionalisation see them."""
    mode = TracingContext.get().fake_mode
    assert mode is not None, "Dynamo traces with fake tensors"
    with mode, torch.no_grad(), preserve_node_meta():
        traced = make_fx(
            _Tracer(gm).run,
            tracing_mode="real",
            pre_dispatch=True,
            _allow_non_fake_inputs=True,
        )(*(_fake(node.meta["example_value"], mode) for node in _placeholders(gm)))
    for node in list(traced.graph.nodes):
        if node.target is torch._C._set_grad_enabled:  # gradients are off throughout
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


class _Tracer(Interpreter):
    """Runs Dynamo's graph so that make_fx sees all of it."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch._C._autograd._get_data_attr:  # `x.data`, which no tracer sees
            return args[0].detach()
        return super().call_function(target, args, kwargs)


def static_inputs(gm: GraphModule) -> tuple[int, ...]:
    """Positions of the parameters, buffers and marked tensors among Dynamo's arguments."""
    return tuple(i for i, node in enumerate(_placeholders(gm)) if _is_static(node))


def _placeholders(gm: GraphModule) -> list[Node]:
    return [node for node in gm.graph.nodes if node.op == "placeholder"]


def _is_static(node: Node) -> bool:
    return bool(node.meta.get("tensor_dict", {}).get("_dynamo_static_input_type"))


def _changes_arguments(target: Any) -> bool:
    overloads: list[OpOverload] = []
    if isinstance(target, OpOverload):
        overloads = [target]
    elif isinstance(target, OpOverloadPacket):
        overloads = [getattr(target, name) for name in target.overloads()]
    return any(op.namespace not in _FUNCTIONALISED and op._schema.is_mutable for op in overloads)


def _fake(value: Any, mode: FakeTensorMode) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if not isinstance(value, FakeTensor):
        return mode.from_tensor(value, static_shapes=True)
    if value.fake_mode is mode:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
