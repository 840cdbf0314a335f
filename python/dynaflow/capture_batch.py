"""Which symbol of a captured graph is the batch, and what a part of it must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy
import torch

from dynaflow.capture_sizes import Sizes

_MARK_IT = (
    "Mark the batch dimension dynamic: df.compile(model), torch.compile(..., dynamic=True) or "
    "torch._dynamo.mark_dynamic(tensor, 0)"
)
_FREE_IT = (
    "The model's code, or an operator's on these inputs, compares the batch size; "
    "under torch.no_grad() operators compare less"
)

# Part sizes at which guards that mention the batch are tried, beside the first few legal ones.
_PROBES = (17, 24, 31, 32, 33, 63, 64, 96, 100, 128, 250, 1000)


@dataclass
class BatchChoice:
    """The batch symbol, or why there is none."""

    symbol: str = ""
    tokens: str = "1"
    why_none: str = ""
    remedy: str = ""  # what would give it one
    one_row: bool = False  # the batch is 1: a static graph is what the user expects


def choose_batch(sizes: Sizes, inputs: Sequence[torch.Tensor]) -> BatchChoice:
    """Finds the batch among the user's tensor arguments and unifies its other names.

    The batch is the symbol of dimension 0 of the first input that has one there. Inputs that were
    traced with another symbol of the same value (a mask beside the token ids) are taken to share
    it; runs check that.
    """
    candidates = [(tensor, sizes.raw(tensor.shape[0])) for tensor in inputs if tensor.dim() > 0]
    symbolic = [(tensor, dim) for tensor, dim in candidates if isinstance(dim, sympy.Symbol)]
    if not symbolic:
        one_row = bool(candidates) and candidates[0][1] == 1
        return BatchChoice(
            why_none="no input has a dynamic dimension 0",
            remedy=_MARK_IT,
            tokens=_tokens(sizes, inputs, None),
            one_row=one_row,
        )
    leader, batch = symbolic[0]
    own = {sizes.raw(size) for size in leader.shape[1:]}
    hints = sizes.shape_env.backed_var_to_val
    for _, other in symbolic[1:]:
        if other != batch and other not in own and hints.get(other) == hints.get(batch):
            sizes.unify(other, batch)
    broken = _guard_against_parts(sizes, batch)
    if broken:
        return BatchChoice(
            why_none=f"the graph holds only where {broken}, which a part of the batch may break",
            remedy=_FREE_IT,
            tokens=_tokens(sizes, inputs, None),
        )
    return BatchChoice(symbol=sizes.text(leader.shape[0]), tokens=_tokens(sizes, inputs, batch))


def _tokens(sizes: Sizes, inputs: Sequence[torch.Tensor], batch: sympy.Symbol | None) -> str:
    """Batch * sequence when the first integer matrix is [batch, sequence], else batch."""
    matrices = [
        t for t in inputs if t.dim() == 2 and not t.is_floating_point() and not t.is_complex()
    ]
    rows = None if batch is None else str(batch)
    if not matrices:
        return rows or "1"
    first = sizes.text(matrices[0].shape[0])
    if rows is not None and first != rows:
        return rows
    return f"{first}*{_parenthesised(sizes.text(matrices[0].shape[1]))}"


def _parenthesised(text: str) -> str:
    return text if text.replace("_", "").isalnum() else f"({text})"


def _guard_against_parts(sizes: Sizes, batch: sympy.Symbol) -> str:
    """A guard that some batch keeps and a smaller one breaks, or nothing."""
    env = sizes.shape_env
    low = int(env.var_to_range[batch].lower)
    rows = [*range(low, low + 16), *(probe for probe in _PROBES if probe > low)]
    for guard in env.guards:
        expr = env.replace(guard.expr)
        others = {symbol: env.backed_var_to_val.get(symbol) for symbol in expr.free_symbols}
        renamed = {str(batch), *(other for other, _ in sizes.equal)}
        if (
            not any(str(symbol) in renamed for symbol in expr.free_symbols)
            or None in others.values()
        ):
            continue
        broken = False
        for row in rows:
            values = {
                symbol: sympy.Integer(row if str(symbol) in renamed else hint)
                for symbol, hint in others.items()
            }
            kept = expr.xreplace(values) != sympy.false
            if broken and kept:
                return str(expr)
            broken |= not kept
    return ""
