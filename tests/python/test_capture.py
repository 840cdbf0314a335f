import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import llama, prompt, stack
from torch._dynamo.backends.common import aot_autograd
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod

import dynaflow as df
from dynaflow import _core
from dynaflow.capture import capture
from dynaflow.capture_nodes import module_path
from dynaflow.capture_schema import facts, quote
from dynaflow.capture_sizes import print_size


@pytest.fixture(scope="module")
def llama_graph():
    inputs = prompt(4)
    return df.capture(llama(), **inputs, use_cache=False, logits_to_keep=1, dynamic_dims=(0, 1))[0]


def op(graph, target):
    return next(op for op in graph.ops if op["target"] == target)


def captured_of(function, *inputs, **options):
    """The Captured of a function's only graph."""
    found = []

    def compiler(gm, _):
        found.append(capture(gm, **options))
        return gm.forward

    backend = aot_autograd(fw_compiler=compiler, inference_compiler=compiler)
    for tensor in inputs:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(function, backend=backend)(*inputs)
    return found[0]


def test_llama_keeps_its_batch_and_sequence_symbols(llama_graph):
    symbols = {symbol["name"]: symbol for symbol in llama_graph.symbols}
    batch = symbols[llama_graph.batch_symbol]
    assert (batch["min"], batch["max"], batch["hint"]) == (2, None, 4)
    assert llama_graph.tokens.count("*") == 1, "tokens are batch * sequence"
    shapes = [value["shape"] for value in llama_graph.values]
    assert [llama_graph.batch_symbol, "1", "256"] in shapes, "the logits keep the batch symbol"


def test_a_captured_graph_survives_its_text_form(llama_graph):
    again = _core.parse_graph(llama_graph.text)
    assert again == llama_graph
    assert again.text == llama_graph.text


def test_a_mask_traced_with_its_own_symbol_shares_the_batch(llama_graph):
    inputs = [line for line in llama_graph.text.splitlines() if " = input(" in line]
    assert len(inputs) == 2
    assert all(f"[{llama_graph.batch_symbol}, " in line for line in inputs)


def test_ops_carry_module_paths_and_class_chains(llama_graph):
    modules = {op["module"] for op in llama_graph.ops}
    assert {"model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj", "lm_head"} <= modules
    up = next(op for op in llama_graph.ops if op["module"] == "model.layers.0.mlp.up_proj")
    assert up["module_type"].endswith("LlamaDecoderLayer/LlamaMLP/Linear")


def test_arguments_are_complete_with_defaults(llama_graph):
    lines = llama_graph.text.splitlines()
    copy = next(line for line in lines if "aten._to_copy.default(" in line)
    assert 'dtype("' in copy and copy.split(") {")[0].count(", ") == 6
    assert any("aten.add.Tensor(" in line and ", 1) {" in line for line in lines), "alpha=1"


def test_only_true_out_overloads_are_named(llama_graph):
    assert op(llama_graph, "aten.mm.default")["out_target"] == "aten.mm.out"
    assert op(llama_graph, "aten.rsqrt.default")["out_target"] == "aten.rsqrt.out"
    assert facts(torch.ops.aten.native_layer_norm.default).out_target == "", (
        "it is generated: it copies"
    )
    assert op(llama_graph, "aten.embedding.default")["out_target"] == "dynaflow.embedding.out", (
        "the adapter has one"
    )
    assert facts(torch.ops.aten.arange.default).out_target == "aten.arange.out", (
        "the tensor to write to says what the arguments left out would"
    )
    assert facts(torch.ops.aten.add_.Tensor).out_target == "", "it writes already"


def test_views_name_what_they_alias(llama_graph):
    view = op(llama_graph, "aten.transpose.int")
    assert view["view"]
    value = next(v for v in llama_graph.values if v["name"] == view["outputs"][0])
    assert value["alias_of"] == view["inputs"][0]


def test_each_piece_of_a_split_is_an_output():
    graph = df.capture(lambda x: sum(x.split(2, dim=1)) * 2, torch.randn(4, 6))[0]
    split = op(graph, "aten.split.Tensor")
    assert len(split["outputs"]) == 3 and split["view"]
    aliases = {v["alias_of"] for v in graph.values if v["name"] in split["outputs"]}
    assert aliases == set(split["inputs"])


def test_a_contiguous_that_copies_is_no_view():
    graph = df.capture(lambda x: (x.t().contiguous() + 1, x.contiguous() + 1), torch.randn(4, 6))[0]
    assert not any(op["view"] and "clone" in op["target"] for op in graph.ops)


