"""What steps cost: nothing is allocated or copied that no kernel asks for."""

from __future__ import annotations

import pytest
import torch
from small_models import llama as small_llama
from torch import nn

import dynaflow as df
from dynaflow import debug
from dynaflow.capture_schema import BETTER_OUT_FORMS, facts
from dynaflow.counting import allocations, log_memory, peak_bytes

SDPA = "aten._scaled_dot_product_flash_attention_for_cpu.default"


def counted(compiled, *args, **kwargs):
    """The counts of one step, of sizes that ran before."""
    with torch.no_grad():
        compiled(*args, **kwargs)
        with df.count(compiled) as counts:
            compiled(*args, **kwargs)
    return counts


@pytest.fixture(scope="module")
def llama():
    return small_llama()


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_a_step_allocates_its_outputs_and_what_attention_returns(llama, parts):
    compiled = df.compile(llama, df.NanoFlow(parts=parts, min_tokens=0))
    ids = torch.randint(0, llama.config.vocab_size, (8, 16))
    kept = []
    with torch.no_grad():
        compiled(ids, use_cache=False)
        with df.count(compiled) as counts:
            kept.append(compiled(ids, use_cache=False))
    assert counts.steps == 1 and counts.copied_bytes == 0
    assert {a.op for a in counts.allocations} <= {"output", SDPA}, counts.allocations
    layers = {a.module for a in counts.allocations if a.op == SDPA}
    assert layers == {f"model.layers.{i}.self_attn" for i in range(len(llama.model.layers))}
    (output,) = (a for a in counts.allocations if a.op == "output")
    assert (output.count, output.bytes) == (1, kept[0].logits.nbytes)
    assert counts.fresh_results == parts * len(layers)
    assert counts.arena_bytes > 0 and counts.peak_bytes > counts.arena_bytes


class SplitAttention(df.Strategy):
    """Attention in two parts, everything else on the whole batch."""

    def partition(self):
        return [df.SplitFunc("_scaled_dot_product_flash_attention_for_cpu", tag="attention")]

    def schedule(self, s, batch):
        s.split(2)
        while ops := s.get_ready_ops():
            whole: dict[int, list[df.Op]] = {}
            for op in ops:
                if op.has_tag("attention"):
                    s.execute(op)
                else:
                    whole.setdefault(op.segment, []).append(op)
            for launch in whole.values():
                s.execute(launch)


def test_the_copy_that_merged_attention_needs_is_counted_and_named(llama):
    compiled = df.compile(llama, SplitAttention())
    counts = counted(compiled, torch.randint(0, 256, (8, 16)), use_cache=False)
    width = 8 * 16 * llama.config.hidden_size * 4  # attention's results have no out= form
    assert [(copy.op, copy.module, copy.count, copy.bytes) for copy in counts.copies] == [
        (SDPA, f"model.layers.{layer}.self_attn", 2, width) for layer in range(2)
    ]
    assert counts.copied_bytes == 2 * width


def test_time_on_the_host_is_told_from_time_in_kernels():
    compiled = df.compile(nn.Sequential(*(nn.Linear(256, 256) for _ in range(4))).eval())
    x = torch.randn(512, 256)
    counts = counted(compiled, x)
    assert counts.host_us > 0 and counts.kernel_us > 0
    ((_, plan),) = debug.plans(compiled)
    before = plan.engine.counters()
    with torch.no_grad():
        compiled(x)
    after = plan.engine.counters()
    assert after["steps"] == before["steps"] + 1
    assert all(after[name] == before[name] for name in ("host_ns", "kernel_ns", "clock_ns"))


def test_events_and_handoffs_are_those_of_the_plan():
    class Side(df.Strategy):
        def partition(self):
            return [df.SplitFunc("addmm|relu")]

        def schedule(self, s, batch):
            for turn in range(2):
                for op in s.get_ready_ops():
                    s.execute(op, stream=("compute", "side")[turn])

    compiled = df.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), Side())
    counts = counted(compiled, torch.randn(4, 8))
    assert (counts.steps, counts.launches) == (1, 2)
    assert counts.events == counts.handoffs == 1


