import gc
import json

import pytest
import torch
from small_models import stack

import dynaflow as df
from dynaflow import debug

pytestmark = pytest.mark.usefixtures("inference")


class Streams(df.Strategy):
    """Two parts; the activation on a stream of its own."""

    def partition(self):
        return [df.SplitFunc("gelu", tag="act"), df.SplitFunc("addm")]

    def schedule(self, s, batch):
        s.split(2)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op, stream="side" if op.has_tag("act") else "compute")


@pytest.fixture
def compiled():
    made = df.compile(stack(), strategy=Streams())
    made(torch.randn(8, 8))
    return made


def test_the_report_says_what_runs_and_where(compiled):
    graph = df.report(compiled).graphs[0]
    plan = graph["plans"][0]
    assert graph["name"] == "Stack" and graph["batch_symbol"]
    assert graph["last_parts"] == [4, 4] and plan["parts"] == 2
    assert [stream["name"] for stream in plan["streams"]] == ["compute", "side"]
    assert plan["segments"]["split"] == 7 and plan["segments"]["merged"] == 0
    assert plan["collectives"] == [] and plan["counters"]["steps"] == 1


def test_a_pattern_that_matched_nothing_is_shown_with_near_misses(compiled):
    unmatched = df.report(compiled).graphs[0]["unmatched"]
    assert unmatched[0]["patterns"] == ["addm"]
    assert "addmm" in unmatched[0]["near_misses"]
    shown = next(
        line for line in str(df.report(compiled)).splitlines() if "matched nothing" in line
    )
    assert "addm;" in shown and "addmm" in shown


def test_the_report_is_json(compiled):
    data = df.report(compiled).to_json()
    assert json.loads(json.dumps(data)) == data
    assert data["strategy"] == "Streams" and data["fallbacks"] == []


def test_an_op_that_cannot_be_split_is_named_with_the_reason():
    compiled = df.compile(lambda x: x.sort(dim=0).values + x, strategy=df.NanoFlow(min_tokens=0))
    compiled(torch.randn(6, 2))
    merged = df.report(compiled).graphs[0]["plans"][0]["segments"]["merged_because"]
    assert [item["name"] for item in merged] == ["sort"]
    assert "mixes the rows" in merged[0]["reason"]


def test_only_compiled_objects_have_a_report():
    with pytest.raises(TypeError, match=r"dynaflow\.compile"):
        df.report(stack())


def test_a_trace_has_every_run_of_the_step(compiled, tmp_path):
    with df.trace(compiled) as trace:
        compiled(torch.randn(6, 8))
    plan = df.report(compiled).graphs[0]["plans"][0]
    assert len(trace.events) == plan["runs"]
    assert {event["stream"] for event in trace.events} == {"compute", "side"}
    assert {event["part"] for event in trace.events} == {"0", "1"}
    assert all(event["start_us"] <= event["end_us"] for event in trace.events)
    trace.save(tmp_path / "step.json")
    saved = json.loads((tmp_path / "step.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in saved) == len(trace.events)
    compiled(torch.randn(6, 8))
    assert len(trace.events) == plan["runs"], "later steps are not traced"


def test_runs_show_in_torchs_profiler_by_name(compiled):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        compiled(torch.randn(6, 8))
    names = {event.key for event in profile.key_averages()}
    assert any(name.startswith("mb1/") for name in names)


def test_serial_poisoned_and_delayed_runs_give_the_same_bits(compiled):
    for rows in (4, 7, 33):
        x = torch.randn(rows, 8)
        expected = compiled(x)
        with debug.run_mode(compiled, serial=True, poison=True):
            assert compiled(x).equal(expected)
        with debug.run_mode(
            compiled, poison=True, delays_us=lambda n: [200 * (i % 3) for i in range(n)]
        ):
            assert compiled(x).equal(expected)


def test_reports_reach_what_others_compiled():
    def model(x):
        return x.sin() + 1

    def strategies():
        return [report.strategy for report in df.reports()].count("nanoflow")

    torch.compiler.reset()  # what earlier tests left
    gc.collect()
    before = strategies()
    options = {"strategy": "nanoflow", "min_tokens": 0}
    compiled = torch.compile(model, backend="dynaflow", dynamic=True, options=options)
    compiled(torch.randn(4, 3))
    assert strategies() == before + 1
    del compiled
    torch.compiler.reset()
    gc.collect()
    assert strategies() == before
