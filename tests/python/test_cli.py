"""The `dynaflow` command: what it prints, its exit statuses, and how it says what is wrong."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "build/release/cli/dynaflow"
CASES = ROOT / "tests/cases"
GRAPH = CASES / "overlap_two_parts.case"
NANOFLOW = ("--strategy", "nanoflow", "--option", "min_tokens=0")


def run(*arguments, text=None):
    """The outcome of one command; it must not take seconds."""
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=30
    )


def facts(*arguments, text=None):
    """What the command says as JSON."""
    done = run(*arguments, "--json", text=text)
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "layer.plan"
    done = run("plan", GRAPH, *NANOFLOW, "-o", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return path


@pytest.fixture
def racy(plan):
    """The plan without one wait: the sum is read before it is there."""
    path = plan.with_name("racy.plan")
    path.write_text(plan.read_text().replace("wait(0), ", "", 1))
    assert path.read_text() != plan.read_text()
    return path


def test_it_starts_without_torch_and_python():
    assert run("--version").stdout.startswith("dynaflow 0.")
    linked = subprocess.run(["ldd", COMMAND], capture_output=True, text=True, check=True).stdout
    assert "libstdc++" in linked or "static" in linked
    assert "torch" not in linked
    assert "python" not in linked


def test_a_graph_is_described():
    found = facts("inspect", GRAPH)
    assert found["graph"] == "tp_layer"
    assert found["batch"] == "s0"
    assert found["symbols"] == [{"name": "s0", "min": 2, "max": None, "hint": 8}]
    assert found["ops"] == {"compute": 3, "view": 0, "collective": 1, "opaque": 0}
    assert (found["parameters"], found["inputs"], found["outputs"]) == (1, 1, 1)
    assert found["collectives"] == [{"group": "tp", "collective": "all_reduce", "calls": 1}]
    assert found["split"] == {"whole": 0, "split": 4, "merged": 0}
    assert found["not_split"] == []


def test_an_op_that_cannot_be_split_is_named_with_the_reason():
    text = GRAPH.read_text().replace("aten.relu.default(%b)", "aten.unheard_of.default(%b)")
    (refused,) = facts("inspect", "-", text=text)["not_split"]
    assert refused == {"op": "c", "reason": "no rule for aten.unheard_of.default"}
    assert "  c: reason no rule for aten.unheard_of" in run("inspect", "-", text=text).stdout


def test_a_plan_is_described(plan):
    found = facts("inspect", plan)
    assert found["strategy"] == "nanoflow"
    assert (found["parts"], found["cut"]) == (2, "even(2, 2)")
    assert found["guards"] == ["not(lt(s0, 4))"]
    assert [(s["name"], s["kind"], s["launch"], s["wait"]) for s in found["streams"]] == [
        ("compute", "host", 4, 2),
        ("network", "async", 2, 0),
    ]
    assert (found["runs"], found["launches"], found["events"]) == (6, 8, 2)
    assert found["arena"] == {"sizes": {"s0": 8}, "bytes": 2048}


def test_ops_without_an_out_form_are_counted_as_copies():
    text = GRAPH.read_text().replace(', out_target="aten.relu.out"', "")
    made = run("plan", "-", *NANOFLOW, text=text).stdout
    found = facts("inspect", "-", text=made)
    assert [entry["target"] for entry in found["copies"]] == ["aten.relu.default"]


def test_the_text_and_the_json_say_the_same(plan):
    for file in (GRAPH, plan):
        lines = run("inspect", file).stdout.splitlines()
        keys = [line.split(":")[0].replace(" ", "_") for line in lines if line[0] != " "]
        assert keys == list(facts("inspect", file))


def test_a_plan_is_made_for_the_sizes_given():
    made = facts("plan", GRAPH, *NANOFLOW, "--option", "parts=3", "--size", "s0=12")
    assert (made["parts"], made["sizes"]) == (3, {"s0": 12})
    assert made["text"] == run("plan", GRAPH, *NANOFLOW, "--option=parts=3", "--size=s0=12").stdout
    assert facts("plan", GRAPH, "--strategy", "sequential")["parts"] == 1
    halves = facts("plan", GRAPH, *NANOFLOW, "--option", "fractions=[0.25, 0.75]")
    assert "fractions(2, 2, [0.25, 0.75])" in halves["text"]


@pytest.mark.parametrize("case", sorted(CASES.glob("*.case")), ids=lambda case: case.stem)
def test_the_plans_of_all_cases_are_safe(case):
    for strategy in (("--strategy", "sequential"), NANOFLOW):
        made = run("plan", case, *strategy)
        assert made.returncode == 0, made.stderr
        assert run("verify", "-", text=made.stdout).stdout.startswith("standard input: safe (")


def test_safe_plans_are_counted_and_timed(plan):
    done = run("verify", plan)
    counts = "6 runs, 8 launches, 2 streams, 2 events, 12 slots"
    assert (done.returncode, done.stdout) == (0, f"{plan}: safe ({counts})\n")
    assert run("verify", plan, "--time").stdout.endswith(" ms)\n")
    found = facts("verify", plan, "--time")
    assert found["safe"] is True
    assert found["ranks"] is None
    assert found["plans"][0]["ms"] >= 0


def test_a_race_is_shown_as_a_counterexample(racy):
    done = run("verify", racy)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{racy}: not safe: race: ")
    found = facts("verify", racy)
    assert found["safe"] is False
    assert found["plans"][0]["counterexample"]["kind"] == "race"
    assert "all_reduce" in done.stdout


def test_ranks_must_agree(plan, tmp_path):
    assert run("verify", plan, plan).stdout.endswith("2 ranks: safe (2 collectives in 1 groups)\n")
    other = tmp_path / "whole.plan"
    run("plan", GRAPH, "--strategy", "sequential", "-o", other)
    done = run("verify", plan, other)
    assert done.returncode == 1
    assert "2 ranks: not safe: ranks: collective 0 of group 'tp'" in done.stdout


BAD = [
    ("graph: g\n  %a = (1)\n", "2:8: found '(1)'; expected an operation"),
    ("graph: g\n  k(1", "2:6: found the end of the line; expected ','"),
    ("  k()\n", "1:1: a line outside of any section; expected 'name:' above it"),
    ("", "1:1: no section 'graph:'"),
    ("graph: g\n  %s0 = symbol() {hint=x}\n", "2:24: found 'x'; expected an integer"),
    ("graph: g\n  output(%nothing)\n", "2:10: found '%nothing'; expected a value defined above"),
    ("graph: g\n  k(" + "(" * 100 + ")\n", "2:69: found '(((((((((((("),
    ("graph: g\n  k(1" + "+1" * 9999 + ")\n", "; expected at most 1024 operators in a row"),
    ("graph: g {batch=s7}\n", " GraphError: the batch symbol 's7' is not in the graph"),
    ("graph: g\nplan: plan() {cut=even(1, 1), events=0}\n", "2:7: 'plan' needs the attribute"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_with_the_place(text, message, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    done = run("inspect", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{path}:")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_files_that_are_not_there_are_named(tmp_path):
    assert run("inspect", tmp_path / "no").stderr == f"{tmp_path / 'no'}: cannot be opened\n"
    assert run("inspect", tmp_path).returncode == 2
    done = run("plan", GRAPH, "-o", tmp_path / "no" / "file")
    assert (done.returncode, done.stderr) == (2, f"{tmp_path / 'no' / 'file'}: cannot be written\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "A subcommand is required"),
        (["verify"], "PLAN is required"),
        (["inspect", GRAPH, "--jsno"], "--jsno"),
        (["plan", GRAPH, "--strategy", "no"], "unknown strategy 'no'; known: nanoflow, sequential"),
        (["plan", GRAPH, "--option", "part=2"], "has no option 'part'; it has: fractions"),
        (["plan", GRAPH, "--option", "parts"], "--option parts: expected name=value"),
        (["plan", GRAPH, "--option", "parts=2)"], "the value cannot be read"),
        (["plan", GRAPH, "--option", 'parts="a"'], "found '\"a\"'; expected an integer"),
        (["plan", GRAPH, "--option", "parts=5000000000"], "expected 1 to 1024 parts"),
        (["plan", GRAPH, "--size", "s9=1"], "with a symbol of the graph"),
        (["plan", GRAPH, "--size", "s0=1"], "'s0' lies between 2 and 9223372036854775807"),
    ],
)
def test_bad_command_lines_are_refused(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
