"""Compiled kernels: one AOTInductor package for each distinct chain of ops, kept on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from dynaflow import _core
from dynaflow.settings import SETTINGS

log = logging.getLogger("dynaflow")

_LIMIT_S = 600  # for one kernel: a compiler that hangs must not hang the model


class CompiledKernels:
    """The kernels that one compilation has, and why it has not others."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or SETTINGS.cache) / "kernels" / _machine()
        self.refused: dict[str, str] = {}  # by target: why its ops run one by one
        self.packages: dict[str, Path] = {}  # by target

    def find(self, kernels: Mapping[str, _core.Graph], add: Callable[[str, str], None]) -> bool:
        """Gives `add` the package of every kernel, by its target, compiled where there is none.

        False when some cannot be had; `refused` then says why.
        """
        new = [name for name in kernels if name not in self.packages and name not in self.refused]
        missing = [name for name in new if not self._is_kept(name, kernels[name].text)]
        if missing:
            self._compile({name: kernels[name].text for name in missing})
        for name in new:
            if name in self.refused:
                continue
            try:
                add(name, str(self._package(name)))
                self.packages[name] = self._package(name)
            except RuntimeError as error:
                self.refused[name] = str(error).partition("\n")[0]
        return not any(name in self.refused for name in kernels)

    def _package(self, target: str) -> Path:
        return self.folder / f"{target.split('.')[1]}.pt2"

    def _is_kept(self, target: str, text: str) -> bool:
        package = self._package(target)
        graph = package.with_suffix(".txt")
        if not package.exists() or not graph.exists():
            return False
        if graph.read_text(encoding="utf-8") == text:
            return True
        self.refused[target] = f"{graph} is of another kernel of the same name"
        return True

    def _compile(self, texts: Mapping[str, str]) -> None:
        """Each in a process of its own, as many at once as there are cores."""
        self.folder.mkdir(parents=True, exist_ok=True)
        workers = min(len(texts), len(os.sched_getaffinity(0)))
        log.warning("compiling %d kernels, %d at once, into %s", len(texts), workers, self.folder)
        with ThreadPoolExecutor(workers) as pool:
            running = {pool.submit(self._compile_one, *item): item[0] for item in texts.items()}
            for count, done in enumerate(as_completed(running), 1):
                name, why = running[done], done.result()
                if why:
                    self.refused[name] = why
                log.warning("kernel %d of %d: %s", count, len(texts), why or "compiled")

    def _compile_one(self, target: str, text: str) -> str:
        """Why there is no kernel, or empty."""
        package = self._package(target)
        graph = package.with_suffix(".txt")
        own = graph.with_suffix(f".{os.getpid()}.{threading.get_ident()}.txt")
        own.write_text(text, encoding="utf-8")
        own.replace(graph)  # whole at every moment, whoever else writes it
        command = [sys.executable, "-m", "dynaflow.compile_kernel", str(graph), str(package)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the compiler did not end well: {error}"
        if done.returncode < 0:
            return f"the compiler was ended by signal {-done.returncode}"
        lines = done.stderr.strip().splitlines() or [f"the compiler ended with {done.returncode}"]
        return "" if done.returncode == 0 else lines[-1]


def _machine() -> str:
    """A folder for what can be run here: kernels are compiled for this processor and torch."""
    flags = ""
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    described = "\n".join([torch.__version__, platform.machine(), flags])
    return f"{torch.__version__}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
