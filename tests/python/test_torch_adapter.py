"""The torch adapter on plans written by hand: tensors in, kernels called, tensors out."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from dynaflow._loader import load_adapter

GRAPH = """
graph: small {batch=s, tokens=s}
  %s = symbol() {min=1, hint=8}
  %x = input(0, tensor(float32, [s, 16]))
  %w = parameter(1, tensor(float32, [16, 16]))
  %c = constant(0, tensor(float32, [16]))
  %wt = aten.t.default(%w) {out=[tensor(float32, [16, 16], [1, 16])], kind=view, alias=[%w]}
  %mm = aten.mm.default(%x, %wt) {out=[tensor(float32, [s, 16])], out_target="aten.mm.out"}
  %v = aten.view.default(%mm, [s, 4, 4]) {out=[tensor(float32, [s, 4, 4])], kind=view, alias=[%mm]}
  %m = aten.mul.Tensor(%v, 0.3) {out=[tensor(float32, [s, 4, 4])], out_target="aten.mul.out"}
  %sm = aten._safe_softmax.default(%m, -1, none) {out=[tensor(float32, [s, 4, 4])]}
  %f = aten.view.default(%sm, [s, 16]) {out=[tensor(float32, [s, 16])], kind=view, alias=[%sm]}
  %r = aten.add.Tensor(%f, %c, 1) {out=[tensor(float32, [s, 16])], out_target="aten.add.out"}
  %q = aten.slice.Tensor(%r,1,0,8,1) {out=[tensor(float32,[s, 8],[16, 1])], kind=view, alias=[%r]}
  output(%r, s*4, none, %sm, %x, %q, %wt)
"""
PLAN = """
plan: plan() {strategy="sequential", cut=even(1, 1), events=0}
  buffer(64*s, [])
  buffer(64*s, [0])
  storage(float32, 16*s)
  slot(%x, 0, 1, argument(0), [s, 16], [16, 1], 0)
  slot(%wt, 0, 1, argument(1), [16, 16], [1, 16], 0)
  slot(%mm, 0, 1, arena(0), [s, 16], [16, 1], 0)
  slot(%v, 0, 1, arena(0), [s, 4, 4], [16, 4, 1], 0)
  slot(%m, 0, 1, arena(1), [s, 4, 4], [16, 4, 1], 0)
  slot(%sm, 0, 1, kernel(5), [s, 4, 4], [16, 4, 1], 0)
  slot(%f, 0, 1, kernel(5), [s, 16], [16, 1], 0)
  slot(%c, 0, 1, constant(0), [16], [1], 0)
  slot(%r, 0, 1, output(0), [s, 16], [16, 1], 0)
  slot(%q, 0, 1, output(0), [s, 8], [16, 1], 0)
  run("mb0/layers.3.mlp", 0, 0, 1, 0)
  call("mm", [0, 1], [2], out)
  call("m", [3], [4], out)
  call("sm", [4], [5], fresh)
  call("r", [6, 7], [8], out)
  stream("compute", host, [launch(0)])
  result(slot(8))
  result(size(4*s))
  result(none)
  result(slot(5))
  result(slot(0))
  result(slot(9))
  result(slot(1))
