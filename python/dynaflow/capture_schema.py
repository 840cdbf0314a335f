"""What an operator's schema says: arguments in order, aliases, writes, and its true out= form."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tag
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.fx import Node

from dynaflow.errors import CaptureError

# Arguments of ops that make a tensor from nothing; out= overloads find it in the tensor given.
_FACTORY = frozenset(("dtype", "layout", "device", "pin_memory"))

# Out= forms that are better than what an op has of its own: the adapter's (src/torch/out_forms.cc),
# and for numbers the one that takes a tensor, which the adapter makes once.
BETTER_OUT_FORMS = {
    "aten.clone.default": "dynaflow.clone.out",
    "aten.lift_fresh_copy.default": "dynaflow.lift_fresh_copy.out",
    "aten._to_copy.default": "dynaflow._to_copy.out",
    "aten.embedding.default": "dynaflow.embedding.out",
    "aten.new_ones.default": "dynaflow.new_ones.out",
    "aten.new_zeros.default": "dynaflow.new_zeros.out",
    "aten.new_full.default": "dynaflow.new_full.out",
    "aten.ones_like.default": "dynaflow.ones_like.out",
    "aten.zeros_like.default": "dynaflow.zeros_like.out",
    "aten.full_like.default": "dynaflow.full_like.out",
    "aten.scalar_tensor.default": "dynaflow.scalar_tensor.out",
    "aten.mean.dim": "dynaflow.mean.out",
    "aten.cumsum.default": "dynaflow.cumsum.out",
    "aten.eq.Scalar": "aten.eq.Tensor_out",
    "aten.ne.Scalar": "aten.ne.Tensor_out",
    "aten.lt.Scalar": "aten.lt.Tensor_out",
    "aten.le.Scalar": "aten.le.Tensor_out",
    "aten.gt.Scalar": "aten.gt.Tensor_out",
    "aten.ge.Scalar": "aten.ge.Tensor_out",
}

# Schemas give defaults of these types as integers.
_LAYOUTS = {0: "strided", 1: "sparse_coo", 2: "sparse_csr", 3: "mkldnn"}
_MEMORY_FORMATS = {
    0: "contiguous_format",
    1: "preserve_format",
    2: "channels_last",
    3: "channels_last_3d",
}


def quote(text: str) -> str:
    """A string in the grammar of the text forms."""
    plain = {'"': '\\"', "\\": "\\\\", "\n": "\\n"}
    return '"' + "".join(plain.get(c, c if c >= " " else f"\\x{ord(c):02x}") for c in text) + '"'


def named_constant(value: Any) -> str | None:
    """dtype("float32") and its like, or None for any other value."""
    if isinstance(value, torch.dtype):
        return f"dtype({quote(str(value).removeprefix('torch.'))})"
    if isinstance(value, torch.device):
        return f"device({quote(str(value))})"
    if isinstance(value, torch.layout):
        return f"layout({quote(str(value).removeprefix('torch.'))})"
    if isinstance(value, torch.memory_format):
        return f"memory_format({quote(str(value).removeprefix('torch.'))})"
    return None


def constant_of_type(schema_type: str, value: Any) -> str | None:
    """The text of an integer that stands for a layout or memory format in a schema's default."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if "MemoryFormat" in schema_type:
        return f"memory_format({quote(_MEMORY_FORMATS[value])})"
    if "Layout" in schema_type:
        return f"layout({quote(_LAYOUTS[value])})"
    return None


@dataclass(frozen=True)
class Argument:
    """A parameter of an operator."""

    name: str
    type: str  # as the schema writes it: "Tensor", "Optional[float]", "List[int]"
    kwarg_only: bool
    has_default: bool
    default: Any
    written: bool
    shared: bool  # an output may share its storage


@dataclass(frozen=True)
class OpFacts:
    """Everything capture needs to know of one overload, computed once."""

    target: str  # "aten.mm.default"
    out_target: str  # "aten.mm.out", or empty
    inplace_target: str  # "aten.relu_.default": the same call changing argument 0, or empty
    functional: str  # of "aten.relu_.default": "aten.relu.default", or empty
    arguments: tuple[Argument, ...]
    returns_alias: tuple[
        bool, ...
    ]  # by return: it may share storage with an argument marked `shared`
    random: bool
    host_sync: bool
    collective: bool
    composite: bool  # made of other ops, which decide what its results share


