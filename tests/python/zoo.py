"""Small models of many families, from Transformers' own code, with inputs for any batch size."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn

VOCABULARY = 128


@dataclass(frozen=True)
class Family:
    """A model and how to call it.

    `inputs(source, rows)`: fresh keyword arguments. `output`: takes from what the model returns the
    tensor that is compared. `cut`: modules at which lanes of parts are cut. `least(rows)`: the
    fewest rows of a part of so many. `fragile`: kernels that pick rows by computed indices crash
    where these are wrong. `reference`: changes a copy of the model for a float64 run.
    """

    name: str
    build: Callable[..., nn.Module]  # of a width, 64 unless it is given
    inputs: Callable[[random.Random, int], dict[str, Any]]
    output: Callable[[Any], torch.Tensor]
    cut: str
    dynamic_dims: tuple[int, ...] = (0, 1)
    least: Callable[[int], int] = lambda _: 2
    fragile: bool = False
    reference: Callable[[nn.Module], nn.Module] = lambda model: model


def _generator(source: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(source.randrange(1 << 31))


def _ids(source: random.Random, rows: int, columns: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (rows, columns), generator=_generator(source))


def _decoder_inputs(source: random.Random, rows: int) -> dict[str, Any]:
    """Token ids, some rows padded on the left."""
    ids = _ids(source, rows, source.randrange(5, 10))
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : source.choice((0, 0, 1, 2))] = 0
    return dict(input_ids=ids, attention_mask=mask, use_cache=False)


def _encoder_inputs(source: random.Random, rows: int) -> dict[str, Any]:
    """Token ids, some rows padded on the right."""
    ids = _ids(source, rows, source.randrange(5, 10))
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, ids.shape[1] - source.choice((0, 0, 1, 2)) :] = 0
    return dict(input_ids=ids, attention_mask=mask)


def _translation_inputs(source: random.Random, rows: int) -> dict[str, Any]:
    inputs = _encoder_inputs(source, rows)
    return inputs | dict(decoder_input_ids=_ids(source, rows, 6), use_cache=False)


def _image_inputs(source: random.Random, rows: int) -> dict[str, Any]:
    return dict(pixel_values=torch.randn(rows, 3, 32, 32, generator=_generator(source)))


def _seeded(make: Callable[[int], nn.Module]) -> Callable[..., nn.Module]:
    def build(width: int = 64) -> nn.Module:
        torch.manual_seed(0)
        return make(width).eval()

    return build


def _sizes(width: int, **more: Any) -> dict[str, Any]:
    return dict(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        **more,
    )


def _text_sizes(width: int, **more: Any) -> dict[str, Any]:
    return _sizes(width, vocab_size=VOCABULARY, max_position_embeddings=64, **more)


def logits(result: Any) -> torch.Tensor:
    return result.logits


def hidden(result: Any) -> torch.Tensor:
    return result.last_hidden_state


def llama(width: int) -> nn.Module:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**_text_sizes(width, num_key_value_heads=2)))


def qwen3(width: int) -> nn.Module:
    sizes = _text_sizes(width, num_key_value_heads=2, head_dim=width // 4)
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**sizes))


def gpt2(width: int) -> nn.Module:
    sizes = dict(n_embd=width, n_layer=2, n_head=4, n_positions=64, vocab_size=VOCABULARY)
    return hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def gpt_neox(width: int) -> nn.Module:
    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_text_sizes(width)))


def bert(width: int) -> nn.Module:
    return hf.BertModel(hf.BertConfig(**_text_sizes(width)))


def t5(width: int) -> nn.Module:
    sizes = dict(d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=2, num_heads=4)
    return hf.T5ForConditionalGeneration(hf.T5Config(**sizes, vocab_size=VOCABULARY))


def vit(width: int) -> nn.Module:
    config = hf.ViTConfig(**_sizes(width), image_size=32, patch_size=8)
    return hf.ViTForImageClassification(config)


def resnet(width: int) -> nn.Module:
    sizes = dict(embedding_size=width // 4, hidden_sizes=[width // 4, width // 2], depths=[1, 1])
    return hf.ResNetForImageClassification(hf.ResNetConfig(**sizes, layer_type="basic"))


def mixtral(width: int) -> nn.Module:
    sizes = _text_sizes(width, num_key_value_heads=2)
    config = hf.MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2)
    return hf.MixtralForCausalLM(config)


def with_looped_experts(model: nn.Module) -> nn.Module:
    """The grouped product of experts has no float64 kernel: a loop over them has."""
    model.set_experts_implementation("eager")
    return model


def _least_images(rows: int) -> int:
    """Below 16 images a convolution may choose another kernel: these are two graphs."""
    return 2 if rows < 16 else 16


FAMILIES = {
    family.name: family
    for family in (
        Family("llama", _seeded(llama), _decoder_inputs, logits, "LlamaAttention"),
        Family("qwen3", _seeded(qwen3), _decoder_inputs, logits, "Qwen3Attention"),
        Family("gpt2", _seeded(gpt2), _decoder_inputs, logits, "GPT2Attention"),
        Family("gpt_neox", _seeded(gpt_neox), _decoder_inputs, logits, "GPTNeoXAttention"),
        Family("bert", _seeded(bert), _encoder_inputs, hidden, "BertAttention"),
        Family("t5", _seeded(t5), _translation_inputs, logits, "T5Attention"),
        Family("vit", _seeded(vit), _image_inputs, logits, "ViTAttention", (0,)),
        Family(
            "resnet",
            _seeded(resnet),
            _image_inputs,
            logits,
            "ResNetBasicLayer",
            (0,),
            _least_images,
        ),
        Family(
            "mixtral",
            _seeded(mixtral),
            _decoder_inputs,
            logits,
            "MixtralAttention",
            fragile=True,
            reference=with_looped_experts,
        ),
    )
}
