"""DPDK's testpmd as a peer: the back end of a vhost-user device, in another process."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

PROMPT = b"testpmd> "
START_TIMEOUT = 60.0  # seconds: a busy machine takes its time
TIMEOUT = 20.0


class Counts(NamedTuple):
    """What a port of testpmd counted."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int


class Peer:
    """A testpmd whose only port is a vhost-user back end.

    Args:
        path: of the socket to listen on.
        mode: what to do with packets: macswap, rxonly, txonly, io.
        queues: pairs of them.
    """

    def __init__(self, path: Path, mode: str = "macswap", queues: int = 1, burst: int = 32) -> None:
        # --no-huge: the back end maps the memory of the front end, its own need not be on huge pages.
        eal = ["--lcores", "0@0,1@0", "--no-pci", "--no-huge", "-m", "256", "--no-telemetry"]
        eal += ["--file-prefix", f"ixy{os.getpid()}", "--no-shconf"]
        eal += ["--vdev", f"net_vhost0,iface={path},queues={queues}"]
        own = ["-i", "--nb-cores=1", f"--forward-mode={mode}", "--port-topology=loop", f"--burst={burst}"]
        own += [f"--rxq={queues}", f"--txq={queues}", "--total-num-mbufs=16384"]
        self._process = subprocess.Popen(
            ["stdbuf", "-oL", "dpdk-testpmd", *eal, "--", *own],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.log = b""
        self._read_to_prompt(START_TIMEOUT)

    def command(self, line: str) -> str:
        """What testpmd answers to a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._read_to_prompt(TIMEOUT)

    def start(self) -> None:
        self.command("start")

    def stop(self) -> None:
        self.command("stop")

    def counts(self) -> Counts:
        """What the port has counted so far."""
        answer = self.command("show port stats 0")
        return Counts(*(int(re.search(rf"{name}:\s*(\d+)", answer)[1]) for name in _NAMES))  # type: ignore[index]

    def wait_for(self, packets: int, *, sent: bool = False) -> Counts:
        """The counts as soon as so many packets were received, or sent."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            counts = self.counts()
            if (counts.tx_packets if sent else counts.rx_packets) >= packets or time.monotonic() > deadline:
                return counts

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        """Let it end in order, and see to it that it does."""
        if self._process.poll() is not None:
            return
        with suppress(OSError, subprocess.TimeoutExpired):
            assert self._process.stdin is not None
            self._process.stdin.write(b"quit\n")
            self._process.stdin.flush()
            self._process.wait(TIMEOUT)
        self.kill()

    def _read_to_prompt(self, timeout: float) -> str:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        answer = b""
        while not answer.endswith(PROMPT):
            left = max(deadline - time.monotonic(), 0)
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            part = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not part:
                raise RuntimeError(f"testpmd says nothing more after: {(self.log + answer).decode(errors='replace')}")
            answer += part
        self.log += answer
        return answer.decode(errors="replace")


_NAMES = ("RX-packets", "RX-bytes", "TX-packets", "TX-bytes")


class StartPeer(Protocol):
    def __call__(self, mode: str, queues: int = 1) -> Peer: ...
