"""What the documentation says is so: examples run, texts are printed, links lead somewhere."""

import contextlib
import importlib
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

import dynaflow as df
from dynaflow import _core

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def blocks(page):
    """(language, text) of every fenced block. What cannot run on its own is fenced `py`."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def gradients_as_before():
    before = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(before)


@pytest.mark.parametrize("page", ["README.md", "docs/strategies.md"])
def test_examples_run_and_print_what_the_page_shows(page):
    names = {"__name__": "__main__"}
    printed, ran = "", 0
    for language, text in blocks(page):
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(text, f"{page}, example {ran}", "exec"), names)
            printed, ran = output.getvalue(), ran + 1
        elif language == "text" and printed:
            assert printed == text
            printed = ""
    assert ran > 1


def test_the_commands_of_the_command_page_print_what_it_shows(tmp_path):
    binary = ROOT / "build/release/cli/dynaflow"
    (tmp_path / "build").mkdir()
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    printed, ran = "", 0
    for language, text in blocks("docs/cli.md"):
        if language == "sh":
            commands = [shlex.split(line) for line in text.splitlines()]
            assert all(command[0] == "dynaflow" for command in commands)
            done = [
                subprocess.run([binary, *command[1:]], cwd=tmp_path, capture_output=True, text=True)
                for command in commands
            ]
            assert not any(one.returncode or one.stderr for one in done)
            printed, ran = "".join(one.stdout for one in done), ran + 1
        elif language == "text":
            assert printed == text
    assert ran == 3


def test_the_text_forms_of_the_architecture_page_are_those_of_one_graph():
    shown = [text for _, text in blocks("docs/architecture.md")]
    graph_text = next(text for text in shown if text.startswith("graph:"))
    graph = _core.parse_graph(graph_text)
    strategy = df.NanoFlow(parts=2, min_tokens=0)
    partition = _core.partition(graph, strategy.annotations())
    scheduler = _core.Scheduler(partition, strategy.name, {"s0": 8})
    strategy.schedule(scheduler, scheduler.batch())
    schedule = scheduler.finish()
    actual = {
        "graph": graph.text,
        "partition": partition.text,
        "schedule": schedule.text,
        "plan": _core.lower(schedule).text.removeprefix(graph.text),
    }
    for name, expected in actual.items():
        assert expected in shown, f"the {name} is\n{expected}"


def test_the_architecture_page_has_the_layer_table_that_the_lint_enforces(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "lint")
    layers = importlib.import_module("check_layers")
    section = (
        (ROOT / "docs/architecture.md").read_text().split("\n## Layers\n")[1].split("\n## ")[0]
    )
    rows = re.findall(r"^\| (\w+) \|(.*)\|$", section, re.MULTILINE)
    assert {name: re.findall(r"\w+", allowed) for name, allowed in rows[1:]} == layers.TABLE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    prose = CODE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(prose):
        assert (page.parent / target).exists(), target


def test_the_timeline_is_what_its_script_draws(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    drawn = importlib.import_module("draw_timeline").draw()
    assert drawn == (ROOT / "docs/timeline.svg").read_text(encoding="utf-8")
