"""How far apart two tensors are."""

from __future__ import annotations

import torch


def magnitude(tensor: torch.Tensor) -> torch.Tensor:
    """Absolute values, in double precision."""
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.to(wide).abs()


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """0 where both are equal or no number, infinite where one of them is none."""
    same = (a == b) | (a.isnan() & b.isnan())
    wide = torch.complex128 if a.is_complex() else torch.float64
    apart = (a.to(wide) - b.to(wide)).abs().nan_to_num(nan=torch.inf)
    least = 0.0 if a.is_floating_point() or a.is_complex() else 1.0  # of integers that differ
    return apart.clamp(min=least).masked_fill(same, 0.0)
