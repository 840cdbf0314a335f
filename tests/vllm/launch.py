"""Starts vLLM in processes of its own, as the tests need it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dynaflow.bench.net import free_port

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "python"
NO_SHM = PACKAGE / "dynaflow" / "bench" / "vllm" / "no_shm"
BACKEND = {"mode": 2, "backend": "dynaflow.integrations.vllm.backend"}
#: Variables that would put DynaFlow where a run has none, or take it away.
OURS = ("DYNAFLOW_STRATEGY", "DYNAFLOW_DISABLE", "DYNAFLOW_LOG")
#: Every step of 16 tokens or more is split, whether it pays or not.
SPLIT = {"never_slower": False, "min_tokens": 16}


def environment(world: int, shared_memory: bool) -> dict[str, str]:
    """What every process of a run finds; one core for each rank."""
    paths = [str(PACKAGE)] + [str(NO_SHM)] * (not shared_memory)
    inherited = {name: text for name, text in os.environ.items() if name not in OURS}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(world))),
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_USE_LAYERNAME": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }


def with_dynaflow(options: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments of an engine that has DynaFlow with these options; stock vLLM's for None."""
    if options is None:
        return {}
    return {"compilation_config": BACKEND, "additional_config": {"dynaflow": options}}


def first_failure(ranks: list[subprocess.Popen], deadline: float) -> int | None:
    """The rank that failed first, or did not end in time; None once all have succeeded."""
    while True:
        codes = [rank.poll() for rank in ranks]
        bad = [index for index, code in enumerate(codes) if code not in (None, 0)]
        late = [index for index, code in enumerate(codes) if code is None]
        if bad or not late:
            return bad[0] if bad else None
        if time.monotonic() > deadline:
            return late[0]
        time.sleep(0.1)


def run(
    folder: Path,
    engine: dict[str, Any],
    prompts: list[list[int]],
    tokens: int,
    *,
    world: int = 2,
    shared_memory: bool = False,
    options: dict[str, Any] | None = None,
    wrong: bool = False,
    logits: bool = False,
    timeout_s: float = 250,
) -> list[dict[str, Any]]:
    """The results of a job's ranks, which rank.py describes. `options`: see `with_dynaflow`."""
    engine = {"dtype": "float32", "tensor_parallel_size": world, **engine, **with_dynaflow(options)}
    job = dict(engine=engine, prompts=prompts, tokens=tokens, wrong=wrong, logits=logits)
    (folder / "job.json").write_text(json.dumps(job))
    shared = {
        **environment(world, shared_memory),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    ranks = []
    for rank in range(world):
        out = folder / f"{rank}.json"
        out.unlink(missing_ok=True)
        with (folder / f"{rank}.log").open("w") as log:
            ranks.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "rank.py"), str(folder / "job.json"), str(out)],
                    env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        failed = first_failure(ranks, time.monotonic() + timeout_s)
    finally:
        for rank in ranks:
            rank.kill()
    if failed is not None:
        pytest.fail(f"rank {failed}: " + (folder / f"{failed}.log").read_text()[-4000:])
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