"""


@pytest.fixture(autouse=True, scope="module")
def adapter():
    load_adapter()


def make_engine(text: str, *constants: torch.Tensor):
    runtime = torch.classes.dynaflow.Runtime()
    return torch.classes.dynaflow.Engine(runtime, text, list(constants), {})


def small():
    constant = torch.randn(16)
    return make_engine(GRAPH + PLAN, constant), torch.randn(16, 16), constant


def expected(x, w, c):
    softmax = torch.softmax((x @ w.t()).view(-1, 4, 4) * 0.3, -1)
    return softmax.view(-1, 16) + c, softmax


def test_steps_equal_eager_at_every_size_and_never_change_earlier_outputs():
    engine, w, c = small()
    kept = []
    for rows in (8, 3, 33, 1, 8, 9):
        x = torch.randn(rows, 16)
        outputs, sizes = engine.run_with([x, w], [rows], False, True, [])
        result, softmax = expected(x, w, c)
        kept.append((outputs, [result, softmax, x.clone(), result[:, :8], w.t()]))
        assert outputs[2] is x
        assert sizes == [4 * rows]
    for outputs, wanted in kept:
        for output, reference in zip(outputs, wanted, strict=True):
            torch.testing.assert_close(output, reference, rtol=0, atol=0)
    counters = engine.counters()
    assert counters["steps"] == 6
    assert counters["launches"] == 24
    assert counters["fresh_results"] == 6
    assert counters["copied_bytes"] == 0


def test_outputs_that_share_storage_in_the_graph_share_it():
    engine, w, _ = small()
    outputs, _ = engine.run([torch.randn(4, 16), w], [4])
    assert outputs[0].untyped_storage().data_ptr() == outputs[3].untyped_storage().data_ptr()
    assert outputs[4].untyped_storage().data_ptr() == w.untyped_storage().data_ptr()


def test_a_parameter_whose_data_was_replaced_is_read_anew():
    engine, w, c = small()
    x = torch.randn(5, 16)
    engine.run([x, w], [5])
    w.data = torch.randn(16, 16)
    assert torch.equal(engine.run([x, w], [5])[0][0], expected(x, w, c)[0])
    w = torch.randn(16, 16)
    assert torch.equal(engine.run([x, w], [5])[0][0], expected(x, w, c)[0])


def test_an_input_that_is_a_slice_of_a_larger_tensor_is_read_where_it_is():
    engine, w, c = small()
    x = torch.randn(9, 16)[2:7]
    assert torch.equal(engine.run([x, w], [5])[0][0], expected(x, w, c)[0])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.zeros(8, 15),
            r"argument 0 \('x'\) has shape \[8, 15\]; the plan was made for \[8, 16\]",
        ),
        (
            torch.zeros(7, 16),
            r"argument 0 \('x'\) has shape \[7, 16\]; the plan was made for \[8, 16\]",
        ),
        (torch.zeros(8, 16).double(), r"argument 0 \('x'\) is Double; the plan was made for Float"),
        (torch.zeros(16, 8).t(), r"argument 0 \('x'\) has strides \[1, 8\].* pass it contiguous"),
    ],
)
def test_an_argument_that_the_plan_was_not_made_for_is_refused(x, message):
    engine, w, c = small()
    with pytest.raises(RuntimeError, match=r"^ExecutionError: " + message):
        engine.run([x, w], [8])
    good = torch.randn(8, 16)
    assert torch.equal(engine.run([good, w], [8])[0][0], expected(good, w, c)[0])


def test_too_few_arguments_are_refused():
    engine, _, _ = small()
    with pytest.raises(RuntimeError, match="takes 2 tensor arguments, 1 were given"):
        engine.run([torch.zeros(8, 16)], [8])


def test_outputs_are_inference_tensors_only_in_inference_mode():
    engine, w, _ = small()
    x = torch.randn(4, 16)
    with torch.inference_mode():
        inside, _ = engine.run([x, w], [4])
    outside, _ = engine.run([x, w], [4])
    assert inside[0].is_inference()
    assert inside[1].is_inference()
    assert not any(output.is_inference() for output in outside)
    outside[0].add_(1)


def test_autocast_is_not_applied_again():
    engine, w, c = small()
    x = torch.randn(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, _ = engine.run([x, w], [4])
    assert torch.equal(outputs[0], expected(x, w, c)[0])


def test_an_op_that_torch_does_not_have_is_named_when_the_engine_is_made():
    with pytest.raises(
        RuntimeError, match=r"^PlanError: op 'mm': torch has no operator aten.no_such_op.out"
    ):
        make_engine((GRAPH + PLAN).replace("aten.mm.out", "aten.no_such_op.out"), torch.zeros(16))


def test_runs_and_kernels_show_in_the_profiler():
    engine, w, _ = small()
    with torch.profiler.profile() as profile:
        engine.run([torch.randn(4, 16), w], [4])
    names = {event.key for event in profile.key_averages()}
    assert {"mb0/layers.3.mlp", "aten::mm"} <= names


def test_a_trace_has_the_clock_and_a_line_for_each_run():
    engine, w, _ = small()
    engine.start_trace()
    engine.run([torch.randn(4, 16), w], [4])
    clock, run = engine.take_trace().splitlines()
    kind, monotonic, realtime = clock.split()
    assert kind == "clock"
    assert 0 <= time.monotonic_ns() - int(monotonic) < 60e9
    assert 0 <= time.time_ns() - int(realtime) < 60e9
    index, start, end = run.split()
    assert index == "0"
    assert 0 <= float(start) < float(end)
    assert engine.take_trace() == ""


def test_kernel_time_is_measured_only_on_request():
    engine, w, _ = small()
    arguments = [torch.randn(4, 16), w]
    engine.run(arguments, [4])
    assert engine.counters()["kernel_ns"] == 0
    engine.measure(True)
    engine.run(arguments, [4])
    assert engine.counters()["kernel_ns"] > 0


COPIES = """
graph: copies {tokens=1}
  %x = input(0, tensor(float32, [4, 4]))
  %n = aten.clone.default(%x, none) {out=[tensor(float32, [4, 4])], out_target="dynaflow.clone.out"}
  %p = aten._safe_softmax.default(%n, -1, none) {out=[tensor(float32, [4, 4])]}
  %t = aten.neg.default(%xt) {out=[tensor(float32, [4, 4])]}
  %u = aten.add_.Tensor(%x, 1, 1) {out=[tensor(float32, [4, 4])], alias=[%x], writes=[%x]}
  output(%p, %t)
plan: plan() {strategy="by hand", cut=even(1, 1), events=0}
  buffer(64, [])
  storage(float32, 16)
  slot(%x, 0, 1, argument(0), [4, 4], [4, 1], 0)
  slot(%n, 0, 1, arena(0), [4, 4], [4, 1], 0)
  slot(%p, 0, 1, output(0), [4, 4], [4, 1], 0)
  slot(%xt, 0, 1, argument(0), [4, 4], [1, 4], 0)
  slot(%t, 0, 1, kernel(4), [4, 4], [4, 1], 0)
  slot(%u, 0, 1, argument(0), [4, 4], [4, 1], 0)
  run("all", 0, 0, 1, 0)
  call("n", [0], [1], out)
  call("p", [1], [2], copy)
  call("t", [3], [4], fresh)
  call("u", [0], [5], in_place)
  stream("compute", host, [launch(0)])
  result(slot(2))
  result(slot(4))
