"""What one compilation shares: its strategy, its engines' runtime, and what it has to report."""

from __future__ import annotations

import logging
import threading
import warnings
from typing import TYPE_CHECKING, Any

import torch

from dynaflow._loader import load_adapter
from dynaflow.captured import Captured
from dynaflow.compiled import CompiledKernels
from dynaflow.context import ContextSteps
from dynaflow.errors import DynaFlowWarning
from dynaflow.groups import Queue, open_queue
from dynaflow.options import Options
from dynaflow.plans import CompiledGraph
from dynaflow.process_end import close_at_exit
from dynaflow.strategy import Strategy

if TYPE_CHECKING:
    from dynaflow.entry import Entry
    from dynaflow.saved import SavedPlans

log = logging.getLogger("dynaflow")

GRADIENTS = (
    "gradients are needed, so the original model runs without DynaFlow. "
    "Call it under torch.no_grad() or torch.inference_mode()"
)


class Session:
    """One call of df.compile, or one graph of torch.compile(backend="dynaflow")."""

    def __init__(
        self, name: str, strategy: Strategy, options: Options, capture_only: bool = False
    ) -> None:
        self.name = name
        self.capture_only = capture_only  # graphs are wanted, plans are not
        self.strategy = strategy
        self.options = options
        self.graphs: list[CompiledGraph] = []
        self.fallbacks: list[str] = []  # reasons why the original ran, in order, each once
        self.saved: SavedPlans | None = None  # plans from files, taken where they fit
        self.entry: Entry | None = None  # of df.compile: what its calls go through
        self.unnamed_graphs = 0
        self.steps = None if options.context is None else ContextSteps(options.context)
        self.kernels = CompiledKernels() if options.fuse else None
        self._runtime: Any = None
        self._queues: dict[str, Queue] = {}
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def graph_name(self) -> str:
        """A name for the next graph: the model's, numbered from the second on."""
        self.unnamed_graphs += 1
        return self.name if self.unnamed_graphs == 1 else f"{self.name}.{self.unnamed_graphs - 1}"

    def runtime(self) -> Any:
        """What the engines share."""
        with self._lock:
            if self._runtime is None:
                load_adapter()
                self._runtime = torch.classes.dynaflow.Runtime()
                close_at_exit(self._runtime, self)
                if self.steps is not None:
                    self._runtime.set_context_op(self.steps.op)
            return self._runtime

    def make_engine(self, plan_text: str, captured: Captured) -> Any:
        """An engine for a plan. Opens the queues of its process groups first."""
        runtime = self.runtime()
        with self._lock:
            for group in captured.groups:
                if group not in self._queues:
                    queue = open_queue(group)
                    runtime.add_group(group, queue.name, queue.fifo)
                    self._queues[group] = queue
            cores = {name: list(cores) for name, cores in self.options.cores.items()}
            return torch.classes.dynaflow.Engine(runtime, plan_text, captured.constants, cores)

    def broken(self) -> str:
        """Why a process group can no longer be used, or empty."""
        return "" if self._runtime is None else self._runtime.broken()

    def fall_back(self, reason: str) -> None:
        """Notes, and says once, that the original model runs instead."""
        if reason not in self.fallbacks:
            self.fallbacks.append(reason)
        if self.entry is not None:
            self.entry.distrust()  # no plan checks what the original is given
        self.warn("fallback: " + reason, f"DynaFlow: the original model runs: {reason}")

    def warn_static(self, why: str, remedy: str) -> None:
        """Notes, and says once, that a strategy has no batch to split, and how to give it one."""
        self.fallbacks.append(f"sequential: {why}")
        self.warn(
            "static",
            f"DynaFlow: '{self.name}' runs sequentially although strategy "
            f"'{self.strategy.name}' was asked for: {why}. {remedy}",
        )

    def warn(self, kind: str, message: str) -> None:
        """One warning for each kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.info(message)
            warnings.warn(message, DynaFlowWarning, stacklevel=2)
