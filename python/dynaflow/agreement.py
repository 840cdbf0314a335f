"""Ranks agree on a plan's collectives before it runs.

Through the group's store, never through a collective: a collective would hang in the very case this
is for.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Sequence
from datetime import timedelta

import torch.distributed as dist

from dynaflow.errors import AgreementError
from dynaflow.groups import group_timeout, resolve

DEFAULT_TIMEOUT_S = 60.0
_GAVE_UP = "gave up"  # in place of a digest


def word_of_first_rank(
    group_name: str, topic: str, word: str, timeout_s: float | None = None
) -> str:
    """What the group's first rank says on `topic`; the others' own `word` counts for nothing.

    It says it once: a topic begins with what `agree` returned for the matter at hand, and goes on
    with what its ranks do alike. Raises AgreementError when it has said nothing within `timeout_s`
    (default: the group's timeout, at most a minute).
    """
    group = resolve(group_name)
    store = group.get_group_store()
    key = f"{topic}/word"
    if group.rank() == 0:
        store.set(key, word)
        return word
    limit = _timeout(group, timeout_s)
    try:
        store.wait([key], timedelta(seconds=limit))
    except RuntimeError:  # timed out, or the process that holds the store is gone
        raise AgreementError(
            f"rank 0 of group '{group_name}' took no decision on '{topic}' within {limit:g} s; "
            "it may have failed, or run other steps"
        ) from None
    return store.get(key).decode()


def _timeout(group: dist.ProcessGroup, timeout_s: float | None) -> float:
    if timeout_s is not None:
        return timeout_s
    return min(group_timeout(group).total_seconds(), DEFAULT_TIMEOUT_S)


def agree(group_name: str, lines: Sequence[str], timeout_s: float | None = None) -> str:
    """Returns once every rank of the group has published the same `lines`: a name for what they
    agreed on, the same on all of them and never given again.

    Raises AgreementError that shows the first difference, or names the ranks that published nothing
    within `timeout_s` (default: the group's timeout, at most a minute).
    """
    group = resolve(group_name)
    rank, size = group.rank(), group.size()
    timeout_s = _timeout(group, timeout_s)
    store = group.get_group_store()
    # Every rank counts its own plans, so that the n-th plan of one meets the n-th of the others.
    ordinal = store.add(f"dynaflow/agree/{group_name}/count/{rank}", 1)
    prefix = f"dynaflow/agree/{group_name}/{ordinal}"
    text = "\n".join(lines)
    digest = hashlib.sha256(text.encode()).hexdigest()
    store.set(f"{prefix}/text/{rank}", text)
    store.set(f"{prefix}/digest/{rank}", digest)
    try:
        digests = _collect(store, f"{prefix}/digest", size, timeout_s, group_name, ordinal)
    except AgreementError:
        # Who comes later must not take this plan for one that is about to run.
        store.set(f"{prefix}/digest/{rank}", _GAVE_UP)
        raise
    for other, theirs in enumerate(digests):
        if theirs == _GAVE_UP:
            raise AgreementError(
                f"rank {other} of group '{group_name}' gave up waiting for rank {rank}'s plan "
                f"number {ordinal}; call again on all ranks, perhaps with a longer agree_timeout_s"
            )
        if theirs != digest:
            other_text = store.get(f"{prefix}/text/{other}").decode()
            raise AgreementError(
                _difference(group_name, ordinal, rank, lines, other, other_text.split("\n"))
            )
    return prefix


def _collect(
    store: dist.Store, prefix: str, size: int, timeout_s: float, group_name: str, ordinal: int
) -> list[str]:
    """Every rank's digest."""
    deadline = time.monotonic() + timeout_s
    keys = [f"{prefix}/{rank}" for rank in range(size)]
    missing = []
    for rank, key in enumerate(keys):
        left = max(deadline - time.monotonic(), 0.001)
        try:
            store.wait([key], timedelta(seconds=left))
        except RuntimeError:  # timed out, or the process that holds the store is gone
            missing.append(rank)
    if missing:
        ranks = ", ".join(map(str, missing))
        raise AgreementError(
            f"rank {ranks} of group '{group_name}' made no plan number {ordinal} within "
            f"{timeout_s:g} s; it may have failed, or run other code (a graph break on one rank "
            "only, another batch size)"
        )
    return [store.get(key).decode() for key in keys]


def _difference(
    group_name: str,
    ordinal: int,
    rank: int,
    lines: Sequence[str],
    other: int,
    other_lines: Sequence[str],
) -> str:
    pairs = itertools.zip_longest(lines, other_lines, fillvalue="(nothing)")
    number, (mine, theirs) = next(
        (i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1]
    )
    return (
        f"ranks {rank} and {other} of group '{group_name}' would run different plans "
        f"(number {ordinal}). "
        f"First difference, line {number}:\n  rank {rank}: {mine}\n  rank {other}: {theirs}"
    )