def test_the_peak_is_of_what_a_step_gives_back():
    with log_memory() as entries:
        kept = torch.empty(1000, dtype=torch.uint8)
        first = torch.empty(300, dtype=torch.uint8)
        del first
        second = torch.empty(200, dtype=torch.uint8)
        third = torch.empty(150, dtype=torch.uint8)
        del second, third
    del kept
    assert peak_bytes(entries) == 350
    (all_of_it,) = allocations(entries)
    assert (all_of_it.op, all_of_it.count, all_of_it.bytes) == ("", 4, 1650)


def test_memory_is_logged_once_at_a_time():
    with log_memory(), pytest.raises(RuntimeError, match="already"), log_memory():
        pass
    with log_memory():
        pass


X = torch.arange(12.0).reshape(3, 4)
INDICES = torch.tensor([[2, 0], [1, 1]])
OWN = {
    "clone.default": ((X.t(),), {"memory_format": torch.contiguous_format}),
    "lift_fresh_copy.default": ((X,), {}),
    "_to_copy.default": ((X,), {"dtype": torch.bfloat16}),
    "embedding.default": ((X, INDICES), {}),
    "new_ones.default": ((X, [2, 5]), {"dtype": torch.int64}),
    "new_zeros.default": ((X, [2, 5]), {}),
    "new_full.default": ((X, [2, 5], 1.5), {}),
    "ones_like.default": ((X,), {"dtype": torch.bool}),
    "zeros_like.default": ((X,), {}),
    "full_like.default": ((X, -2.0), {}),
    "scalar_tensor.default": ((3.5,), {}),
    "mean.dim": ((X.sin(), [-1], True), {}),
    "cumsum.default": ((X > 3, 0), {}),
}


def test_every_own_out_form_is_tried():
    own = {op.removeprefix("aten.") for op, out in BETTER_OUT_FORMS.items() if out[:4] != "aten"}
    assert own == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_own_out_forms_write_what_the_op_returns(name):
    args, kwargs = OWN[name]
    packet, overload = name.split(".")
    op = getattr(getattr(torch.ops.aten, packet), overload)
    assert facts(op).out_target == f"dynaflow.{packet}.out"
    expected = op(*args, **kwargs)
    own = getattr(torch.ops.dynaflow, packet).out
    known = {argument.name for argument in own._schema.arguments}
    more = {key: value for key, value in kwargs.items() if key in known}
    out = torch.full_like(expected, 7)
    with log_memory() as entries:
        own(*args, **more, out=out)
    assert torch.equal(out, expected) and not entries


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16])
@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_a_tensor_is_compared_with_a_number_as_eager_does(name, dtype):
    compare = getattr(torch, name)
    compiled = df.compile(lambda x: compare(x, 0.1))
    x = torch.tensor([[0.1, -0.1, 0.0, 3.0], [0.1, 0.2, 1.0, 0.1]]).to(dtype)
    with torch.no_grad():
        assert torch.equal(compiled(x), compare(x, 0.1))
        if dtype is torch.float32:
            assert [a.op for a in counted(compiled, x).allocations] == ["output"]


def test_an_index_that_the_table_lacks_is_an_error(llama):
    compiled = df.compile(nn.Embedding(4, 8))
    with torch.no_grad():
        compiled(torch.tensor([[0, 1], [2, 3]]))
        with pytest.raises(df.ExecutionError, match=r"out of range|out of DATA bounds"):
            compiled(torch.tensor([[0, 1], [2, 4]]))


def test_a_log_of_memory_is_not_taken_for_a_profiler():
    with log_memory() as entries:
        assert not torch.autograd._profiler_enabled()
        kept = torch.empty(100)
    assert kept.numel() * 4 in [size for _, size, _ in entries]
