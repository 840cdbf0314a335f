"""How the sample calls of split rules are written: sizes by letter, tensors by what fills them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

#: What the letters are, unless one of them is the batch. Even: DTensor cuts them in two.
SIZES = {"a": 6, "b": 8, "c": 10, "d": 12}
END = (1 << 63) - 1


def evaluate(size: str, sizes: dict[str, int]) -> int:
    """The value of "a*4"."""
    return math.prod(sizes.get(factor) or int(factor) for factor in size.split("*"))


@dataclass(frozen=True)
class Size:
    """An integer argument such as "a*b"."""

    text: str


@dataclass(frozen=True)
class Rows:
    """arange of a size, made by an op of its own, so that the analysis knows what it holds."""

    letter: str


@dataclass(frozen=True)
class Tensor:
    """A tensor argument: its sizes by letter or number."""

    shape: tuple[str, ...]
    dtype: torch.dtype
    fill: str
    bound: int = 0
    outer: int = 1  # blocks of rows in dimension 0

    def sizes(self, sizes: dict[str, int]) -> list[int]:
        return [evaluate(size, sizes) for size in self.shape]

    def make(self, sizes: dict[str, int], generator: torch.Generator) -> torch.Tensor:
        shape = self.sizes(sizes)
        if self.fill == "mask":
            return torch.rand(shape, generator=generator) < 0.5
        if self.fill == "integers":
            return torch.randint(self.bound, shape, generator=generator, dtype=self.dtype)
        if self.fill == "positive":
            return torch.rand(shape, generator=generator).to(self.dtype) + 0.5
        return torch.randn(shape, generator=generator).to(self.dtype)


@dataclass(frozen=True)
class Sample:
    """A call. `counts`: the result is row numbers, which a part counts from 0."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    counts: bool = False


def f(shape: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return Tensor(tuple(shape.split()), dtype, "normal")


def p(shape: str) -> Tensor:
    return Tensor(tuple(shape.split()), torch.float32, "positive")


def i(shape: str, bound: int) -> Tensor:
    return Tensor(tuple(shape.split()), torch.int64, "integers", bound)


def m(shape: str) -> Tensor:
    return Tensor(tuple(shape.split()), torch.bool, "mask")


def blocks(outer: int, shape: str) -> Tensor:
    return Tensor(tuple(shape.split()), torch.float32, "normal", outer=outer)


def n(text: str) -> Size:
    return Size(text)


def rows(letter: str) -> Rows:
    return Rows(letter)


def call(*args: Any, **kwargs: Any) -> Sample:
    return Sample(args, kwargs)


def counted(*args: Any, **kwargs: Any) -> Sample:
    return Sample(args, kwargs, counts=True)
