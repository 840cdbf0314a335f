"""Kernels in place of neighbouring segments: what they are, and whether they fit."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.library import CustomOpDef
from torch.utils._python_dispatch import _disable_current_modes

from dynaflow import _core
from dynaflow.capture_nodes import is_python_op, print_float
from dynaflow.capture_opaque import Hole, OpaqueOps
from dynaflow.capture_schema import (
    Argument,
    call_operator,
    constant_of_type,
    facts,
    named_constant,
    quote,
)

if TYPE_CHECKING:
    from dynaflow.scheduler import Scheduler

log = logging.getLogger("dynaflow")

# An op without a fake kernel, or whose results' sizes depend on data: the launch will tell.
_UNKNOWN = (
    NotImplementedError,
    UnsupportedOperatorException,
    DataDependentOutputException,
    DynamicOutputShapeException,
)


@dataclass(frozen=True)
class Replacement:
    """A kernel that runs in place of neighbouring segments.

    It takes the tensors that they read from outside, in order of first use, and returns those that
    are read outside, in order of definition: see `Scheduler.signature`. `func` is a callable of
    tensors, or a dispatcher op without effects: an overload, or its name ("mylib::fused"). An op
    with a true out= overload writes into planned memory, without a copy.

    `tolerance`: by how much results may differ from those of the segments, relative to their size;
    0: equal bits. For an op, `inputs` are the tensors for its tensor parameters, by their numbers
    in the signature (all in order, by default), and `arguments` its other parameters by name (their
    defaults, by default).
    """

    func: Callable[..., Any] | OpOverload | OpOverloadPacket | str
    name: str = ""
    tolerance: float = 0.0
    inputs: Sequence[int] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class _MisfitError(Exception):
    """Why a kernel cannot take the place of what it was given for."""


@dataclass(frozen=True)
class _Kernel:
    """A replacement found: what the core needs, and how to call it on the signature's tensors."""

    core: _core.Replacement
    call: Callable[..., Any]
    is_op: bool


@dataclass(frozen=True)
class Launched:
    """A kernel in the place of some segments: what it reads and gives there."""

    name: str
    segments: str
    call: Callable[..., Any]
    tolerance: float
    inputs: tuple[str, ...]  # values of the graph
    outputs: tuple[str, ...]


class Kernels:
    """The kernels of one schedule's replacements. Python callables stay registered while it
    lives.
    """

    def __init__(self) -> None:
        self._opaque: OpaqueOps | None = None
        self._found: dict[Any, _Kernel] = {}
        self._fitting: set[Any] = set()  # kernels with the tensors that they were tried on
        self.launched: dict[Any, Launched] = {}  # by kernel and what it gives

    def lower(self, s: Scheduler, ops: list[_core.Op], given: Any) -> _core.Replacement:
        """The core's form of `given`, checked. Raises ScheduleError with the signature of `ops`
        where it does not fit.
        """
        asked = given if isinstance(given, Replacement) else Replacement(given)
        signature = s.signature(ops)
        name = asked.name or _name(asked.func)
        try:
            if why := s.irreplaceable(ops):
                raise _MisfitError(why)
            if not asked.tolerance >= 0:
                raise _MisfitError(f"its tolerance is {asked.tolerance}; use 0 or more")
            kernel = self._find(asked, name, signature)
            self._check(kernel, signature)
        except _MisfitError as error:
            s.refuse_replacement(ops, name, str(error))
        inputs = tuple(value for value, *_ in signature.inputs)
        outputs = tuple(value for value, *_ in signature.outputs)
        segments = "+".join(dict.fromkeys(op.name for op in ops))
        func = asked.func if isinstance(asked.func, str) else id(asked.func)
        self.launched[func, name, asked.tolerance, inputs, outputs] = Launched(
            name, segments, kernel.call, asked.tolerance, inputs, outputs
        )
        return kernel.core

    def _find(self, asked: Replacement, name: str, signature: _core.Signature) -> _Kernel:
        count = len(signature.inputs), len(signature.outputs)
        func = asked.func if isinstance(asked.func, str) else id(asked.func)  # the kernel keeps it
        key = (func, name, asked.tolerance, repr((asked.inputs, asked.arguments)), count)
        if key not in self._found:
            op = _operator(asked.func)
            make = self._of_callable if op is None else functools.partial(_of_op, op)
            self._found[key] = make(asked, name, *count)
        return self._found[key]

    def _of_callable(self, asked: Replacement, name: str, inputs: int, outputs: int) -> _Kernel:
        func = asked.func
        if not callable(func):
            raise _MisfitError(f"{func!r} is neither a callable nor a dispatcher op")
        if asked.inputs is not None or asked.arguments:
            raise _MisfitError(
                "inputs= and arguments= are for dispatcher ops; a callable picks its own"
            )
        try:
            inspect.signature(func).bind(*range(inputs))
        except TypeError as error:
            raise _MisfitError(f"it cannot be called with {inputs} tensors: {error}") from None
        except ValueError:
            pass  # a builtin without a signature
        self._opaque = self._opaque or OpaqueOps()
        holes = tuple(Hole("Tensor", n) for n in range(inputs))
        checked = _returning_tensors(func, outputs)
        target, _ = self._opaque.wrap(checked, holes, {}, list(range(outputs)))
        args = [f"%in{n}" for n in range(inputs)]
        core = _core.Replacement(name, target, "", True, args, float(asked.tolerance))
        return _Kernel(core, func, False)

    def _check(self, kernel: _Kernel, signature: _core.Signature) -> None:
        """Runs the kernel on fake tensors of this call's sizes, where it can be run so."""
        shapes = repr((str(signature), signature.input_sizes, signature.output_sizes))
        key = (id(kernel), shapes)
        if key in self._fitting:
            return
        results = _fake_results(kernel, signature)
        if results is not None:
            _check_results(results, signature)
        self._fitting.add(key)


