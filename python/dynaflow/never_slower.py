"""Never slower than sequential: measured steps decide, for each range of sizes, which plan serves.

A strategy that was asked for by name is a wish for speed, not for a schedule. So the first steps of
each bucket run its plan, the sequential one and its alternatives in turns, and the fastest stays.
All ranks take the same decision: they count the same steps, and the first rank's measurement goes
through the group's store.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dynaflow.agreement import word_of_first_rank

if TYPE_CHECKING:
    from dynaflow.plan import Plan

log = logging.getLogger("dynaflow")

#: Measured steps of each plan, after one of each that warms it up.
PAIRS = 9
#: What a plan must show to serve in the sequential one's place, for what is less may be chance: so
#: many times faster in the median, and faster in so many of the pairs.
LEAST_GAIN = 1.02
LEAST_WINS = 7
#: Places of a contest's plans: first the strategy's own and the sequential one.
ASKED, SEQUENTIAL = 0, 1

#: Of each symbol's value the power of two below it: sizes that are served alike.
SizeClass = tuple[int, ...]


def measured_steps(alternatives: int = 0) -> int:
    """Steps after which a size class is decided."""
    return (2 + alternatives) * (PAIRS + 1)


@dataclass
class Trial:
    """The steps of one size class so far, by place: seconds of each, warm-up included, not a number
    where a step failed or had no plan of its own; and how many parts the last plan had.
    """

    times: list[list[float]]
    parts: list[int] = field(default_factory=list)

    def next_place(self) -> int:
        """Rounds go through the plans in one direction and the other in turns, so that a drift
        favours none.
        """
        done = min(map(len, self.times))
        places = range(len(self.times)) if done % 2 == 0 else reversed(range(len(self.times)))
        return next(place for place in places if len(self.times[place]) == done)

    def is_over(self) -> bool:
        """Whether every pair was measured."""
        return min(map(len, self.times)) > PAIRS

    def verdict(self) -> Verdict:
        """What this rank's measurement says."""
        found = []
        for place in range(len(self.times)):
            if place != SEQUENTIAL:
                gain, wins = self._against_sequential(place)
                found.append((gain >= LEAST_GAIN and wins >= LEAST_WINS, gain, place))
        enough, gain, place = max(found)
        return Verdict(place if enough else SEQUENTIAL, gain)

    def _against_sequential(self, place: int) -> tuple[float, int]:
        measured = slice(1, PAIRS + 1)  # more steps may follow where ranks could not agree
        pairs = zip(self.times[SEQUENTIAL][measured], self.times[place][measured], strict=True)
        gains = [slow / fast for slow, fast in pairs if not math.isnan(slow + fast)]
        return (statistics.median(gains) if gains else 1.0), sum(gain > 1 for gain in gains)


@dataclass(frozen=True)
class Verdict:
    """The place of the plan that serves a size class, and how many times faster than the sequential
    one the best was: the median over the pairs.
    """

    place: int
    gain: float

    @property
    def keeps(self) -> bool:
        """Whether a plan of the strategy's serves."""
        return self.place != SEQUENTIAL

    @property
    def word(self) -> str:
        """As it goes to other ranks."""
        return f"{self.place} {self.gain!r}"

    @staticmethod
    def of_word(word: str) -> Verdict:
        """The verdict that another rank has sent."""
        place, gain = word.split()
        return Verdict(int(place), float(gain))


