"""Plans kept as text, so that a process starts with those that another one made.

A folder holds `rank0-of-1.json`, which says what the plans were made by, and a file for each plan
in the form that the `dynaflow` command reads.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dynaflow import _core
from dynaflow.api import session_of
from dynaflow.errors import Error, PlanError
from dynaflow.session import Session

_FORMAT = 1


@dataclass(frozen=True)
class SavedPlan:
    """A plan from a file, with its graph as lines of text without hints."""

    path: Path
    plan: _core.Plan
    graph: list[str]


def _lines(graph: _core.Graph) -> list[str]:
    """The graph's text. Hints are the sizes of the call that captured it: any will do."""
    return re.sub(r"hint=\d+", "", graph.text).splitlines()


class SavedPlans:
    """The plans of a folder, as a session looks for them."""

    def __init__(self, folder: Path, plans: list[SavedPlan]) -> None:
        self.folder = folder
        self.plans = plans

    def of(self, graph: _core.Graph) -> list[_core.Plan]:
        """Those of this very graph."""
        own = _lines(graph)
        return [saved.plan for saved in self.plans if saved.graph == own]

    def refusal(self, graph: _core.Graph) -> str:
        """Why no plan is one of `graph`, of which there is none."""
        texts = {saved.path.name: saved.graph for saved in self.plans}
        own = _lines(graph)
        same = {name: _same_lines(own, text) for name, text in texts.items()}
        nearest = max(same, key=same.__getitem__, default="")
        if not nearest:
            return f"{self.folder} holds no plans"
        line = same[nearest]
        here, there = (
            repr(text[line].strip()) if line < len(text) else "nothing"
            for text in (own, texts[nearest])
        )
        return (
            f"no plan in {self.folder} is one of the graph {graph.name}: line {line + 1} of its "
            f"text is {here}, and {there} in {nearest}"
        )


def save_plans(compiled: Any, folder: str | os.PathLike[str]) -> list[Path]:
    """Writes every plan that the strategy of `compiled` has made so far; the plans' files.

    Each rank writes its own. What the folder held for a job of this size is replaced. Raises
    PlanError for a plan with kernels that only this process has, and where there is no plan yet.
    """
    session = session_of(compiled)
    folder = Path(folder)
    texts: dict[str, str] = {}
    rank, world = _place()
    for graph in session.graphs:
        for number, plan in enumerate(graph.plans):
            if plan.kernels.launched:
                raise PlanError(
                    f"plan {number} of {graph.captured.name} runs kernels of its strategy's "
                    "replace_func, which have no text: it cannot be saved"
                )
            texts[f"rank{rank}-of-{world}.{graph.captured.name}.{number}.plan"] = plan.plan.text
    if not texts:
        raise PlanError(f"'{session.name}' has no plan yet: call it before its plans are saved")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    made_by = _made_by(session) | {"plans": list(texts)}
    _manifest(folder).write_text(json.dumps(made_by, indent=1) + "\n", encoding="utf-8")
    return [folder / name for name in texts]


def load_plans(compiled: Any, folder: str | os.PathLike[str]) -> int:
    """Has `compiled` run the plans of a folder where they fit, instead of making its own; how many
    there are.

    For a strategy of the same name; a plan is one of the same graph, torch, DynaFlow and rank of as
    many. Raises PlanError that says which of these differ, ParseError or GraphError for a bad file.
    Before the first call the graph is not known: where it turns out to be another one, one warning
    gives the reason and plans are made. Loaded plans are verified as new ones are.
    """
    session = session_of(compiled)
    folder = Path(folder)
    names = _read_manifest(folder, session)
    saved = SavedPlans(folder, [_read_plan(folder / name) for name in names])
    if session.graphs and not any(saved.of(graph.graph) for graph in session.graphs):
        raise PlanError(saved.refusal(session.graphs[0].graph))
    session.saved = saved
    return len(saved.plans)


def _place() -> tuple[int, int]:
    """The rank of this process, and of how many."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def _made_by(session: Session) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "dynaflow": _core.__version__,
        "torch": torch.__version__,
        "strategy": session.strategy.name,
    }


def _manifest(folder: Path) -> Path:
    rank, world = _place()
    return folder / f"rank{rank}-of-{world}.json"


def _read_manifest(folder: Path, session: Session) -> list[str]:
    """The names of the plans' files. Raises PlanError where they are of no use here."""
    path = _manifest(folder)
    if not path.is_file():
        others = ", ".join(sorted(other.stem for other in folder.glob("rank*-of-*.json")))
        raise PlanError(
            f"{folder} has no plans of {path.stem.replace('-', ' ')}; "
            + (f"it has those of {others}" if others else "nothing was saved there")
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = found["plans"]
        told = {key: found[key] for key in _made_by(session)}
    except (ValueError, TypeError, KeyError) as error:
        raise PlanError(f"{path} is not what df.save_plans writes: {error!r}") from None
    for key, own in _made_by(session).items():
        if told[key] != own:
            raise PlanError(f"the plans in {folder} are of {key} {told[key]}; this is {key} {own}")
    if not isinstance(names, list) or not all(_is_file_name(name) for name in names):
        raise PlanError(f"{path} lists something else than files of this folder: {names!r}")
    return names


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _read_plan(path: Path) -> SavedPlan:
    try:
        plan = _core.parse_plan(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {path}: {error}") from None
    except Error as error:
        raise type(error)(f"{path}: {error}") from None
    return SavedPlan(path, plan, _lines(plan.graph))


def _same_lines(a: list[str], b: list[str]) -> int:
    """How many lines two texts have in common from their first on."""
    return next(
        (at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other),
        min(len(a), len(b)),
    )
