"""The servers that are compared, side by side, and what one load showed of each."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from dynaflow.bench.bounds import Bound, Communication, bytes_sent, hidden_share, link_rate
from dynaflow.bench.jobs import Job
from dynaflow.bench.net import Loopback, ShapedLink
from dynaflow.bench.stats import Summary, quartiles, ratio
from dynaflow.bench.ui import Display
from dynaflow.bench.vllm.loads import Load, step_collectives
from dynaflow.bench.vllm.rank import Served
from dynaflow.bench.workload import LlamaShape

STOCK = "stock"
SEQUENTIAL = "sequential"
NANOFLOW = "nanoflow"
#: The sequential plan with its collectives removed: its tokens are wrong, its time is C. vLLM's own
#: gather of logits stays.
COMPUTE = "compute only"
#: DynaFlow's options by arm; None: it is not there.
ARMS: dict[str, dict | None] = {
    STOCK: None,
    SEQUENTIAL: {"strategy": "sequential"},
    NANOFLOW: {"strategy": "nanoflow"},
    COMPUTE: {"strategy": "sequential", "skip_collectives": True},
}
#: What vLLM is told in every arm, beside the model; all else is its default.
ENGINE = {"max_model_len": 2048, "max_num_batched_tokens": 2048, "max_num_seqs": 64}
#: Ranks of a server that has a link.
WORLD = 2
_TARGET = "dynaflow.bench.vllm.rank:main"
_TIMEOUT_S = 4 * 3600.0
#: Sizes of step at which communication's own processor time is measured.
_MEASURED_TOKENS = (1, 64, 512, 2048)


@dataclass
class Outcome:
    """A load as the arms served it, round by round, over a link of `rate_bps` bits per second.

    What depends on the link needs the arm COMPUTE; `communication` is by tokens of a step.
    """

    load: Load
    shape: LlamaShape
    rate_bps: float
    communication: dict[int, Communication]
    served: dict[str, list[Served]] = field(default_factory=dict)

    def seconds(self, arm: str) -> list[float]:
        """Each round's time until the last token."""
        return [one.seconds for one in self.served[arm]]

    def summary(self, arm: str) -> Summary:
        """Median and quartiles of the rounds' times, in seconds."""
        return quartiles(self.seconds(arm))

    def ratio(self, arm: str, baseline: str) -> Summary:
        """How many times faster `arm` was, with its 95 % interval."""
        return ratio(self.seconds(baseline), self.seconds(arm))

    def first_token(self, arm: str) -> Summary:
        """Seconds to a request's first token: of each round the median request, quartiles over
        rounds.
        """
        return quartiles([statistics.median(one.first) for one in self.served[arm]])

    def between_tokens(self, arm: str) -> Summary | None:
        """As `first_token`, from one token of a request to its next; None where all have one."""
        between = [one.between for one in self.served[arm]]
        return quartiles([statistics.median(times) for times in between]) if all(between) else None

    def tokens_equal(self, arm: str, baseline: str) -> int:
        """Rounds in which every token was the baseline's."""
        pairs = zip(self.served[arm], self.served[baseline], strict=True)
        return sum(one.tokens == other.tokens for one, other in pairs)

    def bounds(self) -> list[Bound]:
        """The bound of each step, by the step's own C, N and G."""
        rounds = [one.steps for one in self.served[COMPUTE]]
        found = []
        for steps in zip(*rounds, strict=True):
            (tokens,) = {tokens for tokens, _ in steps}
            compute_s = statistics.median(seconds for _, seconds in steps)
            sent = bytes_sent(step_collectives(self.shape, tokens), WORLD)
            found.append(Bound(compute_s, 8 * sent / self.rate_bps, self._host_s(tokens)))
        return found

    def hidden_share(self, arm: str) -> Summary:
        """Share of what could be hidden of the sequential plan's time, step by step, that was."""
        spare_s = sum(bound.seconds - bound.compute_s for bound in self.bounds())
        arms = (SEQUENTIAL, arm, COMPUTE)
        # The bound moves with C from round to round; what it adds to C is that of the medians.
        return hidden_share(*map(self.seconds, arms), network_s=0.0, host_s=spare_s)

    def _host_s(self, tokens: int) -> float:
        known = sorted(self.communication)
        return float(np.interp(tokens, known, [self.communication[at].host_s for at in known]))


