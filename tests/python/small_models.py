"""Models that the Python tests share: small, but with the structure of real ones."""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def llama(layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=256,
    )
    return LlamaForCausalLM(config).eval()


def prompt(batch: int, length: int = 8) -> dict[str, torch.Tensor]:
    """Token ids and a mask with padding on the left."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    ids = torch.randint(0, 256, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    return {"input_ids": ids, "attention_mask": mask}


class Mlp(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.nn.functional.gelu(self.up(x)))


class Stack(nn.Module):
    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mlp() for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def stack(layers: int = 3) -> Stack:
    torch.manual_seed(0)
    return Stack(layers).eval()


EXPERTS, WIDTH = 4, 8


class Moe(nn.Module):
    """Two experts for each row: rows are sorted by expert, counted, computed and put back."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * WIDTH) / 4)
        self.down = nn.Parameter(torch.randn(EXPERTS, 2 * WIDTH, WIDTH) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, chosen = self.gate(x).softmax(-1).topk(2)
        expert, order = chosen.flatten().sort(stable=True)
        row = order // 2
        counts = torch.zeros(EXPERTS).index_add(0, expert, torch.ones_like(expert, dtype=x.dtype))
        place = torch.arange(len(order))
        owner = torch.searchsorted(counts.cumsum(0), place.to(x.dtype), right=True)
        hidden = torch.relu(x[row].unsqueeze(1) @ self.up[owner]) @ self.down[owner]
        share = weight.flatten()[order].unsqueeze(1)
        return torch.zeros_like(x).index_add(0, row, hidden.squeeze(1) * share)
