"""Draws docs/timeline.svg: one model, without and with overlap.

Two plans are made from one graph and replayed on a virtual clock. Durations are assumed, not
measured: the collectives of a step take NETWORK_SHARE of the time of its compute, and a part takes
its share of the rows.

    python tools/draw_timeline.py docs/timeline.svg
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import dynaflow as df
from dynaflow import _core

LAYERS = 2
ROWS = 8
NETWORK_SHARE = 0.6
MATMUL = 100.0  # time units for the whole batch; adds are free

TITLES = ("before: the batch is not split", "after: nanoflow, two parts")
LEFT, WIDTH, LANE, GAP = 76, 760, 26, 6
COLOURS = {"compute": ("#3b6ea5", "#7fa8d1"), "network": ("#c7662a", "#e5a678")}
FONT = 'font-family="sans-serif" font-size="12"'


@dataclass(frozen=True)
class Bar:
    """One launch on the virtual clock."""

    name: str
    stream: str
    part: int
    start: float
    end: float


def graph_text() -> str:
    """Tensor-parallel layers: attention and MLP, each a matmul, an all-reduce and an add."""
    meta = "tensor(float32, [s0, 64])"
    lines = [
        "graph: tensor_parallel {batch=s0, tokens=s0}",
        f"  %s0 = symbol() {{min=2, hint={ROWS}}}",
        f"  %x0 = input(0, {meta})",
        "  %w = parameter(1, tensor(float32, [64, 64]))",
    ]
    last = "x0"
    blocks = [f"layers.{layer}.{name}" for layer in range(LAYERS) for name in ("attn", "mlp")]
    for i, module in enumerate(blocks):
        attrs = f'{{out=[{meta}], module="{module}"'
        lines += [
            f'  %m{i} = aten.mm.default(%{last}, %w) {attrs}, out_target="aten.mm.out"}}',
            f'  %r{i} = _c10d_functional.all_reduce.default(%m{i}, "sum", "tp") {attrs},'
            ' kind=collective, group="tp"}',
            f"  %x{i + 1} = aten.add.Tensor(%{last}, %r{i}, 1) {attrs},"
            ' out_target="aten.add.out"}',
        ]
        last = f"x{i + 1}"
    return "\n".join([*lines, f"  output(%{last})\n"])


def make_plan(strategy: df.Strategy) -> _core.Plan:
    """The plan of a strategy for ROWS rows."""
    graph = _core.apply_corrections(_core.parse_graph(graph_text()))
    partition = _core.partition(graph, strategy.annotations())
    scheduler = _core.Scheduler(partition, strategy.name, {"s0": ROWS})
    strategy.schedule(scheduler, scheduler.batch())
    return _core.lower(scheduler.finish())


def duration(run: dict, parts: int) -> float:
    """Assumed: matmuls take MATMUL, collectives NETWORK_SHARE of it, by rows."""
    share = (run["last_part"] - run["first_part"]) / parts
    matmuls = sum(op.startswith("m") for op in run["ops"])
    collectives = sum(op.startswith("r") for op in run["ops"])
    return share * MATMUL * (matmuls + NETWORK_SHARE * collectives)


def replay(plan: _core.Plan) -> list[Bar]:
    """The plan's launches as the executor issues them: one host thread, streams in order."""
    stream_lines = re.findall(r'stream\("(\w+)", \w+, \[(.*)\]\)', plan.text)
    code = {name: re.findall(r"(launch|record|wait)\((\d+)\)", text) for name, text in stream_lines}
    kinds = dict(plan.streams)
    host, ends, events, bars = 0.0, dict.fromkeys(code, 0.0), {}, []
    for number, run in enumerate(plan.runs):
        stream, rest = run["stream"], code[run["stream"]]
        while rest[0] != ("launch", str(number)):
            host = max(host, events[rest.pop(0)[1]])  # the issuing thread waits
        rest.pop(0)
        start = max(host, ends[stream])
        ends[stream] = start + duration(run, plan.cut["parts"])
        if kinds[stream] == "host":
            host = ends[stream]
        while rest and rest[0][0] == "record":
            events[rest.pop(0)[1]] = ends[stream]
        bars.append(Bar(run["name"], stream, run["first_part"], start, ends[stream]))
    return [bar for bar in bars if bar.end > bar.start]


def lane_of(bar: Bar) -> str:
    """Collectives are drawn on their own lane, also where the compute stream issues them."""
    return "network" if "all_reduce" in bar.name else "compute"


def draw_plan(bars: list[Bar], title: str, top: int, scale: float) -> list[str]:
    """SVG of one plan's two lanes."""
    lines = [f'<text x="{LEFT}" y="{top + 12}" {FONT} font-weight="bold">{title}</text>']
    for lane, name in enumerate(COLOURS):
        y = top + 20 + lane * (LANE + GAP)
        lines.append(f'<text x="4" y="{y + 17}" {FONT}>{name}</text>')
        lines.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{LANE}" fill="#f1f1f1"/>')
        for bar in (bar for bar in bars if lane_of(bar) == name):
            x, width = LEFT + bar.start * scale, (bar.end - bar.start) * scale
            label = "" if width < 24 else f"{bar.part}"
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE}" stroke="white" '
                f'fill="{COLOURS[name][bar.part]}"><title>{bar.name}</title></rect>'
            )
            middle = x + width / 2
            lines.append(
                f'<text x="{middle:.1f}" y="{y + 17}" {FONT} fill="white" text-anchor="middle">'
                f"{label}</text>"
            )
    return lines


def draw() -> str:
    """The picture as SVG text."""
    plans = [make_plan(df.NanoFlow(min_tokens=ROWS + 1)), make_plan(df.NanoFlow(min_tokens=0))]
    timelines = [replay(plan) for plan in plans]
    longest = max(bar.end for bars in timelines for bar in bars)
    lines = []
    for i, (bars, title) in enumerate(zip(timelines, TITLES)):
        end = max(bar.end for bar in bars)
        lines += draw_plan(bars, f"{title} ({end:.0f} units)", 8 + i * 100, WIDTH / longest)
    note = (
        f"{LAYERS} tensor-parallel layers. 0 and 1: the part. Drawn from two plans with assumed "
        f"durations (N/C = {NETWORK_SHARE}); not a measurement."
    )
    lines.append(f'<text x="{LEFT}" y="218" {FONT} fill="#555">{note}</text>')
    size = f'width="{LEFT + WIDTH + 8}" height="228"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join(
        [head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>", ""]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
