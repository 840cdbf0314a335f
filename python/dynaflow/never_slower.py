"""Never slower than sequential: measured steps decide, for each range of sizes, which plan serves.

A strategy that was asked for by name is a wish for speed, not for a schedule. So the first steps of
each bucket run its plan and the sequential one in turns, and the faster one stays. All ranks take
the same decision: they count the same steps, and the first rank's measurement goes through the
group's store.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dynaflow.agreement import word_of_first_rank

if TYPE_CHECKING:
    from dynaflow.plan import Plan

#: Measured steps of each plan, after one of each that warms it up.
PAIRS = 9
#: Steps after which a size class is decided.
MEASURED_STEPS = 2 * (PAIRS + 1)
#: What the strategy's plan must show to stay, for what is less may be chance: so many times faster
#: in the median, and faster in so many of the pairs.
LEAST_GAIN = 1.02
LEAST_WINS = 7

#: Of each symbol's value the power of two below it: sizes that are served alike.
SizeClass = tuple[int, ...]


@dataclass
class Trial:
    """The steps of one size class so far: seconds of each plan, warm-up included."""

    asked: list[float] = field(default_factory=list)
    sequential: list[float] = field(default_factory=list)

    def next_is_asked(self) -> bool:
        """Pairs begin with the one and the other in turns, so that a drift favours neither."""
        step = len(self.asked) + len(self.sequential)
        if step % 2:
            return len(self.asked) < len(self.sequential)
        return step % 4 == 0

    def is_over(self) -> bool:
        """Whether every pair was measured."""
        return min(len(self.asked), len(self.sequential)) > PAIRS

    def verdict(self) -> Verdict:
        """What this rank's measurement says."""
        measured = slice(1, PAIRS + 1)  # more steps may follow where ranks could not agree
        pairs = zip(self.sequential[measured], self.asked[measured], strict=True)
        gains = [slow / fast for slow, fast in pairs if not math.isnan(slow + fast)]
        gain = statistics.median(gains) if gains else 1.0
        wins = sum(one > 1 for one in gains)
        return Verdict(gain >= LEAST_GAIN and wins >= LEAST_WINS, gain)


@dataclass(frozen=True)
class Verdict:
    """Whether the strategy's plan serves a size class, and how many times faster it was: the median
    over the pairs.
    """

    keeps: bool
    gain: float

    @property
    def word(self) -> str:
        """As it goes to other ranks."""
        return f"{self.keeps:d} {self.gain!r}"

    @staticmethod
    def of_word(word: str) -> Verdict:
        """The verdict that another rank has sent."""
        keeps, gain = word.split()
        return Verdict(keeps == "1", float(gain))


class Contest:
    """A strategy's plan of one bucket, and the sequential plan that it must not be slower than.

    `make_sequential` is called in the second step of the bucket; it may have none to give.
    `agreed`: by group of the plan's collectives, what its ranks call the plan. Thread-safe; the
    steps that are measured run one by one.
    """

    def __init__(
        self,
        asked: Plan,
        make_sequential: Callable[[], Plan | None],
        agreed: Mapping[str, str],
        timeout_s: float | None,
    ) -> None:
        self._asked = asked
        self._make_sequential = make_sequential
        self._sequential: Plan | None = None
        self._agreed = agreed
        self._timeout_s = timeout_s
        self._trials: dict[SizeClass, Trial] = {}
        self._verdicts: dict[SizeClass, Verdict] = {}
        self._lock = threading.Lock()

    def run(self, tensors: list[Any], values: list[int]) -> tuple[Plan, Any]:
        """A step on one of the plans; which one, and its results."""
        sizes = tuple(value.bit_length() for value in values)
        verdict = self._verdicts.get(sizes)
        if verdict is None:
            with self._lock:
                verdict = self._verdicts.get(sizes)
                if verdict is None:
                    return self._measured_step(sizes, tensors, values)
        plan = self._asked if verdict.keeps else self._sequential
        return plan, plan.run(tensors, values)

    def table(self) -> list[dict[str, Any]]:
        """For each size class: the ranges of the symbols' values, and what was decided; `keeps` and
        `gain` are None while it is measured.
        """
        rows = []
        for sizes in self._trials:
            verdict = self._verdicts.get(sizes)
            rows.append(
                {
                    "sizes": [
                        [1 << (bits - 1), (1 << bits) - 1] if bits else [0, 0] for bits in sizes
                    ],
                    "keeps": verdict and verdict.keeps,
                    "gain": verdict and verdict.gain,
                }
            )
        return rows

    def _measured_step(
        self, sizes: SizeClass, tensors: list[Any], values: list[int]
    ) -> tuple[Plan, Any]:
        trial = self._trials.setdefault(sizes, Trial())
        asked = trial.next_is_asked()
        if not asked and self._sequential is None:
            self._sequential = self._make_sequential() or self._asked
        plan = self._asked if asked else self._sequential
        times = trial.asked if asked else trial.sequential
        taken = math.nan  # a step that failed counts too: ranks go on counting alike
        start = time.perf_counter()
        try:
            results = plan.run(tensors, values)
            taken = time.perf_counter() - start
        finally:
            times.append(taken)
        if trial.is_over():
            self._verdicts[sizes] = self._decide(sizes, trial)
        return plan, results

    def _decide(self, sizes: SizeClass, trial: Trial) -> Verdict:
        verdict = trial.verdict()
        for group, name in self._agreed.items():
            word = word_of_first_rank(group, f"{name}/{sizes}", verdict.word, self._timeout_s)
            verdict = Verdict.of_word(word)
        return verdict
