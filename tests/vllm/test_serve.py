"""`vllm serve` with DynaFlow under many clients at once, and clients that go away."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from launch import SPLIT
from server import serve

CLIENTS = 300
TOKENS = 16
#: Below this difference of two log-probabilities the order of sums may decide which token is first.
NEAR = 1e-3
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def prompt(number: int) -> str:
    source = random.Random(number)
    return " ".join(f"t{source.randrange(1, 2048)}" for _ in range(source.randint(8, 80)))


PROMPTS = [prompt(number) for number in range(CLIENTS)]


def agreement(one: list[str], other: list[str]) -> float:
    """Share of the requests with the same text."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def gap(server, prompt: str, one: str, other: str) -> float:
    """How near the two tokens were to each other where two texts part."""
    mine, theirs = one.split(), other.split()
    place = next(n for n, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
    choice = server.complete(" ".join([prompt, *mine[:place]]), 1, logprobs=5)
    best = {word.strip(): value for word, value in choice["logprobs"]["top_logprobs"][0].items()}
    return abs(best.get(mine[place], math.inf) - best.get(theirs[place], -math.inf))


def assert_splits(log: str) -> None:
    """Whether a server's log says that its steps can be split, and nothing to the contrary."""
    assert "captured graph" in log
    assert "original model runs" not in log and "no link to hide" not in log


def test_three_hundred_clients_get_stocks_tokens(tmp_path, model):
    (tmp_path / "ours").mkdir()
    with serve(tmp_path, model, None) as stock, serve(tmp_path / "ours", model, SPLIT) as ours:
        theirs = [stock.benchmark(tmp_path, PROMPTS, TOKENS) for _ in range(3)]
        mine = ours.benchmark(tmp_path, PROMPTS, TOKENS)
        log = ours.log.read_text()
        own = min(agreement(*pair) for pair in itertools.combinations(theirs, 2))
        agreed = [agreement(mine, texts) for texts in theirs]
        gaps = [
            gap(stock, prompt, one, other)
            for prompt, one, other in zip(PROMPTS, mine, theirs[0], strict=True)
            if one != other
        ]
    print(f"agreement: stock with itself {own:.3f}, DynaFlow with stock {agreed}; gaps {gaps}")
    assert_splits(log)
    assert statistics.median(agreed) >= own
    assert all(distance < NEAR for distance in gaps)


def test_clients_that_go_away_leave_the_engine_healthy(tmp_path, model):
    with serve(tmp_path, model, SPLIT) as server:
        before = [server.complete(prompt, TOKENS)["text"] for prompt in PROMPTS[:4]]

        def leave(number: int) -> None:
            with server.open(PROMPTS[number], 300, stream=True) as answer:
                answer.readline()  # a step is under way from now on
                time.sleep(0.02 * (number % 8))

        with ThreadPoolExecutor(32) as clients:
            list(clients.map(leave, range(96)))
        deadline = time.monotonic() + 60
        while server.running() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert server.running() == 0, "requests without a client were not aborted"
        assert server.healthy()
        assert [server.complete(prompt, TOKENS)["text"] for prompt in PROMPTS[:4]] == before
    assert_splits(server.log.read_text())


def test_a_variable_is_enough(tmp_path, model):
    with serve(tmp_path, model, None, strategy="nanoflow") as server:
        text = server.complete(PROMPTS[0], TOKENS)["text"]
    log = server.log.read_text()
    assert "DynaFlow compiles this model" in log and "original model runs" not in log
    assert "no link to hide: steps run as a whole" in log
    with serve(tmp_path, model, None) as stock:
        assert stock.complete(PROMPTS[0], TOKENS)["text"] == text
