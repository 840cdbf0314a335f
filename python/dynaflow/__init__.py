"""DynaFlow: programmable overlap of communication and compute in PyTorch models.

>>> model = dynaflow.compile(model, strategy="nanoflow")
>>> print(dynaflow.report(model))
"""

from __future__ import annotations

from dynaflow._core import Graph
from dynaflow.api import capture, compile
from dynaflow.context import HostContext
from dynaflow.counting import Counts, OpBytes, count
from dynaflow.errors import (
    AgreementError,
    CaptureError,
    DynaFlowWarning,
    EffectError,
    Error,
    ExecutionError,
    GraphError,
    IndependenceError,
    LoadError,
    ParameterError,
    ParseError,
    PlanError,
    ReplacementError,
    ScheduleError,
)
from dynaflow.report import Report, report, reports
from dynaflow.saved import load_plans, save_plans
from dynaflow.settings import configure_log
from dynaflow.strategy import (
    Batch,
    NanoFlow,
    Op,
    Replacement,
    Scheduler,
    Sequential,
    SplitFunc,
    SplitMark,
    SplitModule,
    Strategy,
    mark,
)
from dynaflow.tracing import Trace, trace

__all__ = [
    "AgreementError",
    "Batch",
    "CaptureError",
    "Counts",
    "DynaFlowWarning",
    "EffectError",
    "Error",
    "ExecutionError",
    "Graph",
    "GraphError",
    "HostContext",
    "IndependenceError",
    "LoadError",
    "NanoFlow",
    "Op",
    "OpBytes",
    "ParameterError",
    "ParseError",
    "PlanError",
    "Replacement",
    "ReplacementError",
    "Report",
    "ScheduleError",
    "Scheduler",
    "Sequential",
    "SplitFunc",
    "SplitMark",
    "SplitModule",
    "Strategy",
    "Trace",
    "capture",
    "compile",
    "count",
    "load_plans",
    "mark",
    "report",
    "reports",
    "save_plans",
    "trace",
]

configure_log()
