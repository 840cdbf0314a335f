"""When the pieces of a step ran: events of one traced call, as data and as a Perfetto file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from dynaflow import _core
from dynaflow.api import session_of
from dynaflow.plan import Plan


class Trace:
    """The events of the last step of each plan that ran while tracing, in order of their start.

    An event is a dict: name, stream, part ("0", or "0:2" for a merged launch), start_us, end_us;
    that of a collective on a stream of its own also has hidden_us, the time that kernels on other
    streams ran meanwhile, and exposed_us, the rest.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def save(self, path: str | PathLike[str]) -> None:
        """Writes Chrome's trace format, which ui.perfetto.dev opens: a track for each stream."""
        streams = list(dict.fromkeys(event["stream"] for event in self.events))
        rows: list[dict[str, Any]] = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": tid, "args": {"name": stream}}
            for tid, stream in enumerate(streams)
        ]
        for event in self.events:
            start, end = event["start_us"], event["end_us"]
            rows.append(
                {
                    "name": event["name"],
                    "ph": "X",
                    "pid": 0,
                    "tid": streams.index(event["stream"]),
                    "ts": start,
                    "dur": end - start,
                    "args": {"part": event["part"]},
                }
            )
        with Path(path).open("w", encoding="utf-8") as file:
            json.dump({"traceEvents": rows, "displayTimeUnit": "ms"}, file)


@contextmanager
def trace(compiled: Any) -> Iterator[Trace]:
    """Traces the calls of `compiled` in its block; the events are there after it.

    Plans that the block itself makes are not traced: run a step of these sizes before.
    """
    session = session_of(compiled)
    plans = [plan for graph in session.graphs for plan in graph.every_plan()]
    for plan in plans:
        plan.engine.start_trace()
    result = Trace()
    try:
        yield result
    finally:
        for plan in plans:
            events = _events(plan, plan.engine.take_trace())
            plan.measured = _hidden(plan, events) or plan.measured
            result.events += events
        result.events.sort(key=lambda event: event["start_us"])


def _events(plan: Plan, text: str) -> list[dict[str, Any]]:
    """The engine's text: its clock at time 0, then a line for each run that ended."""
    lines = text.splitlines()
    if not lines:
        return []
    _, _, realtime_ns = lines[0].split()
    origin_us = int(realtime_ns) / 1000
    runs = plan.plan.runs
    events = []
    for line in lines[1:]:
        run, start, end = line.split()
        found = runs[int(run)]
        first, last = found["first_part"], found["last_part"]
        events.append(
            {
                "run": int(run),
                "name": found["name"],
                "stream": found["stream"],
                "part": str(first) if last == first + 1 else f"{first}:{last}",
                "start_us": origin_us + float(start),
                "end_us": origin_us + float(end),
            }
        )
    return events


def _hidden(plan: Plan, events: list[dict[str, Any]]) -> dict[int, tuple[float, float]]:
    """(hidden, exposed) microseconds of each collective that has a run of its own, by run."""
    alone = {entry["run"] for entry in _core.explain(plan.plan, plan.made_for) if entry["alone"]}
    busy = [event for event in events if event["run"] not in alone]
    free_from: dict[str, float] = {}  # by stream: first in, first out
    measured = {}
    for event in sorted(events, key=lambda event: event["run"]):
        if event["run"] not in alone:
            continue
        start = max(event["start_us"], free_from.get(event["stream"], 0.0))
        end = free_from[event["stream"]] = max(event["end_us"], start)
        overlaps = (min(end, b["end_us"]) - max(start, b["start_us"]) for b in busy)
        hidden = min(sum(part for part in overlaps if part > 0), end - start)
        event["hidden_us"], event["exposed_us"] = hidden, end - start - hidden
        measured[event["run"]] = (event["hidden_us"], event["exposed_us"])
    return measured
