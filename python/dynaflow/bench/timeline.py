"""One timeline of all ranks from the timelines that they wrote."""

from __future__ import annotations

import json
from pathlib import Path


def merge(sources: list[Path], target: Path) -> int:
    """Joins Perfetto (Chrome JSON) files, rank i's events under process i; the number of events."""
    events = []
    for rank, source in enumerate(sources):
        loaded = json.loads(source.read_text(encoding="utf-8"))
        own = loaded["traceEvents"] if isinstance(loaded, dict) else loaded
        names = {"name": "process_name", "ph": "M", "pid": rank, "args": {"name": f"rank {rank}"}}
        events.append(names)
        events += [dict(event, pid=rank) for event in own if event.get("name") != "process_name"]
    target.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    return len(events)
