"""What `python -m dynaflow bench` can measure."""

from __future__ import annotations

#: Figures by name, with the module whose `run(display)` measures them.
FIGURES = {
    "overlap": "dynaflow.bench.overlap",
    "eager": "dynaflow.bench.eager",
    "capture": "dynaflow.bench.capture",
    "host-cost": "dynaflow.bench.host_cost",
    "memory": "dynaflow.bench.memory",
    "plan-time": "dynaflow.bench.plan_time",
    "vllm": "dynaflow.bench.vllm.figure",
}

#: What a figure imports beyond that; `make bench-vllm` installs it for the figure of this name.
NEEDS = {"vllm": ("vllm",)}