@functools.cache
def facts(op: OpOverload) -> OpFacts:
    """What the overload's schema and tags say."""
    schema = op._schema
    return OpFacts(
        target=target_name(op),
        out_target=_out_target(op),
        inplace_target=_inplace_target(op),
        functional=_functional(op),
        arguments=tuple(_argument(arg) for arg in schema.arguments),
        returns_alias=tuple(ret.alias_info is not None for ret in schema.returns),
        random=Tag.nondeterministic_seeded in op.tags,
        host_sync=Tag.data_dependent_output in op.tags or Tag.dynamic_output_shape in op.tags,
        collective=op.namespace == "_c10d_functional" and "wait_tensor" not in op._opname,
        composite=op.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd),
    )


def call_argument(node: Node, index: int) -> Any:
    """The value of the schema's argument `index`, its default where the call leaves it out."""
    argument = facts(node.target).arguments[index]
    if not argument.kwarg_only and index < len(node.args):
        return node.args[index]
    if argument.name in node.kwargs:
        return node.kwargs[argument.name]
    if not argument.has_default:
        raise CaptureError(f"{node.name} = {node.target} has no argument '{argument.name}'")
    return argument.default


def without_dropout(node: Node) -> bool:
    """Whether an op that is tagged as random for its dropout's sake is called with none."""
    none = {"dropout_p": 0, "train": False}
    arguments = enumerate(facts(node.target).arguments)
    return any(call_argument(node, i) == none.get(arg.name, ...) for i, arg in arguments)


def target_name(op: OpOverload) -> str:
    """ "aten.mm.default": namespace, name and overload."""
    return f"{op.namespace}.{op._opname}.{op._overloadname}"


def _argument(arg: Any) -> Argument:
    alias = arg.alias_info
    return Argument(
        name=arg.name,
        type=str(arg.real_type),
        kwarg_only=arg.kwarg_only,
        has_default=arg.has_default_value(),
        default=arg.default_value,
        written=alias is not None and alias.is_write,
        shared=alias is not None,
    )


def _inplace_target(op: OpOverload) -> str:
    """The overload that takes the same arguments and puts its one result into argument 0."""
    if len(op._schema.returns) != 1 or any(arg.alias_info for arg in op._schema.arguments):
        return ""
    found = _overload(op, f"{op._opname}_")
    return target_name(found) if found is not None and _functional(found) else ""


def _functional(op: OpOverload) -> str:
    """The overload that returns what this one writes to argument 0, from the same arguments."""
    arguments = op._schema.arguments
    written = [
        arg.name for arg in arguments if arg.alias_info is not None and arg.alias_info.is_write
    ]
    if not op._opname.endswith("_") or not arguments or written != [arguments[0].name]:
        return ""
    found = _overload(op, op._opname.removesuffix("_"))
    if found is None or any(arg.alias_info is not None for arg in found._schema.arguments):
        return ""
    return target_name(found) if _typed(found) == _typed(op) else ""


def _typed(op: OpOverload) -> list[tuple[str, str]]:
    return [(arg.name, str(arg.real_type)) for arg in op._schema.arguments]


def _overload(op: OpOverload, name: str) -> OpOverload | None:
    """The overload of the same name of another op of the namespace."""
    packet = getattr(getattr(torch.ops, op.namespace), name, None)
    return getattr(packet, op._overloadname, None)


def _out_target(op: OpOverload) -> str:
    """The overload that writes where it is told, if there is a real one.

    Overloads tagged `generated` call the functional form and copy, so they are none.
    """
    if better := BETTER_OUT_FORMS.get(target_name(op)):
        return better
    schema = op._schema
    if not schema.returns or any(str(ret.type) != "Tensor" for ret in schema.returns):
        return ""
    if any(arg.alias_info is not None for arg in schema.arguments):
        return ""
    wanted = _typed(op)
    if not any("Tensor" in kind for _, kind in wanted):
        wanted = [(name, kind) for name, kind in wanted if name not in _FACTORY]
    for name in op.overloadpacket.overloads():
        candidate = getattr(op.overloadpacket, name)
        arguments = candidate._schema.arguments
        outs = [arg for arg in arguments if arg.is_out]
        if len(outs) != len(schema.returns) or Tag.generated in candidate.tags:
            continue
        leading = [(arg.name, str(arg.real_type)) for arg in arguments if not arg.is_out]
        if leading == wanted and all(arg.is_out for arg in arguments[len(leading) :]):
            return target_name(candidate)
    return ""


def call_operator(op: OpOverload, args: Sequence[Any]) -> Any:
    """Calls `op` with all of its schema's arguments, in its order."""
    pairs = list(zip(op._schema.arguments, args, strict=True))
    positional = [value for formal, value in pairs if not formal.kwarg_only]
    named = {formal.name: value for formal, value in pairs if formal.kwarg_only}
    return op(*positional, **named)
