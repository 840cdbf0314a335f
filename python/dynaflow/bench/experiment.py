"""The steps of a comparison on a shaped link, as every rank takes them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dynaflow.bench import engine
from dynaflow.bench.bounds import (
    NETWORK_SHARE,
    Bound,
    Collective,
    Communication,
    bytes_sent,
    communicate,
    hidden_share,
    link_rate,
    observe_collectives,
)
from dynaflow.bench.rank import RankContext
from dynaflow.bench.stats import Rounds, Samples, Stop, Summary, interleave
from dynaflow.bench.workload import Batch, LlamaShape, build_model

#: How often C is measured to choose the link's rate.
RATE_ROUNDS = Rounds(least=5, most=5, warmup=1)


@dataclass
class Comparison:
    """What was measured on one batch. `rate_bps` is None where the link was not shaped."""

    batch: Batch
    rate_bps: float | None
    samples: Samples
    collectives: list[Collective]
    communication: Communication
    world: int

    @property
    def bound(self) -> Bound:
        """The bound from this comparison's own measurements; N is 0 on an unshaped link."""
        sent = bytes_sent(self.collectives, self.world)
        return Bound(
            compute_s=self.samples.summary(engine.COMPUTE).median,
            network_s=8 * sent / self.rate_bps if self.rate_bps else 0.0,
            host_s=self.communication.host_s,
        )

    def hidden_share(self, arm: str) -> Summary:
        """Share of the time that could be hidden that `arm` hid of the sequential plan's."""
        times = self.samples.times
        own = (times[engine.SEQUENTIAL], times[arm], times[engine.COMPUTE])
        return hidden_share(*own, self.bound.network_s, self.bound.host_s)


@dataclass
class Experiment:
    """A model on this rank and the arms that run it. All ranks make the same calls."""

    context: RankContext
    shape: LlamaShape
    shaped: bool
    model: Any = None
    arms: dict[str, Any] = field(default_factory=dict)
    first_step_s: dict[str, float] = field(default_factory=dict)

    def build(self) -> None:
        """Builds this rank's shard of the model."""
        self.model = build_model(self.shape, self.context.world)

    def capture(self, names: Iterable[str], batch: Batch) -> None:
        """Compiles the arms and runs each once, noting the seconds to its first result."""
        for name in names:
            self.context.meeting.barrier()
            start = time.perf_counter()
            self.arms[name] = self._make_arm(name)
            self.run(name, batch.inputs())
            self.first_step_s[name] = time.perf_counter() - start

    def _make_arm(self, name: str) -> Any:
        """The arm, on the sequential arm's capture where there is one."""
        base = self.arms.get(engine.SEQUENTIAL)
        if base is None or name == engine.EAGER:
            return engine.compile_arm(self.model, name)
        return engine.variant_arm(base, name)

    def run(self, arm: str, inputs: dict[str, Any]):
        """Logits of one step, without gradients."""
        import torch

        with torch.no_grad():
            return self.arms[arm](**inputs).logits

    def choose_rate(
        self, batch: Batch, rounds: Rounds = RATE_ROUNDS, share: float = NETWORK_SHARE
    ) -> float | None:
        """Sets the link so that N is `share` of C; its rate in bits per second, or None where the
        link cannot be shaped.
        """
        if not self.shaped:
            return None
        self.set_rate(None)
        compute = self.time([engine.COMPUTE], batch, rounds).summary(engine.COMPUTE).median
        return self.set_rate(link_rate(self.observe(batch), self.context.world, compute, share))

    def warm_guard(self, batch: Batch) -> None:
        """Takes the steps after which the guarded arm has decided for this batch and this link."""
        self.arms[engine.GUARDED] = engine.variant_arm(self.arms[engine.SEQUENTIAL], engine.GUARDED)
        inputs = batch.inputs()
        for _ in range(engine.guard_steps()):
            self.context.meeting.barrier()
            self.run(engine.GUARDED, inputs)

    def set_rate(self, rate_bps: float | None) -> float | None:
        """Shapes the link to `rate_bps` bits per second (None: not at all), and returns it."""
        self.context.once("set_rate", rate_bps)
        return rate_bps

    def observe(self, batch: Batch) -> list[Collective]:
        """The collectives of one step of the model as Transformers wrote it."""
        import torch

        inputs = batch.inputs()
        with torch.no_grad():
            return observe_collectives(lambda: self.model(**inputs))

    def time(
        self, names: Iterable[str], batch: Batch, rounds: Rounds, stop: Stop | None = None
    ) -> Samples:
        """Interleaved step times of the arms on a batch."""
        inputs = batch.inputs()
        calls = {name: lambda name=name: self.run(name, inputs) for name in names}
        return interleave(calls, rounds, self.context.meeting, stop)

    def compare(
        self, batch: Batch, rate_bps: float | None, rounds: Rounds, stop: Stop | None = None
    ) -> Comparison:
        """All arms on one batch over the link as it is, with what the bound needs."""
        collectives = self.observe(batch)
        communication = communicate(collectives, self.context)
        samples = self.time(list(self.arms), batch, rounds, stop)
        world = self.context.world
        return Comparison(batch, rate_bps, samples, collectives, communication, world)
