"""`vllm serve` in processes of its own, and its clients."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch import environment, with_dynaflow

from dynaflow.bench.net import free_port

_VLLM = [sys.executable, "-m", "vllm.entrypoints.cli.main"]
_START_S = 300


@dataclass(frozen=True)
class Server:
    """A server that listens on `port`."""

    port: int
    model: str
    log: Path

    def healthy(self) -> bool:
        """Whether it says so."""
        try:
            with urllib.request.urlopen(self._url("/health"), timeout=30) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def running(self) -> float:
        """Requests that the engine is at work on."""
        with urllib.request.urlopen(self._url("/metrics"), timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting{"))
        )

    def complete(self, prompt: str | list[int], tokens: int, **asked: Any) -> dict[str, Any]:
        """The choice that the completions door gives, greedily."""
        with self.open(prompt, tokens, **asked) as answer:
            return json.load(answer)["choices"][0]

    def open(self, prompt: str | list[int], tokens: int, **asked: Any) -> Any:
        """The answer as it begins; closing it early is a client that goes away."""
        body = dict(
            model=self.model, prompt=prompt, max_tokens=tokens, temperature=0, ignore_eos=True
        )
        request = urllib.request.Request(
            self._url("/v1/completions"),
            json.dumps(body | asked).encode(),
            {"Content-Type": "application/json"},
        )
        return urllib.request.urlopen(request, timeout=300)

    def benchmark(self, folder: Path, prompts: list[str], tokens: int) -> list[str]:
        """What vLLM's own benchmark client got from asking all prompts at once, all of them
        answered.
        """
        asked, out = folder / "prompts.jsonl", folder / "client.json"
        asked.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        arguments = {
            "model": self.model,
            "port": self.port,
            "dataset-name": "custom",
            "dataset-path": asked,
            "custom-output-len": tokens,
            "num-prompts": len(prompts),
            "max-concurrency": len(prompts),
            "temperature": 0,
            "result-dir": folder,
            "result-filename": out.name,
        }
        flags = ["--skip-chat-template", "--disable-shuffle", "--ignore-eos", "--disable-tqdm"]
        flags += ["--save-result", "--save-detailed"]
        words = [f"--{name}={value}" for name, value in arguments.items()]
        command = [*_VLLM, "bench", "serve", *words, *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        result = json.loads(out.read_text())
        assert (result["completed"], result["failed"]) == (len(prompts), 0), result["errors"]
        return result["generated_texts"]

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def serve(
    folder: Path, model: str, options: dict[str, Any] | None, strategy: str | None = None
) -> Iterator[Server]:
    """A server on two ranks. Either `options`, as `launch.with_dynaflow` takes them, and ranks that
    share no memory; or the variable that asks for a `strategy`, and nothing else.
    """
    server = Server(free_port(), model, folder / "server.log")
    words = ["--dtype=float32", "--max-model-len=512", "--tensor-parallel-size=2", "--seed=0"]
    for name, value in with_dynaflow(options).items():
        words += [f"--{name.replace('_', '-')}", json.dumps(value)]
    variables = environment(2, shared_memory=strategy is not None) | {"VLLM_LOGGING_LEVEL": "INFO"}
    if strategy is not None:
        variables["DYNAFLOW_STRATEGY"] = strategy
    with server.log.open("w") as log:
        process = subprocess.Popen(
            [*_VLLM, "serve", model, f"--port={server.port}", "--host=127.0.0.1", *words],
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(process, server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen, server: Server) -> None:
    deadline = time.monotonic() + _START_S
    while not server.healthy():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the server did not start\n" + server.log.read_text()[-6000:])
        time.sleep(0.5)
