"""Error of a model's outputs against a float64 run of the same model.

Models compute norms, softmaxes or rotary angles in float32 whatever their weights are; here, and
only in the reference, those casts are replaced, so that the reference is float64 throughout.
Constants that the model holds in float32 (weights, rotary frequencies) keep their values.
"""

from __future__ import annotations

import copy

#: Seeds of the inputs over which errors are taken.
SEEDS = (11, 12, 13, 14, 15)
#: An error of at most this many times eager's own is right: a GEMM may pick another kernel.
TOLERATED = 2.0


def in_float64(model):
    """A function that calls a float64 copy of `model`, in which nothing is cast to float32."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class NoFloat32(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kwargs = dict(kwargs or {})
            if kwargs.get("dtype") == torch.float32:
                kwargs["dtype"] = torch.float64
            return func(*args, **kwargs)

    exact = copy.deepcopy(model).double()

    def widened(value):
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.double() if floating else value

    def call(*args, **kwargs):
        args, kwargs = torch.utils._pytree.tree_map(widened, (args, kwargs))
        with NoFloat32():
            return exact(*args, **kwargs)

    return call


def float64_reference(shape, seed: int = 0):
    """The whole model (not a shard) in float64, with the weights that `seed` gives."""
    from dynaflow.bench.workload import build_model

    return in_float64(build_model(shape, seed=seed))


def relative_rms(output, reference) -> float:
    """Root of the mean square error over all outputs, relative to that of the reference."""
    difference = (output.double() - reference).square().mean()
    return (difference / reference.square().mean()).sqrt().item()


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
