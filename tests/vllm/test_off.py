"""Where DynaFlow could be wrong or no help, vLLM runs without it, and the log says why."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from launch import BACKEND, HERE, environment

OURS = BACKEND["backend"]
#: Arguments of an engine, and what the log must name.
OFF = {
    "speculative": (
        {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 2,
                "prompt_lookup_max": 2,
            }
        },
        "speculative decoding",
    ),
    "lora": ({"enable_lora": True}, "LoRA"),
    "data parallel": ({"data_parallel_size": 2}, "data parallelism"),
    "pipeline parallel": ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
    "eager": ({"enforce_eager": True}, "not compiled"),
    "another backend": ({"compilation_config": {"mode": 2, "backend": "eager"}}, "another backend"),
    "encoder and decoder": ({}, "encoder-decoder"),
}


def speech_model(folder):
    """An encoder-decoder, as far as a configuration goes."""
    from transformers import WhisperConfig

    WhisperConfig(architectures=["WhisperForConditionalGeneration"]).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def found(tmp_path_factory, model):
    """The compiler of each configuration, and what was said."""
    wanted = {"plain": {}} | {name: arguments for name, (arguments, _) in OFF.items()}
    folder = tmp_path_factory.mktemp("configs")
    wanted["encoder and decoder"] = {"model": speech_model(folder), "max_model_len": 448}
    common = {"model": model, "dtype": "float32", "max_model_len": 512, "skip_tokenizer_init": True}
    out = folder / "found.json"
    subprocess.run(
        [
            sys.executable,
            str(HERE / "configs.py"),
            json.dumps({name: common | arguments for name, arguments in wanted.items()}),
            str(out),
        ],
        env={
            **environment(1, shared_memory=True),
            "DYNAFLOW_STRATEGY": "nanoflow",
            "VLLM_LOGGING_LEVEL": "INFO",
        },
        check=True,
        timeout=250,
    )
    return json.loads(out.read_text())


def test_a_plain_model_is_compiled_by_dynaflow(found):
    backend, said = found["plain"]
    assert backend == OURS
    assert said == ["DynaFlow compiles this model"]


@pytest.mark.parametrize("name", OFF)
def test_is_off_by_itself(found, name):
    backend, said = found[name]
    assert backend != OURS
    (line,) = said
    assert line.startswith("DynaFlow is off: ") and OFF[name][1] in line
