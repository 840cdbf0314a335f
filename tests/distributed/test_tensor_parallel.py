import warnings

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from small_models import llama, prompt
from transformers import LlamaForCausalLM

import dynaflow as df
from dynaflow import debug

SIZES = ((4, 8), (6, 8), (33, 5), (2, 7), (3, 12))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    llama().save_pretrained(folder)
    return str(folder)


def load(checkpoint):
    warnings.simplefilter("ignore", FutureWarning)
    return LlamaForCausalLM.from_pretrained(checkpoint, tp_plan="auto").eval()


def call(model, size):
    return model(**prompt(*size), use_cache=False, logits_to_keep=1).logits


def llama_body(rank, checkpoint, parts):
    model = load(checkpoint)
    compiled = df.compile(
        model, strategy=df.NanoFlow(parts=parts, min_tokens=0), dynamic_dims=(0, 1)
    )
    errors, serial = [], []
    with torch.no_grad():
        for size in SIZES:
            expected, result = call(model, size), call(compiled, size)
            errors.append((result - expected).abs().max().item())
            with debug.run_mode(compiled, serial=True, poison=True):
                serial.append(call(compiled, size).equal(result))
            with debug.run_mode(
                compiled,
                poison=True,
                delays_us=lambda n: [(rank * 7 + i * 13) % 5 * 100 for i in range(n)],
            ):
                serial.append(call(compiled, size).equal(result))
    return errors, serial, df.report(compiled).to_json()


@pytest.mark.parametrize("parts", [2, 3])
def test_llama_splits_overlaps_and_equals_eager(tmp_path, checkpoint, parts):
    for errors, same_bits, report in run_ranks(llama_body, tmp_path, checkpoint, parts):
        assert max(errors) < 1e-5
        assert all(same_bits), "overlapped and serial runs give the same bits"
        assert report["fallbacks"] == [] and len(report["graphs"]) == 1
        plan = report["graphs"][0]["plans"][0]
        assert plan["parts"] == (parts if parts == 2 else 2), (
            "the first call has 4 rows, 2 at least for a part"
        )
        hidden = [item for item in plan["collectives"] if item["overlapped"]]
        assert len(hidden) >= 8, "each layer's all-reduces run under the other part's compute"
        assert all(item["bytes"] > 0 for item in plan["collectives"])
        assert all(item["reason"] for item in plan["collectives"] if not item["overlapped"])


def trace_body(rank, checkpoint):
    """NanoFlow as a variant of the sequential plans: one capture serves both."""
    compiled = df.compile(load(checkpoint), dynamic_dims=(0, 1))
    with torch.no_grad():
        expected = call(compiled, (4, 8))
        nanoflow = debug.variant(compiled, df.NanoFlow(parts=2, min_tokens=0))
        same = [(call(nanoflow, (4, 8)) - expected).abs().max().item() < 1e-5]
        with df.trace(nanoflow) as trace:
            call(nanoflow, (4, 8))
        same.append(call(compiled, (4, 8)).equal(expected))
    return same, trace.events, df.report(nanoflow).to_json(), df.report(compiled).to_json()


def test_a_trace_says_what_was_hidden_and_a_variant_shares_the_capture(tmp_path, checkpoint):
    for same, events, report, base in run_ranks(trace_body, tmp_path, checkpoint):
        assert all(same)
        collectives = report["graphs"][0]["plans"][0]["collectives"]
        ran = {event["run"]: event for event in events}
        for item in collectives:
            event = ran[item["run"]]
            assert item["hidden_us"] == event["hidden_us"] >= 0
            assert item["hidden_us"] + item["exposed_us"] <= event["end_us"] - event["start_us"] + 1
        assert report["strategy"] == "nanoflow" and base["strategy"] == "sequential"
        assert [len(found["graphs"][0]["plans"]) for found in (report, base)] == [1, 1]
        assert all(
            item["hidden_us"] is None for item in base["graphs"][0]["plans"][0]["collectives"]
        )


def skip_body(rank, checkpoint):
    model = load(checkpoint)
    compiled = df.compile(model, options={"skip_collectives": True}, dynamic_dims=(0, 1))
    with torch.no_grad():
        shapes = [call(compiled, size).shape == call(model, size).shape for size in SIZES]
    return shapes, df.report(compiled).to_json()


def test_collectives_can_be_left_out_for_measuring(tmp_path, checkpoint):
    for shapes, report in run_ranks(skip_body, tmp_path, checkpoint):
        assert all(shapes)
        assert report["graphs"][0]["plans"][0]["collectives"] == []
        assert report["graphs"][0]["groups"] == []


def reduced(x):
    return torch.distributed._functional_collectives.all_reduce(x * 2, "sum", dist.group.WORLD) + 1


def differing_body(rank):
    def model(x):
        return reduced(x) if rank == 0 else reduced(x.exp())

    compiled = df.compile(model, options={"agree_timeout_s": 20})
    with torch.no_grad(), pytest.raises(df.AgreementError) as caught:
        compiled(torch.ones(4, 2))
    return str(caught.value)


def test_ranks_with_different_graphs_get_an_error_not_a_hang(tmp_path):
    for message in run_ranks(differing_body, tmp_path):
        assert "First difference" in message and "aten.exp.default" in message


def late_body(rank):
    compiled = df.compile(reduced, options={"agree_timeout_s": 60 if rank else 2})
    store = dist.distributed_c10d._get_default_store()
    if rank == 1:
        store.wait(["gave up"])
    with torch.no_grad():
        with pytest.raises(df.AgreementError) as caught:
            compiled(torch.ones(4, 2))
        store.set("gave up", "")
        dist.barrier()
        return str(caught.value), compiled(torch.ones(4, 2)).sum().item()


def test_ranks_that_missed_each_other_once_agree_in_the_next_call(tmp_path):
    (alone, first), (late, second) = run_ranks(late_body, tmp_path)
    assert "rank 1 of group" in alone and "made no plan number 1 within 2 s" in alone
    assert "rank 0 of group" in late and "gave up waiting for rank 1's plan number 1" in late
    assert first == second == 40.0


def two_models_body(rank):
    first, second = df.compile(reduced), df.compile(lambda x: reduced(x) * 3)
    x = torch.ones(4, 2)
    with torch.no_grad():
        return [(first(x).sum().item(), second(x).sum().item()) for _ in range(3)]


def test_two_compiled_models_share_a_group(tmp_path):
    for results in run_ranks(two_models_body, tmp_path):
        assert results == [(5 * 8, 15 * 8)] * 3
