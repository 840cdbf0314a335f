"""What becomes of the steps of daemon threads when the interpreter ends."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Any

#: Milliseconds that steps in flight have for their end.
_LIMIT_MS = 5000
#: Seconds after that in which threads that have left a step come to their next one.
_SETTLE_S = 0.05


def close_at_exit(runtime: Any, owner: object) -> None:
    """At the interpreter's end lets steps in flight end and no others begin, while `owner` lives.

    An interpreter that ends kills daemon threads as they come back to it. Killed within C++ frames,
    as PyTorch's operators have them, they abort the process.
    """
    process = os.getpid()

    def close() -> None:
        if os.getpid() == process and threading.active_count() > 1:
            runtime.close(_LIMIT_MS)
            time.sleep(_SETTLE_S)

    atexit.register(close)
    weakref.finalize(owner, atexit.unregister, close).atexit = False
