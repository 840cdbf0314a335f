"""Loads the torch adapter, after checking that it was built for the torch that runs."""

from __future__ import annotations

from pathlib import Path

import torch

from dynaflow.errors import LoadError

LIBRARY = "libdynaflow_torch.so"
REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps ."


def load_adapter(folder: Path | None = None) -> None:
    """Makes `torch.classes.dynaflow` available. Loading it again does nothing.

    Raises LoadError, with the command that rebuilds it, when it is missing or another torch's.
    """
    folder = folder or Path(__file__).parent
    library = folder / LIBRARY
    if not library.exists():
        raise LoadError(
            f"{LIBRARY} is not in {folder}. Build it, in DynaFlow's source folder:\n  {REBUILD}"
        )
    built_for = _release((library.with_suffix(".version")).read_text(encoding="utf-8"))
    running = _release(torch.__version__)
    if built_for != running:
        raise LoadError(
            f"{LIBRARY} was built for torch {built_for}, and torch {running} is running. "
            f"Rebuild it, in DynaFlow's source folder:\n  {REBUILD}"
        )
    torch.ops.load_library(str(library))


def _release(version: str) -> str:
    """ "2.13.0" of "2.13.0+cpu"."""
    return version.strip().partition("+")[0]
