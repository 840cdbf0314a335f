import math
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dynaflow.bench import numerics, workload
from dynaflow.bench.bounds import (
    Bound,
    Collective,
    _kind,
    bytes_sent,
    communicate,
    hidden_share,
    link_rate,
    observe_collectives,
)
from dynaflow.bench.launch import run_ranks
from dynaflow.bench.workload import TINY, fixed_batch, trace_batch

HERE = Path(__file__).parent


def test_trace_batch_pads_on_the_left():
    batch = trace_batch("sharegpt", 3, 50, vocabulary=100)
    assert batch.lengths == (42, 19, 50)
    assert batch.shape == (3, 50)
    assert (batch.real_tokens, batch.padded_tokens) == (111, 150)
    inputs = batch.inputs()
    assert inputs["attention_mask"].sum(1).tolist() == [42, 19, 50]
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1, 1]
    assert int(inputs["input_ids"].max()) < 100
    assert not inputs["input_ids"][inputs["attention_mask"] == 0].any()


def test_inputs_differ_by_seed_only():
    batch = fixed_batch(2, 8)
    assert torch.equal(batch.inputs(1)["input_ids"], batch.inputs(1)["input_ids"])
    assert not torch.equal(batch.inputs(1)["input_ids"], batch.inputs(2)["input_ids"])


@pytest.mark.parametrize("size", [(1, 1), (2, 8), (8, 128)])
def test_fixed_batch_has_its_size(size):
    batch = fixed_batch(*size)
    assert batch.shape == size
    assert tuple(batch.inputs()["input_ids"].shape) == size
    assert batch.real_tokens < batch.padded_tokens or size == (1, 1)


def test_traces_are_named_and_bounded():
    assert all(len(workload.request_lengths(name)) == 200 for name in ("lmsys", "splitwise"))
    with pytest.raises(ValueError, match="no trace 'other'; there are: lmsys, sharegpt, splitwise"):
        workload.request_lengths("other")
    with pytest.raises(ValueError, match="fewer than 201"):
        trace_batch("lmsys", 1, 10, skip=200)


def test_reference_is_float64_throughout():
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            seen.update(t.dtype for t in tensors if t.is_floating_point())
            return result

    reference = numerics.float64_reference(TINY)
    with torch.no_grad(), Watch():
        reference(**fixed_batch(2, 8, TINY.vocabulary).inputs())
    assert seen == {torch.float64}


def test_error_is_that_of_float32():
    class Alone:
        rank, world = 0, 1

        class meeting:  # noqa: N801
            gather = staticmethod(lambda value: [value])

    model = workload.build_model(TINY)
    batch = fixed_batch(3, 16, TINY.vocabulary)
    arms = {
        "eager": lambda **inputs: model(**inputs).logits,
        "wrong": lambda **inputs: model(**inputs).logits * 1.01,
    }
    found = numerics.errors(arms, batch, TINY, Alone())
    assert 1e-8 < found["eager"] < 1e-5
    assert math.isclose(found["wrong"], 0.01, rel_tol=0.01)


def test_bound():
    bound = Bound(compute_s=1.0, network_s=0.6, host_s=0.1)
    assert bound.seconds == 1.1
    assert Bound(1.0, 2.0, 0.1).seconds == 2.0


def test_hidden_share():
    found = hidden_share([1.7] * 5, [1.25] * 5, [1.0] * 5, network_s=0.6, host_s=0.1)
    assert all(math.isclose(value, 0.75) for value in (found.low, found.median, found.high))
    nothing = hidden_share([1.0] * 5, [1.0] * 5, [1.0] * 5, network_s=0.6, host_s=0.1)
    assert math.isnan(nothing.median)


def test_bytes_and_rate():
    collectives = [Collective("all_reduce", 1000), Collective("all_gather", 1000)]
    assert bytes_sent(collectives, 2) == 1500
    assert bytes_sent(collectives, 4) == 1500 + 750
    assert math.isclose(link_rate(collectives, 2, compute_s=1.0), 8 * 1500 / 0.6)


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("c10d::allreduce_", "all_reduce"),
        ("_c10d_functional::all_reduce", "all_reduce"),
        ("_c10d_functional::all_reduce_", "all_reduce"),
        ("_c10d_functional::all_gather_into_tensor", "all_gather"),
        ("c10d::_allgather_base_", "all_gather"),
        ("_c10d_functional::reduce_scatter_tensor", "reduce_scatter"),
        ("_c10d_functional::wait_tensor", None),
        ("c10d::barrier", None),
        ("aten::all_reduce", None),
    ],
)
def test_kinds_of_collectives(operator, kind):
    assert _kind(operator) == kind


def shard(context):
    model = workload.build_model(TINY, context.world)
    inputs = fixed_batch(4, 8, TINY.vocabulary).inputs()
    with torch.no_grad():
        logits = model(**inputs).logits
        seen = observe_collectives(lambda: model(**inputs))
    return logits, seen, communicate(seen, context, repeats=1)


def test_shards_equal_the_whole_model_and_show_their_collectives(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    results = run_ranks(f"{__name__}:shard", timeout_s=120)
    inputs = fixed_batch(4, 8, TINY.vocabulary).inputs()
    with torch.no_grad():
        whole = workload.build_model(TINY)(**inputs).logits
    hidden, logits = 4 * 8 * TINY.hidden * 4, 4 * TINY.vocabulary * 4
    for found, seen, alone in results:
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
        # One for the embedding, two a layer, then the logits are gathered.
        assert [item.kind for item in seen] == ["all_reduce"] * 5 + ["all_gather"]
        assert [item.bytes for item in seen] == [hidden] * 5 + [logits]
        assert alone.wall_s > 0 and alone.host_s > 0
