"""Many steps: the results stay right and memory stays flat. `make soak`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from equivalence import Lanes
from small_models import llama, stack

import dynaflow as df
from dynaflow import debug

STEPS = 100_000
#: Memory is looked at this often; the first look is the base line.
LOOKS = 20
SLACK = 4 << 20  # bytes


def resident_bytes() -> int:
    """What the process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def soak(compiled, inputs, steps: int) -> None:
    """Steps on random inputs equal serial ones; memory does not grow."""
    random.seed(0)
    with torch.no_grad():
        for x in inputs:
            compiled(x)
        with debug.run_mode(compiled, serial=True):
            expected = [compiled(x) for x in inputs]
        base = None
        for step in range(steps):
            at = random.randrange(len(inputs))
            assert torch.equal(compiled(inputs[at]), expected[at]), (step, inputs[at].shape)
            if (step + 1) % (steps // LOOKS) == 0:
                base = base or resident_bytes()
                assert resident_bytes() < base + SLACK, step


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "strategy", [df.NanoFlow(parts=2, min_tokens=0), Lanes(2, "Mlp")], ids=["nanoflow", "lanes"]
)
def test_a_hundred_thousand_steps_of_changing_sizes(strategy):
    compiled = df.compile(stack(), strategy)
    soak(compiled, [torch.randn(rows, 8) for rows in range(2, 34)], STEPS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_steps_of_a_llama():
    model = llama()

    def logits(ids):
        return model(ids, use_cache=False).logits

    compiled = df.compile(logits, df.NanoFlow(parts=3, min_tokens=0))
    soak(compiled, [torch.randint(0, 256, (rows, 8)) for rows in range(2, 18)], STEPS // 10)
