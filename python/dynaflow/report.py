"""df.report: what was captured, how it runs, what overlaps, and why the rest does not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from dynaflow import _core
from dynaflow.api import session_of
from dynaflow.never_slower import row_text
from dynaflow.plan import Plan
from dynaflow.plans import CompiledGraph
from dynaflow.process_end import running
from dynaflow.session import Session
from dynaflow.settings import SETTINGS


@dataclass(frozen=True)
class Report:
    """Plain data; str() is for people, to_json() for programs."""

    name: str
    strategy: str
    disabled: bool = False
    graphs: list[dict[str, Any]] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)  # why the original ran, or ran unsplit
    uncompiled: dict[str, str] = field(default_factory=dict)  # kernels that cannot be had, and why
    broken: str = ""  # why a process group can no longer be used
    watched: int = 0  # dictionaries of the model watched in place of guards; 0: all are checked

    def to_json(self) -> dict[str, Any]:
        """The report as what json.dumps takes."""
        return json.loads(json.dumps(asdict(self)))

    def __str__(self) -> str:
        return "\n".join(_text(self))


def report(compiled: Any) -> Report:
    """The report on something that df.compile returned, as of now: plans are made as calls need
    them.
    """
    if SETTINGS.disabled:
        return Report(name=type(compiled).__name__, strategy="none", disabled=True)
    return _report(session_of(compiled))


def reports() -> list[Report]:
    """The reports on everything compiled in this process that has run and is still alive: also what
    `torch.compile(backend="dynaflow")` or a host system compiled.
    """
    return [_report(session) for session in running()]


def _report(session: Session) -> Report:
    return Report(
        name=session.name,
        strategy=session.strategy.name,
        graphs=[_graph(graph) for graph in session.graphs],
        fallbacks=list(session.fallbacks),
        uncompiled=dict(session.kernels.refused) if session.kernels else {},
        broken=session.broken(),
        watched=session.entry.watches if session.entry else 0,
    )


def _graph(graph: CompiledGraph) -> dict[str, Any]:
    captured = graph.captured
    parts: list[int] = []
    if graph.last is not None:
        plan, values = graph.last
        parts = list(plan.engine.parts(values))
    return {
        "name": captured.name,
        "ops": captured.ops,
        "symbols": [_symbol(symbol) for symbol in graph.graph.symbols],
        "batch_symbol": captured.batch.symbol,
        "why_no_batch": "" if captured.batch.symbol else captured.batch.why_none,
        "equal": [list(pair) for pair in captured.equal],
        "groups": captured.groups,
        "break_reason": graph.break_reason,
        "original_runs": graph.original_runs,
        "last_parts": parts,
        "unmatched": [] if graph.partition is None else list(graph.partition.unmatched),
        "plans": [_plan(plan) for plan in graph.every_plan()],
    }


def _symbol(symbol: dict[str, Any]) -> dict[str, Any]:
    return {key: symbol[key] for key in ("name", "min", "max", "hint")}


def _plan(plan: Plan) -> dict[str, Any]:
    core = plan.plan
    return {
        "strategy": core.strategy,
        "bucket": [f"{left} {op} {right} is {holds}" for left, op, right, holds in core.guards],
        "parts": core.cut["parts"],
        "cut": core.cut,
        "streams": [{"name": name, "kind": kind} for name, kind in core.streams],
        "runs": len(core.runs),
        "segments": _segments(plan.partition),
        "replacements": _replacements(core),
        "compiled": _compiled(core),
        "collectives": _collectives(plan),
        "never_slower": plan.contest.table() if plan.contest else [],
        "counters": {str(key): int(value) for key, value in plan.engine.counters().items()},
    }


def _segments(partition: _core.Partition) -> dict[str, Any]:
    """How many segments have each form, why those are merged that are, and what the strategy's word
    that rows are independent comes to: how many ops only that word splits, or why it is no help.
    """
    found = partition.segments
    merged = [{"name": s["name"], "reason": s["reason"]} for s in found if s["form"] == "merged"]
    count = {form: sum(s["form"] == form for s in found) for form in ("split", "merged", "whole")}
    regions = [
        {"name": region["name"], "ops": len(region["ops"]), "refusal": region["refusal"]}
        for region in partition.regions
    ]
    return {**count, "merged_because": merged, "independent": regions}


def _replacements(core: _core.Plan) -> list[dict[str, Any]]:
    """Each kernel that runs in place of segments, and where."""
    found: dict[str, dict[str, Any]] = {}
    for entry in core.replacing:
        if entry["compiled"]:
            continue
        kernel = found.setdefault(
            entry["replacement"],
            {
                "name": entry["replacement"],
                "target": entry["target"],
                "exact": entry["tolerance"] == 0,
                "tolerance": entry["tolerance"],
                "runs": [],
            },
        )
        kernel["runs"] += [run["name"] for run in core.runs if entry["name"] in run["ops"]]
    return list(found.values())


def _compiled(core: _core.Plan) -> list[dict[str, Any]]:
    """Each compiled kernel: its ops, and how often one run of the plan launches it."""
    found: dict[str, dict[str, Any]] = {}
    targets = {op["name"]: op["short_target"] for op in core.graph.ops}
    for entry in core.replacing:
        if not entry["compiled"]:
            continue
        ops = [targets[name] for name in entry["ops"]]
        kernel = found.setdefault(
            entry["target"], {"target": entry["target"], "ops": ops, "launches": 0}
        )
        kernel["launches"] += sum(run["ops"].count(entry["name"]) for run in core.runs)
    return list(found.values())


def _collectives(plan: Plan) -> list[dict[str, Any]]:
    """For each launch of a collective: what runs beside it, or why nothing does.

    Bytes are those of the call that the plan was made for.
    """
    found = []
    for entry in _core.explain(plan.plan, plan.made_for):
        hidden, exposed = plan.measured.get(entry["run"], (None, None))
        found.append(
            {
                "run": entry["run"],
                "name": entry["name"],
                "part": entry["part"],
                "bytes": entry["bytes"],
                "overlapped": bool(entry["overlaps"]),
                "overlaps": list(entry["overlaps"]),
                "reason": entry["reason"],
                "hidden_us": hidden,
                "exposed_us": exposed,
            }
        )
    return found


def _text(report: Report) -> list[str]:
    if report.disabled:
        return ["DynaFlow is disabled (DYNAFLOW_DISABLE)"]
    count = len(report.graphs)
    lines = [f"{report.name}: strategy {report.strategy}, {count} graph{'s' if count != 1 else ''}"]
    lines += [f"  broken: {report.broken}"] * bool(report.broken)
    lines += [f"  fallback: {reason}" for reason in report.fallbacks]
    for target, reason in report.uncompiled.items():
        lines.append(f"  ops of {target} run one by one: {reason}")
    for graph in report.graphs:
        lines += _graph_text(graph)
    return lines


def _graph_text(graph: dict[str, Any]) -> list[str]:
    batch = (
        f"batch {graph['batch_symbol']}"
        if graph["batch_symbol"]
        else f"unsplit: {graph['why_no_batch']}"
    )
    lines = [f"  graph {graph['name']}: {graph['ops']} ops, {batch}"]
    if graph["break_reason"]:
        lines.append(f"    ends at a graph break: {graph['break_reason'].splitlines()[0]}")
    if graph["original_runs"]:
        lines.append(f"    the original ran {graph['original_runs']} times")
    if graph["last_parts"]:
        lines.append(f"    last step's parts: {graph['last_parts']}")
    for entry in graph["unmatched"]:
        near = f"; near misses: {', '.join(entry['near_misses'])}" if entry["near_misses"] else ""
        lines.append(f"    matched nothing: {' '.join(entry['patterns'])}{near}")
    for plan in graph["plans"]:
        lines += _plan_text(plan)
    return lines


def _plan_text(plan: dict[str, Any]) -> list[str]:
    bucket = f" for {', '.join(plan['bucket'])}" if plan["bucket"] else ""
    streams = ", ".join(stream["name"] for stream in plan["streams"])
    segments = plan["segments"]
    lines = [
        f"    plan '{plan['strategy']}'{bucket}: {plan['parts']} parts, "
        f"{plan['runs']} runs on {streams}"
    ]
    lines += [f"      {row_text(row)}" for row in plan["never_slower"]]
    lines.append(
        f"      segments: {segments['split']} split, {segments['merged']} merged, "
        f"{segments['whole']} whole"
    )
    lines += [
        f"        merged {item['name']}: {item['reason']}" for item in segments["merged_because"]
    ]
    for item in segments["independent"]:
        came = f"no help, {item['refusal']}" if item["refusal"] else f"splits {item['ops']} ops"
        lines.append(f"        rows_independent of {item['name']}: {came}")
    for item in plan["replacements"]:
        promise = "exact" if item["exact"] else f"within {item['tolerance']:g}"
        lines.append(f"      {item['name']} ({promise}) runs as {', '.join(item['runs'])}")
    for item in plan["compiled"]:
        name = "+".join(item["ops"][:4]) + (", ..." if len(item["ops"]) > 4 else "")
        lines.append(f"      compiled {name} ({len(item['ops'])} ops): {item['launches']} launches")
    for item in plan["collectives"]:
        beside = (
            f"under {', '.join(item['overlaps'])}"
            if item["overlapped"]
            else f"exposed: {item['reason']}"
        )
        if item["hidden_us"] is not None:
            hidden, exposed = item["hidden_us"] / 1000, item["exposed_us"] / 1000
            beside += f"; {hidden:.1f} ms hidden, {exposed:.1f} ms exposed"
        lines.append(f"      {item['name']} ({item['bytes']} bytes): {beside}")
    return lines
