"""Kernels that run in place of neighbouring segments, and launches of several segments."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import dynaflow as df
from dynaflow import debug
from dynaflow.plan import Plan

pytestmark = pytest.mark.usefixtures("inference")

LIBRARY = torch.library.Library("dynaflow_replace", "DEF")
PARAMETERS = "Tensor x, Tensor w, Tensor b"
WRITTEN = []  # shapes that the out= overload was given
SWITCH = {"wrong": False}


def reference(x, w, b):
    return torch.relu(x @ w + b)


def written(x, w, b, out):
    WRITTEN.append(tuple(out.shape))
    if SWITCH["wrong"]:
        return out.resize_(1, 3).zero_()
    torch.addmm(b, x, w, out=out)
    return out.relu_()


LIBRARY.define(f"linear_relu({PARAMETERS}) -> Tensor")
LIBRARY.define(f"linear_relu.out({PARAMETERS}, *, Tensor(a!) out) -> Tensor(a!)")
LIBRARY.impl("linear_relu", reference, "CPU")
LIBRARY.impl("linear_relu.out", written, "CPU")
torch.library.register_fake("dynaflow_replace::linear_relu", reference, lib=LIBRARY)
LIBRARY.define(f"two({PARAMETERS}) -> (Tensor, Tensor)")
LIBRARY.define("scaled(Tensor x, Tensor w, Tensor b, float scale) -> Tensor")
LIBRARY.define("touch(Tensor(a!) x, Tensor w, Tensor b) -> Tensor")
LIBRARY.define(f"half({PARAMETERS}) -> Tensor")
LIBRARY.impl("half", lambda x, w, b: reference(x, w, b).half(), "CPU")
torch.library.register_fake(
    "dynaflow_replace::half", lambda x, w, b: reference(x, w, b).half(), lib=LIBRARY
)


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.b = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return torch.relu(x @ self.w + self.b)


class Net(nn.Module):
    def __init__(self, layers: int = 3, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).sin() + x
        return x


class Fuse(df.Strategy):
    """Each matmul with its sum and its relu as one launch: on one part, or on all that are
    ready.
    """

    def __init__(self, func=None, parts=2, merge=False, stream="compute", length=3):
        self.func, self.parts, self.merge = func, parts, merge
        self.stream, self.length = stream, length

    def partition(self):
        return [df.SplitFunc("mm", tag="first"), df.SplitFunc("add"), df.SplitFunc("relu")]

    def schedule(self, s, batch):
        s.split(self.parts)
        while ops := s.get_ready_ops():
            first = [op for op in ops if op.has_tag("first")]
            if len(first) < len(ops) and (self.merge or not first):
                s.execute(next(op for op in ops if op not in first))
                continue
            launch = latest = first if self.merge else first[:1]
            for _ in range(self.length - 1):
                latest = s.next_ops(launch)
                launch = [*launch, *latest]
            s.execute(launch, stream=self.stream, replace_func=self.func)


def linear_relu(x, w, b):
    return torch.relu(torch.addmm(b, x, w))


OP = df.Replacement("dynaflow_replace::linear_relu", tolerance=1e-5)
CALLABLE = df.Replacement(linear_relu, tolerance=1e-5)


def net(layers=3):
    torch.manual_seed(0)
    return Net(layers).eval()


def plan_of(compiled) -> Plan:
    return debug.plans(compiled)[0][1]


def refusal(func, length=3, model=None, x=None):
    with pytest.raises(df.ScheduleError) as caught:
        df.compile(model or net(), strategy=Fuse(func, length=length))(
            torch.randn(6, 8) if x is None else x
        )
    return str(caught.value)


@pytest.mark.parametrize("func", [None, OP, CALLABLE], ids=["fused", "op", "callable"])
@pytest.mark.parametrize(
    ("parts", "merge"), [(1, False), (2, False), (3, False), (2, True), (3, True)]
)
def test_a_launch_of_several_segments_gives_what_they_give(func, parts, merge):
    model = net()
    compiled = df.compile(model, strategy=Fuse(func, parts, merge))
    for rows in (6, 7, 33, 9):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    runs = [run for run in plan_of(compiled).plan.runs if len(run["segments"]) == 3]
    assert len(runs) == 3 * (1 if merge else parts)
    assert {run["last_part"] - run["first_part"] for run in runs} == {parts if merge else 1}
    assert all(len(run["ops"]) == (3 if func is None else 1) for run in runs)


@pytest.mark.parametrize("func", [OP, CALLABLE], ids=["op", "callable"])
@pytest.mark.parametrize("merge", [False, True])
def test_overlapped_and_serial_runs_give_the_same_bits(func, merge, one_thread):
    compiled = df.compile(net(), strategy=Fuse(func, 3, merge, stream="side"))
    compiled(torch.randn(9, 8))
    assert [kind for _, kind in plan_of(compiled).plan.streams] == ["host", "thread"]
    for rows in (6, 9, 20):
        x = torch.randn(rows, 8)
        expected = compiled(x)
        with debug.run_mode(compiled, serial=True, poison=True):
            assert compiled(x).equal(expected)
        with debug.run_mode(
            compiled, poison=True, delays_us=lambda n: [300 * (i % 3) for i in range(n)]
        ):
            assert compiled(x).equal(expected)


def test_an_out_overload_writes_into_planned_memory():
    compiled = df.compile(net(), strategy=Fuse(OP))
    compiled(torch.randn(6, 8))
    WRITTEN.clear()
    compiled(torch.randn(7, 8))
    assert WRITTEN == [(4, 8), (3, 8)] * 3
    counters = df.report(compiled).graphs[0]["plans"][0]["counters"]
    assert counters["fresh_results"] == counters["copied_bytes"] == 0


def test_torchs_own_ops_take_their_tensors_in_the_order_that_is_given():
    func = df.Replacement(torch.ops.aten.addmm, inputs=(2, 0, 1), tolerance=1e-5)
    model = net()
    compiled = df.compile(model, strategy=Fuse(func, length=2))
    x = torch.randn(6, 8)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    replaced = plan_of(compiled).plan.replacing
    assert {kernel["out_target"] for kernel in replaced} == {"aten.addmm.out"}
    counters = df.report(compiled).graphs[0]["plans"][0]["counters"]
    assert counters["fresh_results"] == 6, "the results of relu alone, which has no out="
    assert counters["copied_bytes"] == 0


def test_other_parameters_of_an_op_are_given_by_name():
    def model(x):
        with df.mark("gelu"):
            y = 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
        return y.sin()

    class Marked(df.Strategy):
        def partition(self):
            return [df.SplitMark("gelu", tag="gelu")]

        def schedule(self, s, batch):
            s.split(2)
            func = df.Replacement("aten::gelu", arguments={"approximate": "tanh"}, tolerance=1e-5)
            while ops := s.get_ready_ops():
                for op in ops:
                    s.execute(op, replace_func=func if op.has_tag("gelu") else None)

    compiled = df.compile(model, strategy=Marked())
    x = torch.randn(6, 8)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    kernel = df.report(compiled).graphs[0]["plans"][0]["replacements"][0]
    assert kernel["name"] == "gelu" and kernel["target"] == "aten.gelu.default"


def test_a_callable_may_return_several_tensors_and_views_of_what_it_was_given():
    def model(x):
        a = x.clone()
        b = a.flip(1)
        return a.exp() + b.tanh()

    class Both(df.Strategy):
        def partition(self):
            return [df.SplitFunc("clone"), df.SplitFunc("flip")]

        def schedule(self, s, batch):
            s.split(2)
            while ops := s.get_ready_ops():
                if ops[0].name == "clone":
                    launch = [ops[0], *(op for op in s.next_ops(ops[0]) if op.name == "flip")]
                    s.execute(launch, replace_func=lambda x: (x, x.flip(1)))
                else:
                    s.execute(ops[0])

    compiled = df.compile(model, strategy=Both())
    x = torch.randn(6, 8)
    torch.testing.assert_close(compiled(x), model(x))


def test_a_strategy_sees_what_follows_and_what_a_kernel_must_take_and_return():
    seen = []

    class Look(Fuse):
        def schedule(self, s, batch):
            s.split(2)
            first = s.get_ready_ops()[1]
            after = s.next_ops(first)
            seen.extend([[op.name for op in after], s.signature([first, *after])])
            s.run_sequentially()

    compiled = df.compile(net(1), strategy=Look())
    compiled(torch.randn(6, 8))
    names, signature = seen
    assert names == ["layers.0#2"]
    assert [(dtype, shape) for _, dtype, shape in signature.inputs] == [
        ("float32", "[p1, 8]"),
        ("float32", "[8, 8]"),
        ("float32", "[8]"),
    ]
    assert [(dtype, shape) for _, dtype, shape in signature.outputs] == [("float32", "[p1, 8]")]
    assert re.search(r"-> \(%add_\d float32\[p1, 8\]\)$", str(signature))


def test_the_report_names_replacements_and_what_they_promise():
    compiled = df.compile(net(), strategy=Fuse(reference))
    compiled(torch.randn(6, 8))
    report = df.report(compiled)
    kernels = report.graphs[0]["plans"][0]["replacements"]
    assert [(k["name"], k["exact"], len(k["runs"])) for k in kernels] == [("reference", True, 6)]
    assert "reference (exact) runs as mb0/reference(layers.0" in str(report)
    compiled = df.compile(net(), strategy=Fuse(CALLABLE))
    compiled(torch.randn(6, 8))
    assert "linear_relu (within 1e-05) runs as" in str(df.report(compiled))
    assert report.to_json()["graphs"][0]["plans"][0]["replacements"][0]["tolerance"] == 0


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (lambda x, w: x @ w, "it cannot be called with 3 tensors: too many positional arguments"),
        (lambda x, w, b: (x, x), "it returns 2 tensors, the segments make 1"),
        (lambda x, w, b: None, "its result 0 is a NoneType, not a tensor"),
        (
            lambda x, w, b: reference(x, w, b)[:1],
            r"its result 0 has shape [1, 8] where %relu has [3",
        ),
        (lambda x, w, b: reference(x, w, b).double(), "its result 0 is float64, %relu is float32"),
        ("dynaflow_replace::half", "its result 0 is float16, %relu is float32"),
        ("dynaflow_replace::two", "returns 2 tensors, the segments make 1"),
        ("dynaflow_replace::touch", "changes an argument in place"),
        ("dynaflow_replace::scaled", "needs arguments={'scale': ...} (float)"),
        ("dynaflow_replace::absent", "torch has no operator 'dynaflow_replace::absent'"),
        ("aten::mm", "aten.mm.default takes 2 tensors, the segments read 3"),
        ("aten::relu_", "changes an argument in place"),
        (torch.ops.aten.addmm, "its fake kernel says: "),
        (df.Replacement("aten::addmm", inputs=(2, 0, 3)), "inputs=[2, 0, 3]"),
        (df.Replacement("aten::addmm", arguments={"gamma": 1}), "has no parameter gamma"),
        (df.Replacement(reference, inputs=(0, 1, 2)), "a callable picks its own"),
        (df.Replacement(reference, tolerance=-1), "its tolerance is -1"),
        (7, "7 is neither a callable nor a dispatcher op"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused_with_the_signature(func, message):
    said = refusal(func)
    assert message in said
    assert "cannot be replaced by '" in said and "(strategy 'Fuse', schedule step 0)" in said
    assert "expected: " in said and "-> (%relu float32[p0, 8])" in said


def test_segments_with_effects_are_not_replaced():
    def model(x):
        return (x.sin() + torch.rand_like(x)).cos()

    class All(df.Strategy):
        def schedule(self, s, batch):
            while ops := s.get_ready_ops():
                s.execute(ops[0], replace_func=lambda *tensors: tensors[0])

    with pytest.raises(df.ScheduleError, match="draws random numbers"):
        df.compile(model, strategy=All())(torch.randn(6, 8))


def test_launches_that_are_none_are_refused():
    class Gap(Fuse):
        def schedule(self, s, batch):
            first = s.get_ready_ops()[:1]
            second = s.next_ops(first)
            s.execute([*first, *s.next_ops([*first, *second])])

    with pytest.raises(df.ScheduleError, match="lies between them"):
        df.compile(net(), strategy=Gap())(torch.randn(6, 8))


def test_what_only_a_run_can_tell_is_an_error_of_the_run_and_the_next_run_works():
    wrong = {"shape": lambda y: y[:1], "dtype": lambda y: y.double(), "none": lambda y: None}
    kind = [""]

    def kernel(x, w, b):
        assert not isinstance(x, torch._subclasses.FakeTensor)
        return wrong.get(kind[0], lambda y: y)(torch.relu(torch.addmm(b, x, w)))

    model = net()
    compiled = df.compile(model, strategy=Fuse(df.Replacement(kernel, tolerance=1e-5)))
    x = torch.randn(6, 8)
    compiled(x)
    for kind[0], message in (
        ("shape", r"returned Float \[1, 8\] where the graph says Float \[3, 8\]"),
        ("dtype", r"returned Double \[3, 8\] where the graph says Float \[3, 8\]"),
        ("none", r"returned \(NoneType\) where 1 tensors are expected"),
    ):
        with pytest.raises(df.ExecutionError, match=message) as caught:
            compiled(x)
        assert "kernel(layers.0" in str(caught.value) and "[0] failed" in str(caught.value)
        kind[0] = ""
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (lambda x, w, b: torch.relu(x @ w), r"%relu differs by up to .* promises equal bits"),
        (df.Replacement(lambda x, w, b: 1.1 * reference(x, w, b), tolerance=0.01), "within 0.01"),
    ],
)
def test_a_kernel_that_computes_something_else_is_named_before_it_runs(func, message):
    compiled = df.compile(net(), strategy=Fuse(func))
    for _ in range(2):
        with pytest.raises(df.ReplacementError, match=message):
            compiled(torch.randn(6, 8))


def test_a_kernel_is_compared_once_with_what_it_replaces():
    rows = []

    def kernel(x, w, b):
        rows.append(len(x))
        return reference(x, w, b)

    compiled = df.compile(net(layers=1), strategy=Fuse(kernel))
    for size in (6, 8, 10):
        compiled(torch.randn(size, 8))
    assert [n for n in rows if n in (6, 8, 10)] == [6] and {3, 4, 5} <= set(rows)


def test_an_out_overload_that_makes_another_shape_is_an_error_and_the_next_run_works():
    model = net()
    compiled = df.compile(model, strategy=Fuse(OP))
    x = torch.randn(6, 8)
    compiled(x)
    SWITCH["wrong"] = True
    try:
        with pytest.raises(
            df.ExecutionError, match=r"returned Float \[1, 3\] where the graph says"
        ):
            compiled(x)
    finally:
        SWITCH["wrong"] = False
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_plans_are_made_anew_without_what_replaced_before():
    compiled = df.compile(net(), strategy=Fuse(CALLABLE))
    x = torch.randn(6, 8)
    expected = compiled(x)
    debug.replan(compiled, Fuse(None))
    torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-5)
    assert df.report(compiled).graphs[0]["plans"][0]["replacements"] == []
