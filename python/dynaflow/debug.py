"""For tests and measurements: runs made to show mistakes, one capture under several strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dynaflow.api import SESSION, session_of
from dynaflow.options import read_options
from dynaflow.plan import Plan
from dynaflow.plans import CompiledGraph
from dynaflow.process_end import running
from dynaflow.session import Session
from dynaflow.strategy import Strategy, make_strategy


@contextmanager
def run_mode(
    compiled: Any,
    serial: bool = False,
    poison: bool = False,
    delays_us: Callable[[int], Sequence[int]] | None = None,
) -> Iterator[None]:
    """Calls of `compiled` in the block run its present plans in another way.

    `serial`: every kernel ends before the next starts. `poison`: planned memory is filled with NaN
    first. `delays_us`: given a plan's number of runs, how long to sleep before each of them. A
    correct plan gives the same bits whatever is asked for here. Plans that the block itself makes
    run as usual.
    """
    changed = []
    for graph in session_of(compiled).graphs:
        for plan in graph.every_plan():
            delays = list(delays_us(len(plan.plan.runs))) if delays_us else []
            changed.append((plan, plan.run))
            plan.run = _with(plan, serial, poison, delays)
    try:
        yield
    finally:
        for plan, run in changed:
            plan.run = run


def _with(plan: Plan, serial: bool, poison: bool, delays: list[int]) -> Callable[..., Any]:
    return lambda tensors, values: plan.run_with(tensors, values, serial, poison, delays)


def replan(compiled: Any, strategy: str | Strategy) -> None:
    """Drops every plan of `compiled`; from now on calls make theirs by `strategy`.

    For comparing strategies without capturing the model for each. Not while a call is under way;
    every rank of a group must do the same.
    """
    session = session_of(compiled)
    session.strategy = make_strategy(strategy, {})
    for graph in session.graphs:
        graph.drop_plans()


def forget_plans() -> None:
    """Drops every plan in this process, and what measured steps decided. Not while a call is under
    way; every rank of a group must do the same.
    """
    for session in running():
        for graph in session.graphs:
            graph.drop_plans()


class Variant:
    """A compiled object under another strategy, on the same capture: what `variant` returns.

    Called like the compiled object, whose plans it puts aside for the time of the call: the two
    are not to be called at once. df.report and df.trace take it.
    """

    def __init__(self, compiled: Any, session: Session) -> None:
        self._compiled = compiled
        self._graphs = session_of(compiled).graphs
        setattr(self, SESSION, session)
        session.graphs.extend(graph.variant(session) for graph in self._graphs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A step of the compiled object with this variant's plans."""
        self._exchange()
        try:
            return self._compiled(*args, **kwargs)
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for own, other in zip(session_of(self).graphs, self._graphs, strict=False):
            other.exchange(own)


def variant(
    compiled: Any, strategy: str | Strategy, options: Mapping[str, Any] | None = None
) -> Variant:
    """`compiled` under another strategy and other options, without capturing the model again.

    For comparing strategies. `compiled` has been called before, on every kind of input that the
    variant is to be called on; on others the variant runs what `compiled` makes of them.
    """
    session = session_of(compiled)
    if not session.graphs:
        raise ValueError(f"'{session.name}' has no graph yet: call it once before taking a variant")
    strategy, own = read_options(strategy, options)
    return Variant(compiled, Session(session.name, strategy, own))


def engine_for(compiled: Any, graph: CompiledGraph, plan_text: str) -> Any:
    """An engine for a plan's text, perhaps changed by hand. `run_mode` runs it as `Plan.engine`."""
    return session_of(compiled).make_engine(plan_text, graph.captured)


def plans(compiled: Any) -> list[tuple[CompiledGraph, Plan]]:
    """Every plan of a compiled object with the graph that it belongs to."""
    return [(graph, plan) for graph in session_of(compiled).graphs for plan in graph.every_plan()]
