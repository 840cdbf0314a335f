"""The demo and the figures on a tiny model, with DynaFlow itself replaced by eager PyTorch."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dynaflow import __main__ as command
from dynaflow.bench import (
    capture,
    demo,
    demo_rank,
    eager,
    engine,
    explain,
    host_cost,
    net,
    overlap,
    records,
    timeline,
)
from dynaflow.bench.stats import Rounds, Summary
from dynaflow.bench.ui import Display
from dynaflow.bench.workload import TINY

FEW = Rounds(least=2, most=2, warmup=1)
FIELDS = {"name", "value", "unit", "ratio", "baseline", "bound", "low", "high"}
COLLECTIVES = [
    dict(name=f"layers.{layer}.mlp", part=part, bytes=2**20, overlapped=(layer, part) != (7, 1),
         reason="no independent work left", hidden_us=2000.0, exposed_us=500.0)
    for layer in range(8) for part in range(2)
]  # fmt: skip
REPORT = {"graphs": [{"plans": [{"parts": 1}, {"parts": 2, "collectives": COLLECTIVES}]}]}


class Arm:
    """Runs the model as it is."""

    def __init__(self, model):
        self.model = model

    def __call__(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def stand_in():
    """Replaces DynaFlow in this process by eager PyTorch."""

    def traced(compiled, run, path=None):
        run()
        if path is not None:
            event = dict(name="mb0", ph="X", ts=0, dur=1, pid=0, tid=0)
            Path(path).write_text(json.dumps({"traceEvents": [event]}))
        return [dict(name="mb0", stream="compute", part=0, start_us=0.0, end_us=1.0)]

    engine.compile_arm = lambda model, arm: model if arm == engine.EAGER else Arm(model)
    engine.variant_arm = lambda compiled, arm: Arm(compiled.model)
    engine.report = lambda compiled: REPORT
    engine.traced = traced
    host_cost.compile_split = lambda model: model


def demo_target(context, **kwargs):
    stand_in()
    return demo_rank.main(context, **kwargs)


def overlap_target(context, **kwargs):
    stand_in()
    overlap.measure(context, **kwargs)


def eager_target(context, **kwargs):
    stand_in()
    return eager.measure(context, **kwargs)


def capture_target(context, **kwargs):
    stand_in()
    return capture.measure(context, **kwargs)


def host_cost_target(context, **kwargs):
    stand_in()
    return host_cost.measure(context, **kwargs)


@pytest.fixture
def display(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return Display(Console(file=io.StringIO(), width=200))


def shown(display):
    return display.console.file.getvalue()


@pytest.mark.parametrize("loopback", [False, True])
def test_demo(display, tmp_path, loopback):
    options = demo.DemoOptions(
        records=tmp_path / "records.json",
        timeline=tmp_path / "timeline.json",
        loopback=loopback,
        rounds=FEW,
        shape=TINY,
        timeout_s=200,
        target=f"{__name__}:demo_target",
    )
    assert demo.run(options, display) == 0
    text = shown(display)
    rows = json.loads(options.records.read_text())
    assert all(set(row) == FIELDS for row in rows)
    (nanoflow,) = (row for row in rows if row["name"] == "demo/sharegpt 8 requests/nanoflow")
    if "plain loopback" in text:
        assert nanoflow["ratio"] == records.NOT_APPLICABLE
        assert records.NOT_APPLICABLE in text
    else:
        assert not loopback
        assert nanoflow["ratio"] > 0 and nanoflow["bound"] > 0
        assert "chosen so that N/C = 0.6" in text
    assert "416 real of 1024 tokens (41%)" in text
    assert "no independent work left" in text
    assert "compile to first step" in text
    processes = {event["pid"] for event in json.loads(options.timeline.read_text())["traceEvents"]}
    assert processes == {0, 1}


def test_figure_overlap(display):
    cells = (overlap.Cell((4, 16), 0.6), overlap.Cell((2, 8), None))
    found = overlap.run(display, TINY, cells, FEW, f"{__name__}:overlap_target")
    names = [row.name for row in found]
    assert names[:2] == [
        "overlap/64 tokens, N/C = 0.6",
        "overlap/64 tokens, N/C = 0.6/nanoflow, guarded",
    ]
    assert "overlap/16 tokens, 1 Gbit/s" in names
    assert all(row.baseline == "sequential" for row in found[:2])


def test_figure_eager(display):
    found = eager.run(display, TINY, ((2, 8),), FEW, f"{__name__}:eager_target")
    assert [row.name for row in found] == ["eager/TP=1 (2, 8)", "eager/TP=2 (2, 8)"]
    assert all(row.low <= row.ratio <= row.high for row in found)


def test_figure_capture(display):
    found = capture.run(display, TINY, (1,), 1, f"{__name__}:capture_target")
    costs = [row for row in found if row.unit == "x"]
    assert len(costs) == 2 and all(row.baseline == "aot_eager" for row in costs)


def test_figure_host_cost(display):
    found = host_cost.changing_sizes(display, FEW, f"{__name__}:host_cost_target")
    assert found[-1].name == "host-cost/changing over fixed"
    assert sum(host_cost.CHANGING_ROWS) == len(host_cost.CHANGING_ROWS) * host_cost.FIXED_ROWS[0]


def test_overlap_rows_join_layers():
    assert explain.overlap_rows(REPORT) == [
        ["layers.*.mlp", "15", "15.0", "yes", "30.0", "7.5", ""],
        ["layers.*.mlp", "1", "1.0", "no", "2.0", "0.5", "no independent work left"],
    ]
    assert explain.overlap_rows({"graphs": []}) == []


def test_inaccurate_results_are_found():
    errors = {"eager": 1e-7, "sequential": 1e-7, "nanoflow": 2.1e-7}
    result = demo_rank.DemoResult(None, [], errors, None, {}, (0, 0), None)
    assert not demo.accurate(result)
    result.errors["nanoflow"] = 1.9e-7
    assert demo.accurate(result)


def test_records_hold_no_nan(tmp_path):
    path = tmp_path / "a new folder" / "records.json"
    row = records.timing("a", Summary(2.0, 1.0, 3.0), None, None, float("nan"))
    records.write(path, [row])
    (found,) = json.loads(path.read_text())
    assert found["bound"] is None
    assert (found["value"], found["low"], found["high"]) == (2000, 1000, 3000)


def test_timelines_merge(tmp_path):
    one = tmp_path / "one.json"
    one.write_text(json.dumps([dict(name="a", ph="X", pid=9)]))
    assert timeline.merge([one, one], tmp_path / "all.json") == 4
    events = json.loads((tmp_path / "all.json").read_text())["traceEvents"]
    assert [event["pid"] for event in events if event["name"] == "a"] == [0, 1]


def test_unknown_arm_and_figure(capsys):
    with pytest.raises(ValueError, match="no arm 'other'; there are"):
        engine.compile_arm(None, "other")
    with pytest.raises(SystemExit):
        command.main(["bench", "other"])
    assert "host-cost" in capsys.readouterr().err


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(command, "REQUIRED", ("rich", "no_such_package"))
    assert command.main(["demo"]) == 2
    assert "not installed: no_such_package" in capsys.readouterr().err


def test_loopback_is_never_shaped():
    with net.Loopback() as link:
        link.set_rate(1e9)
        assert not link.shaped and link.prefix(0) == []
