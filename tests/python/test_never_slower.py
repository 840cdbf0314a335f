"""The sequential plan serves where a strategy's own is measured to be no faster."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
from small_models import stack

import dynaflow as df
from dynaflow import debug, never_slower
from dynaflow.never_slower import (
    ASKED,
    LEAST_WINS,
    PAIRS,
    SEQUENTIAL,
    Contest,
    Trial,
    Verdict,
    measured_steps,
)

MEASURED_STEPS = measured_steps()


class FakePlan:
    """A plan whose steps take as long as it says, on a clock that only they move."""

    def __init__(self, name: str, clock: list[float], seconds: float, parts: int = 2) -> None:
        self.name, self.clock, self.seconds = name, clock, seconds
        self.runs = 0
        self.plan = SimpleNamespace(strategy=name, cut={"parts": parts})
        self.accepts = lambda *values: True

    def run(self, tensors, values):
        self.runs += 1
        self.clock[0] += self.seconds
        return self.name


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(never_slower.time, "perf_counter", lambda: now[0])
    return now


def contest_of(clock, asked_s: float, sequential_s: float):
    asked = FakePlan("asked", clock, asked_s)
    sequential = FakePlan("sequential", clock, sequential_s, parts=1)
    return Contest(asked, [lambda values: sequential], {}, None), asked, sequential


@pytest.mark.parametrize(
    "asked_s, keeps", [(0.5, True), (0.97, True), (0.99, False), (1.0, False), (2.0, False)]
)
def test_the_faster_plan_serves_after_the_measured_steps(clock, asked_s, keeps):
    contest, asked, sequential = contest_of(clock, asked_s, 1.0)
    for _ in range(MEASURED_STEPS):
        contest.run([], [100, 7])
    assert asked.runs == sequential.runs == PAIRS + 1
    (row,) = contest.table()
    assert row["sizes"] == [[64, 127], [4, 7]] and row["keeps"] is keeps
    assert row["gain"] == pytest.approx(1 / asked_s)
    served = asked if keeps else sequential
    for _ in range(3):
        plan, results = contest.run([], [65, 4])
        assert (plan, results) == (served, served.name)
    assert (asked.runs, sequential.runs).count(PAIRS + 1) == 1


def test_sizes_are_judged_by_themselves(clock):
    contest, asked, _ = contest_of(clock, 0.5, 1.0)
    for _ in range(MEASURED_STEPS):
        contest.run([], [8])
    asked.seconds = 3.0
    for _ in range(MEASURED_STEPS):
        contest.run([], [1024])
    assert [row["keeps"] for row in contest.table()] == [True, False]
    assert contest.run([], [15])[1] == "asked" and contest.run([], [2000])[1] == "sequential"


def test_pairs_start_with_the_one_and_the_other_in_turns():
    trial = Trial([[], []])
    order = []
    while not trial.is_over():
        place = trial.next_place()
        order.append("as"[place])
        trial.times[place].append(1.0)
    assert "".join(order) == "assa" * (MEASURED_STEPS // 4)
    assert trial.verdict() == Verdict(SEQUENTIAL, 1.0)


def test_rounds_of_three_go_to_and_fro():
    trial = Trial([[], [], []])
    order = []
    while not trial.is_over():
        order.append(trial.next_place())
        trial.times[order[-1]].append(1.0)
    assert order[:9] == [0, 1, 2, 2, 1, 0, 0, 1, 2] and len(order) == measured_steps(1)


@pytest.mark.parametrize(
    "asked_s, other_s, served",
    [(0.8, 0.6, 2), (0.6, 0.8, ASKED), (0.99, 0.7, 2), (1.2, 0.99, SEQUENTIAL)],
)
def test_of_several_plans_the_fastest_serves(clock, asked_s, other_s, served):
    plans = [
        FakePlan("asked", clock, asked_s),
        FakePlan("sequential", clock, 1.0, parts=1),
        FakePlan("three", clock, other_s, parts=3),
    ]
    contest = Contest(plans[0], [lambda values: plans[1], lambda values: plans[2]], {}, None)
    for _ in range(measured_steps(1)):
        contest.run([], [100])
    assert [plan.runs for plan in plans] == [PAIRS + 1] * 3
    assert contest.run([], [100])[0] is plans[served]
    (row,) = contest.table()
    assert row["parts"] == (2, 1, 3)[served] and row["keeps"] is (served != SEQUENTIAL)
    assert contest.alternatives() == [plans[2]] * (served == 2), "a loser is let go of"


class Buckets:
    """Makes plans of three parts, or of two for sizes below 6: each serves its own bucket."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds
        self.made = []

    def __call__(self, values):
        small = values[0] < 6
        plan = FakePlan("other", self.clock, self.seconds, parts=2 if small else 3)
        plan.accepts = lambda value: (value < 6) is small
        self.made.append(plan)
        return plan


