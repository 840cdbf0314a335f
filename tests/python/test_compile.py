import copy
import gc
import inspect
import os
import pickle
import subprocess
import sys
import warnings
import weakref

import pytest
import torch
from small_models import Stack, llama, prompt, stack
from transformers.modeling_outputs import CausalLMOutputWithPast

import dynaflow as df
from dynaflow import _loader
from dynaflow.backend import dynaflow as backend

pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture(scope="module")
def model():
    return llama()


class Halves(df.Strategy):
    """Two parts, one stream, cut at the linear layers."""

    def partition(self):
        return [df.SplitFunc("addmm")]

    def schedule(self, s, batch):
        s.split(2)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op)


def graphs(compiled):
    return df.report(compiled).graphs


@pytest.mark.parametrize("strategy", ["sequential", df.NanoFlow(min_tokens=0)])
def test_every_batch_size_runs_one_graph_and_equals_eager(model, strategy):
    compiled = df.compile(model, strategy=strategy, dynamic_dims=(0, 1))
    for batch, length in ((4, 8), (6, 8), (33, 5), (2, 12), (3, 9)):
        inputs = prompt(batch, length)
        result = compiled(**inputs, use_cache=False)
        torch.testing.assert_close(result.logits, model(**inputs, use_cache=False).logits)
    assert len(graphs(compiled)) == 1, "no size may make a new graph"


def test_keyword_arguments_and_model_outputs_pass_through(model):
    compiled = df.compile(model)
    result = compiled(**prompt(4), use_cache=False, output_hidden_states=True)
    assert isinstance(result, CausalLMOutputWithPast)
    assert len(result.hidden_states) == 3 and result.past_key_values is None


def test_batch_one_has_its_own_sequential_graph_and_no_warning():
    model = stack()
    compiled = df.compile(model, strategy=Halves())
    with warnings.catch_warnings():
        warnings.simplefilter("error", df.DynaFlowWarning)
        for rows in (1, 4, 1, 6):
            x = torch.randn(rows, 8)
            torch.testing.assert_close(compiled(x), model(x))
    plans = [[plan["strategy"] for plan in graph["plans"]] for graph in graphs(compiled)]
    assert plans == [["sequential"], ["Halves"]]


def test_too_few_rows_make_fewer_parts():
    compiled = df.compile(stack(), strategy=df.NanoFlow(parts=4, min_tokens=0))
    found = {}
    for rows in (33, 8, 7, 5, 3, 2):
        compiled(torch.randn(rows, 8))
        found[rows] = graphs(compiled)[0]["last_parts"]
    assert found == {33: [9, 8, 8, 8], 8: [2] * 4, 7: [3, 2, 2], 5: [3, 2], 3: [3], 2: [2]}


def test_earlier_results_stay_as_they_were():
    model = stack()
    compiled = df.compile(model, strategy=Halves())
    inputs = [torch.randn(rows, 8) for rows in (4, 7, 4, 12)]
    results = [compiled(x) for x in inputs]
    for x, result in zip(inputs, results, strict=True):
        torch.testing.assert_close(result, model(x))


