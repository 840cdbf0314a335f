"""What is concluded from servers' times; no vLLM is needed for that."""

import math

import pytest

from dynaflow.bench.bounds import Communication
from dynaflow.bench.vllm import servers
from dynaflow.bench.vllm.loads import Load, trace_load
from dynaflow.bench.vllm.rank import Served
from dynaflow.bench.vllm.servers import COMPUTE, NANOFLOW, SEQUENTIAL, STOCK, Outcome
from dynaflow.bench.workload import LlamaShape

#: 3 all-reduces of 4,096 bytes a token: at 98,304 bits a second, one second a token.
SHAPE = LlamaShape(hidden=1024, layers=1)
RATE = 98304.0
LOAD = Load("two", (1, 1), (2, 3))


def served(*steps, tokens=((1, 2), (3, 4, 5))):
    """A load whose steps of (tokens, seconds) give request 0 two tokens and request 1 three."""
    return Served(
        seconds=sum(seconds for _, seconds in steps),
        steps=steps,
        first=(1.0, 3.0),
        between=(0.5, 0.5, 2.0),
        tokens=tokens,
    )


@pytest.fixture
def outcome():
    made = Outcome(LOAD, SHAPE, RATE, {1: Communication(9, 0.25, 0), 3: Communication(9, 0.75, 0)})
    made.served = {
        STOCK: [served((2, 6.0), (1, 3.0))] * 3,
        SEQUENTIAL: [served((2, 5.0), (1, 3.0))] * 3,
        NANOFLOW: [served((2, 4.0), (1, 3.0)), *[served((2, 4.0), (1, 3.0), tokens=())] * 2],
        COMPUTE: [served((2, 3.0), (1, 0.5))] * 3,
    }
    return made


def test_each_step_has_its_own_bound(outcome):
    """C + G = 3 + 0.5 over N = 2 in the first step; N = 1 over C + G = 0.5 + 0.25 in the other."""
    assert [bound.seconds for bound in outcome.bounds()] == [3.5, 1.0]


def test_hidden_share_is_of_what_the_bounds_leave_of_the_sequential_plan(outcome):
    share = outcome.hidden_share(NANOFLOW)
    assert share.median == pytest.approx((8.0 - 7.0) / (8.0 - 4.5))
    assert share.low == share.high == share.median


def test_there_is_no_share_of_nothing(outcome):
    outcome.served[SEQUENTIAL] = [served((2, 3.0), (1, 1.0))] * 3
    assert math.isnan(outcome.hidden_share(NANOFLOW).median)


def test_times_and_ratios(outcome):
    assert outcome.ratio(NANOFLOW, STOCK).median == pytest.approx(9 / 7)
    assert outcome.first_token(STOCK).median == 2.0
    assert outcome.between_tokens(STOCK).median == 0.5
    assert outcome.tokens_equal(NANOFLOW, STOCK) == 1


def test_the_slowest_rank_counts_step_by_step():
    merged = servers.slowest([served((2, 4.0), (1, 3.0)), served((2, 5.0), (1, 2.5))])
    assert merged.steps == ((2, 5.0), (1, 3.0)) and merged.seconds == 7.5


def test_a_load_of_a_trace_is_cut_to_size():
    load = trace_load("sharegpt", 3, longest=30, most_out=100)
    assert load.prompts == (30, 19, 30) and load.outputs == (100, 82, 100)
    assert load.tokens == 361


def test_prompts_differ_by_seed_and_from_each_other():
    ids = LOAD.prompt_ids(1 << 30, seed=0)
    assert ids == LOAD.prompt_ids(1 << 30, seed=0) != LOAD.prompt_ids(1 << 30, seed=1)
    assert [len(prompt) for prompt in ids] == [1, 1] and ids[0] != ids[1]