class Servers:
    """The arms' jobs. One thread uses them; at any time one of them works."""

    def __init__(
        self, jobs: dict[str, Job], link: ShapedLink | Loopback, shape: LlamaShape
    ) -> None:
        self._jobs = jobs
        self._link = link
        self._shape = shape
        self._seed = 0

    def serve(self, arm: str, load: Load, times: int = 1) -> list[Served]:
        """Serves a load so many times, with other prompts each time."""
        return [self._once(arm, load, self._next_seed()) for _ in range(times)]

    def set_share(self, load: Load, share: float) -> None:
        """Shapes the link so that N of the load, which is one step, is `share` of C."""
        self._link.set_rate(None)
        compute_s = statistics.median(one.seconds for one in self.serve(COMPUTE, load, 5)[1:])
        collectives = step_collectives(self._shape, sum(load.prompts))
        self.set_rate(link_rate(collectives, WORLD, compute_s, share))

    def forget_decisions(self, arm: str) -> None:
        """Has DynaFlow make its plans and take its measured decisions anew."""
        self._jobs[arm].call("forget")

    def set_rate(self, rate_bps: float) -> None:
        """Shapes the link to so many bits per second."""
        self._link.set_rate(rate_bps)

    def compare(self, load: Load, rounds: int) -> Outcome:
        """Every arm once a round, in another order each round; one round before does not count."""
        outcome = self._outcome(load)
        for arm in self._jobs:
            self.serve(arm, load)
            outcome.served[arm] = []
        for index in range(rounds):
            seed = self._next_seed()
            for arm in random.Random(index).sample(list(self._jobs), len(self._jobs)):
                outcome.served[arm].append(self._once(arm, load, seed))
        return outcome

    def report(self, arm: str) -> list[dict]:
        """DynaFlow's reports in the arm's first rank."""
        return self._jobs[arm].call("report")[0]

    def _outcome(self, load: Load) -> Outcome:
        if not self._link.shaped:
            return Outcome(load, self._shape, math.inf, {})
        call = self._jobs[SEQUENTIAL].call
        talk = {tokens: call("communicate", tokens=tokens)[0] for tokens in _MEASURED_TOKENS}
        return Outcome(load, self._shape, self._link.rate_bps, talk)

    def _next_seed(self) -> int:
        self._seed += 1
        return self._seed

    def _once(self, arm: str, load: Load, seed: int) -> Served:
        vocabulary = self._shape.vocabulary
        ranks = self._jobs[arm].call("load", load=load, vocabulary=vocabulary, seed=seed)
        if arm != COMPUTE and len({one.tokens for one in ranks}) > 1:
            raise RuntimeError(f"{arm}: the ranks' tokens differ")
        return slowest(ranks)


def slowest(ranks: list[Served]) -> Served:
    """A load's times by the slowest rank, step by step; all else as the first rank saw it."""
    (tokens,) = {tuple(tokens for tokens, _ in one.steps) for one in ranks}
    times = np.max([[seconds for _, seconds in one.steps] for one in ranks], axis=0).tolist()
    first = ranks[0]
    return Served(
        seconds=max(one.seconds for one in ranks),
        steps=tuple(zip(tokens, times, strict=True)),
        first=first.first,
        between=first.between,
        tokens=first.tokens,
    )


@contextmanager
def start(
    show: Display,
    link: ShapedLink | Loopback,
    folder: str,
    shape: LlamaShape,
    arms: Sequence[str] = tuple(ARMS),
    world: int = WORLD,
) -> Iterator[Servers]:
    """The arms' servers of the model in `folder`, started one after the other."""
    with ExitStack() as stack:
        jobs = {}
        for arm in arms:
            show.progress(f"starting vLLM: {arm}, ranks: {world}")
            kwargs = dict(folder=folder, shape=shape, engine=ENGINE, options=ARMS[arm])
            how = dict(link=link, world=world, timeout_s=_TIMEOUT_S)
            jobs[arm] = Job(_TARGET, kwargs=kwargs, **how)
            stack.callback(jobs[arm].close)
        yield Servers(jobs, link, shape)
