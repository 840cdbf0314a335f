"""What becomes of a compiled model when processes fork or end, and when it is dropped."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch
from equivalence import Lanes
from small_models import stack

import dynaflow as df

#: A process that hangs is found out after so many seconds.
LIMIT_S = 100


def run_script(source: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that runs `source` with the tests' modules at hand."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(Path(df.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


SETUP = """
    import os, sys, threading, time, torch
    import dynaflow as df
    from equivalence import Lanes
    from small_models import stack
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    compiled = df.compile(stack(), Lanes(2, "Mlp"))
    x = torch.randn(8, 8)
    compiled(x)
"""


def test_a_forked_child_is_told_to_compile_anew_and_ends():
    done = run_script(
        SETUP
        + """
    if os.fork() == 0:
        try:
            compiled(x)
        except df.ExecutionError as error:
            print(error, flush=True)
        again = df.compile(stack(), "sequential")
        print(torch.equal(again(x), stack()(x)), flush=True)
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    compiled(x)
    """
    )
    assert done.returncode == 0, done.stderr
    told, same, status = done.stdout.splitlines()
    assert "forked" in told and "compile it in the child" in told
    assert (same, status) == ("True", "7")


@pytest.mark.parametrize("callers", [0, 1, 4], ids=["idle", "in a step", "in four steps"])
def test_a_process_ends_while_streams_have_threads(callers):
    done = run_script(
        SETUP
        + f"""
    def forever():
        with torch.no_grad():
            while True:
                compiled(x)
    for _ in range({callers}):
        threading.Thread(target=forever, daemon=True).start()
    time.sleep(0.2)
    print("end", flush=True)
    """
    )
    assert done.stdout == "end\n"
    assert done.returncode == 0, done.stderr


def test_a_model_still_runs_in_what_others_do_at_the_end():
    done = run_script(
        """
    import atexit, torch
    calls = []
    atexit.register(lambda: print(calls[0]().shape, flush=True))
    """
        + SETUP
        + """
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    calls.append(lambda: compiled(x))
    """
    )
    assert done.stdout == "torch.Size([8, 8])\n"
    assert done.returncode == 0, done.stderr


def test_a_model_that_is_dropped_takes_its_threads_along():
    done = run_script(
        SETUP
        + """
    import gc
    from pathlib import Path

    def threads():
        names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
        return names.count("dynaflow\\n")

    for lanes in (2, 3, 3):
        compiled = df.compile(stack(), Lanes(lanes, "Mlp"))
        compiled(x)
        assert threads() >= lanes - 1, threads()  # more where kernels on them have their own
        del compiled
        torch._dynamo.reset()
        gc.collect()
        deadline = time.monotonic() + 10
        while threads() > 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threads() == 0, threads()
    """
    )
    assert done.returncode == 0, done.stderr


def test_a_model_may_be_dropped_during_a_step():
    compiled = df.compile(stack(), Lanes(2, "Mlp"))
    results = []
    x = torch.randn(8, 8)
    with torch.no_grad():
        expected = compiled(x)
    running = [compiled]

    def steps() -> None:
        model = running.pop()
        with torch.no_grad():
            for _ in range(50):
                results.append(torch.equal(model(x), expected))

    thread = threading.Thread(target=steps)
    thread.start()
    while running:
        time.sleep(0.001)
    del compiled
    gc.collect()
    thread.join()
    gc.collect()
    assert results == [True] * 50