class TestTransparency:
    def test_it_is_an_instance_of_the_models_class(self, model):
        compiled = df.compile(model)
        assert isinstance(compiled, type(model)) and type(compiled).__name__ == type(model).__name__
        assert inspect.signature(compiled.forward) == inspect.signature(model.forward)

    def test_state_dict_and_parameters_are_the_models(self):
        model = stack()
        compiled = df.compile(model)
        assert list(compiled.state_dict()) == list(model.state_dict())
        assert all(a is b for a, b in zip(compiled.parameters(), model.parameters(), strict=True))
        compiled.load_state_dict(
            {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
        )
        assert compiled(torch.ones(4, 8)).equal(torch.ones(4, 8)), "only the residual is left"

    def test_attributes_are_shared_both_ways(self):
        model = stack()
        compiled = df.compile(model)
        compiled.note = "kept"
        model.other = 3
        assert (model.note, compiled.other) == ("kept", 3)
        compiled.train()
        assert model.training
        model.eval()
        assert not compiled.training

    def test_hooks_run_once(self):
        model = stack()
        calls = []
        model.register_forward_hook(lambda *_: calls.append("hook"))
        df.compile(model)(torch.ones(4, 8))
        assert calls == ["hook"]

    def test_generate_uses_the_compiled_forward(self, model):
        compiled = df.compile(model)
        inputs = prompt(3)
        options = dict(max_new_tokens=3, do_sample=False, use_cache=False, pad_token_id=0)
        expected = model.generate(**inputs, **options)
        assert compiled.generate(**inputs, **options).equal(expected)
        assert graphs(compiled), "generate ran the compiled forward"

    def test_copies_are_compiled_too_and_have_their_own_parameters(self):
        compiled = df.compile(stack(), strategy=df.NanoFlow(parts=3))
        for again in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
            assert isinstance(again, Stack)
            x = torch.randn(4, 8)
            torch.testing.assert_close(again(x), compiled(x))
            again.layers[0].up.weight.zero_()
            assert compiled.layers[0].up.weight.abs().sum() > 0
            assert df.report(again).strategy == "nanoflow"

    def test_a_forward_set_on_the_instance_is_the_one_that_is_compiled(self):
        model = stack()
        original = model.forward
        model.forward = lambda x: original(x) * 2
        x = torch.randn(4, 8)
        torch.testing.assert_close(df.compile(model)(x), original(x) * 2)

    def test_torchs_own_modules_compile(self):
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
        compiled = df.compile(model)
        x = torch.randn(4, 8)
        torch.testing.assert_close(compiled(x), model(x))
        assert len(compiled) == 2 and len(graphs(compiled)) == 1

    def test_functions_stay_functions(self):
        def double(x, *, factor=2):
            """Twice."""
            return x * factor

        compiled = df.compile(double)
        assert compiled.__doc__ == "Twice." and inspect.isfunction(compiled)
        assert compiled(torch.ones(4, 3), factor=3).sum() == 36
        assert len(graphs(compiled)) == 1

    def test_compiling_again_replaces_the_strategy(self):
        model = stack()
        again = df.compile(df.compile(model), strategy=Halves())
        x = torch.randn(4, 8)
        torch.testing.assert_close(again(x), model(x))
        assert df.report(again).strategy == "Halves"


def test_lists_and_dicts_of_tensors_are_dynamic_too():
    def model(pair, *, named):
        return pair[0] + pair[1] * named["c"]

    compiled = df.compile(model)
    for rows in (4, 6):
        a, b, c = torch.randn(3, rows, 2)
        torch.testing.assert_close(compiled([a, b], named={"c": c}), a + b * c)
    assert len(graphs(compiled)) == 1


def test_inputs_that_a_model_changes_are_changed():
    def model(x, cache):
        cache.add_(x)
        return cache * 2

    compiled = df.compile(model, strategy=Halves())
    x, cache = torch.ones(4, 2), torch.zeros(4, 2)
    assert compiled(x, cache).equal(torch.full((4, 2), 2.0))
    assert cache.equal(torch.ones(4, 2))


def test_results_of_several_kinds_come_back_in_order():
    compiled = df.compile(lambda x: (x.shape[0] * 2, x + 1, None, x), strategy=Halves())
    for rows in (4, 6):
        x = torch.randn(rows, 2)
        size, plus, nothing, same = compiled(x)
        assert size == 2 * rows and nothing is None
        assert plus.equal(x + 1) and same is x


def test_every_piece_between_graph_breaks_runs_and_is_reported():
    def model(x):
        x = x.sin()
        torch._dynamo.graph_break()
        return x.cos()

    compiled = df.compile(model, strategy=Halves())
    for rows in (4, 6):
        x = torch.randn(rows, 3)
        torch.testing.assert_close(compiled(x), x.sin().cos())
    found = graphs(compiled)
    assert len(found) == 2
    assert "graph_break" in found[0]["break_reason"] and found[1]["break_reason"] == ""


def test_needed_gradients_run_the_original_with_one_warning():
    model = stack()
    compiled = df.compile(model)
    x = torch.randn(4, 8)
    with torch.enable_grad():
        with pytest.warns(df.DynaFlowWarning, match=r"torch\.no_grad\(\)") as caught:
            compiled(x).sum().backward()
            compiled(torch.randn(5, 8)).sum().backward()
        assert len([w for w in caught if w.category is df.DynaFlowWarning]) == 1
    assert model.layers[0].up.weight.grad is not None
    torch.testing.assert_close(compiled(x), model(x))
    assert len(graphs(compiled)) == 1, "without gradients it is captured"


def test_a_static_batch_runs_sequentially_with_one_warning_that_names_the_fix():
    options = {"strategy": "nanoflow", "min_tokens": 0}
    compiled = torch.compile(stack(), backend=backend, dynamic=False, options=options)
    x = torch.randn(4, 8)
    with pytest.warns(df.DynaFlowWarning, match="dynamic=True") as caught:
        compiled(x)
        compiled(x)
    assert len([w for w in caught if w.category is df.DynaFlowWarning]) == 1


def test_what_cannot_be_captured_runs_as_it_is_with_one_warning():
    compiled = df.compile(lambda x: torch.view_as_real(torch.view_as_complex(x) * 2j))
    x = torch.randn(4, 3, 2)
    with pytest.warns(df.DynaFlowWarning, match="complex") as caught:
        compiled(x)
        result = compiled(x)
    assert len([w for w in caught if w.category is df.DynaFlowWarning]) == 1
    assert result.equal(torch.view_as_real(torch.view_as_complex(x) * 2j))
    assert "complex" in df.report(compiled).fallbacks[0]


def test_inputs_that_disagree_on_the_batch_run_the_original(model):
    def broadcast(x, y):
        return x + y.sum()

    compiled = df.compile(broadcast)
    compiled(torch.ones(4, 2), torch.ones(4, 2))
    with pytest.warns(df.DynaFlowWarning, match="disagree on the batch"):
        assert compiled(torch.ones(4, 2), torch.ones(6, 2)).sum() == 8 + 8 * 12
    assert graphs(compiled)[0]["original_runs"] == 1


def test_unknown_strategies_and_options_are_refused_with_the_valid_ones():
    with pytest.raises(df.ScheduleError, match="nanoflow, sequential"):
        df.compile(stack(), strategy="nanflow")
    with pytest.raises(df.ScheduleError, match=r"min_tokens, parts.*serial, skip_collectives"):
        df.compile(stack(), strategy="nanoflow", options={"part": 2})
    with pytest.raises(df.ScheduleError, match="an object has its own"):
        df.compile(stack(), strategy=Halves(), options={"parts": 2})
    with pytest.raises(df.ScheduleError, match="not a strategy"):
        df.compile(stack(), strategy=Halves)
    with pytest.raises(df.ScheduleError, match="serial is 1"):
        df.compile(stack(), options={"serial": 1})


def test_torch_compile_knows_the_backend_by_name():
    model = stack()
    options = {"strategy": "nanoflow", "min_tokens": 0, "parts": 3}
    compiled = torch.compile(model, backend="dynaflow", dynamic=True, options=options)
    for rows in (6, 9):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), model(x))
    with pytest.raises(Exception, match="has no option 'part'"):
        torch.compile(model, backend="dynaflow", options={"strategy": "nanoflow", "part": 3})(x)


