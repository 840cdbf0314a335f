import threading

import pytest
import torch.distributed as dist

from dynaflow.bench.stats import (
    Rounds,
    Samples,
    interleave,
    narrow_enough,
    quantile,
    quartiles,
    ratio,
)
from dynaflow.bench.sync import Meeting


def on_ranks(function, world=2):
    """Runs `function(meeting)` on threads that meet through one store; results by rank."""
    store, results = dist.HashStore(), {}

    def rank(index):
        results[index] = function(Meeting(index, world, store))

    threads = [threading.Thread(target=rank, args=(index,)) for index in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(results) == world
    return [results[index] for index in range(world)]


def test_quantile_interpolates():
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert quantile([1, 2, 3], 0) == 1
    assert quantile([1, 2, 3], 1) == 3


def test_quartiles():
    found = quartiles([5, 1, 3, 2, 4])
    assert (found.low, found.median, found.high) == (2, 3, 4)


def test_ratio_pairs_rounds():
    drift = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    found = ratio([2 * value for value in drift], drift)
    assert (found.low, found.median, found.high) == (2, 2, 2)


def test_ratio_interval_covers_and_narrows():
    few = ratio([1.0, 1.2, 0.9] * 3, [1.0] * 9)
    many = ratio([1.0, 1.2, 0.9] * 100, [1.0] * 300)
    assert few.low <= few.median <= few.high
    assert many.half_width <= few.half_width


def test_ratio_needs_pairs():
    with pytest.raises(ValueError, match="2 rounds against 1"):
        ratio([1.0, 2.0], [1.0])


def test_each_round_has_every_arm_once_after_any_other():
    order = []
    arms = {name: lambda name=name: order.append(name) for name in "abc"}
    interleave(arms, Rounds(least=40, most=40, warmup=0))
    rounds = ["".join(order[at : at + 3]) for at in range(0, len(order), 3)]
    assert {"".join(sorted(names)) for names in rounds} == {"abc"}
    assert len(set(rounds)) == 6
    again = list(order)
    order.clear()
    interleave(arms, Rounds(least=40, most=40, warmup=0))
    assert order == again


def test_stops_at_the_rule_and_at_the_limits():
    arms = {"a": lambda: None, "b": lambda: None}
    rounds = Rounds(least=4, most=20, every=3, warmup=0)
    assert interleave(arms, rounds, stop=lambda samples: samples.rounds >= 8).rounds == 10
    assert interleave(arms, rounds, stop=lambda samples: False).rounds == 20
    hurried = Rounds(least=4, most=20, every=3, warmup=0, budget_s=0)
    assert interleave(arms, hurried, stop=lambda samples: False).rounds == 4


def test_ranks_stop_together_and_agree():
    """Each rank's own rule would stop at another round; rank 0's holds."""

    def measure(meeting):
        rule = [lambda s: s.rounds >= 5, lambda s: s.rounds >= 2][meeting.rank]
        rounds = Rounds(least=1, most=9, every=1, warmup=1)
        return interleave({"a": lambda: None, "b": lambda: None}, rounds, meeting, rule)

    first, second = on_ranks(measure)
    assert first.times == second.times
    assert first.rounds == 5


def test_the_slowest_rank_counts():
    def measure(meeting):
        ticks = iter(range(0, 1000, 1 + meeting.rank))
        rounds = Rounds(least=3, most=3, warmup=0)
        return interleave({"a": lambda: None}, rounds, meeting, clock=lambda: next(ticks))

    first, second = on_ranks(measure)
    assert first.times == second.times == {"a": [2, 2, 2]}


def test_narrow_enough():
    tight = Samples({"a": [1.0] * 9, "b": [1.0] * 9})
    loose = Samples({"a": [1.0] * 9, "b": [1.0, 2.0, 3.0] * 3})
    assert narrow_enough("a", "b", 0.01)(tight)
    assert not narrow_enough("a", "b", 0.01)(loose)


def test_meeting_moves_values():
    def talk(meeting):
        meeting.barrier()
        said = meeting.broadcast({"from": meeting.rank})
        return said, meeting.gather(meeting.rank * 10)

    assert on_ranks(talk, world=3) == [({"from": 0}, [0, 10, 20])] * 3


def test_meeting_of_several_needs_a_store():
    with pytest.raises(ValueError, match="store"):
        Meeting(0, 2)