def _name(func: Any) -> str:
    if isinstance(func, (OpOverload, OpOverloadPacket)):
        return func.__name__.partition(".")[0]
    if isinstance(func, CustomOpDef):
        return str(func._opoverload._opname)
    if isinstance(func, str):
        return func.partition("::")[2] or func
    return getattr(func, "__name__", type(func).__name__)


def _operator(func: Any) -> OpOverload | None:
    """The overload that was given or named; None for any other callable."""
    if isinstance(func, CustomOpDef):
        return func._opoverload
    if isinstance(func, str):
        func = _named_operator(func)
    if not isinstance(func, OpOverloadPacket):
        return func if isinstance(func, OpOverload) else None
    usable = [name for name in func.overloads() if not _has_out(getattr(func, name))]
    if "default" in usable or len(usable) == 1:
        return getattr(func, "default" if "default" in usable else usable[0])
    raise _MisfitError(f"{func} has the overloads {', '.join(usable)}; give one of them")


def _has_out(op: OpOverload) -> bool:
    return any(argument.is_out for argument in op._schema.arguments)


def _named_operator(name: str) -> OpOverload | OpOverloadPacket:
    """ "mylib::fused", "mylib::fused.overload" or "mylib.fused.overload"."""
    parts = name.replace("::", ".").split(".")
    try:
        if len(parts) not in (2, 3):
            raise AttributeError
        return functools.reduce(getattr, parts, torch.ops)
    except (AttributeError, RuntimeError):
        raise _MisfitError(
            f"torch has no operator '{name}'; import the library that registers it first"
        ) from None


def _returning_tensors(func: Callable[..., Any], count: int) -> Callable[..., list[torch.Tensor]]:
    """`func`, failing in the run in which it does not return `count` tensors."""

    @functools.wraps(func)
    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        results = _listed(func(*tensors))
        if len(results) != count or not all(isinstance(item, torch.Tensor) for item in results):
            kinds = ", ".join(type(item).__name__ for item in results)
            raise TypeError(f"returned ({kinds}) where {count} tensors are expected")
        return results

    return run


def _listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


def _of_op(op: OpOverload, asked: Replacement, name: str, inputs: int, outputs: int) -> _Kernel:
    known = facts(op)
    _refuse_effects(op, asked)
    returns = len(op._schema.returns)
    if returns != outputs:
        raise _MisfitError(f"{op} returns {returns} tensors, the segments make {outputs}")
    order = list(range(inputs)) if asked.inputs is None else list(asked.inputs)
    if any(not 0 <= n < inputs for n in order):
        raise _MisfitError(f"inputs={order}, and the segments read {inputs} tensors")
    unknown = set(asked.arguments) - {argument.name for argument in known.arguments}
    if unknown:
        names = ", ".join(argument.name for argument in known.arguments)
        raise _MisfitError(f"{op} has no parameter {', '.join(sorted(unknown))}; it has {names}")
    taken, texts, values = iter(order), [], []
    for argument in known.arguments:
        number = next(taken, None) if _is_tensor(argument) else None
        if number is None:
            values.append(_value(op, argument, asked.arguments))
            texts.append(_text(argument, values[-1]))
        else:
            values.append(Hole("Tensor", number))
            texts.append(f"%in{number}")
    if (left := len(list(taken))) > 0:
        takes = sum(map(_is_tensor, known.arguments))
        raise _MisfitError(f"{op} takes {takes} tensors, the segments read {takes + left}")
    python = is_python_op(op)
    tolerance = float(asked.tolerance)
    core = _core.Replacement(name, known.target, known.out_target, python, texts, tolerance)
    return _Kernel(core, functools.partial(_call, op, values), True)


