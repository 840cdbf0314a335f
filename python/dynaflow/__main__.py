"""`python -m dynaflow`: the demo, and the figures that the documentation states."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import signal
import sys
from pathlib import Path

from dynaflow.bench.figures import FIGURES, NEEDS

#: What the demo and the figures import beyond what DynaFlow itself needs.
REQUIRED = ("rich", "numpy", "transformers", "accelerate")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dynaflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="a Llama on two ranks: overlapped, checked, explained")
    demo.add_argument("--json", type=Path, default=Path("dynaflow-demo.json"), metavar="FILE")
    demo.add_argument(
        "--timeline", type=Path, default=Path("dynaflow-timeline.json"), metavar="FILE"
    )
    demo.add_argument("--loopback", action="store_true", help="do not shape a link")
    bench = commands.add_parser("bench", help="measure one figure")
    bench.add_argument("name", choices=sorted(FIGURES), metavar="NAME", help=", ".join(FIGURES))
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the records here")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    options = build_parser().parse_args(arguments)
    needed = (*REQUIRED, *NEEDS.get(getattr(options, "name", ""), ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(f"dynaflow: not installed: {', '.join(missing)} (use pip install)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so as to clean up
    from dynaflow.bench.launch import RankError
    from dynaflow.bench.net import LinkError
    from dynaflow.bench.records import write
    from dynaflow.bench.ui import Display

    try:
        if options.command == "demo":
            from dynaflow.bench import demo

            where = dict(records=options.json, timeline=options.timeline)
            return demo.run(demo.DemoOptions(**where, loopback=options.loopback))
        with Display() as show:
            records = importlib.import_module(FIGURES[options.name]).run(show)
        if options.json:
            write(options.json, records)
        return 0
    except (RankError, LinkError) as failure:
        print(f"dynaflow: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
