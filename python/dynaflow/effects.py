"""What ops really do, observed once, against what the graph says of them.

Schemas lie, and the table of corrections may too. A plan that believes them lets parts and streams
share bytes; so DYNAFLOW_CHECK=effects runs a graph's ops one by one with the first call's tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_map_only

from dynaflow import _core
from dynaflow.errors import EffectError


def check_effects(gm: GraphModule, graph: _core.Graph, args: Sequence[Any]) -> None:
    """Runs `gm`, of which `graph` is the capture with corrections applied, on copies of `args`.

    Raises EffectError for the first op that writes, shares or draws what the graph does not say, or
    does not share what it does say. Collectives are run: every rank has to call it.
    """
    copies = tree_map_only(torch.Tensor, torch.clone, list(args))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        _Observer(gm, graph).run(*copies)


class _Observer(Interpreter):
    def __init__(self, gm: GraphModule, graph: _core.Graph) -> None:
        super().__init__(gm)
        self._ops = {op["name"]: op for op in graph.ops}
        self._alias_of = {v["name"]: v["alias_of"] for v in graph.values if v["alias_of"]}

    def run_node(self, n: Node) -> Any:
        op = self._ops.get(n.name) if n.op == "call_function" else None
        if op is None:
            return super().run_node(n)
        inputs = list(zip(op["inputs"], _tensors(self.fetch_args_kwargs_from_env(n)), strict=False))
        before = [tensor.clone() for _, tensor in inputs]
        seed = torch.get_rng_state()
        result = super().run_node(n)
        if not op["random"] and not torch.equal(seed, torch.get_rng_state()):
            raise _lie(op, "it draws random numbers", "that it does not")
        self._check_writes(op, inputs, before)
        self._check_sharing(op, inputs, list(zip(op["outputs"], _tensors(result), strict=False)))
        return result

    def _check_writes(self, op: dict, inputs: list, before: list[torch.Tensor]) -> None:
        declared = {self._root(name) for name in op["writes"]}
        for (name, tensor), old in zip(inputs, before, strict=True):
            if self._root(name) not in declared and not _same_bits(tensor, old):
                raise _lie(op, f"it writes its input %{name}", "that it does not")

    def _check_sharing(self, op: dict, inputs: list, outputs: list) -> None:
        for at, (name, tensor) in enumerate(outputs):
            source = self._alias_of.get(name)
            others = [*inputs, *outputs[:at]]
            found = next((other for other, t in others if _same_storage(t, tensor)), None)
            if found is not None and self._root(found) != self._root(name):
                raise _lie(op, f"its result %{name} lies in the storage of %{found}", "it is fresh")
            values = [t for other, t in inputs if other == source]
            if source and found is None and not any(_same_bits(t, tensor) for t in values):
                raise _lie(op, f"its result %{name} is fresh", f"it is %{source}'s storage")

    def _root(self, name: str) -> str:
        while name in self._alias_of:
            name = self._alias_of[name]
        return name


def _lie(op: dict, observed: str, declared: str) -> EffectError:
    return EffectError(
        f"{op['target']} ('{op['name']}' in '{op['module'] or 'the model'}') does not do what its "
        f"schema and the table of corrections say: {observed}; they say {declared}. Correct its "
        "schema, or capture it as an op with that effect"
    )


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def _same_storage(a: torch.Tensor, b: torch.Tensor) -> bool:
    pointer = a.untyped_storage().data_ptr()
    return pointer != 0 and pointer == b.untyped_storage().data_ptr()


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b))
    return torch.equal(a, b)
