"""Every split rule against PyTorch's own sharding rules, and against numbers.

Each target of the table has sample calls; each size in them is the batch once. Where the analysis
splits the call, parts must give the rows of the whole, and DTensor must place the results alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rule_arguments import SIZES, Size
from rule_checks import CUDA_ONLY, Call, Layout, Verdict, targets
from rule_samples import SAMPLES
from torch.distributed.tensor import DeviceMesh, DTensor, Replicate, Shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.placement_types import Placement, _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils import _pytree as pytree

#: Real ranks test these: tests/distributed and test_torch_groups.py.
COLLECTIVES = {target for target in targets() if target.startswith("_c10d_functional.")}
TARGETS = [target for target in targets() if target not in COLLECTIVES]


def named(names: str) -> set[str]:
    """Targets by short names, as rule_samples.add takes them."""
    return {f"aten.{n}" if "." in n else f"aten.{n}.default" for n in names.split()}


#: Refused whatever the sample: a part of one row would lose the batch.
NEVER = named("squeeze")
#: Their values are whatever the memory held.
UNDEFINED = named("empty_like empty.memory_format new_empty")
#: Vector and scalar code round these differently, and where an element lies decides between them.
ROUNDED = named("""
    exp exp2 expm1 log log2 log1p sin cos tan tanh sigmoid erf rsqrt silu gelu mish softplus
    log_sigmoid elu pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar atan2 add.Tensor sub.Tensor
    rsub.Tensor addcmul addcdiv lerp.Tensor lerp.Scalar remainder.Tensor remainder.Scalar
    mm addmm bmm baddbmm mv matmul linear scaled_dot_product_attention
    _scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu
    mean.dim sum.dim_IntList prod.dim_int logsumexp var.correction std.correction
    var_mean.correction std_mean.correction var.dim std.dim linalg_vector_norm norm.ScalarOpt_dim
    _softmax softmax.int _safe_softmax _log_softmax log_softmax.int cumsum cumprod logcumsumexp glu
    native_layer_norm layer_norm rms_norm _fused_rms_norm convolution avg_pool1d avg_pool2d
    _adaptive_avg_pool2d adaptive_avg_pool2d upsample_bilinear2d upsample_bilinear2d.vec
    upsample_bicubic2d upsample_bicubic2d.vec _native_batch_norm_legit_no_training
    native_batch_norm _native_batch_norm_legit native_group_norm""")
#: Proved by numbers only: DTensor has no rule, or no argument is a tensor, or it looks for a rule
#: among the op's decompositions for minutes.
NO_RULE = named("""
    copy lift_fresh_copy _reshape_copy
    zeros ones full empty.memory_format arange arange.start arange.start_step
    scaled_dot_product_attention _scaled_dot_product_attention_math
    _scaled_dot_product_flash_attention_for_cpu scatter_reduce.two""")
#: Where DTensor does less than we: it gathers rows, fails, or answers with another placement. The
#: numbers prove each of them.
DIFFERENT = {
    "gathers": {
        "it regroups no strided shard": "view _unsafe_view reshape view_copy",
        "it cuts no sharded dimension, even where whole blocks of rows are asked for": """
            split.Tensor unsafe_split.Tensor split_with_sizes unsafe_split_with_sizes chunk
            unsafe_chunk""",
        "it writes no slice along a sharded dimension, even one that is all of it": "slice_scatter",
        "it knows no batch of matrices here": "tril triu",
        "it takes statistics to be the batch's even where they are given": """
            _native_batch_norm_legit_no_training native_batch_norm _native_batch_norm_legit""",
        "it does not know that row numbers pick their own rows, or that a mask does": """
            index.Tensor index_put""",
    },
    "fails": {
        "it asks for the sizes of the whole from a part": "view _unsafe_view reshape view_copy",
        "it takes a list of one result for a tensor": """
            unsafe_split.Tensor unsafe_split_with_sizes""",
        "it cuts the rows but not the mask": "index_put",
    },
    "answers": {
        "it makes the same tensor on every rank": "new_zeros new_ones new_full new_empty",
        "it forgets keepdim": "logsumexp",
    },
}


def calls(target: str) -> Iterator[Call]:
    """The target's samples with each of their letters as the batch, where that works."""
    for sample in SAMPLES[target]:
        for letter in SIZES:
            call = Call(target, sample, letter)
            leaves = pytree.tree_leaves(call.all_arguments())
            sized = any(isinstance(x, Size) and letter in x.text.split("*") for x in leaves)
            if (sized or any(map(call.layout, leaves))) and call.shapes is not None:
                yield call


