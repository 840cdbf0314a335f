"""What is changed on a model between calls is in the next result, as in eager's."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from small_models import llama, prompt, stack
from torch import nn

import dynaflow as df

STRATEGIES = ("sequential", df.NanoFlow(parts=2, min_tokens=0))


class LowRank(nn.Module):
    """A linear layer with an adapter beside it, which is on or off."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.on = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x)) if self.on else self.base(x)


def add_in_place(model):
    with torch.no_grad():
        model.layers[0].up.weight.add_(0.5)


def assign_state(model):
    state = {name: tensor + 0.25 for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def insert_adapter(model):
    torch.manual_seed(1)
    model.layers[1].up = LowRank(model.layers[1].up)


def add_hook(model):
    model.layers[0].register_forward_hook(lambda module, args, result: result * 2)


def add_hook_before(model):
    model.layers[2].register_forward_pre_hook(lambda module, args: (args[0] + 1,))


def exchange_parameter(model):
    model.layers[0].down.bias = nn.Parameter(torch.ones(8))


def exchange_layer(model):
    torch.manual_seed(2)
    model.layers[1] = nn.Linear(8, 8)


def exchange_data(model):
    model.layers[2].down.weight.data = torch.full((8, 32), 0.125)


def exchange_method(model):
    model.layers[1].forward = lambda x: -x


CHANGES = (
    add_in_place,
    assign_state,
    insert_adapter,
    add_hook,
    add_hook_before,
    exchange_parameter,
    exchange_layer,
    exchange_data,
    exchange_method,
)


@pytest.fixture(params=STRATEGIES, ids=lambda strategy: getattr(strategy, "name", strategy))
def strategy(request):
    torch._dynamo.reset()
    return request.param


@contextlib.contextmanager
def same_as_eager(model, compiled, *inputs, **keywords):
    """Both agree before the block and after it, and the block makes a difference."""
    with torch.no_grad():
        before = compiled(*inputs, **keywords)
        torch.testing.assert_close(before, model(*inputs, **keywords))
        yield
        after = compiled(*inputs, **keywords)
        torch.testing.assert_close(after, model(*inputs, **keywords))
    assert before.dtype != after.dtype or not torch.equal(before, after)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_model_gives_what_eager_gives(strategy, change):
    model = stack()
    x = torch.randn(6, 8)
    with same_as_eager(model, df.compile(model, strategy), x):
        change(model)


def test_an_adapter_is_switched_on_and_off(strategy):
    model = stack()
    insert_adapter(model)
    compiled = df.compile(model, strategy)
    x = torch.randn(6, 8)
    for on in (False, True):
        with same_as_eager(model, compiled, x):
            model.layers[1].up.on = on


def test_a_model_of_another_dtype_computes_in_it(strategy):
    model = stack()
    compiled = df.compile(model, strategy)
    x = torch.randn(6, 8)
    with torch.no_grad():
        compiled(x)
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            model.to(dtype)
            result = compiled(x.to(dtype))
            assert result.dtype == dtype
            torch.testing.assert_close(result, model(x.to(dtype)))


def test_training_and_evaluation_differ(strategy):
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)).eval()
    twin = copy.deepcopy(model)
    compiled = df.compile(model, strategy)
    x = torch.randn(6, 8) * 3
    with torch.no_grad():
        for training in (False, True, False):
            model.train(training)
            twin.train(training)
            torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(model[1].running_mean, twin[1].running_mean)


def test_gradients_are_there_where_they_are_asked_for(strategy):
    model = stack()
    compiled = df.compile(model, strategy)
    x = torch.randn(6, 8)
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode, torch.no_grad):
        with mode():
            result, expected = compiled(x), model(x)
        torch.testing.assert_close(result, expected)
        assert result.requires_grad == expected.requires_grad
        assert result.is_inference() == expected.is_inference()
        if result.requires_grad:
            result.sum().backward()
            assert all(parameter.grad is not None for parameter in model.parameters())


def test_autocast_holds_for_the_calls_inside_it(strategy):
    model = stack()
    compiled = df.compile(model, strategy)
    x = torch.randn(6, 8)
    with torch.no_grad():
        for dtype in (None, torch.bfloat16, None, torch.float16):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                result, expected = compiled(x), model(x)
            assert result.dtype == expected.dtype
            torch.testing.assert_close(result, expected)


def test_keyword_arguments_come_and_go(strategy):
    model = llama()
    compiled = df.compile(model, strategy)
    inputs = prompt(6)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    calls = (
        dict(input_ids=ids, use_cache=False),
        dict(input_ids=ids, attention_mask=mask, use_cache=False),
        dict(input_ids=ids, attention_mask=None, use_cache=False),
        dict(input_ids=ids, use_cache=False, logits_to_keep=1),
        dict(inputs_embeds=model.model.embed_tokens(ids).detach(), use_cache=False),
        dict(input_ids=ids, attention_mask=mask, use_cache=False),
    )
    with torch.no_grad():
        for call in calls:
            torch.testing.assert_close(compiled(**call).logits, model(**call).logits)
