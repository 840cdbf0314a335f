import pytest
import torch
from small_models import Mlp, stack

import dynaflow as df
from dynaflow import _core

pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture(scope="module")
def graph():
    return df.capture(stack(), torch.randn(8, 8))[0]


def scheduler(graph, annotations=(), rows=8):
    partition = _core.partition(graph, [annotation.lower() for annotation in annotations])
    return _core.Scheduler(partition, "test", {graph.batch_symbol: rows})


def run_all(s, choose=lambda op: "compute"):
    while ops := s.get_ready_ops():
        for op in ops:
            s.execute(op, stream=choose(op))
    return _core.lower(s.finish())


def names(partition):
    return [segment["name"] for segment in partition.segments]


def test_modules_are_cut_out_by_class_by_name_and_by_path(graph):
    by_class = _core.partition(graph, [df.SplitModule(Mlp).lower()])
    by_name = _core.partition(graph, [df.SplitModule("Mlp", tag="mlp").lower()])
    by_path = _core.partition(graph, [df.SplitModule("layers.1").lower()])
    assert names(by_class) == names(by_name)
    assert sum("mlp" in segment["tags"] for segment in by_name.segments) == 3
    assert any(segment["name"].startswith("layers.1") for segment in by_path.segments)
    assert len(names(by_path)) < len(names(by_class))


def test_operators_are_cut_out_with_their_tags(graph):
    partition = _core.partition(graph, [df.SplitFunc(["addmm", "gelu"], tags=["a", "b"]).lower()])
    tagged = [segment for segment in partition.segments if segment["tags"] == ["a", "b"]]
    assert len(tagged) == 3 and all(len(segment["ops"]) == 2 for segment in tagged)


def test_marked_regions_are_cut_out():
    def model(x):
        x = x.sin()
        with df.mark("expert"):
            x = x.cos().exp()
        return x.tanh()

    graph = df.capture(model, torch.randn(4, 3))[0]
    partition = _core.partition(graph, [df.SplitMark("expert", tag="e").lower()])
    assert [(segment["ops"], segment["tags"]) for segment in partition.segments] == [
        (["sin"], []),
        (["cos", "exp"], ["e"]),
        (["tanh"], []),
    ]


def test_comparisons_become_the_buckets_borders(graph):
    s = scheduler(graph, rows=8)
    tokens = s.batch().tokens
    assert not tokens < 4 and tokens >= 8 and tokens != 9
    assert s.bucket(s.batch().size, [2, 5, 100]) == 2
    s.run_sequentially()
    borders = {right for _, _, right, _ in _core.lower(s.finish()).guards}
    assert {"4", "8", "9", "5", "100"} <= borders


@pytest.mark.parametrize(
    "use",
    [
        int,
        float,
        str,
        repr,
        bool,
        hash,
        lambda x: f"{x}",
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: x // 2,
        range,
    ],
)
def test_a_range_gives_away_no_single_value(graph, use):
    s = scheduler(graph)
    with pytest.raises(TypeError, match=r"s\.bucket\(size, borders\)"):
        use(s.batch().size)


def test_plans_are_made_for_buckets_and_kept():
    seen = []

    class Mine(df.Strategy):
        def schedule(self, s, batch):
            seen.append(s)
            if batch.size < 6:
                return s.run_sequentially()
            s.split([0.25, 0.75])
            return run_ops(s)

    def run_ops(s):
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op)

    model = stack()
    compiled = df.compile(model, strategy=Mine())
    for rows in (8, 4, 16, 5, 8, 4, 12):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), model(x))
    plans = df.report(compiled).graphs[0]["plans"]
    assert len(seen) == 2 and [plan["parts"] for plan in plans] == [2, 1]
    compiled(torch.randn(16, 8))
    assert df.report(compiled).graphs[0]["last_parts"] == [4, 12]


def test_explicit_sizes_hold_for_their_batch_only():
    class Mine(df.Strategy):
        def schedule(self, s, batch):
            s.split([3, 5])
            while ops := s.get_ready_ops():
                for op in ops:
                    s.execute(op)

    compiled = df.compile(stack(), strategy=Mine())
    compiled(torch.randn(8, 8))
    assert df.report(compiled).graphs[0]["last_parts"] == [3, 5]
    with pytest.raises(df.PlanError, match="9"):
        compiled(torch.randn(9, 8))


def test_two_parts_of_one_segment_run_as_one_launch(graph):
    s = scheduler(graph, [df.SplitFunc("gelu", tag="merge")])
    assert s.split(2) == 2
    pending = {}
    while ops := [op for op in s.get_ready_ops() if op not in pending.get(op.segment, [])]:
        for op in ops:
            if not op.has_tag("merge"):
                s.execute(op)
                continue
            pending.setdefault(op.segment, []).append(op)
            if len(pending[op.segment]) == 2:
                s.execute(pending[op.segment])
    runs = _core.lower(s.finish()).runs
    merged = [run for run in runs if run["last_part"] - run["first_part"] == 2]
    assert len(merged) == 3, "one gelu for each layer"


def test_streams_and_extra_order_edges_reach_the_plan(graph):
    s = scheduler(graph, [df.SplitFunc("gelu", tag="act")])
    s.split(2)
    plan = run_all(s, lambda op: "side" if op.has_tag("act") else "compute")
    assert [name for name, _ in plan.streams] == ["compute", "side"]
    assert {run["stream"] for run in plan.runs if "gelu" in str(run["ops"])} == {"side"}
    again = _core.parse_plan(plan.text)
    assert again == plan


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda s, op: (s.execute(op), s.execute(op)), "already|twice|executed"),
        (lambda s, op: None, "never|not executed|missing"),
    ],
    ids=["twice", "never"],
)
def test_a_wrong_schedule_is_refused_by_name(mistake, message):
    class Wrong(df.Strategy):
        def partition(self):
            return [df.SplitModule("layers.1")]

        def schedule(self, s, batch):
            mistake(s, s.get_ready_ops()[0])

    with pytest.raises(df.ScheduleError, match=message) as caught:
        df.compile(stack(), strategy=Wrong())(torch.randn(4, 8))
    assert "layers" in str(caught.value)


def test_a_strategy_without_a_schedule_or_with_a_wrong_partition_says_so():
    class Empty(df.Strategy):
        pass

    class Odd(df.Strategy):
        def partition(self):
            return ["all_reduce"]

    with pytest.raises(NotImplementedError, match="Empty has no schedule"):
        df.compile(stack(), strategy=Empty())(torch.randn(4, 8))
    with pytest.raises(df.ScheduleError, match="'Odd' returned 'all_reduce'; use SplitFunc"):
        df.compile(stack(), strategy=Odd())(torch.randn(4, 8))


def test_builtin_strategies_can_be_refined():
    class Mine(df.NanoFlow):
        def partition(self):
            return [*super().partition(), df.SplitFunc("gelu")]

    model = stack()
    compiled = df.compile(model, strategy=Mine(parts=2, min_tokens=0))
    x = torch.randn(6, 8)
    torch.testing.assert_close(compiled(x), model(x))
    assert df.report(compiled).graphs[0]["last_parts"] == [3, 3]
    assert df.NanoFlow(fractions=[0.25, 0.75]).name == "nanoflow"
