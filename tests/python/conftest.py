"""Fixtures of several test files: `pytestmark = pytest.mark.usefixtures("inference")`."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def inference():
    with torch.no_grad():
        yield


@pytest.fixture
def one_thread():
    """Kernels that use one thread: two streams of threads on two cores wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
