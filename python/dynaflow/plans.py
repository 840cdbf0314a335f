"""One captured graph and its plans: what a call of the compiled model runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _pop_mode_temporarily

from dynaflow import _core
from dynaflow.agreement import agree
from dynaflow.call_sizes import accepts, tensors_of, values_of
from dynaflow.capture import capture
from dynaflow.captured import Captured
from dynaflow.effects import check_effects
from dynaflow.errors import PlanError, typed
from dynaflow.independence import Cut, check_independence
from dynaflow.memory_limit import MemoryLimit
from dynaflow.never_slower import Contest
from dynaflow.plan import Plan
from dynaflow.replace import Kernels, Launched
from dynaflow.replace_check import check_replacements
from dynaflow.scheduler import Scheduler
from dynaflow.strategy import Sequential, Strategy

if TYPE_CHECKING:
    from dynaflow.session import Session


#: Sizes of calls whose plans are remembered.
_REMEMBERED = 4096


class _UntriedError(Exception):
    """A plan would run what has to be tried first, and there is no call to try it in."""


class CompiledGraph:
    """A captured graph; called with the flat argument list that AOTAutograd makes."""

    _boxed_call = True  # it may clear the list, so that inputs are freed early

    def __init__(
        self, captured: Captured, original: GraphModule, session: Session, reason: str
    ) -> None:
        self.captured = captured
        self.graph = _core.reinplace(_as_captured(captured))
        self.break_reason = reason  # why the graph ended where it does, or empty
        self.plans: list[Plan] = []  # of the strategy, one for each bucket
        self.sequential: Plan | None = None  # what they must not be slower than, once measured
        self.original_runs = 0
        self.last: tuple[Plan, list[int]] | None = None
        self.partition: _core.Partition | None = None
        self._by_sizes: dict[tuple[int, ...], Plan] = {}  # of calls so far: their plans
        self._original = original
        self._session = session
        self._lock = threading.Lock()
        self._limit = self._make_limit()
        self._values_of = values_of(captured)
        self._tensors_of = tensors_of(captured)
        self._only_tensors = all(kind == "tensor" for kind in captured.outputs)
        self._same_sizes = accepts(captured, [])
        self._refused = False  # no engine could be made: the original runs
        self._checked = False  # its ops' effects were observed
        self._independent: set[tuple[str, ...]] = set()  # ops of regions that were tried in parts
        self._tried: dict[Any, Launched] = {}  # kernels that were compared with what they replace

    def __call__(self, args: list[Any]) -> Any:
        """Runs the plan for these sizes, made first where there is none. Clears `args`."""
        plan, values = self.find_plan(args)
        if plan is not None:
            return self._run(plan, args, values)
        made = self._plan_for(values, args)
        if made is None:
            self.original_runs += 1
            return self._original(*args)
        if self._session.options.check_effects and not self._checked:
            check_effects(self._original, _as_captured(self.captured), args)
            self._checked = True
        with _without_first_call_check():
            return self._run(self._within_limit(made, values), args, values)

    def find_plan(self, args: list[Any]) -> tuple[Plan | None, list[int]]:
        """The plan for a call's sizes, None where it is still to be made; and the sizes."""
        values = self._values_of(args)
        key = tuple(values)
        found = self._by_sizes.get(key)
        if found is None:
            found = next((plan for plan in self.plans if plan.accepts(*values)), None)
            if found is not None:
                found = self._within_limit(found, values)
                if len(self._by_sizes) >= _REMEMBERED:
                    self._by_sizes.clear()
                self._by_sizes[key] = found
        return found, values

    def _within_limit(self, plan: Plan, values: list[int]) -> Plan:
        return plan if self._limit is None else self._limit.choose(plan, values)

    def variant(self, session: Session) -> CompiledGraph:
        """The same graph under another session's strategy and options, without plans yet."""
        captured = self.captured
        if session.options.skip_collectives:
            captured = capture(
                self._original,
                captured.static_inputs,
                captured.name,
                skip_collectives=True,
                context=session.options.context,
            )
        return CompiledGraph(captured, self._original, session, self.break_reason)

    def exchange(self, other: CompiledGraph) -> None:
        """Swaps everything that the two graphs are. Not while a call is under way."""
        self.__dict__, other.__dict__ = other.__dict__, self.__dict__

    def drop_plans(self) -> None:
        """The next calls make their plans anew. Not while a call is under way."""
        with self._lock:
            self.plans.clear()
            self._by_sizes.clear()
            self.sequential = None
            self.partition = None
            self.last = None
            self._refused = False
            self._limit = self._make_limit()

    def every_plan(self) -> list[Plan]:
        """The strategy's plans, and those that may run in their place."""
        others = [] if self._limit is None else list(self._limit.plans)
        for plan in self.plans:
            others += plan.contest.alternatives() if plan.contest else []
        return self.plans + [self.sequential] * (self.sequential is not None) + others

    def _run(self, plan: Plan, args: list[Any], values: list[int]) -> Any:
        tensors = self._tensors_of(args)
        args.clear()
        try:
            if plan.contest is None:
                results, sizes = plan.run(tensors, values)
            else:
                plan, (results, sizes) = plan.contest.run(tensors, values)
        except RuntimeError as error:
            raise typed(error) from None
        self.last = (plan, values)
        return results if self._only_tensors else self._assemble(results, sizes)

    def _assemble(self, results: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[Any]:
        tensors, integers = iter(results), iter(sizes)
        fill = {
            "tensor": lambda: next(tensors),
            "size": lambda: next(integers),
            "none": lambda: None,
        }
        return [fill[kind]() for kind in self.captured.outputs]

    def _plan_for(self, values: list[int], args: list[Any]) -> Plan | None:
        """A plan for a bucket that has none yet; None when this graph does not hold for these
        sizes.
        """
        with self._lock:
            for plan in self.plans:
                if plan.accepts(*values):
                    return plan
            if self._refused:
                return None
            if not self._same_sizes(*values):
                pairs = ", ".join(f"{a} = {b}" for a, b in self.captured.equal)
                self._session.fall_back(
                    f"{self.captured.name}: inputs disagree on the batch (it takes {pairs})"
                )
                return None
            plan = self._make_plan(values, args)
            if plan is not None:
                self.plans.append(plan)
            return plan

    def _make_plan(self, values: list[int], args: list[Any]) -> Plan | None:
        strategy = self._strategy()
        if self.partition is None:
            self.partition = _core.partition(self.graph, strategy.annotations())
        saved = self._saved(strategy, values)
        if saved is None:
            plan = self._lower(strategy, self.partition, values, args)
        else:
            plan = self._equip(saved, self.partition, Kernels(), values, args)
        options = self._session.options
        wanted = strategy.by_name if options.never_slower is None else options.never_slower
        measured = wanted and not options.serial and self._limit is None
        if plan and plan.plan.cut["parts"] > 1 and measured:
            others = strategy.alternatives()
            rivals = [self._make_sequential, *(partial(self._make_alternative, o) for o in others)]
            plan.contest = Contest(plan, rivals, plan.agreed, options.agree_timeout_s)
        return plan

    def _make_alternative(self, strategy: Strategy, values: list[int]) -> Plan | None:
        """Another strategy's plan; None, with a warning, where it would have to be tried first."""
        with self._lock:
            partition = _core.partition(self.graph, strategy.annotations())
            try:
                return self._lower(strategy, partition, values, None)
            except _UntriedError as error:
                why = (
                    f"DynaFlow: {strategy.name} is no alternative for {self.captured.name}: {error}"
                )
                self._session.warn(f"alternative: {strategy.name}", why)
                return None

    def _make_sequential(self, values: list[int]) -> Plan:
        """The plan that others must not be slower than; one serves all buckets."""
        with self._lock:
            if self.sequential is None:
                partition = _core.partition(self.graph, [])
                self.sequential = self._lower(Sequential(), partition, values, None)
            return self.sequential

    def _make_limit(self) -> MemoryLimit | None:
        limit = self._session.options.memory_limit
        if limit is None:
            return None

        name = self.captured.name
        return MemoryLimit(
            limit,
            bool(self.captured.batch.symbol),
            self._make_alternative,
            lambda why: self._session.warn("memory", f"DynaFlow: {name}: {why}"),
        )

    def _saved(self, strategy: Strategy, values: list[int]) -> _core.Plan | None:
        """A plan that was loaded for this graph and these sizes, or none."""
        saved = self._session.saved
        if saved is None:
            return None
        plans = saved.of(self.graph)
        if not plans:
            refusal = saved.refusal(self.graph)
            self._session.warn("saved", f"DynaFlow: plans are made anew: {refusal}")
        for plan in plans:
            fits = plan.strategy == strategy.name and accepts(self.captured, plan.guards)(*values)
            if fits and self._has_kernels(plan):
                return plan
        return None

    def _has_kernels(self, plan: _core.Plan) -> bool:
        """Whether a saved plan's compiled kernels are wanted and can be had."""
        wanted, own = _core.kernels(plan), self._session.kernels
        if not wanted or own is None:
            return not wanted
        return own.find(wanted, self._session.runtime().add_kernel)

    def _lower(
        self,
        strategy: Strategy,
        partition: _core.Partition,
        values: list[int],
        args: list[Any] | None,
    ) -> Plan | None:
        """The strategy's plan for a bucket; None if no engine can run it.

        Raises _UntriedError where something has to be tried and there are no `args`.
        """
        scheduler = Scheduler(partition, strategy.name, self._sizes(values))
        strategy.schedule(scheduler, scheduler.batch())
        plan = self._fuse(scheduler.finish())
        return self._equip(plan, partition, scheduler.kernels, values, args)

    def _fuse(self, schedule: _core.Schedule) -> _core.Plan:
        """The schedule lowered, with compiled kernels where they are asked for and can be had."""
        kernels = self._session.kernels
        if kernels is None:
            return _core.lower(schedule)
        while True:
            plan = _core.lower(schedule, chains=True, refused=list(kernels.refused))
            if kernels.find(_core.kernels(plan), self._session.runtime().add_kernel):
                return plan

    def _sizes(self, values: list[int]) -> dict[str, int]:
        names = [symbol.name for symbol in self.captured.symbols]
        return dict(zip(names, values, strict=True))

    def _equip(
        self,
        plan: _core.Plan,
        partition: _core.Partition,
        kernels: Kernels,
        values: list[int],
        args: list[Any] | None,
    ) -> Plan | None:
        """The plan verified, tried and with an engine; None if no engine can run it."""
        if self._session.options.verify:
            _core.check_verified(plan)
        agreed = self._agree(plan)
        try:
            engine = self._session.make_engine(plan.text, self.captured)
        except RuntimeError as error:
            if not isinstance(typed(error), PlanError):
                raise typed(error) from None
            if args is None:
                return None  # a rival: the strategy's own plan goes on
            self._refused = True
            self._session.fall_back(f"{self.captured.name}: {typed(error)}")
            return None
        parts, bound = engine.parts(values), self._sizes(values)
        self._check_independence(partition, tuple(parts), bound, args)
        self._check_replacements(kernels, args)
        bound |= {f"p{part}": rows for part, rows in enumerate(parts)}
        holds = accepts(self.captured, plan.guards)
        serial = self._session.options.serial
        steps = self._session.steps
        return Plan(plan, partition, engine, holds, bound, serial, kernels, agreed, steps)

    def _check_independence(
        self,
        partition: _core.Partition,
        rows: tuple[int, ...],
        sizes: dict[str, int],
        args: list[Any] | None,
    ) -> None:
        """Tries regions whose rows are independent by the strategy's word, each once."""
        batch = self.captured.batch.symbol
        regions = [
            region
            for region in partition.regions
            if region["ops"] and tuple(region["ops"]) not in self._independent
        ]
        if len(rows) < 2 or not regions:
            return
        if args is None:
            raise _UntriedError(f"its region {regions[0]['name']} was never tried in parts")
        same = frozenset(left for left, right in self.captured.equal if right == batch) | {batch}
        layouts = partition.layouts
        cut = Cut(rows, sizes, same)
        with _without_first_call_check():
            check_independence(self._original, self.graph, regions, layouts, args, cut)
        self._independent |= {tuple(region["ops"]) for region in regions}

    def _check_replacements(self, kernels: Kernels, args: list[Any] | None) -> None:
        """Tries each kernel that replaces segments once."""
        new = {key: kernel for key, kernel in kernels.launched.items() if key not in self._tried}
        if new and args is None:
            raise _UntriedError("its kernels were never compared with what they replace")
        if new:
            with _without_first_call_check():
                check_replacements(self._original, self.graph, list(new.values()), args)
            self._tried |= new

    def _strategy(self) -> Strategy:
        asked = self._session.strategy
        batch = self.captured.batch
        if batch.symbol or asked.name == "sequential":
            return asked
        if not batch.one_row:
            self._session.warn_static(batch.why_none, batch.remedy)
        return Sequential()

    def _agree(self, plan: _core.Plan) -> dict[str, str]:
        """By group, what its ranks call the plan from now on."""
        if not self.captured.groups:
            return {}
        lines = [f"strategy {plan.strategy}", *(f"op {op['target']}" for op in self.graph.ops)]
        lines += [f"collective {line}" for line in plan.collective_order]
        timeout_s = self._session.options.agree_timeout_s
        return {group: agree(group, lines, timeout_s) for group in self.captured.groups}


def _as_captured(captured: Captured) -> _core.Graph:
    """The graph op by op as it was traced."""
    return _core.apply_corrections(_core.parse_graph(captured.text))


def _without_first_call_check() -> AbstractContextManager[Any]:
    """Leaves the mode in which AOTAutograd makes a graph's first call.

    It sends every op through Python to see whether custom ops return what they were given.
    """
    modes = _get_current_dispatch_mode_stack()
    if modes and type(modes[-1]).__name__ == "_AnalyzeCustomOpInputOutputMode":
        return _pop_mode_temporarily()
    return nullcontext()
