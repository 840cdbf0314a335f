"""What runs in this process, and what becomes of daemon threads' steps at its end."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Any

#: Seconds that steps in flight have for their end.
_LIMIT_S = 5.0
#: Seconds after that in which threads that have left a step come to their next one.
_SETTLE_S = 0.05

_open: weakref.WeakKeyDictionary[Any, tuple[Any, int]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()  # of _open


def close_at_exit(runtime: Any, owner: object) -> None:
    """At the interpreter's end lets steps in flight end and no others begin, while `owner` lives.

    An interpreter that ends kills daemon threads as they come back to it. Killed within C++ frames,
    as PyTorch's operators have them, they abort the process.
    """
    with _lock:
        _open[owner] = runtime, os.getpid()


def running() -> list[Any]:
    """The owners of this process's runtimes that are still alive, in no order."""
    with _lock:
        return [owner for owner, (_, process) in _open.items() if process == os.getpid()]


@atexit.register
def _close() -> None:
    runtimes = [_open[owner][0] for owner in running()]
    if not runtimes or threading.active_count() == 1:
        return
    deadline = time.monotonic() + _LIMIT_S
    for runtime in runtimes:
        runtime.close(max(0, int(1000 * (deadline - time.monotonic()))))
    time.sleep(_SETTLE_S)