""".replace(
    "  %n =",
    "  %xt = aten.t.default(%x) "
    "{out=[tensor(float32, [4, 4], [1, 4])], kind=view, alias=[%x]}\n  %n =",
)


def test_copies_into_planned_bytes_are_counted_and_a_clone_is_none():
    engine = make_engine(COPIES)
    x = torch.randn(4, 4)
    before = x.clone()
    version = x._version
    (probabilities, negated), _ = engine.run([x], [])
    assert torch.equal(probabilities, torch.softmax(before, -1))
    assert torch.equal(negated, -before.t())
    assert negated.stride() == (4, 1)  # neg itself keeps the input's strides
    assert torch.equal(x, before + 1)
    assert x._version > version  # so that autograd notices
    counters = engine.counters()
    assert counters["copied_bytes"] == 128  # of %p and %t
    assert counters["fresh_results"] == 2


# Two compute streams: `side` has a thread of its own.
THREADS = """
graph: threads {{tokens=1}}
  %x = input(0, tensor(float32, [4]))
  %a = adapter_test.{op}.default(%x) {{out=[tensor(float32, [4])], kind=opaque}}
  %b = aten.cos.default(%x) {{out=[tensor(float32, [4])], out_target="aten.cos.out"}}
  %o = aten.add.Tensor(%a, %b, 1) {{out=[tensor(float32, [4])], out_target="aten.add.out"}}
  output(%o)
plan: plan() {{strategy="by hand", cut=even(1, 1), events=1}}
  buffer(16, [])
  storage(float32, 4)
  slot(%x, 0, 1, argument(0), [4], [1], 0)
  slot(%a, 0, 1, kernel(1), [4], [1], 0)
  slot(%b, 0, 1, arena(0), [4], [1], 0)
  slot(%o, 0, 1, output(0), [4], [1], 0)
  run("opaque", 0, 0, 1, 1)
  call("a", [0], [1], fresh)
  run("cos", 1, 0, 1, 0)
  call("b", [0], [2], out)
  run("add", 2, 0, 1, 0)
  call("o", [1, 2], [3], out)
  stream("compute", host, [launch(1), wait(0), launch(2), free(1)])
  stream("side", thread, [launch(0), record(0)])
  result(slot(3))
"""


@pytest.fixture(scope="module")
def seen():
    """What the Python op noticed about the thread that ran it."""
    notes: dict[str, object] = {}
    library = torch.library.Library("adapter_test", "DEF")
    library.define("python(Tensor x) -> Tensor")
    library.define("fails(Tensor x) -> Tensor")
    library.define("wrong_shape(Tensor x) -> Tensor")

    def python(x):
        time.sleep(0.01)
        notes["thread"] = threading.get_ident()
        notes["inference"] = torch.is_inference_mode_enabled()
        return x * 2

    def fails(x):
        raise ValueError("no luck today")

    library.impl("python", python, "CompositeExplicitAutograd")
    library.impl("fails", fails, "CompositeExplicitAutograd")
    library.impl("wrong_shape", lambda x: x[:2] * 2, "CompositeExplicitAutograd")
    yield notes
    library._destroy()


def test_a_python_op_runs_on_the_second_stream_while_the_caller_waits(seen):
    engine = make_engine(THREADS.format(op="python"))
    x = torch.randn(4)
    assert torch.equal(engine.run([x], [])[0][0], x * 2 + x.cos())
    assert seen["thread"] != threading.get_ident()
    assert not seen["inference"]


def test_stream_threads_have_the_callers_state(seen):
    engine = make_engine(THREADS.format(op="python"))
    with torch.inference_mode():
        engine.run([torch.randn(4)], [])
    assert seen["inference"]


def test_a_kernel_that_throws_is_named_and_the_next_step_works(seen):
    engine = make_engine(THREADS.format(op="fails"))
    for _ in range(2):
        with pytest.raises(
            RuntimeError,
            match=r"opaque failed on stream 'side'.*adapter_test.fails.default.*no luck",
        ):
            engine.run([torch.randn(4)], [])


def test_a_result_that_contradicts_the_graph_is_refused(seen):
    engine = make_engine(THREADS.format(op="wrong_shape"))
    with pytest.raises(
        RuntimeError, match=r"returned Float \[2\] where the graph says Float \[4\]"
    ):
        engine.run([torch.randn(4)], [])


def test_callers_on_several_threads_get_their_own_results(seen):
    engine = make_engine(THREADS.format(op="python"))
    wrong: list[int] = []

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(10):
            x = torch.randn(4, generator=generator)
            if not torch.equal(engine.run([x], [])[0][0], x * 2 + x.cos()):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