def test_every_target_has_samples_and_every_sample_a_target():
    assert set(SAMPLES) == set(TARGETS)
    assert "aten.mm.default" in SAMPLES and COLLECTIVES


def joined(call: Call, index: int, where: Layout, parts: list[list[torch.Tensor]]) -> torch.Tensor:
    """A result put together; a part's row numbers become those of the whole."""
    if not call.sample.counts:
        return where.join([part[index] for part in parts])
    first = parts[0][index].shape[where.dim]
    return where.join([parts[0][index], parts[1][index] + first])


def check_numbers(call: Call, cut: tuple[int, int]) -> None:
    """Both parts together are the whole."""
    arguments = call.arguments(call.whole)
    whole = call.run(arguments)
    parts = [call.run(call.part(arguments, 0, cut[0])), call.run(call.part(arguments, *cut))]
    for index, where in enumerate(call.verdict.results):
        if where is None:
            continue
        result, expected = joined(call, index, where, parts), whole[index]
        assert result.shape == expected.shape and result.dtype == expected.dtype, str(call)
        if call.target not in UNDEFINED:
            exact = {} if call.target in ROUNDED else dict(rtol=0, atol=0)
            torch.testing.assert_close(
                result, expected, equal_nan=True, msg=lambda m: f"{call}: {m}", **exact
            )


@pytest.mark.parametrize("target", [t for t in TARGETS if t not in CUDA_ONLY])
def test_parts_give_the_rows_of_the_whole(target):
    split = [call for call in calls(target) if call.verdict.split]
    assert bool(split) != (target in NEVER), "no sample is ever split"
    for call in split:
        for first in (2, call.whole - 1):
            check_numbers(call, (first, call.whole - first))


def test_most_calls_that_are_refused_would_give_other_rows_in_parts():
    """The control of the test above: with rows in its results' shapes, but no rule to keep them."""
    outcomes = {"same": 0, "other": 0}
    for target in sorted(set(TARGETS) - CUDA_ONLY - UNDEFINED):
        for call in calls(target):
            if call.verdict.split or not any(results := call.rows_by_shape()):
                continue
            call.verdict = Verdict(True, "", results)
            try:
                check_numbers(call, (2, call.whole - 2))
                check_numbers(call, (call.whole - 1, 1))
                outcomes["same"] += 1
            except (AssertionError, RuntimeError, IndexError):
                outcomes["other"] += 1
    assert outcomes["other"] > 5 * outcomes["same"] > 0, outcomes


@pytest.fixture(scope="module")
def mesh():
    """Two ranks, of which one is here, and nothing is sent."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield DeviceMesh("cpu", torch.arange(2))
    dist.destroy_process_group()


def placement(where: Layout | None) -> Placement:
    if where is None:
        return Replicate()
    if where.outer == 1:
        return Shard(where.dim)
    return _StridedShard(where.dim, split_factor=where.outer)


def spread(call: Call, mesh: DeviceMesh) -> list[Any]:
    """The call's arguments with half of the rows on each rank."""

    def place(leaf: Any, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        where = call.layout(leaf)
        local = where.cut(value, 0, call.whole // 2) if where else value
        sizes = dict(shape=value.shape, stride=value.stride())
        return DTensor.from_local(local, mesh, [placement(where)], run_check=False, **sizes)

    return pytree.tree_map(place, call.all_arguments(), call.arguments(call.whole))


def outcome(call: Call, mesh: DeviceMesh) -> str:
    """What DTensor makes of a call that we split: "agrees", or a key of DIFFERENT."""
    try:
        with CommDebugMode() as communication:
            results = call.run(spread(call, mesh))
    except (RuntimeError, IndexError):
        return "fails"
    if communication.get_total_counts():
        return "gathers"
    for where, result in zip(call.verdict.results, results):
        # What nobody may read, such as a random state, may be a plain tensor.
        if where is not None and result.placements != (placement(where),):
            return "answers"
    return "agrees"


@pytest.mark.parametrize("target", [t for t in TARGETS if t not in NO_RULE | NEVER])
def test_results_lie_where_dtensor_places_them(target, mesh):
    expected = {
        kind
        for kind, reasons in DIFFERENT.items()
        for names in reasons.values()
        if target in named(names)
    }
    found: dict[str, list[str]] = {}
    for call in calls(target):
        held = any(map(call.layout, pytree.tree_leaves(call.all_arguments())))
        if held and call.verdict.split:
            found.setdefault(outcome(call, mesh), []).append(str(call))
    agreed = found.pop("agrees", [])
    assert set(found) == expected, found
    assert agreed or expected, "nothing was compared"
