"""Interleaved measurements of several callables, and what may be concluded from them."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dynaflow.bench.sync import Meeting

RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """A median with the interval that the text beside it names; in the unit of what it sums up."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def scaled(self, factor: float) -> Summary:
        """The same summary in another unit."""
        return Summary(self.median * factor, self.low * factor, self.high * factor)


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of the sorted values lie, interpolated."""
    place = fraction * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def quartiles(values: Sequence[float]) -> Summary:
    """Median with the quartiles as its spread."""
    ordered = sorted(values)
    return Summary(statistics.median(ordered), quantile(ordered, 0.25), quantile(ordered, 0.75))


def ratio(baseline: Sequence[float], arm: Sequence[float], seed: int = 0) -> Summary:
    """How many times faster `arm` is than `baseline`: the median over rounds of the two times'
    quotient, with its 95 % bootstrap interval over rounds. Both have one time for each round.
    """
    if len(baseline) != len(arm) or not arm:
        raise ValueError(f"{len(baseline)} rounds against {len(arm)}: pairs are needed")
    return bootstrap(
        lambda before, after: np.median(before / after, axis=-1), baseline, arm, seed=seed
    )


def bootstrap(
    statistic: Callable[..., np.ndarray], *times: Sequence[float], seed: int = 0
) -> Summary:
    """A statistic of arms' times with its 95 % bootstrap interval over rounds, rounds kept whole.

    `statistic` takes an array for each arm, rounds along the last axis, and reduces that axis; what
    is not a number in a resample is left out of the interval.
    """
    arrays = np.asarray(times, dtype=np.float64)
    rounds = arrays.shape[1]
    picks = np.random.default_rng(seed).integers(rounds, size=(RESAMPLES, rounds))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*arrays))
        spread = statistic(*arrays[:, picks])
    known = spread[np.isfinite(spread)]
    if math.isnan(value) or not len(known):
        return Summary(value, math.nan, math.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Summary(value, float(low), float(high))


@dataclass
class Samples:
    """Times in seconds by arm, one for each round; of several ranks the slowest counts."""

    times: dict[str, list[float]] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Completed rounds."""
        return min((len(values) for values in self.times.values()), default=0)

    def summary(self, arm: str) -> Summary:
        """Median and quartiles of one arm, in seconds."""
        return quartiles(self.times[arm])

    def ratio(self, arm: str, baseline: str) -> Summary:
        """How many times faster `arm` is than `baseline`, with its 95 % interval."""
        return ratio(self.times[baseline], self.times[arm])


Stop = Callable[[Samples], bool]


def narrow_enough(arm: str, baseline: str, half_width: float) -> Stop:
    """A stop rule: the interval of the ratio of two arms is at most 2 x `half_width` wide."""
    return lambda samples: samples.ratio(arm, baseline).half_width <= half_width


@dataclass(frozen=True)
class Rounds:
    """How often to measure. After `least` rounds the stop rule is asked every `every` rounds;
    `most` rounds or `budget_s` seconds end the loop in any case, but never before `least`.
    """

    least: int = 7
    most: int = 7
    every: int = 7
    warmup: int = 2
    budget_s: float = float("inf")


def interleave(
    arms: Mapping[str, Callable[[], object]],
    rounds: Rounds = Rounds(),
    meeting: Meeting | None = None,
    stop: Stop | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Times every arm once a round by `clock` (seconds), ranks in step. The order is another one in
    each round: what an arm finds in caches and queues is not always the same arm's.

    Every rank calls it with the same arms and gets the same samples. Ranks meet before each call,
    outside of its time, and rank 0 takes the decision to stop for all of them.
    """
    meeting = meeting or Meeting(0, 1)
    names = list(arms)
    for _ in range(rounds.warmup):
        _round(arms, names, meeting, clock)
    own: dict[str, list[float]] = {name: [] for name in names}
    started = time.monotonic()
    gc.collect()
    gc.disable()
    try:
        for index in range(rounds.most):
            order = random.Random(index).sample(names, len(names))  # the same on every rank
            for name, seconds in _round(arms, order, meeting, clock).items():
                own[name].append(seconds)
            if _is_check(index + 1, rounds) and _decide(own, meeting, stop, started, rounds):
                break
    finally:
        gc.enable()
    return _slowest(own, meeting)


def _round(arms, order: list[str], meeting: Meeting, clock) -> dict[str, float]:
    times = {}
    for name in order:
        run = arms[name]
        meeting.barrier()
        start = clock()
        run()
        times[name] = clock() - start
    return times


def _is_check(done: int, rounds: Rounds) -> bool:
    return done >= rounds.least and (done - rounds.least) % rounds.every == 0


def _decide(own, meeting: Meeting, stop: Stop | None, started: float, rounds: Rounds) -> bool:
    samples = _slowest(own, meeting)
    late = time.monotonic() - started > rounds.budget_s
    # Both are asked only of rank 0: clocks and rounding may differ between ranks.
    return meeting.broadcast(meeting.rank == 0 and (late or (stop is not None and stop(samples))))


def _slowest(own: dict[str, list[float]], meeting: Meeting) -> Samples:
    ranks = meeting.gather(own)
    return Samples(
        {
            name: [max(times) for times in zip(*(rank[name] for rank in ranks), strict=True)]
            for name in own
        }
    )
