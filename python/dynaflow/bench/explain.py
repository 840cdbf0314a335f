"""What was overlapped, what was not, and why: DynaFlow's report in a few rows."""

from __future__ import annotations

import re
from typing import Any

COLUMNS = ("communication", "runs", "MiB", "overlapped", "hidden ms", "exposed ms", "why exposed")


def collectives_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The collectives of each graph's most divided plan."""
    found = []
    for graph in report.get("graphs", []):
        plans = graph.get("plans", [])
        if plans:
            found += max(plans, key=_parts).get("collectives", [])
    return found


def overlap_rows(report: dict[str, Any]) -> list[list[str]]:
    """Rows under COLUMNS: collectives that differ only by layer and reason share one."""
    groups: dict[tuple[str, bool, str], list[dict[str, Any]]] = {}
    for item in collectives_of(report):
        place = re.sub(r"\d+", "*", str(item.get("name", "?")))
        reason = "" if item.get("overlapped") else str(item.get("reason", ""))
        groups.setdefault((place, bool(item.get("overlapped")), reason), []).append(item)
    return [_row(*key, items) for key, items in groups.items()]


def _row(place: str, overlapped: bool, reason: str, items: list[dict[str, Any]]) -> list[str]:
    def total(field: str, scale: float) -> str:
        values = [item.get(field) for item in items]
        known = [value for value in values if isinstance(value, (int, float))]
        return f"{sum(known) * scale:.1f}" if known else "-"

    return [
        place,
        str(len(items)),
        total("bytes", 1 / 2**20),
        "yes" if overlapped else "no",
        total("hidden_us", 1e-3),
        total("exposed_us", 1e-3),
        reason,
    ]


def _parts(plan: dict[str, Any]) -> int:
    parts = plan.get("parts", 1)
    return parts if isinstance(parts, int) else len(parts)
