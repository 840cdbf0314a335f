"""A link between two ranks whose rate can be set: two network namespaces joined by a veth pair.

    rank 0 ── veth0 (tbf) ═══ (tbf) veth1 ── rank 1

Each namespace is held open by a process that ends when its standard input closes, so that nothing
outlives the program that opened the link, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

#: Smallest token bucket, in bytes. A 64 KiB segment of the TCP stack must fit, or tbf cuts it up.
MIN_BURST = 72 * 1024
#: Length of the token bucket in seconds (where that is more than MIN_BURST): long enough that a
#: busy core does not lose tokens, short enough that what passes unshaped after a pause (3 % of a
#: 4 MiB all-reduce at 1 Gbit/s) stays below the overhead of headers (4 %).
BURST_SECONDS = 1e-3
#: Bytes that may queue at the shaper: more than a TCP socket keeps in flight, so none are dropped.
QUEUE_BYTES = 32 * 1024 * 1024
_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "tc": "iproute2"}


class LinkError(RuntimeError):
    """The namespaces or the shaping are not available; the message says why."""


def burst_bytes(rate_bps: float) -> int:
    """Size of the token bucket, in bytes, for a rate in bits per second."""
    return max(MIN_BURST, int(rate_bps / 8 * BURST_SECONDS))


def interface_bytes(interface: str) -> tuple[int, int]:
    """Bytes (received, sent) by an interface of the caller's network namespace since it came up."""
    with Path("/proc/self/net/dev").open(encoding="ascii") as table:
        for line in table:
            name, _, numbers = line.partition(":")
            if name.strip() == interface:
                columns = numbers.split()
                return int(columns[0]), int(columns[8])
    raise LinkError(f"no interface {interface} in this network namespace")


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that was free on `address` a moment ago."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


@dataclass
class Loopback:
    """The loopback interface, which has no rate: figures that depend on a link do not apply."""

    reason: str = "not asked for"
    shaped: bool = field(default=False, init=False)

    @property
    def note(self) -> str:
        """One line for the reader: what the link is, and why."""
        return f"plain loopback, no shaped link ({self.reason})"

    def prefix(self, rank: int) -> list[str]:
        """Words to put before a rank's command line."""
        return []

    def environment(self, world: int) -> dict[str, str]:
        """Variables by which the ranks find each other."""
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def interface(self, rank: int) -> str:
        """Name of the interface that carries the rank's traffic."""
        return "lo"

    def set_rate(self, rate_bps: float | None) -> None:
        """Does nothing: loopback is not shaped."""

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *exc) -> None:
        self.close()


