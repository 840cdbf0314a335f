"""DynaFlow in vLLM on the CPU, by its own doors: a platform, a backend and its forward context.

`DYNAFLOW_STRATEGY=nanoflow vllm serve MODEL`, or for one model
`LLM(MODEL, compilation_config={"mode": 2, "backend": "dynaflow.integrations.vllm.backend"})`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch.fx import GraphModule

from dynaflow.backend import dynaflow
from dynaflow.context import HostContext

log = logging.getLogger("dynaflow")
BACKEND = "dynaflow.integrations.vllm.backend"


def platform() -> str | None:
    """Entry point of `vllm.platform_plugins`: ours where a strategy is asked for."""
    if not os.environ.get("DYNAFLOW_STRATEGY"):
        return None
    os.environ.setdefault("VLLM_USE_LAYERNAME", "0")  # names of layers as strings in the graph
    os.environ.setdefault("VLLM_USE_AOT_COMPILE", "0")  # which serialises what a backend returns
    return "dynaflow.integrations.vllm_platform.DynaFlowCpuPlatform"


def __getattr__(name: str) -> Any:
    """`backend`, with the configuration that is set while vLLM looks the name up."""
    if name != "backend":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from vllm.config import get_current_vllm_config

    return partial(_compile, get_current_vllm_config())


def _compile(
    config: Any, gm: GraphModule, example_inputs: Sequence[Any], **_: Any
) -> Callable[..., Any]:
    """`additional_config={"dynaflow": {...}}` gives further options.

    Without a collective of torch's there is nothing to hide. A shared-memory all-reduce is one that
    no plan knows of, so each rank has to run the batch as a whole.
    """
    if not log.handlers:  # what is decided while serving belongs in vLLM's log
        log.parent = logging.getLogger("vllm")
        log.setLevel(log.parent.level)
    options = {"strategy": os.environ.get("DYNAFLOW_STRATEGY") or "nanoflow", "fuse": True}
    options |= config.additional_config.get("dynaflow", {})
    targets = {str(node.target) for node in gm.graph.nodes}
    if not any("_c10d_functional" in target for target in targets):
        log.info("no link to hide: steps run as a whole")
        options = {"strategy": "sequential", "fuse": options["fuse"]}
    return dynaflow(gm, example_inputs, options=options | {"context": ForwardContext(config)})


class ForwardContext(HostContext):
    """Each part's attention metadata, made by the builders that made the batch's."""

    ops = ("vllm.unified_*",)
    row_ops = (
        "_C.onednn_mm",
        "_C.rotary_embedding",
        "_C.rms_norm",
        "_C.fused_add_rms_norm",
        "_C.*_and_mul",
    )

    def __init__(self, config: Any) -> None:
        self._config = config
        self._builders: dict[str, Any] = {}  # by layer
        self._entered = ExitStack()

    def prepare(self, batch: int, cuts: Sequence[slice]) -> list[Any]:
        """The forward contexts of `cuts`; the batch's own where it has no metadata."""
        from vllm.forward_context import get_forward_context

        whole = get_forward_context()
        if not whole.attn_metadata:
            return [whole] * len(cuts)
        return [self._part(whole, rows) for rows in cuts]

    def enter(self, state: Any | None) -> None:
        """Overrides vLLM's forward context."""
        from vllm.forward_context import override_forward_context

        self._entered.close()
        if state is not None:
            self._entered.enter_context(override_forward_context(state))

    def _part(self, whole: Any, rows: slice) -> Any:
        made: dict[int, Any] = {}  # by the batch's metadata, which layers share
        metadata = {}
        for layer, own in whole.attn_metadata.items():
            if id(own) not in made:
                made[id(own)] = self._builder(layer).build(0, _of_rows(own, rows))
            metadata[layer] = made[id(own)]
        slots = {layer: slot[rows] for layer, slot in whole.slot_mapping.items()}
        return replace(whole, attn_metadata=metadata, slot_mapping=slots)

    def _builder(self, name: str) -> Any:
        if name not in self._builders:
            layer = self._config.compilation_config.static_forward_context[name]
            backend = layer.get_attn_backend()
            spec = layer.get_kv_cache_spec(self._config)
            device = layer.kv_cache.device
            self._builders[name] = backend.get_builder_cls()(spec, [name], self._config, device)
        return self._builders[name]


def _of_rows(whole: Any, rows: slice) -> Any:
    """What vLLM would tell a builder of a batch of these rows."""
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.worker.ubatch_utils import UBatchSlice, split_attn_metadata

    starts = whole.query_start_loc
    common = CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=whole.seq_lens,
        num_reqs=len(starts) - 1,
        num_actual_tokens=whole.num_actual_tokens,
        max_query_len=whole.max_query_len,
        max_seq_len=whole.max_seq_len,
        block_table_tensor=whole.block_table,
        slot_mapping=whole.slot_mapping,
        seq_lens_cpu_upper_bound=whole.seq_lens,
        causal=whole.causal,
    )
    borders = starts.numpy()
    first = int(np.searchsorted(borders, rows.start, side="right")) - 1
    last = int(np.searchsorted(borders, rows.stop, side="left"))
    return split_attn_metadata([UBatchSlice(slice(first, last), rows)], common)[0]
