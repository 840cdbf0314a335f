"""Ops that read state of the host system: each part is given its own, in order."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from equivalence import fresh_seed
from torch import nn

import dynaflow as df
from dynaflow import debug
from dynaflow.api import session_of

pytestmark = pytest.mark.usefixtures("inference", "one_thread")

WIDTH, LAYERS, SLOTS = 16, 3, 64
#: Tokens of each request of the batch: rows of it, side by side.
LENGTHS = (3, 1, 4, 2)
ROWS = sum(LENGTHS)


@dataclass(frozen=True)
class Rows:
    """What the server knows of each row of a batch, or of some."""

    slots: torch.Tensor  # where its key lies in the caches
    starts: torch.Tensor  # where the keys of its request begin

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(self.slots[rows], self.starts[rows])


class Server:
    """Runs batches as serving systems do: ops find its caches and its rows by themselves."""

    caches: list[torch.Tensor]
    seen: Rows | None = None

    @contextmanager
    def batch(self, lengths):
        ends = torch.tensor(lengths).cumsum(0)
        starts = (ends - torch.tensor(lengths)).repeat_interleave(torch.tensor(lengths))
        self.caches = [torch.full((SLOTS, WIDTH), float("nan")) for _ in range(LAYERS)]
        self.whole = self.seen = Rows(torch.arange(int(ends[-1])), starts)
        try:
            yield
        finally:
            self.seen = None


SERVER = Server()


@torch.library.custom_op("dynaflow_fake_host::update", mutates_args=())
def update(key: torch.Tensor, layer: int) -> torch.Tensor:
    SERVER.caches[layer][SERVER.seen.slots] = key
    return key.new_empty(0)


@torch.library.custom_op("dynaflow_fake_host::attend", mutates_args=())
def attend(query: torch.Tensor, after: torch.Tensor, layer: int) -> torch.Tensor:
    keys = SERVER.caches[layer]
    spans = zip(SERVER.seen.starts.tolist(), SERVER.seen.slots.tolist(), strict=True)
    return torch.stack(
        [
            torch.softmax(keys[a : b + 1] @ q, 0) @ keys[a : b + 1]
            for q, (a, b) in zip(query, spans, strict=True)
        ]
    )


update.register_fake(lambda key, layer: key.new_empty(0))
attend.register_fake(lambda query, after, layer: torch.empty_like(query))


class Context(df.HostContext):
    """The server's rows, cut as the batch is."""

    ops = ("dynaflow_fake_host.*",)

    def __init__(self) -> None:
        self.cuts: list[list[slice]] = []
        self.entered: list[Rows | None] = []
        self.thread: list[int] = []

    def prepare(self, batch, cuts):
        assert batch == len(SERVER.whole.slots)
        self.cuts.append(list(cuts))
        return [SERVER.whole[rows] for rows in cuts]

    def enter(self, state):
        self.entered.append(state)
        self.thread.append(threading.get_ident())
        SERVER.seen = state or SERVER.whole


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(LAYERS))

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            query, key = layer(x).chunk(2, dim=-1)
            done = update(key.contiguous(), number)
            x = x + attend(query.contiguous(), done, number)
        return x


class Sides(df.Strategy):
    """Attention on a stream of its own."""

    def partition(self):
        return [df.SplitFunc("attend", tag="attend")]

    def schedule(self, s, batch):
        s.split(2)
        while ops := s.get_ready_ops():
            for op in ops:
                s.execute(op, stream="side" if op.has_tag("attend") else "compute")


class Pairs(df.Strategy):
    """Of three parts, the first two go to the host's ops in one launch."""

    def partition(self):
        return [df.SplitFunc("update", tag="host"), df.SplitFunc("attend", tag="host")]

    def schedule(self, s, batch):
        s.split(3)
        while ops := s.get_ready_ops():
            for op in ops:
                if not op.has_tag("host") or op.part == 2:
                    s.execute(op)
                    continue
                pair = [op, *(other for other in s.next_ops([op]) if other.name == op.name)]
                if len(pair) == 2:
                    s.execute(pair)


STRATEGIES = {
    "two parts": df.NanoFlow(parts=2, min_tokens=0),
    "three parts": df.NanoFlow(parts=3, min_tokens=0),
    "uneven": df.NanoFlow(fractions=[0.2, 0.5, 0.3], min_tokens=0),
    "side": Sides(),
    "pairs": Pairs(),
}


def decoder():
    torch.manual_seed(0)
    return Decoder().eval()