def test_marks_nest():
    def model(x):
        with df.mark("outer"):
            y = x.sin()
            with df.mark("inner"):
                y = y.cos()
            y = y.exp()
        return y.tanh()

    graph = df.capture(model, torch.randn(4, 6))[0]
    marks = {op["short_target"]: op["marks"] for op in graph.ops}
    expected = {"sin": ["outer"], "cos": ["outer", "inner"], "exp": ["outer"], "tanh": []}
    assert marks == expected


def test_random_and_synchronising_ops_say_so():
    text = df.capture(lambda x: torch.nn.functional.dropout(x, 0.5), torch.randn(4, 6))[0].text
    assert "random=true" in text


def test_sizes_and_none_are_outputs_too():
    captured = captured_of(lambda x: (x + 1, x.shape[0] * 2, None), torch.randn(4, 6))
    assert captured.outputs[:2] == ["tensor", "size"]
    assert "output(%add, 2*" in captured.text


def test_a_constant_in_the_model_is_lifted():
    captured = captured_of(lambda x: x * torch.tensor([1.0, 2.0]), torch.randn(4, 2))
    assert len(captured.constants) == 1
    torch.testing.assert_close(captured.constants[0], torch.tensor([1.0, 2.0]))


def test_tokens_are_the_batch_when_no_input_is_a_matrix_of_integers():
    graph = df.capture(stack(), torch.randn(4, 8))[0]
    assert graph.tokens == graph.batch_symbol


def test_a_batch_that_a_guard_restricts_is_not_split():
    def model(x):
        return x + 1 if x.shape[0] % 4 == 0 else x - 1

    captured = captured_of(model, torch.randn(8, 3))
    assert captured.batch.symbol == ""
    assert "holds only where" in captured.batch.why_none


def test_a_python_op_is_called_through_a_registered_one_and_unregistered_with_its_graph():
    @torch.library.custom_op("dynaflow_test::bump", mutates_args=("x",))
    def bump(x: torch.Tensor) -> None:
        x.add_(1)

    def model(x):
        y = x * 2
        bump(y)
        return y

    captured = captured_of(model, torch.randn(4, 3))
    line = next(line for line in captured.text.splitlines() if "dynaflow_opaque." in line)
    assert "kind=opaque" in line
    name = line.split("dynaflow_opaque.")[1].split(".default")[0]
    wrapped = getattr(torch.ops.dynaflow_opaque, name)
    results = wrapped(torch.ones(2, 3))
    torch.testing.assert_close(
        results[-1] if isinstance(results, tuple) else results, torch.full((2, 3), 2.0)
    )
    del captured, wrapped, results
    torch._dynamo.reset()
    gc.collect()
    assert not torch._C._dispatch_has_kernel(f"dynaflow_opaque::{name}")


def test_what_has_no_text_form_is_named():
    with pytest.raises(Exception, match=r"CaptureError.*complex"):
        captured_of(lambda x: x * 2j, torch.randn(4, 3))


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("L['self'].model.layers.0.mlp", "model.layers.0.mlp"),
        ("L['self'].model.layers['0'].mlp", "model.layers.0.mlp"),
        ("L['self']._modules['model']._modules['layers'][3]", "model.layers.3"),
        ("L['self']", ""),
    ],
)
def test_module_paths_read_like_parameter_names(source, path):
    assert module_path(source) == path


def sizes():
    import sympy

    symbols = st.sampled_from(sympy.symbols("s0 s1", integer=True, positive=True))
    leaves = symbols | st.integers(1, 9).map(sympy.Integer)
    pairs = lambda inner: st.tuples(inner, inner)  # noqa: E731
    grow = lambda inner: (  # noqa: E731
        pairs(inner).map(lambda p: p[0] + p[1])
        | pairs(inner).map(lambda p: p[0] * p[1])
        | pairs(inner).map(lambda p: p[0] - p[1])
        | pairs(inner).map(lambda p: FloorDiv(p[0], p[1] * p[1] + 1))
        | pairs(inner).map(lambda p: Mod(p[0] * p[0], p[1] * p[1] + 1))
        | pairs(inner).map(lambda p: Max(p[0], p[1]))
        | pairs(inner).map(lambda p: Min(p[0], p[1]))
        | inner.map(lambda e: e**2)
    )
    return st.recursive(leaves, grow, max_leaves=6)


@given(sizes(), st.integers(2, 50), st.integers(2, 50))
def test_the_text_of_a_size_has_its_value(expr, s0, s1):
    import sympy

    expected = int(
        expr.subs(
            {sympy.Symbol(n, integer=True, positive=True): v for n, v in (("s0", s0), ("s1", s1))}
        )
    )
    assert eval(print_size(expr), {"max": max, "min": min}, {"s0": s0, "s1": s1}) == expected


def test_strings_are_quoted_for_the_grammar():
    text = quote('a"b\\c\nd\te')
    assert text == '"a\\"b\\\\c\\nd\\x09e"'
