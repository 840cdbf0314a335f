"""Ops that change an argument in place and treat rows on their own, by the host's word."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dynaflow as df

pytestmark = pytest.mark.usefixtures("inference", "one_thread")

WIDTH = 16


@torch.library.custom_op("dynaflow_rows::mm_into", mutates_args=("out",))
def mm_into(out: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> None:
    torch.mm(x, w, out=out)


@torch.library.custom_op("dynaflow_rows::double", mutates_args=("x",))
def double(x: torch.Tensor) -> None:
    x.mul_(2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList(torch.randn(WIDTH, WIDTH) / 4 for _ in range(3))

    def forward(self, x):
        for w in self.weights:
            out = torch.empty(x.shape[0], WIDTH)
            mm_into(out, x, w)
            double(out)
            x = torch.relu(out) + x
        return x


class Word(df.HostContext):
    row_ops = ("dynaflow_rows.*",)


def compiled(context):
    options = {"context": context, "never_slower": False}
    return df.compile(Net(), strategy=df.NanoFlow(parts=2, min_tokens=0), options=options)


def segments(fast):
    return df.report(fast).graphs[0]["plans"][0]["segments"]


@pytest.mark.parametrize("rows", [4, 5, 16])
def test_by_the_hosts_word_they_run_in_parts(rows):
    model, fast = Net(), compiled(Word())
    x = torch.randn(rows, WIDTH)
    kept = x.clone()
    torch.testing.assert_close(fast(x), model(x))
    assert torch.equal(x, kept)
    assert segments(fast)["merged"] == 0 and df.report(fast).graphs[0]["plans"][0]["parts"] == 2


def test_without_it_they_run_merged_and_the_report_says_why():
    fast = compiled(None)
    x = torch.randn(6, WIDTH)
    torch.testing.assert_close(fast(x), Net()(x))
    reasons = {item["reason"] for item in segments(fast)["merged_because"]}
    assert any("in place" in reason for reason in reasons)


class Shared(Net):
    def forward(self, x):
        total = torch.zeros(WIDTH, WIDTH)
        mm_into(total, x.mean(0, keepdim=True).expand(WIDTH, WIDTH), self.weights[0])
        return x @ total


def test_what_has_no_rows_is_never_written_by_parts():
    context = Word()
    fast = df.compile(
        Shared(), strategy=df.NanoFlow(parts=2, min_tokens=0), options={"context": context}
    )
    x = torch.randn(6, WIDTH)
    torch.testing.assert_close(fast(x), Shared()(x))
