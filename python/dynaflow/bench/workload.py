"""What the benchmarks run: a Llama of realistic proportions, and batches of padded requests."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

TRACES = Path(__file__).parent / "traces"


@dataclass(frozen=True)
class LlamaShape:
    """Proportions of a Llama model; all fields are counts of elements, heads or layers."""

    hidden: int = 1024
    intermediate: int = 2816
    layers: int = 8
    heads: int = 16
    kv_heads: int = 8
    vocabulary: int = 8192

    def config(self):
        """The Transformers configuration with these proportions, computing in float32."""
        from transformers import LlamaConfig

        return LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=2048,
            attn_implementation="sdpa",
        )


#: The model of the demo and of all figures.
FULL = LlamaShape()
#: A model for tests of the machinery, far too small to time.
TINY = LlamaShape(hidden=64, intermediate=128, layers=2, heads=4, kv_heads=2, vocabulary=128)


@dataclass(frozen=True)
class Batch:
    """Requests padded on the left to one (rows, columns) rectangle."""

    name: str
    lengths: tuple[int, ...]
    columns: int
    vocabulary: int
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns): requests, and tokens of each with padding."""
        return len(self.lengths), self.columns

    @property
    def real_tokens(self) -> int:
        """Tokens that belong to requests."""
        return sum(self.lengths)

    @property
    def padded_tokens(self) -> int:
        """Tokens of the whole rectangle, padding included."""
        return len(self.lengths) * self.columns

    def inputs(self, seed: int | None = None) -> dict:
        """Keyword arguments for the model: token ids drawn with `seed`, mask, last-token logits."""
        import torch

        source = torch.Generator().manual_seed(self.seed if seed is None else seed)
        ids = torch.randint(1, self.vocabulary, self.shape, generator=source)
        mask = torch.zeros_like(ids)
        for row, length in enumerate(self.lengths):
            mask[row, self.columns - length :] = 1
        ids = ids * mask
        return dict(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)


def request_lengths(trace: str) -> list[tuple[int, int]]:
    """Lengths of prompt and output in tokens, in order of arrival: `trace` is lmsys, sharegpt or
    splitwise.
    """
    path = TRACES / f"{trace}.csv"
    if not path.exists():
        known = ", ".join(sorted(entry.stem for entry in TRACES.glob("*.csv")))
        raise ValueError(f"no trace {trace!r}; there are: {known}")
    with path.open(encoding="ascii", newline="") as rows:
        columns = ("ContextTokens", "GeneratedTokens")
        return [tuple(int(row[column]) for column in columns) for row in csv.DictReader(rows)]


def trace_batch(
    trace: str, rows: int, longest: int, vocabulary: int = FULL.vocabulary, skip: int = 0
) -> Batch:
    """The next `rows` requests of a trace after `skip`, each cut to at most `longest` tokens."""
    prompts = [prompt for prompt, _ in request_lengths(trace)[skip : skip + rows]]
    lengths = [min(prompt, longest) for prompt in prompts]
    if len(lengths) < rows:
        raise ValueError(f"trace {trace!r} has fewer than {skip + rows} requests")
    return Batch(f"{trace} {rows} requests", tuple(lengths), max(lengths), vocabulary)


def fixed_batch(rows: int, columns: int, vocabulary: int = FULL.vocabulary) -> Batch:
    """A (rows, columns) batch. The first row is a quarter padding, so that eager PyTorch, which
    drops a mask that masks nothing, and a captured graph, which cannot look, do the same work.
    """
    lengths = (max(1, columns - max(1, columns // 4)),) + (columns,) * (rows - 1)
    return Batch(f"({rows}, {columns})", lengths, columns, vocabulary)


def build_model(shape: LlamaShape = FULL, world: int = 1, seed: int = 0):
    """The model in float32 with random weights from `seed`; for `world` > 1 the caller's shard of
    it, by Transformers' own tensor-parallel plan over the default process group.
    """
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config()).eval()
    if world == 1:
        return model
    from transformers.distributed import DistributedConfig

    return LlamaForCausalLM.from_pretrained(
        None,
        config=shape.config(),
        state_dict=model.state_dict(),
        distributed_config=DistributedConfig(tp_plan="auto"),
    ).eval()
