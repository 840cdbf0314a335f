"""Sizes: SymPy expressions of a captured graph as text, and the symbols in them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv, is_symbolic

from dynaflow.errors import CaptureError

_INT64_MAX = 2**63 - 1


def print_size(expr: sympy.Expr | int) -> str:
    """The infix text of a size. Raises CaptureError for what the grammar does not have."""
    if isinstance(expr, int) or expr.is_Integer:
        return str(int(expr))
    if expr.is_Symbol:
        return str(expr)
    if expr.is_Add:
        return " + ".join(_term(arg) for arg in expr.args)
    if expr.is_Mul:
        return "*".join(_factor(arg) for arg in expr.args)
    if expr.is_Pow and expr.exp.is_Integer and 0 < int(expr.exp) <= 8:
        return "*".join([_factor(expr.base)] * int(expr.exp))
    return _call(expr)


def _term(expr: sympy.Expr) -> str:
    return f"({print_size(expr)})" if expr.is_Add else print_size(expr)


def _factor(expr: sympy.Expr) -> str:
    atom = expr.is_Symbol or expr.is_Integer or (expr.is_Pow and expr.exp.is_Integer)
    return print_size(expr) if atom else f"({print_size(expr)})"


def _call(expr: sympy.Expr) -> str:
    name = type(expr).__name__
    if name in ("FloorDiv", "CleanDiv"):
        return f"{_factor(expr.args[0])}//{_factor(expr.args[1])}"
    if name in ("Mod", "PythonMod"):
        return f"{_factor(expr.args[0])} % {_factor(expr.args[1])}"
    if name in ("Max", "Min") and len(expr.args) > 1:
        function = name.lower()
        texts = [print_size(arg) for arg in expr.args]
        return functools.reduce(lambda a, b: f"{function}({a}, {b})", texts)
    raise CaptureError(f"the size {expr} uses {name}, which has no text form")


@dataclass
class SizeSymbol:
    """A dynamic size: its legal range, the value seen at capture, and where a call finds it."""

    name: str
    min: int
    max: int | None
    hint: int
    argument: int | None = None  # the caller's argument that is this integer
    dimension: tuple[int, int] | None = None  # else a dimension of a tensor argument

    def line(self) -> str:
        """The symbol's line in a graph's text."""
        attrs = [f"min={self.min}"]
        if self.max is not None:
            attrs.append(f"max={self.max}")
        attrs.append(f"hint={self.hint}")
        if self.argument is not None:
            attrs.append(f"input={self.argument}")
        return f"%{self.name} = symbol() {{{', '.join(attrs)}}}"


@dataclass
class Sizes:
    """Every size of one graph goes through here: symbols are collected as they are used."""

    shape_env: ShapeEnv | None
    symbols: dict[str, SizeSymbol] = field(default_factory=dict)
    equal: list[tuple[str, str]] = field(default_factory=list)
    _substitutions: dict[sympy.Symbol, sympy.Symbol] = field(default_factory=dict)

    def expr(self, value: Any) -> sympy.Expr | int:
        """The expression of an int or SymInt, after substitution."""
        if isinstance(value, int):
            return int(value)
        if not isinstance(value, torch.SymInt):
            raise CaptureError(f"{value} ({type(value).__name__}) is not an integer size")
        if not is_symbolic(value):
            return int(value)
        expr = value.node.expr
        return expr.xreplace(self._substitutions) if self._substitutions else expr

    def text(self, value: Any) -> str:
        """The text of a size; its symbols become the graph's."""
        expr = self.expr(value)
        if isinstance(expr, int):
            return str(expr)
        for symbol in expr.free_symbols:
            self._declare(symbol)
        return print_size(expr)

    def bind(self, value: torch.SymInt, argument: int) -> None:
        """The caller passes this size as an integer."""
        expr = self.raw(value)
        if isinstance(expr, sympy.Symbol):
            self._declare(expr)
            if self.symbols[str(expr)].argument is None:
                self.symbols[str(expr)].argument = argument

    def bind_dimension(self, value: Any, tensor: int, dim: int) -> None:
        """The size can be read from a dimension of one of the caller's tensors."""
        expr = self.raw(value)
        if isinstance(expr, sympy.Symbol):
            self._declare(expr)
            if self.symbols[str(expr)].dimension is None:
                self.symbols[str(expr)].dimension = (tensor, dim)

    def raw(self, value: Any) -> sympy.Expr | int:
        """The expression before any substitution."""
        return (
            value.node.expr
            if isinstance(value, torch.SymInt) and is_symbolic(value)
            else int(value)
        )

    def unify(self, other: sympy.Symbol, symbol: sympy.Symbol) -> None:
        """From now on `other` is written as `symbol`; runs check that both have one value."""
        self._substitutions[other] = symbol
        self.equal.append((str(other), str(symbol)))

    def check_bound(self) -> None:
        """Raises CaptureError for a size that no argument of the caller gives."""
        for symbol in self.symbols.values():
            if symbol.argument is None and symbol.dimension is None:
                raise CaptureError(f"no argument of the caller gives the size {symbol.name}")

    def _declare(self, symbol: sympy.Symbol) -> None:
        name = str(symbol)
        if name in self.symbols:
            return
        env = self.shape_env
        hint = None if env is None else env.backed_var_to_val.get(symbol)
        if hint is None:
            raise CaptureError(f"the size {name} depends on data: only a run knows it")
        bounds = env.var_to_range[symbol]
        self.symbols[name] = SizeSymbol(
            name, _bound(bounds.lower) or 0, _bound(bounds.upper), int(hint)
        )


def _bound(value: Any) -> int | None:
    """A range's end as an integer; None when it has no end."""
    if isinstance(value, int) or getattr(value, "is_Integer", False):
        return int(value) if abs(int(value)) < _INT64_MAX - 1 else None
    return None


def is_size(value: Any) -> bool:
    """Whether a node's value is a number that the tracer knows, not a tensor."""
    return isinstance(value, (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))