def run(function, seed, lengths=LENGTHS):
    x = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(seed))
    with SERVER.batch(lengths):
        return function(x)


def compiled_with(context, strategy):
    return df.compile(decoder(), strategy=strategy, options={"context": context})


@pytest.mark.parametrize("name", STRATEGIES)
def test_parts_see_their_own_state_and_what_earlier_parts_wrote(name):
    context = Context()
    compiled = compiled_with(context, STRATEGIES[name])
    model = decoder()
    for _ in range(3):
        seed = fresh_seed()
        expected, result = run(model, seed), run(compiled, seed)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        with debug.run_mode(compiled, serial=True, poison=True):
            assert run(compiled, seed).equal(result)
        with debug.run_mode(compiled, delays_us=lambda n: [(7 * i) % 5 * 200 for i in range(n)]):
            assert run(compiled, seed).equal(result)
    ((_, plan),) = debug.plans(compiled)
    assert plan.plan.cut["parts"] > 1
    cuts = context.cuts[-1]
    assert [cut.start for cut in cuts[1:]] == [cut.stop for cut in cuts[:-1]]
    assert cuts[0].start == 0 and cuts[-1].stop == ROWS
    assert context.entered[-1] is None, "the host has the whole batch's state again"
    shorter = (2, 1, 1)
    assert torch.allclose(run(compiled, 1, shorter), run(model, 1, shorter), atol=1e-5)


class WrongPart(Context):
    def prepare(self, batch, cuts):
        return super().prepare(batch, cuts)[::-1]


def test_the_state_of_another_part_gives_another_result():
    lengths = (3, 1, 2, 2)  # parts of four rows each
    wrong = run(compiled_with(WrongPart(), STRATEGIES["two parts"]), 0, lengths)
    assert not torch.allclose(wrong, run(decoder(), 0, lengths), atol=1e-3, equal_nan=True)


def test_a_step_of_the_whole_batch_does_not_touch_the_state():
    context = Context()
    compiled = compiled_with(context, "sequential")
    assert torch.allclose(run(compiled, 0), run(decoder(), 0), atol=1e-5)
    assert context.cuts == [] and context.entered == []


def test_ops_that_read_state_unsaid_run_on_the_whole_batch():
    compiled = df.compile(decoder(), strategy=STRATEGIES["two parts"])
    assert torch.allclose(run(compiled, 0), run(decoder(), 0), atol=1e-5)
    (graph,) = session_of(compiled).graphs
    forms = {s["name"]: (s["form"], s["reason"]) for s in graph.partition.segments}
    assert any(form == "merged" and "call into Python" in why for form, why in forms.values())


class Failing(Context):
    broken = False

    def enter(self, state):
        super().enter(state)
        if self.broken and state is not None:
            raise RuntimeError("the scheduler has dropped these rows")


def test_a_state_that_cannot_be_entered_fails_the_step_and_no_other():
    context = Failing()
    compiled = compiled_with(context, STRATEGIES["two parts"])
    expected = run(compiled, 0)
    context.broken = True
    with pytest.raises(df.ExecutionError, match=r"\[0\] failed on .*dropped these rows") as failure:
        run(compiled, 0)
    assert "dynaflow_fake_host.update" in str(failure.value)
    assert context.entered[-1] is None
    context.broken = False
    assert run(compiled, 0).equal(expected)


def test_steps_of_several_threads_enter_one_after_the_other():
    context = Context()
    compiled = compiled_with(context, STRATEGIES["two parts"])
    x = torch.randn(ROWS, WIDTH)
    with SERVER.batch(LENGTHS):
        compiled(x)
        context.thread.clear()
        meeting = threading.Barrier(4)  # all there before the first step, and after the last
        threads = [threading.Thread(target=step, args=(compiled, x, meeting)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    changes = sum(a != b for a, b in zip(context.thread, context.thread[1:], strict=False))
    assert len(set(context.thread)) == 4 and changes == 3


def step(compiled, x, meeting):
    meeting.wait(timeout=60)
    with torch.no_grad():
        compiled(x)
    meeting.wait(timeout=60)


class TooFew(Context):
    def prepare(self, batch, cuts):
        return super().prepare(batch, cuts)[:1]


def test_mistakes_are_named():
    with pytest.raises(
        df.ScheduleError, match="option context is 3; use an instance of a subclass"
    ):
        df.compile(decoder(), options={"context": 3})
    with pytest.raises(ValueError, match=r"TooFew.prepare\(\) returned 1 states for 2 cuts"):
        run(compiled_with(TooFew(), STRATEGIES["two parts"]), 0)
