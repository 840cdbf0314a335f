"""Jobs that live side by side and take turns, for arms that need processes of their own.

A job's ranks wait for a command, carry it out together and wait again; waiting takes no time from
the job whose turn it is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from dynaflow.bench.launch import run_ranks
from dynaflow.bench.rank import RankContext


def serve(context: RankContext, handlers: Mapping[str, Callable[..., Any]]) -> None:
    """On every rank: carries out the launcher's commands until it closes the job."""
    context.once("answer", None)
    while (command := context.once("command")) is not None:
        name, arguments = command
        context.meeting.barrier()
        results = context.meeting.gather(handlers[name](**arguments))
        context.once("answer", results)


class Job:
    """Ranks that `serve`. Commands are given by one thread, which waits for each."""

    def __init__(self, target: str, **how: Any) -> None:
        """Starts the ranks as `run_ranks` does with `target`, which calls `serve`, and `how`.

        Returns when all of them wait for a command. Raises RankError, as `call` does.
        """
        self._commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        how["services"] = {"command": self._commands.get, "answer": self._answers.put}
        self._thread = threading.Thread(target=self._run, args=(target, how), daemon=True)
        self._ended: Exception | None = None
        self._thread.start()
        self._answer()

    def call(self, name: str, **arguments: Any) -> list[Any]:
        """Has every rank run its handler of this name; the results, by rank."""
        if self._ended is not None:
            raise self._ended
        self._commands.put((name, arguments))
        return self._answer()

    def close(self) -> None:
        """Ends the ranks."""
        self._commands.put(None)
        self._thread.join()

    def _run(self, target: str, how: dict[str, Any]) -> None:
        try:
            run_ranks(target, **how)
            self._answers.put(RuntimeError("the job has ended"))
        except Exception as error:
            self._answers.put(error)  # raised where the answer is waited for

    def _answer(self) -> Any:
        answer = self._answers.get()
        if isinstance(answer, Exception):
            self._ended = answer
            raise answer
        return answer