def contest_of_buckets(clock, asked_s: float, other_s: float):
    asked, other = FakePlan("asked", clock, asked_s), Buckets(clock, other_s)
    sequential = FakePlan("sequential", clock, 1.0, parts=1)
    return Contest(asked, [lambda values: sequential, other], {}, None), asked, other


def test_an_alternative_is_made_for_each_of_its_buckets(clock):
    contest, asked, other = contest_of_buckets(clock, 0.9, 0.5)
    for _ in range(measured_steps(1)):
        contest.run([], [6])
    assert contest.table()[0]["parts"] == 3
    assert contest.run([], [6])[0] is other.made[0]
    assert contest.run([], [4])[0] is asked, "two parts are the strategy's own"
    assert [plan.plan.cut["parts"] for plan in other.made] == [3, 2]


def test_an_alternative_that_is_no_other_does_not_compete(clock):
    contest, asked, other = contest_of_buckets(clock, 0.5, 0.1)
    for _ in range(measured_steps(1)):
        contest.run([], [4])
    assert [plan.runs for plan in other.made] == [0]
    assert contest.run([], [4])[0] is asked and contest.table()[0]["gain"] == 2.0
    assert contest.alternatives() == []


def test_an_alternative_that_won_one_size_stays_and_is_made_again_after_it_lost_all(clock):
    contest, _, other = contest_of_buckets(clock, 0.9, 1.5)

    def decide(value):
        for _ in range(measured_steps(1)):
            contest.run([], [value])

    decide(8)
    assert contest.alternatives() == [] and len(other.made) == 1
    other.seconds = 0.2
    decide(16)
    assert contest.alternatives() == [other.made[1]] and len(other.made) == 2
    other.made[1].seconds = 2.0
    decide(32)
    assert [contest.run([], [value])[1] for value in (8, 16, 32)] == ["asked", "other", "asked"]
    assert [row["parts"] for row in contest.table()] == [2, 3, 2] and len(other.made) == 2


def test_a_gain_by_chance_does_not_hide_a_lesser_one_that_is_sure():
    sure, chance = [1.5] * (PAIRS + 1), [1.0] * LEAST_WINS + [9.0] * (PAIRS + 1 - LEAST_WINS)
    verdict = Trial([chance, [2.0] * (PAIRS + 1), sure]).verdict()
    assert verdict == Verdict(2, 2.0 / 1.5)


@pytest.mark.parametrize("wins, keeps", [(LEAST_WINS - 1, False), (LEAST_WINS, True)])
def test_a_gain_in_few_of_the_pairs_is_taken_for_chance(wins, keeps):
    asked = [1.0] * (wins + 1) + [2.5] * (PAIRS - wins)
    verdict = Trial([asked, [2.0] * (PAIRS + 1)]).verdict()
    assert (verdict.keeps, verdict.gain) == (keeps, 2.0)


@pytest.mark.parametrize("verdict", [Verdict(2, 1.0 / 3), Verdict(SEQUENTIAL, 0.1 + 0.2)])
def test_other_ranks_read_the_verdict_that_was_sent(verdict):
    assert Verdict.of_word(verdict.word) == verdict


def test_a_step_that_fails_is_counted_so_that_ranks_stay_in_step(clock):
    contest, asked, sequential = contest_of(clock, 0.5, 1.0)
    good = asked.run
    asked.run = lambda tensors, values: 1 / 0
    with pytest.raises(ZeroDivisionError):
        contest.run([], [8])
    asked.run = good
    for _ in range(MEASURED_STEPS - 1):
        contest.run([], [8])
    assert (asked.runs, sequential.runs) == (PAIRS, PAIRS + 1)
    (row,) = contest.table()
    assert (row["keeps"], row["gain"]) == (True, 2.0)


