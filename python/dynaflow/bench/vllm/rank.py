"""One rank of a server: an engine of vLLM's in this process, and what it measures on command."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dynaflow.bench.bounds import Communication, communicate
from dynaflow.bench.jobs import serve
from dynaflow.bench.rank import RankContext
from dynaflow.bench.sync import Meeting
from dynaflow.bench.vllm.loads import Load, step_collectives
from dynaflow.bench.workload import LlamaShape

#: A platform that is vLLM's own but for ranks that do not share memory: one machine has a link.
NO_SHM = Path(__file__).parent / "no_shm"
_BACKEND = "dynaflow.integrations.vllm.backend"


@dataclass(frozen=True)
class Served:
    """What one rank saw of a load; times in seconds, from when all requests had been given.

    `steps`: tokens and time of each step, in order. `first`: when each request had its first token.
    `between`: the times between a request's tokens, over all requests. `tokens`: each request's.
    """

    seconds: float
    steps: tuple[tuple[int, float], ...]
    first: tuple[float, ...]
    between: tuple[float, ...]
    tokens: tuple[tuple[int, ...], ...]


def main(
    context: RankContext,
    folder: str,
    shape: LlamaShape,
    engine: dict[str, Any],
    options: dict[str, Any] | None,
) -> None:
    """Serves the model in `folder`: stock vLLM, or with DynaFlow and these options of it."""
    _prepare_environment(context)
    server = _Server(_make_engine(folder, context.world, engine, options), context.meeting)

    def talk(tokens: int) -> Communication:
        return communicate(step_collectives(shape, tokens), context)

    handlers = {"load": server.load, "communicate": talk, "report": _report, "forget": _forget}
    serve(context, handlers)


def _prepare_environment(context: RankContext) -> None:
    """Before vLLM is imported, which reads it."""
    cores = "|".join(map(str, context.meeting.gather(context.core)))
    os.environ |= {
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_USE_LAYERNAME": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    if context.rank == 0:
        os.environ["VLLM_HOST_IP"] = os.environ["MASTER_ADDR"]
    os.environ.pop("DYNAFLOW_STRATEGY", None)  # the arm says it
    sys.path.append(str(NO_SHM))


def _make_engine(
    folder: str, world: int, engine: dict[str, Any], options: dict[str, Any] | None
) -> Any:
    from vllm import LLM

    ours: dict[str, Any] = {}
    if options is not None:
        ours["compilation_config"] = {"mode": 2, "backend": _BACKEND}
        ours["additional_config"] = {"dynaflow": options}
    return LLM(
        model=folder,
        dtype="float32",
        seed=0,
        skip_tokenizer_init=True,
        tensor_parallel_size=world,
        distributed_executor_backend="external_launcher",
        **engine,
        **ours,
    ).llm_engine


def _report() -> list[dict[str, Any]]:
    import dynaflow as df

    return [report.to_json() for report in df.reports()]


def _forget() -> None:
    from dynaflow import debug

    debug.forget_plans()


class _Server:
    """Steps an engine, noting how many tokens each step takes."""

    def __init__(self, engine: Any, meeting: Meeting) -> None:
        self._engine = engine
        self._meeting = meeting
        self._scheduled: list[tuple[float, int]] = []
        scheduler = engine.engine_core.engine_core.scheduler
        schedule = scheduler.schedule

        def noting(*args: Any) -> Any:
            start = time.perf_counter()
            output = schedule(*args)
            if output.total_num_scheduled_tokens:
                self._scheduled.append((start, output.total_num_scheduled_tokens))
            return output

        scheduler.schedule = noting

    def load(self, load: Load, vocabulary: int, seed: int) -> Served:
        """Serves the load's requests, all given at once."""
        from vllm import SamplingParams

        engine, prompts = self._engine, load.prompt_ids(vocabulary, seed)
        for number, (ids, tokens) in enumerate(zip(prompts, load.outputs, strict=True)):
            asked = SamplingParams(
                temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False
            )
            engine.add_request(str(number), {"prompt_token_ids": ids}, asked)
        self._scheduled.clear()
        seen: dict[int, list[float]] = {number: [] for number in range(len(prompts))}
        made: dict[int, tuple[int, ...]] = {}
        self._meeting.barrier()
        begin = time.perf_counter()
        while engine.has_unfinished_requests():
            outputs = engine.step()
            now = time.perf_counter() - begin
            for output in outputs:
                number = int(output.request_id)
                made[number] = tuple(output.outputs[0].token_ids)
                seen[number] += [now] * (len(made[number]) - len(seen[number]))
        seconds = time.perf_counter() - begin
        ends = [start for start, _ in self._scheduled[1:]] + [begin + seconds]
        return Served(
            seconds=seconds,
            steps=tuple(
                (tokens, end - start)
                for (start, tokens), end in zip(self._scheduled, ends, strict=True)
            ),
            first=tuple(times[0] for times in seen.values()),
            between=tuple(b - a for times in seen.values() for a, b in pairwise(times)),
            tokens=tuple(made[number] for number in seen),
        )
