"""With DynaFlow, vLLM gives the tokens that it gives without. `make test-vllm` installs it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from launch import SPLIT, run

from dynaflow.bench.workload import request_lengths

#: Steps of 256 tokens at most, so that longer prompts are prefilled in chunks.
ENGINE = {"max_model_len": 512, "max_num_batched_tokens": 256, "max_num_seqs": 16}


def prompts(lengths: list[int]) -> list[list[int]]:
    """Every third begins as others do, so that a cache of prefixes has something to find."""
    source = random.Random(0)
    common = [source.randrange(2048) for _ in range(150)]
    made = []
    for number, length in enumerate(lengths):
        own = [source.randrange(2048) for _ in range(length)]
        made.append(common + own if number % 3 == 0 else own)
    return made


FEW = prompts([random.Random(number).randint(3, 150) for number in range(16)])


def generate(folder, model, options=None, engine=None, **how):
    """FEW's tokens and reports."""
    return run(
        folder, {"model": model, **ENGINE, **(engine or {})}, FEW, 16, options=options, **how
    )


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_two_ranks_split_their_steps_and_give_stocks_tokens(tmp_path, model, prefix_caching):
    caching = {"enable_prefix_caching": prefix_caching}
    stock = generate(tmp_path, model, engine=caching)
    split = generate(tmp_path, model, SPLIT, caching)
    assert split[0]["tokens"] == stock[0]["tokens"] == split[1]["tokens"]
    assert stock[0]["reports"] == []
    ((report,), (graph,)) = split[0]["reports"], split[0]["reports"][0]["graphs"]
    assert report["fallbacks"] == []
    plan = max(graph["plans"], key=lambda plan: plan["parts"])
    assert plan["parts"] == 2 and plan["counters"]["steps"] > 5
    assert plan["segments"]["merged"] == 0 and plan["counters"]["copied_bytes"] == 0
    assert sum(item["overlapped"] for item in plan["collectives"]) >= len(plan["collectives"]) - 1


def test_the_state_of_another_part_gives_wrong_tokens(tmp_path, model):
    """The control: what the tests above compare does depend on each part's own state."""
    right = generate(tmp_path, model, SPLIT)
    wrong = generate(tmp_path, model, SPLIT, wrong=True)
    assert right[0]["tokens"] != wrong[0]["tokens"]


@pytest.mark.parametrize(("world", "shared_memory"), [(1, True), (2, True)])
def test_without_a_link_steps_run_as_a_whole(tmp_path, model, world, shared_memory):
    how = dict(world=world, shared_memory=shared_memory)
    stock = generate(tmp_path, model, **how)
    whole = generate(tmp_path, model, SPLIT, **how)
    assert whole[0]["tokens"] == stock[0]["tokens"]
    (report,) = whole[0]["reports"]
    assert {plan["parts"] for graph in report["graphs"] for plan in graph["plans"]} == {1}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("world", [1, 2])
def test_two_hundred_requests_of_a_trace(tmp_path, model, world, prefix_caching):
    engine = {
        "model": model,
        "max_model_len": 1024,
        "max_num_batched_tokens": 512,
        "enable_prefix_caching": prefix_caching,
    }
    asked = prompts([min(length, 800) for length, _ in request_lengths("lmsys")])
    how = dict(world=world, shared_memory=world == 1, timeout_s=900)
    assert len(asked) == 200
    stock = run(tmp_path, engine, asked, 32, **how)
    ours = run(tmp_path, engine, asked, 32, options=SPLIT, **how)
    assert ours[0]["tokens"] == stock[0]["tokens"]
    assert {len(tokens) for tokens in ours[0]["tokens"]} == {32}
    (report,) = ours[0]["reports"]
    assert report["fallbacks"] == []
    steps = {
        plan["parts"]: plan["counters"]["steps"]
        for graph in report["graphs"]
        for plan in graph["plans"]
    }
    assert max(steps) == world, "with a link every step of 16 tokens or more is split"
    assert steps[world] > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bfloat16_is_as_exact_as_stocks(tmp_path, model):
    """Errors of the first tokens' log-probabilities against float32's, root of the mean square."""

    def first(dtype, options):
        engine = {"dtype": dtype}
        return np.array(generate(tmp_path, model, options, engine, logits=True)[0]["logits"])

    exact = first("float32", None)
    stock, ours = (first("bfloat16", options) - exact for options in (None, SPLIT))
    errors = [float(np.sqrt(np.mean(error**2))) for error in (stock, ours)]
    print("relative to float32: stock {:.3e}, DynaFlow {:.3e}".format(*errors))
    assert 0 < errors[1] <= 2 * errors[0]
