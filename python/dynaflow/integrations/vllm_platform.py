"""vLLM's CPU platform with DynaFlow as its compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.logger import init_logger
from vllm.platforms.cpu import CpuPlatform

from dynaflow.integrations.vllm import BACKEND

if TYPE_CHECKING:  # the platform is looked for while vllm.config is being imported
    from vllm.config import VllmConfig

logger = init_logger("vllm.dynaflow")  # below vLLM's own, whose handlers it needs


class DynaFlowCpuPlatform(CpuPlatform):
    """The CPU platform; graphs go to DynaFlow where that cannot be wrong."""

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """As vLLM's own, then takes the graphs, or says why not."""
        super().check_and_update_config(vllm_config)
        compilation = vllm_config.compilation_config
        if compilation.backend == BACKEND:  # every process comes by with the same configuration
            return
        why = _why_not(vllm_config)
        if why:
            logger.warning("DynaFlow is off: %s", why)
            return
        compilation.backend = BACKEND
        logger.info("DynaFlow compiles this model")


def _why_not(config: VllmConfig) -> str:
    from vllm.config import CompilationMode

    parallel, model = config.parallel_config, config.model_config
    reasons = {
        "graphs are not compiled in this mode": (
            config.compilation_config.mode != CompilationMode.DYNAMO_TRACE_ONCE
        ),
        "another backend was asked for": config.compilation_config.backend != "inductor",
        "speculative decoding": config.speculative_config is not None,
        "LoRA adapters": config.lora_config is not None,
        "data parallelism": parallel.data_parallel_size > 1,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "an encoder-decoder model": model is not None and model.is_encoder_decoder,
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds)
