"""Kernels that a plan lets write over an input give the same bits there."""

from __future__ import annotations

import pytest
import torch
from torch._ops import OpOverload

from dynaflow import _core
from dynaflow.capture_schema import facts

#: One element, rows that fill no vector, and more than one thread's share.
SHAPES = ((1,), (3, 7), (5, 33), (64, 1100))
SCALARS = {"int": 2, "number": 2, "float": 0.5, "bool": False}


def resolve(target: str) -> OpOverload:
    namespace, name, overload = target.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def is_told(target: str) -> bool:
    try:
        return bool(facts(resolve(target)).out_target)
    except AttributeError:  # an overload that this torch lacks
        return False


def arguments(op: OpOverload, dtype: torch.dtype, shape: tuple[int, ...]) -> dict[str, object]:
    """Something legal for every argument without a default."""
    given: dict[str, object] = {}
    for argument in op._schema.arguments:
        kind = str(argument.type)
        if kind == "Tensor":
            wanted = torch.bool if argument.name in ("condition", "mask") else dtype
            values = torch.rand(shape) * 4 - 1
            given[argument.name] = (values > 0) if wanted == torch.bool else values.to(wanted)
        elif argument.name == "rounding_mode":
            given[argument.name] = "floor"
        elif argument.name == "min" and kind.startswith("Optional"):
            given[argument.name] = torch.zeros(()).to(dtype) if "Tensor" in kind else 0
        elif not argument.has_default_value():
            given[argument.name] = SCALARS.get(kind, 2)
    return given


def with_result_over(op: OpOverload, given: dict[str, object], name: str) -> torch.Tensor:
    mine = {key: value.clone() if torch.is_tensor(value) else value for key, value in given.items()}
    over = mine[name]
    told = resolve(facts(op).out_target)
    for argument in told._schema.arguments:  # numbers that the out= form takes as tensors
        if str(argument.type) == "Tensor" and argument.name in mine:
            mine[argument.name] = torch.as_tensor(mine[argument.name])
    result = told(**mine, out=over)
    assert result.data_ptr() == over.data_ptr() and over.shape == given[name].shape
    return over


def test_most_elementwise_targets_write_where_they_are_told():
    targets = _core.elementwise_targets()
    assert len(targets) > 90
    assert sum(is_told(target) for target in targets) >= 0.7 * len(targets)


@pytest.mark.parametrize("target", [t for t in _core.elementwise_targets() if is_told(t)])
def test_a_result_over_an_input_has_the_same_bits(target):
    torch.manual_seed(0)
    op = resolve(target)
    tried = 0
    for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool):
        for shape in SHAPES:
            given = arguments(op, dtype, shape)
            try:
                expected = op(**given)
            except RuntimeError:
                continue  # not for this dtype
            for name, value in given.items():
                alike = (
                    torch.is_tensor(value)
                    and value.dtype == expected.dtype
                    and value.shape == expected.shape
                )
                if not alike:
                    continue
                over = with_result_over(op, given, name)
                assert torch.equal(
                    over.view(torch.uint8), expected.contiguous().view(torch.uint8)
                ), (
                    dtype,
                    shape,
                    name,
                )
                tried += 1
    assert tried > 0
