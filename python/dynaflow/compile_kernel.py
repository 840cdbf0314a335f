"""`python -m dynaflow.compile_kernel GRAPH PACKAGE`: compiles one kernel in a process of its own.

The compiler keeps its state in the process, and the caller may be in the midst of a compilation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from filelock import FileLock
from torch.export import ExportedProgram

from dynaflow import _core
from dynaflow.kernel_module import KernelModule

#: By how much a compiled kernel may differ from its ops, against the largest result.
_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float32: 1e-5, torch.float64: 1e-12}


class _RefusedError(Exception):
    """No kernel can be had that computes what the ops compute."""


def compile_kernel(text: str, package: Path) -> None:
    """Puts the kernel of a graph of `_core.kernels()` at `package`, unless it is there."""
    package.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{package}.lock"):
        if package.exists():
            return
        module = KernelModule(_core.parse_graph(text))
        exported = _export(module)
        made = package.with_suffix(f".{os.getpid()}.pt2")
        configs = {"cpp.dynamic_threads": True, "size_asserts": False}
        torch._inductor.aoti_compile_and_package(
            exported, package_path=str(made), inductor_configs=configs
        )
        try:
            _try(module, made)
            made.replace(package)
        finally:
            made.unlink(missing_ok=True)


def _export(module: KernelModule) -> ExportedProgram:
    with torch.no_grad():
        exported = torch.export.export(
            module,
            tuple(module.example()),
            dynamic_shapes={"tensors": module.dynamic_shapes()},
            strict=False,
        )
    nodes = [node for node in exported.graph.nodes if node.op == "placeholder"]
    seen: dict[str, str] = {}
    for node, value in zip(nodes, module.tensors, strict=True):
        for size, wanted in zip(node.meta["val"].shape, value["shape"], strict=True):
            if wanted.isdigit() != isinstance(size, int):
                raise _RefusedError(f"the compiler takes the size {wanted} for {size}")
            if seen.setdefault(str(size), wanted) != wanted:
                raise _RefusedError(f"the compiler takes {wanted} and {seen[str(size)]} for equal")
    return exported


def _try(module: KernelModule, package: Path) -> None:
    """Runs the kernel and its ops on the same random tensors."""
    torch.manual_seed(0)
    tensors = module.trial()
    expected = [tensor.clone() for tensor in tensors]
    torch._inductor.aoti_load_package(str(package))(*tensors)
    with torch.no_grad():
        module(*expected)
    first = len(module.inputs)
    for name, made, own in zip(module.outputs, tensors[first:], expected[first:], strict=True):
        apart = (made.double() - own.double()).abs().nan_to_num(0.0).max()
        largest = own.double().abs().nan_to_num(0.0, posinf=0.0).max()
        if apart > _TOLERANCE.get(made.dtype, 0.0) * largest:
            raise _RefusedError(f"its result {name} differs by {apart:g} of at most {largest:g}")


if __name__ == "__main__":
    try:
        compile_kernel(Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2]))
    except Exception as error:
        print(" ".join(f"{type(error).__name__.lstrip('_')}: {error}".split()), file=sys.stderr)
        sys.exit(1)
