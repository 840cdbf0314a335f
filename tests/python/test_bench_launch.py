import os
import subprocess
import time
from pathlib import Path

import pytest

from dynaflow.bench import net
from dynaflow.bench.launch import RankError, run_ranks

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Ranks import their functions from this file."""
    monkeypatch.syspath_prepend(str(HERE))


def describe(context, word):
    import torch

    context.progress(f"rank says {word}", 0.5)
    answer = context.ask("double", context.rank + 1)
    return dict(
        rank=context.rank,
        cores=os.sched_getaffinity(0),
        threads=torch.get_num_threads(),
        answer=answer,
        everyone=context.meeting.gather(answer),
        tensor=torch.ones(2),
    )


def raise_on_rank_1(context):
    if context.rank == 1:
        raise ArithmeticError("one is not two")
    context.meeting.barrier()


def die_on_rank_1(context):
    if context.rank == 1:
        print("last words", flush=True)
        os._exit(7)
    context.meeting.barrier()


def hang(context):
    context.ask("pid", os.getpid())
    time.sleep(600)


def all_reduce_bytes(context, elements, repeats):
    """Bytes received and sent on the wire, and seconds, per all-reduce."""
    import torch
    import torch.distributed as dist

    tensor = torch.ones(elements)
    dist.all_reduce(tensor)
    context.meeting.barrier()
    before, start = net.interface_bytes(context.interface), time.perf_counter()
    for _ in range(repeats):
        dist.all_reduce(tensor)
    seconds = (time.perf_counter() - start) / repeats
    time.sleep(0.2)
    context.meeting.barrier()
    after = net.interface_bytes(context.interface)
    return [(late - early) / repeats for early, late in zip(before, after, strict=True)], seconds


def test_results_by_rank_and_services():
    said = []
    results = run_ranks(
        f"{__name__}:describe",
        kwargs=dict(word="hello"),
        services={"progress": lambda *args: said.append(args), "double": lambda x: 2 * x},
        timeout_s=120,
    )
    assert [result["rank"] for result in results] == [0, 1]
    assert [result["answer"] for result in results] == [2, 4]
    assert results[0]["everyone"] == results[1]["everyone"] == [2, 4]
    assert said == [("rank says hello", 0.5)]
    assert all(result["threads"] == 1 for result in results)
    assert all(len(result["cores"]) == 1 for result in results)
    if len(os.sched_getaffinity(0)) > 1:
        assert results[0]["cores"] != results[1]["cores"]


def test_an_exception_comes_back_with_its_traceback():
    with pytest.raises(RankError, match="rank 1: ArithmeticError: one is not two") as caught:
        run_ranks(f"{__name__}:raise_on_rank_1", timeout_s=120)
    assert "in raise_on_rank_1" in str(caught.value)
    assert caught.value.rank == 1


def test_a_death_is_reported_with_the_last_output():
    with pytest.raises(RankError, match=r"rank 1: died \(exit status 7\)\n(.*\n)*last words"):
        run_ranks(f"{__name__}:die_on_rank_1", timeout_s=120)


def test_a_hang_ends_at_the_time_limit_and_leaves_no_process():
    pids = []
    with pytest.raises(RankError, match="ran out of time"):
        run_ranks(f"{__name__}:hang", world=1, services={"pid": pids.append}, timeout_s=15)
    (pid,) = pids
    assert not Path(f"/proc/{pid}").exists()


def test_unknown_service():
    with pytest.raises(RankError, match="asked for 'pid'; known: \\['other'\\]"):
        run_ranks(f"{__name__}:hang", world=1, services={"other": print}, timeout_s=60)


def test_burst_grows_with_the_rate():
    assert net.burst_bytes(1e6) == net.MIN_BURST
    assert net.burst_bytes(1e10) == 1e10 / 8 * net.BURST_SECONDS


def test_without_tools_the_link_is_loopback_and_says_why(monkeypatch):
    monkeypatch.setattr(net.shutil, "which", lambda tool: None)
    link = net.open_link(1e9)
    assert not link.shaped
    assert link.note == "plain loopback, no shaped link (unshare of util-linux is not installed)"


def test_a_refused_command_is_named(monkeypatch):
    monkeypatch.setattr(net, "burst_bytes", lambda rate: 0)
    link = net.open_link()
    link.close()
    assert not link.shaped


def test_shaped_link_holds_its_rate_and_carries_n_bytes_each_way():
    """On two ranks Gloo sends n bytes each way for an all-reduce of n bytes."""
    link = net.open_link(2e8)
    if not link.shaped:
        pytest.skip(link.note)
    elements = 1 << 20
    with link:
        holders = [holder.pid for holder in link._holders]
        results = run_ranks(
            f"{__name__}:all_reduce_bytes",
            link=link,
            kwargs=dict(elements=elements, repeats=3),
            timeout_s=120,
        )
    for (received, sent), seconds in results:
        assert 0.99 <= received / (4 * elements) <= 1.06
        assert 0.99 <= sent / (4 * elements) <= 1.06
        assert 8 * 4 * elements / seconds <= 2e8 * 1.05
    assert not any(Path(f"/proc/{pid}").exists() for pid in holders)


def test_the_rate_changes_and_goes_away():
    link = net.open_link(1e9)
    if not link.shaped:
        pytest.skip(link.note)
    with link:

        def shown():
            command = [*link.prefix(1), "tc", "qdisc", "show", "dev", "veth1"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        assert "rate 1Gbit" in shown()
        link.set_rate(25e7)
        assert "rate 250Mbit" in shown()
        link.set_rate(None)
        assert "tbf" not in shown()
