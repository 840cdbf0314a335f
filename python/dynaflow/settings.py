"""The environment, read once."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


@dataclass(frozen=True)
class Settings:
    """`DYNAFLOW_DISABLE=1` bypasses everything; `DYNAFLOW_LOG` is the log level;
    `DYNAFLOW_CHECK=effects` observes what ops really do; `DYNAFLOW_CACHE` is the folder that keeps
    compiled kernels.
    """

    disabled: bool
    log_level: int
    check_effects: bool
    cache: Path

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Raises ValueError for a level or a check that there is not."""
        level = environment.get("DYNAFLOW_LOG", "warning").lower()
        if level not in _LEVELS:
            raise ValueError(f"DYNAFLOW_LOG is '{level}'; use one of {', '.join(_LEVELS)}")
        disabled = environment.get("DYNAFLOW_DISABLE", "0").lower() not in ("", "0", "false")
        check = environment.get("DYNAFLOW_CHECK", "").lower()
        if check not in ("", "effects"):
            raise ValueError(f"DYNAFLOW_CHECK is '{check}'; use effects, or leave it out")
        home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(environment.get("DYNAFLOW_CACHE") or Path(home) / "dynaflow")
        return cls(disabled, _LEVELS[level], check == "effects", cache)


SETTINGS = Settings.read(os.environ)


def configure_log() -> logging.Logger:
    """The package's logger at the level that the environment asks for."""
    logger = logging.getLogger("dynaflow")
    logger.setLevel(SETTINGS.log_level)
    if SETTINGS.log_level < logging.WARNING and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("dynaflow %(levelname)s: %(message)s"))
        logger.addHandler(handler)
    return logger