class ShapedLink:
    """Two namespaces joined by a veth pair, each side shaped by a token bucket (`tc qdisc tbf`)."""

    shaped = True
    _addresses = ("10.83.0.1", "10.83.0.2")

    def __init__(self, rate_bps: float | None = None) -> None:
        """Opens the link at `rate_bps` bits per second each way (None: as fast as it goes)."""
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise LinkError(f"{tool} of {package} is not installed")
        self._holders: list[subprocess.Popen] = []
        self._user = False
        self.rate_bps: float | None = None
        try:
            self._open_namespaces()
            self.congestion_control = self._set_congestion_control()
            self._join()
            self.set_rate(1e9)  # finds out now whether shaping is allowed
            self.set_rate(rate_bps)
        except BaseException:
            self.close()
            raise

    @property
    def note(self) -> str:
        """One line for the reader: what the link is."""
        how = "an unprivileged user namespace" if self._user else "root"
        kind = f"shaped with tc tbf ({how}), TCP's congestion control {self.congestion_control}"
        return f"two network namespaces joined by a veth pair, {kind}"

    def prefix(self, rank: int) -> list[str]:
        """Words to put before a command line so that it runs in the rank's namespace."""
        user = ["-U", "--preserve-credentials"] if self._user else []
        return ["nsenter", "-t", str(self._holders[rank].pid), *user, "-n", "--"]

    def environment(self, world: int) -> dict[str, str]:
        """Variables by which the ranks find each other; `world` may be 1 or 2."""
        return {"MASTER_ADDR": self._addresses[0], "MASTER_PORT": str(free_port())}

    def interface(self, rank: int) -> str:
        """Name of the interface that carries the rank's traffic."""
        return f"veth{rank}"

    def set_rate(self, rate_bps: float | None) -> None:
        """Shapes both sides to `rate_bps` bits per second; None takes the shaping away."""
        for rank in range(2):
            device = ["dev", self.interface(rank), "root"]
            if rate_bps is not None:
                rate = [f"{int(rate_bps)}bit", "burst", f"{burst_bytes(rate_bps)}b"]
                limit = ["limit", f"{QUEUE_BYTES}b"]
                self._inside(rank, "tc", "qdisc", "replace", *device, "tbf", "rate", *rate, *limit)
            elif self.rate_bps is not None:
                self._inside(rank, "tc", "qdisc", "del", *device)
        self.rate_bps = rate_bps

    def close(self) -> None:
        """Ends the namespaces; the veth pair goes with them."""
        for holder in reversed(self._holders):
            holder.stdin.close()
            try:
                holder.wait(timeout=2)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
            holder.stdout.close()
        self._holders = []

    def __enter__(self) -> ShapedLink:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def _open_namespaces(self) -> None:
        modes = [("-n",), ("-Urn",)] if os.geteuid() == 0 else [("-Urn",)]
        problem: LinkError | None = None
        for flags in modes:
            self._user = flags == ("-Urn",)
            try:
                self._holders.append(_hold(["unshare", *flags]))
                break
            except LinkError as error:
                problem = error
        else:
            raise problem or LinkError("no network namespaces")
        enter = self.prefix(0)
        self._holders.append(_hold([*enter, "unshare", "-n"]))

    def _join(self) -> None:
        peer = ["name", "veth1", "netns", str(self._holders[1].pid)]
        self._inside(0, "ip", "link", "add", "veth0", "type", "veth", "peer", *peer)
        for rank, address in enumerate(self._addresses):
            name = self.interface(rank)
            self._inside(rank, "ip", "address", "add", f"{address}/24", "dev", name)
            self._inside(rank, "ip", "link", "set", name, "up")
            self._inside(rank, "ip", "link", "set", "lo", "up")

    def _set_congestion_control(self) -> str:
        """Cubic or Reno, whichever the machine allows. BBR, where it is the default, sends next to
        nothing for 200 ms every ten seconds, to measure the round trip: a step waits for that.
        """
        path = "/proc/sys/net/ipv4/tcp_congestion_control"
        for name in ("cubic", "reno"):
            with contextlib.suppress(LinkError):
                for rank in range(2):
                    self._inside(rank, "sh", "-c", f"echo {name} > {path}")
                break
        return self._inside(0, "cat", path).strip()

    def _inside(self, rank: int, *command: str) -> str:
        done = subprocess.run([*self.prefix(rank), *command], capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise LinkError(f"`{' '.join(command)}` failed: {said[-1] if said else 'no message'}")
        return done.stdout


def open_link(rate_bps: float | None = None) -> ShapedLink | Loopback:
    """A shaped link where the machine allows one, else loopback with the reason in its note."""
    try:
        return ShapedLink(rate_bps)
    except LinkError as error:
        return Loopback(reason=str(error))


def _hold(command: list[str]) -> subprocess.Popen:
    """Starts `command` around a process that lives until its standard input closes."""
    holder = subprocess.Popen(
        [*command, "sh", "-c", "echo ready; exec cat >/dev/null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if holder.stdout.readline().strip() == "ready":
        holder.stderr.close()
        return holder
    said = holder.communicate()[1].strip().splitlines()
    raise LinkError(f"`{' '.join(command)}` failed: {said[-1] if said else 'no message'}")
