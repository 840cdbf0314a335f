"""What capture makes of a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dynaflow.capture_batch import BatchChoice
from dynaflow.capture_opaque import OpaqueOps
from dynaflow.capture_sizes import SizeSymbol


@dataclass
class Captured:
    """A graph as text, and what a call needs to feed it."""

    name: str
    text: str
    constants: list[torch.Tensor]
    tensor_arguments: list[int]  # positions of the tensors among the caller's arguments
    symbols: list[SizeSymbol]  # in the text's order
    equal: list[tuple[str, str]]
    outputs: list[str]  # "tensor", "size" or "none", in the caller's order
    groups: list[str]  # process groups in order of first use
    static_inputs: tuple[int, ...]  # positions of parameters and buffers among the arguments
    batch: BatchChoice
    ops: int
    opaque: OpaqueOps | None  # keeps the wrapped calls registered
    notes: list[str] = field(default_factory=list)
