"""With DynaFlow, vLLM gives the tokens that it gives without. `make test-vllm` installs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "python"
BACKEND = {"mode": 2, "backend": "dynaflow.integrations.vllm.backend"}
#: Steps of 256 tokens at most, so that longer prompts are prefilled in chunks.
ENGINE = {"max_model_len": 512, "max_num_batched_tokens": 256, "max_num_seqs": 16}
SPLIT = {"never_slower": False, "min_tokens": 16}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A small Llama with random weights, as a folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=2048,
        max_position_embeddings=4096,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(rank: int, world: int, port: int, shared_memory: bool) -> dict[str, str]:
    paths = [str(PACKAGE)] + [str(HERE / "plugin")] * (not shared_memory)
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(world))),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_USE_LAYERNAME": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }


def run(folder, model, world=2, shared_memory=False, wrong=False, options=None, **engine):
    """The results of a job's ranks; `options` of DynaFlow, None: stock vLLM."""
    engine = {**ENGINE, "model": model, "tensor_parallel_size": world, **engine}
    if options is not None:
        engine |= {"compilation_config": BACKEND, "additional_config": {"dynaflow": options}}
    job = json.dumps(dict(engine=engine, count=16, longest=300, tokens=16, wrong=wrong))
    port, ranks = free_port(), []
    for rank in range(world):
        out = folder / f"{rank}.json"
        out.unlink(missing_ok=True)
        log = (folder / f"{rank}.log").open("w")
        ranks.append(
            subprocess.Popen(
                [sys.executable, str(HERE / "rank.py"), job, str(out)],
                env=environment(rank, world, port, shared_memory),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
    try:
        codes = [rank.wait(timeout=400) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    if any(codes):
        pytest.fail((folder / f"{codes.index(max(codes, key=abs))}.log").read_text()[-4000:])
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_two_ranks_split_their_steps_and_give_stocks_tokens(tmp_path, model, prefix_caching):
    caching = {"enable_prefix_caching": prefix_caching}
    stock = run(tmp_path, model, **caching)
    split = run(tmp_path, model, options=SPLIT, **caching)
    assert split[0]["tokens"] == stock[0]["tokens"] == split[1]["tokens"]
    (report,) = split[0]["reports"]
    assert report["fallbacks"] == []
    plan = max(report["plans"], key=lambda plan: plan["parts"])
    assert plan["parts"] == 2 and plan["counters"]["steps"] > 5
    assert plan["segments"]["merged"] == 0 and plan["counters"]["copied_bytes"] == 0
    assert sum(item["overlapped"] for item in plan["collectives"]) >= len(plan["collectives"]) - 1


def test_the_state_of_another_part_gives_wrong_tokens(tmp_path, model):
    """The control: what the tests above compare does depend on each part's own state."""
    right = run(tmp_path, model, options=SPLIT)
    wrong = run(tmp_path, model, options=SPLIT, wrong=True)
    assert right[0]["tokens"] != wrong[0]["tokens"]


@pytest.mark.parametrize(("world", "shared_memory"), [(1, True), (2, True)])
def test_without_a_link_steps_run_as_a_whole(tmp_path, model, world, shared_memory):
    stock = run(tmp_path, model, world, shared_memory)
    whole = run(tmp_path, model, world, shared_memory, options=SPLIT)
    assert whole[0]["tokens"] == stock[0]["tokens"]
    (report,) = whole[0]["reports"]
    assert {plan["parts"] for plan in report["plans"]} == {1}
