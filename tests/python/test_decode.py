"""Generation over a static cache: prefill and decode steps, split, against eager tokens."""

from __future__ import annotations

import pytest
import torch
from small_models import llama, prompt
from transformers import CompileConfig, LogitsProcessor, LogitsProcessorList

import dynaflow as df
from dynaflow.api import session_of

STEPS = 200
BATCHES = (1, 2, 3, 4, 7, 12, 16)
#: Tokens may differ only where eager's two best logits are closer than this.
TIE = 1e-4


pytestmark = pytest.mark.usefixtures("inference", "one_thread")


@pytest.fixture(scope="module")
def model():
    torch.compiler.reset()
    model = llama()
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    return model


class Observe(LogitsProcessor):
    """Keeps in how many parts each step ran."""

    def __init__(self, compiled) -> None:
        self.graphs = session_of(compiled).graphs
        self.seen = {id(graph): graph.last for graph in self.graphs}
        self.parts: list[int] = []

    def __call__(self, input_ids, scores):
        ran = [graph for graph in self.graphs if graph.last is not self.seen.get(id(graph))]
        self.seen |= {id(graph): graph.last for graph in ran}
        self.parts += [len(plan.engine.parts(sizes)) for plan, sizes in (g.last for g in ran)]
        return scores


def generate(model, rows, steps, **more):
    return model.generate(
        **prompt(rows, 8),
        max_new_tokens=steps,
        do_sample=False,
        cache_implementation="static",
        output_logits=True,
        return_dict_in_generate=True,
        **{"disable_compile": True, **more},
    )


def check_tokens(ours, eager):
    """The same tokens until a row meets a tie; from there on it may go its own way."""
    length = ours.sequences.shape[1] - len(eager.logits)
    for row in range(len(eager.sequences)):
        for step, logits in enumerate(eager.logits):
            if ours.sequences[row, length + step] != eager.sequences[row, length + step]:
                best, second = logits[row].topk(2).values
                assert best - second < TIE, (row, step)
                break


@pytest.mark.parametrize(
    "strategy", ["sequential", df.NanoFlow(min_tokens=0)], ids=["sequential", "nanoflow"]
)
def test_generated_tokens_are_those_of_eager(model, strategy):
    compiled = df.compile(model, strategy, dynamic_dims=(0, 1))
    for rows in BATCHES:
        observe = Observe(compiled)
        ours = generate(compiled, rows, STEPS, logits_processor=LogitsProcessorList([observe]))
        check_tokens(ours, generate(model, rows, STEPS))
        if strategy != "sequential" and rows >= 4:
            assert len(observe.parts) == STEPS and min(observe.parts) >= 2, (rows, observe.parts)
    report = df.report(compiled)
    # Prefill and decode; with a batch of any size, and of 1.
    assert [bool(g["batch_symbol"]) for g in report.graphs].count(True) == 2
    assert report.fallbacks == [] and not any(g["original_runs"] for g in report.graphs)
    if strategy != "sequential":
        check_caches_are_cut(compiled)


def check_caches_are_cut(compiled):
    """Each part writes its own rows of keys and values, where the cache lies."""
    for graph in session_of(compiled).graphs:
        writers = {
            op["name"]: op["target"] for op in graph.graph.ops if "index_copy" in op["target"]
        }
        assert set(writers.values()) == {"aten.index_copy_.default"}
        for plan in graph.plans:
            runs = [run for run in plan.plan.runs if writers.keys() & set(run["ops"])]
            parts = {(run["first_part"], run["last_part"]) for run in runs}
            assert parts == {(part, part + 1) for part in range(plan.plan.cut["parts"])}


def test_decode_steps_compiled_by_transformers_itself(model):
    """Here the factors and the epsilon of norms are dynamic floats, which a pass makes tensors."""
    config = CompileConfig(backend="dynaflow", fullgraph=False, dynamic=True, mode=None)
    config.options = {"strategy": "nanoflow", "min_tokens": 0, "check_effects": True}
    config._compile_all_devices = True
    eager = generate(model, 4, 12)
    ours = generate(model, 4, 12, disable_compile=False, compile_config=config)
    check_tokens(ours, eager)
    for a, b in zip(ours.logits, eager.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