def test_a_decision_that_fails_is_tried_again_with_the_same_measurement(clock, monkeypatch):
    contest, _, _ = contest_of(clock, 0.5, 1.0)
    contest._agreed = {"tp": "plan 7"}

    def silent(group, topic, word, timeout_s):
        assert (group, topic) == ("tp", "plan 7/(4,)")
        raise df.AgreementError("rank 0 took no decision")

    monkeypatch.setattr(never_slower, "word_of_first_rank", silent)
    for _ in range(MEASURED_STEPS - 1):
        contest.run([], [8])
    for _ in range(3):
        with pytest.raises(df.AgreementError, match="no decision"):
            contest.run([], [8])
    monkeypatch.setattr(
        never_slower, "word_of_first_rank", lambda group, topic, word, timeout_s: word
    )
    contest.run([], [8])
    (row,) = contest.table()
    assert (row["keeps"], row["gain"]) == (True, 2.0)


def test_without_a_sequential_plan_the_strategys_serves(clock):
    asked = FakePlan("asked", clock, 1.0)
    contest = Contest(asked, [lambda values: None], {}, None)
    for _ in range(MEASURED_STEPS + 3):
        assert contest.run([], [8]) == (asked, "asked")


def test_threads_measure_one_by_one(clock):
    contest, asked, sequential = contest_of(clock, 0.5, 1.0)
    threads = [
        threading.Thread(target=lambda: [contest.run([], [8]) for _ in range(MEASURED_STEPS)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sequential.runs == PAIRS + 1 and asked.runs == 4 * MEASURED_STEPS - sequential.runs


def test_a_strategy_given_by_name_is_measured_and_one_given_as_an_object_is_not():
    model, x = stack(), torch.randn(8, 8)
    named = df.compile(model, "nanoflow", {"min_tokens": 0, "parts": 2})
    given = df.compile(model, df.NanoFlow(min_tokens=0))
    asked = df.compile(model, df.NanoFlow(min_tokens=0), {"never_slower": True})
    forced = df.compile(model, "nanoflow", {"min_tokens": 0, "never_slower": False})
    with torch.no_grad():
        expected = model(x)
        for compiled in (named, given, asked, forced):
            for _ in range(MEASURED_STEPS + 2):
                torch.testing.assert_close(compiled(x), expected)
    for compiled in (named, asked):
        text = str(df.report(compiled))
        nanoflow, sequential = df.report(compiled).graphs[0]["plans"]
        assert (nanoflow["parts"], sequential["parts"]) == (2, 1)
        (row,) = nanoflow["never_slower"]
        assert row["sizes"] == [[8, 15]] and row["keeps"] in (True, False)
        assert "x the sequential plan's speed" in text
        steps = [plan["counters"]["steps"] for plan in (nanoflow, sequential)]
        assert sorted(steps) == [PAIRS + 1, PAIRS + 3]
    for compiled in (given, forced):
        assert len(df.report(compiled).graphs[0]["plans"]) == 1


def test_what_a_strategy_leaves_unsplit_is_not_measured():
    compiled = df.compile(stack(), "nanoflow")
    with torch.no_grad():
        for _ in range(MEASURED_STEPS):
            compiled(torch.randn(8, 8))
    ((_, plan),) = debug.plans(compiled)
    assert plan.contest is None and plan.plan.cut["parts"] == 1


def test_never_slower_is_yes_or_no():
    with pytest.raises(df.ScheduleError, match="never_slower"):
        df.compile(stack(), "nanoflow", {"never_slower": "yes"})


def test_an_alternative_that_would_have_to_be_tried_first_is_left_out():
    def own(x):
        return torch.nn.functional.gelu(x)

    class Replacing(df.Strategy):
        def partition(self):
            return [df.SplitFunc("gelu", tag="gelu")]

        def schedule(self, s, batch):
            s.split(4)
            while ops := s.get_ready_ops():
                for op in ops:
                    s.execute(op, replace_func=own if op.has_tag("gelu") else None)

    class Two(df.NanoFlow):
        def alternatives(self):
            return [Replacing()]

    model, x = stack(), torch.randn(8, 8)
    compiled = df.compile(model, Two(min_tokens=0), {"never_slower": True})
    with torch.no_grad(), pytest.warns(df.DynaFlowWarning, match="Replacing is no alternative"):
        for _ in range(measured_steps(1) + 1):
            torch.testing.assert_close(compiled(x), model(x))
    (row,) = df.report(compiled).graphs[0]["plans"][0]["never_slower"]
    assert row["parts"] in (1, 2)