class Contest:
    """A strategy's plan of one bucket, and those that are measured against it.

    `rivals` make the sequential plan and then the alternatives for sizes, in the step that first
    needs them; one may have none to give. `agreed`: by group of the plan's collectives, what its
    ranks call the plan. Thread-safe; the steps that are measured run one by one.
    """

    def __init__(
        self,
        asked: Plan,
        rivals: Sequence[Callable[[list[int]], Plan | None]],
        agreed: Mapping[str, str],
        timeout_s: float | None,
    ) -> None:
        self._asked = asked
        self._rivals = rivals
        # Of the rivals, by place, for each bucket: which values it holds, and the plan that serves.
        self._made: dict[int, list[tuple[Callable[..., bool], Plan]]] = {}
        self._agreed = agreed
        self._timeout_s = timeout_s
        self._trials: dict[SizeClass, Trial] = {}
        self._verdicts: dict[SizeClass, Verdict] = {}
        self._lock = threading.RLock()

    def run(self, tensors: list[Any], values: list[int]) -> tuple[Plan, Any]:
        """A step on one of the plans; which one, and its results."""
        sizes = tuple(value.bit_length() for value in values)
        verdict = self._verdicts.get(sizes)
        if verdict is None:
            with self._lock:
                verdict = self._verdicts.get(sizes)
                if verdict is None:
                    return self._measured_step(sizes, tensors, values)
        plan = self._plan(verdict.place, values)
        return plan, plan.run(tensors, values)

    def alternatives(self) -> list[Plan]:
        """Those that there are: made, and not yet known to be of no use."""
        others = [rows for place, rows in sorted(self._made.items()) if place > SEQUENTIAL]
        return [plan for rows in others for _, plan in rows if plan is not self._asked]

    def table(self) -> list[dict[str, Any]]:
        """For each size class: the ranges of the symbols' values, and what was decided: the `parts`
        of the plan that serves, whether it is the strategy's, and the best `gain`. All are None
        while it is measured.
        """
        return [self._row(sizes, self._verdicts.get(sizes)) for sizes in list(self._trials)]

    def _row(self, sizes: SizeClass, verdict: Verdict | None) -> dict[str, Any]:
        return {
            "sizes": [[1 << (bits - 1), (1 << bits) - 1] if bits else [0, 0] for bits in sizes],
            "keeps": verdict and verdict.keeps,
            "parts": verdict and self._trials[sizes].parts[verdict.place],
            "gain": verdict and verdict.gain,
        }

    def _plan(self, place: int, values: list[int]) -> Plan:
        """The plan in this place for these sizes, made where there is none yet; the strategy's own
        where the place has no other.
        """
        if place == ASKED:
            return self._asked
        plan = self._find(place, values)
        if plan is None:
            with self._lock:
                plan = self._find(place, values)
                if plan is None:
                    plan = self._make(place, values)
        return plan

    def _find(self, place: int, values: list[int]) -> Plan | None:
        rows = self._made.get(place, ())
        return next((plan for accepts, plan in rows if accepts(*values)), None)

    def _make(self, place: int, values: list[int]) -> Plan:
        made = self._rivals[place - 1](values) or self._asked
        same = made.plan.cut["parts"] == self._asked.plan.cut["parts"]
        plan = self._asked if same else made
        self._made[place] = [*self._made.get(place, ()), (made.accepts, plan)]
        return plan

    def _measured_step(
        self, sizes: SizeClass, tensors: list[Any], values: list[int]
    ) -> tuple[Plan, Any]:
        trial = self._trials.get(sizes)
        if trial is None:
            places = 1 + len(self._rivals)
            trial = self._trials[sizes] = Trial([[] for _ in range(places)], [0] * places)
        place = trial.next_place()
        plan = self._plan(place, values)
        trial.parts[place] = plan.plan.cut["parts"]
        taken = math.nan  # a step that failed counts too: ranks go on counting alike
        start = time.perf_counter()
        try:
            results = plan.run(tensors, values)
            if place == ASKED or plan is not self._asked:
                taken = time.perf_counter() - start
        finally:
            trial.times[place].append(taken)
        if trial.is_over():
            self._verdicts[sizes] = self._decide(sizes, trial)
            self._drop_losers()
        return plan, results

    def _decide(self, sizes: SizeClass, trial: Trial) -> Verdict:
        verdict = trial.verdict()
        for group, name in self._agreed.items():
            word = word_of_first_rank(group, f"{name}/{sizes}", verdict.word, self._timeout_s)
            verdict = Verdict.of_word(word)
        log.info("%s: %s", self._asked.plan.strategy, row_text(self._row(sizes, verdict)))
        return verdict

    def _drop_losers(self) -> None:
        """Lets go of alternatives, with their memory, that won no size class, once none is being
        measured.
        """
        if len(self._verdicts) == len(self._trials):
            winners = {verdict.place for verdict in self._verdicts.values()} | {SEQUENTIAL}
            self._made = {place: made for place, made in self._made.items() if place in winners}


def row_text(row: dict[str, Any]) -> str:
    """One row of a contest's table, for people."""
    sizes = " x ".join(f"{low}..{high}" for low, high in row["sizes"])
    if row["gain"] is None:
        return f"sizes {sizes}: being measured against the sequential plan"
    kept = f"kept in {row['parts']} parts" if row["keeps"] else "not kept, the sequential plan runs"
    return f"sizes {sizes}: {row['gain']:.2f}x the sequential plan's speed, {kept}"