def test_a_failing_kernel_reaches_the_caller_and_the_next_call_works():
    def model(table, index):
        return table.sin()[index].cos()

    compiled = df.compile(model)
    table, index = torch.randn(4, 3), torch.tensor([1, 2, 0, 3])
    expected = compiled(table, index)
    with pytest.raises(df.ExecutionError, match="index"):
        compiled(table, torch.tensor([1, 2, 99, 3]))
    assert compiled(table, index).equal(expected)


def test_serial_runs_give_the_same_bits():
    x = torch.randn(7, 8)
    model = stack()
    overlapped = df.compile(model, strategy="nanoflow", options={"min_tokens": 0})(x)
    serial = df.compile(model, strategy="nanoflow", options={"min_tokens": 0, "serial": True})(x)
    assert overlapped.equal(serial)


def test_a_compiled_model_can_be_freed():
    compiled = df.compile(stack())
    compiled(torch.ones(4, 8))
    weight = weakref.ref(compiled.layers[0].up.weight)
    del compiled
    torch._dynamo.reset()
    gc.collect()
    assert weight() is None


def test_the_environment_can_bypass_everything():
    code = (
        "import dynaflow as df, torch\n"
        "model = torch.nn.Linear(2, 2)\n"
        "assert df.compile(model, strategy='nanoflow') is model\n"
        "print(df.report(model))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DYNAFLOW_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "disabled" in done.stdout


def test_the_environment_sets_the_log_level():
    code = (
        "import dynaflow as df, torch\n"
        "with torch.no_grad(): df.compile(lambda x: x.sin())(torch.ones(4))"
    )
    run = lambda level: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code],
        env={**os.environ, "DYNAFLOW_LOG": level},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "captured <lambda>" in run("info").stderr
    assert "captured" not in run("warning").stderr
    assert "use one of debug, info, warning" in run("loud").stderr


def test_a_missing_or_foreign_adapter_says_how_to_rebuild(tmp_path):
    with pytest.raises(df.LoadError, match=r"pip install --no-build-isolation"):
        _loader.load_adapter(tmp_path)
    (tmp_path / _loader.LIBRARY).write_bytes(b"")
    (tmp_path / "libdynaflow_torch.version").write_text("2.11.0\n")
    with pytest.raises(df.LoadError, match=r"built for torch 2\.11\.0.*\n.*pip install"):
        _loader.load_adapter(tmp_path)
