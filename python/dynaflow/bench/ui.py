"""What the launching process shows: progress while ranks work, then tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dynaflow.bench.stats import Summary

#: Columns of text where the output is not a terminal.
PLAIN_WIDTH = 120


class Display:
    """Progress and tables on a terminal; plain lines where the output is none.

    Nothing is drawn but at calls: a display that refreshes itself would take time from the ranks.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._task = None

    def say(self, text: str) -> None:
        """One line of text."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def progress(self, text: str, fraction: float | None = None) -> None:
        """Says what happens now; `fraction` of the whole, from 0 to 1, is done."""
        if not self.console.is_terminal:
            self.say(f"[{time.monotonic() - self._started:5.1f} s] {text}")
            return
        if self._bar is None:
            columns = (
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self.console, auto_refresh=False, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(text, total=1.0)
        self._bar.update(self._task, description=text, completed=fraction, refresh=True)

    def finish(self) -> None:
        """Takes the progress bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def table(self, title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """A table: the first column is text, the others are figures."""
        self.say(f"\n{title}")
        table = Table()
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.console.print(table, highlight=False)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exc) -> None:
        self.finish()


def milliseconds(summary: Summary) -> str:
    """Median and interval of a time in seconds, as text in milliseconds."""
    low, mid, high = (
        f"{value * 1e3:,.1f}" for value in (summary.low, summary.median, summary.high)
    )
    return f"{mid} [{low}, {high}]"


def percent(share: Summary) -> str:
    """A share of 1 with its interval, as text; a dash for what is not a number."""
    if math.isnan(share.median):
        return "-"
    return f"{share.median:.0%} [{share.low:.0%}, {share.high:.0%}]"


def times(summary: Summary) -> str:
    """A ratio with its interval, as text."""
    return f"{summary.median:.3f}x [{summary.low:.3f}, {summary.high:.3f}]"
