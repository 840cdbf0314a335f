"""Chains of ops as compiled kernels: the option `fuse`."""

from __future__ import annotations

import dataclasses
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_models import llama, prompt, stack
from torch import nn

import dynaflow as df
from dynaflow import _core, compiled
from dynaflow.kernel_module import KernelModule

pytestmark = pytest.mark.usefixtures("inference", "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all tests of this file: a kernel takes a compiler a quarter of a minute."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(folder, monkeypatch):
    monkeypatch.setattr(compiled, "SETTINGS", dataclasses.replace(compiled.SETTINGS, cache=folder))
    return folder


def packages(folder):
    return sorted(path.name for path in folder.rglob("*.pt2"))


def fused(model, strategy="sequential", **options):
    return df.compile(model, strategy=strategy, options={"fuse": True, **options})


class Gated(nn.Module):
    """A norm, two products, a gate and a residual: two chains in every layer."""

    def __init__(self, layers: int, width: int = 32) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norms = nn.ParameterList(torch.rand(width) for _ in range(layers))
        self.up = nn.ParameterList(torch.randn(width, width) / 6 for _ in range(layers))
        self.gate = nn.ParameterList(torch.randn(width, width) / 6 for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, up, gate in zip(self.norms, self.up, self.gate, strict=True):
            h = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * norm
            x = x + nn.functional.silu(h @ gate) * (h @ up)
        return x


def nanoflow(parts: int = 2) -> df.NanoFlow:
    return df.NanoFlow(parts=parts, min_tokens=0)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_results_are_those_of_eager_at_every_batch_size(parts):
    model = Gated(3)
    fast = fused(model, nanoflow(parts) if parts > 1 else "sequential")
    for rows in (6, 7, 16, 33, 2):
        x = torch.randn(rows, 32)
        torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
    report = df.report(fast).to_json()
    assert not report["uncompiled"]
    kernels = report["graphs"][0]["plans"][0]["compiled"]
    assert {"silu", "mul"} <= {op for kernel in kernels for op in kernel["ops"]}


def test_equal_layers_share_kernels_and_other_processes_find_them(cache, caplog):
    x = torch.randn(8, 32)
    fused(Gated(3))(x)
    before = packages(cache)
    with caplog.at_level(logging.WARNING, "dynaflow"):
        deep = fused(Gated(9))
        deep(x)
    assert packages(cache) == before and "compiling" not in caplog.text
    kernels = df.report(deep).graphs[0]["plans"][0]["compiled"]
    assert max(kernel["launches"] for kernel in kernels) >= 8
    assert len(kernels) <= len(before)


def test_overlapped_and_serial_runs_give_the_same_bits():
    model = Gated(4)
    overlapped, serial = fused(model, nanoflow(3)), fused(model, nanoflow(3), serial=True)
    for rows in (9, 20, 31):
        x = torch.randn(rows, 32)
        assert torch.equal(overlapped(x), serial(x))


def test_fewer_launches_and_no_copy():
    model, x = Gated(4), torch.randn(12, 32)
    counts = []
    for fuse in (False, True):
        fast = df.compile(model, strategy="sequential", options={"fuse": fuse})
        fast(x)
        before = df.report(fast).graphs[0]["plans"][0]["counters"]
        fast(x)
        after = df.report(fast).graphs[0]["plans"][0]["counters"]
        counts.append({key: after[key] - before[key] for key in ("launches", "copied_bytes")})
    assert counts[1]["copied_bytes"] == 0
    assert counts[1]["launches"] <= counts[0]["launches"] / 2


def test_a_llama_generates_the_same_logits_within_rounding():
    model, ids = llama(2), prompt(4)
    fast = fused(model, nanoflow())
    torch.testing.assert_close(fast(**ids).logits, model(**ids).logits, rtol=1e-4, atol=1e-5)
    assert not df.report(fast).uncompiled


def test_kernels_that_cannot_be_compiled_leave_their_ops_as_they_are(tmp_path, monkeypatch):
    settings = dataclasses.replace(compiled.SETTINGS, cache=tmp_path)
    monkeypatch.setattr(compiled, "SETTINGS", settings)
    monkeypatch.setattr(compiled.sys, "executable", "/bin/false")
    model, x = Gated(2), torch.randn(8, 32)
    fast = fused(model)
    torch.testing.assert_close(fast(x), model(x))
    report = df.report(fast)
    assert set(report.uncompiled.values()) == {"the compiler ended with 1"}
    assert report.graphs[0]["plans"][0]["compiled"] == []
    assert "run one by one: the compiler ended with 1" in str(report)


def test_a_damaged_package_is_no_kernel(tmp_path, cache, monkeypatch):
    model, x = Gated(2), torch.randn(8, 32)
    fused(model)(x)
    for path in filter(Path.is_file, cache.rglob("*")):
        copy = tmp_path / path.relative_to(cache)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"damaged" if path.suffix == ".pt2" else path.read_bytes())
    settings = dataclasses.replace(compiled.SETTINGS, cache=tmp_path)
    monkeypatch.setattr(compiled, "SETTINGS", settings)
    fast = fused(model)
    torch.testing.assert_close(fast(x), model(x))
    assert all(
        "cannot load the compiled kernel" in why for why in df.report(fast).uncompiled.values()
    )


def test_saved_plans_take_their_kernels_along(tmp_path):
    model, x = Gated(2), torch.randn(8, 32)
    first = fused(model, nanoflow())
    result = first(x)
    df.save_plans(first, tmp_path)
    second = fused(model, nanoflow())
    df.load_plans(second, tmp_path)
    assert torch.equal(second(x), result)
    assert df.report(second).graphs[0]["plans"][0]["compiled"]
    plain = df.compile(model, strategy=nanoflow())
    df.load_plans(plain, tmp_path)  # plans with kernels that nobody asked for here
    torch.testing.assert_close(plain(x), result, rtol=1e-5, atol=1e-5)
    assert df.report(plain).graphs[0]["plans"][0]["compiled"] == []


def test_two_callers_share_a_kernel():
    model = stack(2)
    fast = fused(model, nanoflow())
    x = torch.randn(64, 8)
    expected = fast(x)

    def calls():
        with torch.no_grad():
            return [fast(x) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(calls) for _ in range(4)]:
            assert all(torch.equal(result, expected) for result in done.result())


def test_a_size_that_only_a_multiple_tells():
    graph = _core.parse_graph(
        "graph: g {tokens=0}\n  %s0 = symbol() {min=0, hint=10}\n"
        "  %v0 = input(0, tensor(float32, [4*s0, 3]))\n"
        '  %v1 = aten.relu.default(%v0) {out=[tensor(float32, [4*s0, 3])], name="o0"}\n'
        "  %v2 = aten.view.default(%v1, [s0, 12]) {out=[tensor(float32, [s0, 12])], kind=view, "
        'alias=[%v1], name="o1"}\n'
        '  %v3 = aten.neg.default(%v2) {out=[tensor(float32, [s0, 12])], name="o2"}\n'
        "  output(%v3)\n"
    )
    module = KernelModule(graph)
    assert [tensor.shape for tensor in module.example()] == [(40, 3), (10, 12)]
    x, out = module.trial()
    module(x, out)
    assert torch.equal(out, -x.relu().view(-1, 12))


def test_a_size_that_no_tensor_tells_is_named():
    graph = _core.parse_graph(
        "graph: g {tokens=0}\n  %s0 = symbol() {min=0, hint=10}\n"
        "  %v0 = input(0, tensor(float32, [s0 + 1, 3]))\n"
        '  %v1 = aten.relu.default(%v0) {out=[tensor(float32, [s0 + 1, 3])], name="o0"}\n'
        "  output(%v1)\n"
    )
    with pytest.raises(ValueError, match="no dimension of a tensor tells the size s0"):
        KernelModule(graph)
