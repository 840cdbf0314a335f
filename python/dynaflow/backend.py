"""The torch.compile backend: AOTAutograd's graph is captured and replaced by its plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.guards import GuardBuilder
from torch._guards import TracingContext
from torch.fx import GraphModule

from dynaflow.capture import capture
from dynaflow.capture_in_place import static_inputs, trace_in_place, wants_in_place
from dynaflow.capture_scalars import share_scalars
from dynaflow.capture_unsized import enclose_unsized
from dynaflow.errors import CaptureError
from dynaflow.options import read_options
from dynaflow.plans import CompiledGraph
from dynaflow.session import GRADIENTS, Session, log
from dynaflow.settings import SETTINGS


def dynaflow(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> Callable[..., Any]:
    """`torch.compile(model, backend="dynaflow", dynamic=True, options={"strategy": "nanoflow",
    ...})`.
    """
    if unknown:
        raise TypeError(f"backend 'dynaflow' takes options=, not {', '.join(sorted(unknown))}=")
    if SETTINGS.disabled:
        return gm.forward
    rest = dict(options or {})
    strategy, own = read_options(rest.pop("strategy", "sequential"), rest)
    return compile_graph(gm, example_inputs, Session("graph", strategy, own))


class _GradientsNeededError(Exception):
    """AOTAutograd asked for a forward graph with a backward one."""


def compile_graph(
    gm: GraphModule, example_inputs: Sequence[Any], session: Session
) -> Callable[..., Any]:
    """What runs instead of `gm`: its plans, or itself where DynaFlow cannot run it (with one
    warning).
    """
    _guard_hooks()
    if _needs_gradients(gm, example_inputs):
        session.fall_back(GRADIENTS)
        return gm.forward
    try:
        if wants_in_place(gm, example_inputs):
            return _compile_in_place(gm, session)
        return _compile_functional(gm, example_inputs, session)
    except _GradientsNeededError:
        session.fall_back(GRADIENTS)
    except CaptureError as error:
        session.fall_back(str(error))
    return gm.forward


def _guard_hooks() -> None:
    """Has Dynamo check that modules without hooks still have none: by its default it would run the
    graph as if a hook that came later were not there.
    """
    context = TracingContext.try_get()
    if context is None:
        return
    guards = context.guards_context.dynamo_guards
    for guard in list(guards):
        if guard.create_fn is GuardBuilder.EMPTY_NN_MODULE_HOOKS_DICT:
            guards.add(guard.originating_source.make_guard(GuardBuilder.SEQUENCE_LENGTH))


def _compile_functional(
    gm: GraphModule, example_inputs: Sequence[Any], session: Session
) -> Callable[..., Any]:
    """By AOTAutograd, which makes the graph functional and takes subclasses of tensors apart."""

    def inference(aot: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        context = TracingContext.try_get()
        metadata = None if context is None else context.fw_metadata
        static = () if metadata is None else metadata.static_input_indices or ()
        compiled = _plans_of(aot, static, session, _break_reason(gm))
        return make_boxed_func(aot.forward) if session.capture_only else compiled

    def training(aot: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        raise _GradientsNeededError

    return aot_autograd(
        fw_compiler=training,
        inference_compiler=inference,
        keep_inference_input_mutations=True,
    )(gm, example_inputs)


def _compile_in_place(gm: GraphModule, session: Session) -> Callable[..., Any]:
    """As the model wrote it, custom ops that change their arguments included."""
    traced = trace_in_place(gm)
    compiled = _plans_of(traced, static_inputs(gm), session, _break_reason(gm))
    return gm.forward if session.capture_only else lambda *args: compiled(list(args))


def _plans_of(
    traced: GraphModule, static: Sequence[int], session: Session, break_reason: str
) -> CompiledGraph:
    share_scalars(traced)
    enclose_unsized(traced)
    options = session.options
    name = session.graph_name()
    captured = capture(traced, static, name, options.skip_collectives, options.context)
    log.info(
        "captured %s: %d ops, batch %s",
        captured.name,
        captured.ops,
        captured.batch.symbol or "static",
    )
    compiled = CompiledGraph(captured, traced, session, break_reason)
    session.graphs.append(compiled)
    return compiled


def _needs_gradients(gm: GraphModule, inputs: Sequence[Any]) -> bool:
    """Whether AOTAutograd would trace a backward graph. A graph that turns gradients off itself
    decides later.
    """
    if not torch.is_grad_enabled():
        return False
    if not any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs):
        return False
    return not any(node.target is torch._C._set_grad_enabled for node in gm.graph.nodes)


def _break_reason(gm: GraphModule) -> str:
    """Why Dynamo ended the graph before the function's end, or empty."""
    reason = getattr(gm, "compile_subgraph_reason", None)
    if reason is None or not getattr(reason, "graph_break", True):
        return ""
    return str(getattr(reason, "reason", reason)).strip()