def _refuse_effects(op: OpOverload, asked: Replacement) -> None:
    known = facts(op)
    if known.collective:
        raise _MisfitError(f"{op} is a collective")
    if any(argument.written for argument in known.arguments):
        raise _MisfitError(f"{op} changes an argument in place; its functional overload does not")
    if any(known.returns_alias):
        raise _MisfitError(f"{op} returns the storage of an argument")
    if any(str(ret.type) != "Tensor" for ret in op._schema.returns):
        raise _MisfitError(f"{op} returns something that is not a tensor")
    defaults = {argument.name: argument.default for argument in known.arguments}
    if known.random and (defaults | dict(asked.arguments)).get("dropout_p", 1) != 0:
        raise _MisfitError(f"{op} draws random numbers")


def _is_tensor(argument: Argument) -> bool:
    return argument.type in ("Tensor", "Optional[Tensor]")


def _value(op: OpOverload, argument: Argument, given: Mapping[str, Any]) -> Any:
    if argument.name in given and not _is_tensor(argument):
        return given[argument.name]
    if argument.has_default or argument.type == "Optional[Tensor]":
        return argument.default
    if argument.type == "Tensor":
        raise _MisfitError(f"{op} takes another tensor, '{argument.name}', which nothing gives")
    raise _MisfitError(f"{op} needs arguments={{'{argument.name}': ...}} ({argument.type})")


def _text(argument: Argument, value: Any) -> str:
    """The text of a constant argument in the grammar of the text forms."""
    if text := constant_of_type(argument.type, value) or named_constant(value):
        return text
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        wants_float = isinstance(value, float) or "float" in argument.type
        return print_float(float(value)) if wants_float else str(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text(argument, item) for item in value)}]"
    raise _MisfitError(f"argument '{argument.name}' is {value!r}, which has no text form")


def _call(op: OpOverload, values: Sequence[Any], *tensors: torch.Tensor) -> Any:
    filled = [tensors[value.content] if isinstance(value, Hole) else value for value in values]
    return call_operator(op, filled)


def _fake_results(kernel: _Kernel, signature: _core.Signature) -> list[Any] | None:
    """What the kernel returns for fake tensors; None where only a run can tell."""
    described = zip(signature.inputs, signature.input_sizes, strict=True)
    with _disable_current_modes(), FakeTensorMode(allow_non_fake_inputs=True):
        tensors = [
            torch.empty_strided(sizes, strides, dtype=getattr(torch, dtype))
            for (_, dtype, _), (sizes, strides) in described
        ]
        try:
            return _listed(kernel.call(*tensors))
        except _UNKNOWN as error:
            log.debug("%s was not tried on fake tensors: %s", kernel.core.name, error)
        except Exception as error:
            # A callable may need real tensors; an op's fake kernel knows what the op takes.
            if kernel.is_op:
                raise _MisfitError(f"its fake kernel says: {error}") from None
            log.debug("%s was not tried on fake tensors: %s", kernel.core.name, error)
    return None


def _check_results(results: list[Any], signature: _core.Signature) -> None:
    if len(results) != len(signature.outputs):
        raise _MisfitError(
            f"it returns {len(results)} tensors, the segments make {len(signature.outputs)}"
        )
    expected = zip(results, signature.outputs, signature.output_sizes, strict=True)
    for number, (result, (name, dtype, _), (sizes, _)) in enumerate(expected):
        if not isinstance(result, torch.Tensor):
            raise _MisfitError(f"its result {number} is a {type(result).__name__}, not a tensor")
        own = str(result.dtype).removeprefix("torch.")
        if own != dtype:
            raise _MisfitError(f"its result {number} is {own}, %{name} is {dtype}")
        if list(result.shape) != sizes:
            raise _MisfitError(
                f"its result {number} has shape {list(result.shape)} where %{name} has {sizes}"
            )
