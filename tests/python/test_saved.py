"""Plans kept as text: taken where they fit, refused with the reason where they do not."""

from __future__ import annotations

import json

import pytest
import torch
from small_models import llama, prompt, stack

import dynaflow as df
from dynaflow import _core, debug


@pytest.fixture
def saved(tmp_path):
    """The folder with the plans of `stack()` for batches of 2 to 4 and of 5 rows and more."""
    compiled = df.compile(stack(), Halves())
    with torch.no_grad():
        for rows in (3, 9):
            compiled(torch.randn(rows, 8))
    df.save_plans(compiled, tmp_path / "plans")
    return tmp_path / "plans"


class Halves(df.Strategy):
    """Two parts from five rows on."""

    made = 0

    def partition(self):
        return [df.SplitModule("Mlp")]

    def schedule(self, s, batch):
        type(self).made += 1
        if batch.size >= 5:
            s.split(2)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op)


def change(folder, **changes):
    path = folder / "rank0-of-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.no_grad()
def test_loaded_plans_run_instead_of_new_ones(saved):
    torch._dynamo.reset()
    model = stack()
    compiled = df.compile(model, Halves())
    assert df.load_plans(compiled, saved) == 2
    before = Halves.made
    for rows in (2, 4, 5, 12):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), model(x))
    assert Halves.made == before
    assert [plan["parts"] for plan in df.report(compiled).graphs[0]["plans"]] == [1, 2]
    texts = {plan.plan.text for _, plan in debug.plans(compiled)}
    assert texts == {path.read_text() for path in saved.glob("*.plan")}


@torch.no_grad()
def test_a_bucket_that_was_not_saved_is_planned(tmp_path):
    compiled = df.compile(stack(), Halves())
    compiled(torch.randn(3, 8))
    df.save_plans(compiled, tmp_path)
    torch._dynamo.reset()
    compiled = df.compile(stack(), Halves())
    df.load_plans(compiled, tmp_path)
    before = Halves.made
    compiled(torch.randn(3, 8))
    assert Halves.made == before
    compiled(torch.randn(9, 8))
    assert Halves.made == before + 1


@torch.no_grad()
def test_a_llama_starts_from_its_plans(tmp_path):
    model = llama()
    first = df.compile(model, df.NanoFlow(parts=3, min_tokens=0))
    inputs = prompt(7)
    expected = first(**inputs, use_cache=False).logits
    (path,) = df.save_plans(first, tmp_path)
    assert _core.verify(_core.parse_plan(path.read_text())) is None
    torch._dynamo.reset()
    second = df.compile(model, df.NanoFlow(parts=3, min_tokens=0))
    df.load_plans(second, tmp_path)
    assert torch.equal(second(**inputs, use_cache=False).logits, expected)


@torch.no_grad()
def test_plans_of_another_graph_are_refused_with_the_first_difference(saved):
    torch._dynamo.reset()
    model = stack(layers=2)
    compiled = df.compile(model, Halves())
    df.load_plans(compiled, saved)
    x = torch.randn(9, 8)
    with pytest.warns(df.DynaFlowWarning, match=r"made anew.*line \d+ of its text is .*Stack"):
        result = compiled(x)
    torch.testing.assert_close(result, model(x))
    with pytest.raises(df.PlanError, match=r"no plan in .* is one of the graph Stack"):
        df.load_plans(compiled, saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [("torch", "1.0"), ("dynaflow", "9.9.9"), ("format", 0), ("strategy", "nanoflow")],
)
def test_plans_made_by_something_else_are_refused(saved, key, value):
    own = json.loads((saved / "rank0-of-1.json").read_text())[key]
    change(saved, **{key: value})
    with pytest.raises(
        df.PlanError, match=f"are of {key} {value}; this is {key} {own}".replace("+", r"\+")
    ):
        df.load_plans(df.compile(stack(), Halves()), saved)


def test_plans_of_another_world_are_refused(saved):
    (saved / "rank0-of-1.json").rename(saved / "rank1-of-2.json")
    with pytest.raises(df.PlanError, match=r"no plans of rank0 of 1; it has those of rank1-of-2"):
        df.load_plans(df.compile(stack(), Halves()), saved)
    with pytest.raises(df.PlanError, match="nothing was saved there"):
        df.load_plans(df.compile(stack(), Halves()), saved / "elsewhere")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "not json", '{"plans": [3]}', '{"plans": ["../x.plan"]}', '"text"']
)
def test_a_bad_list_of_plans_is_refused(saved, text):
    path = saved / "rank0-of-1.json"
    if text.startswith('{"plans"'):
        change(saved, **json.loads(text))
    else:
        path.write_text(text)
    with pytest.raises(df.PlanError, match=r"rank0-of-1\.json"):
        df.load_plans(df.compile(stack(), Halves()), saved)


def test_a_bad_plan_is_refused_with_its_place(saved):
    path = min(saved.glob("*.plan"))
    text = path.read_text()
    path.write_text(text.replace("run(", "rum(", 1))
    with pytest.raises(df.Error, match=rf"{path.name}: .*line \d+"):
        df.load_plans(df.compile(stack(), Halves()), saved)
    path.unlink()
    with pytest.raises(df.PlanError, match=f"cannot read .*{path.name}"):
        df.load_plans(df.compile(stack(), Halves()), saved)


@torch.no_grad()
def test_a_plan_that_is_not_safe_is_not_run(saved):
    torch._dynamo.reset()
    path = max(saved.glob("*.plan"))
    lines = path.read_text().splitlines(keepends=True)
    last = max(at for at, line in enumerate(lines) if line.startswith("  buffer("))
    lines[last] = lines[last].replace("buffer(", "buffer(0*", 1)
    path.write_text("".join(lines))
    compiled = df.compile(stack(), Halves())
    df.load_plans(compiled, saved)
    with pytest.raises(df.PlanError, match="not safe"):
        compiled(torch.randn(9, 8))


def test_there_is_nothing_to_save_before_the_first_call(tmp_path):
    with pytest.raises(df.PlanError, match="call it before"):
        df.save_plans(df.compile(stack()), tmp_path)


@torch.no_grad()
def test_kernels_of_this_process_cannot_be_saved(tmp_path):
    class Fused(df.Strategy):
        def partition(self):
            return [df.SplitFunc("gelu", tag="gelu")]

        def schedule(self, s, batch):
            while ops := s.get_ready_ops():
                for op in ops:
                    kernel = torch.nn.functional.gelu if op.has_tag("gelu") else None
                    s.execute(op, replace_func=kernel)

    compiled = df.compile(stack(), Fused())
    compiled(torch.randn(4, 8))
    with pytest.raises(df.PlanError, match="replace_func"):
        df.save_plans(compiled, tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("symbol", ["s999", "exit", "s77.real", "__import__"])
def test_a_guard_on_something_else_than_the_graphs_symbols_is_refused(saved, symbol):
    torch._dynamo.reset()
    for path in saved.glob("*.plan"):
        text = path.read_text()
        start = text.index("guard(")
        path.write_text(text[:start] + f"guard(lt({symbol}, 5))" + text[text.index("\n", start) :])
    compiled = df.compile(stack(), Halves())
    with pytest.raises(df.Error, match=r"plan: .*" + symbol.replace(".", r"\.")):
        df.load_plans(compiled, saved)
