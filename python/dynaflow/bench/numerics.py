"""Error of a model's outputs against a float64 run of the same model.

Llama computes its norms and rotary angles in float32 whatever its weights are; here, and only in
the reference, those casts are replaced, so that the reference is float64 throughout. Constants
that the model holds in float32 (weights, rotary frequencies) keep their values.
"""

from __future__ import annotations

import types

#: Seeds of the inputs over which errors are taken.
SEEDS = (11, 12, 13, 14, 15)
#: An error of at most this many times eager's own is right: a GEMM may pick another kernel.
TOLERATED = 2.0


def float64_reference(shape, seed: int = 0):
    """The whole model (not a shard) in float64, with the weights that `seed` gives."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

    from dynaflow.bench.workload import build_model

    model = build_model(shape, seed=seed).double()
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = types.MethodType(_norm, module)
        elif isinstance(module, LlamaRotaryEmbedding):
            module.forward = types.MethodType(_rotary, module)
    return model


def relative_rms(output, reference) -> float:
    """Root of the mean square error over all outputs, relative to that of the reference."""
    difference = (output.double() - reference).square().mean()
    return (difference / reference.square().mean()).sqrt().item()


def _norm(self, hidden):
    import torch

    variance = hidden.square().mean(-1, keepdim=True)
    return self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))


def _rotary(self, hidden, position_ids):
    import torch

    angles = position_ids[..., None].to(hidden.dtype) * self.inv_freq
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling


def errors(arms, batch, shape, context, seeds=SEEDS) -> dict[str, float]:
    """Relative RMS error of each arm over all outputs of all seeds, the same on every rank.

    `arms` maps a name to a callable of the model's keyword arguments that returns logits. All ranks
    run every arm; the reference of a seed is computed by one of them, the seeds dealt out in turn.
    """
    import torch

    reference = float64_reference(shape)
    squares: dict[str, list[float]] = {name: [] for name in arms}
    with torch.no_grad():
        for index, seed in enumerate(seeds):
            inputs = batch.inputs(seed)
            outputs = {name: run(**inputs) for name, run in arms.items()}
            if index % context.world != context.rank:
                continue
            exact = reference(**inputs).logits
            for name, output in outputs.items():
                squares[name].append(relative_rms(output, exact) ** 2)
    gathered = context.meeting.gather(squares)
    return {name: (sum(sum(rank[name]) for rank in gathered) / len(seeds)) ** 0.5 for name in arms}
