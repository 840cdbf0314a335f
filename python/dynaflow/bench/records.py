"""Figures as JSON records, one form for the demo and every benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from dynaflow.bench.stats import Summary

#: What stands for a ratio that a plain loopback link cannot show.
NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Record:
    """One figure.

    `ratio` says how many times faster than `baseline` it is; `low` and `high` are the ends of the
    ratio's 95 % interval where there is a ratio, else the quartiles of `value`. `bound` is the best
    `value` that any schedule could reach. `value` and `bound` are in `unit`.
    """

    name: str
    value: float | None
    unit: str
    ratio: float | str | None = None
    baseline: str | None = None
    bound: float | None = None
    low: float | None = None
    high: float | None = None


def timing(
    name: str,
    time: Summary,
    ratio: Summary | None = None,
    baseline: str | None = None,
    bound_s: float | None = None,
) -> Record:
    """A record of a time: `time` and `bound_s` in seconds, written in milliseconds."""
    spread = ratio or time.scaled(1e3)
    return Record(
        name=name,
        value=time.median * 1e3,
        unit="ms",
        ratio=ratio.median if ratio else None,
        baseline=baseline,
        bound=None if bound_s is None else bound_s * 1e3,
        low=spread.low,
        high=spread.high,
    )


def figure(name: str, summary: Summary, unit: str, baseline: str | None = None) -> Record:
    """A record of a summary with its own interval, in `unit`."""
    return Record(name, summary.median, unit, None, baseline, None, summary.low, summary.high)


def write(path: str | Path, records: list[Record]) -> None:
    """Writes records as one JSON array, in a folder that is made where there is none; what is not a
    number becomes null.
    """
    rows = [{key: _plain(value) for key, value in asdict(record).items()} for record in records]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _plain(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
