"""DPDK's testpmd: the prompt of one, and one as a child process, a vhost-user back end or DPDK's own VirtIO driver."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ixy.errors import Error

PROGRAM = "dpdk-testpmd"
_PROMPT = "testpmd> "
_EVENT = re.compile(rb"Port \d+: [^\n]* event\n")
_START_TIMEOUT = 60.0  # seconds: a busy machine takes its time
_TIMEOUT = 20.0
_ATTEMPTS = 5  # an event between the question and its answer can tear them apart
_COUNTERS = ("RX-packets", "RX-bytes", "TX-packets", "TX-bytes")


class Counts(NamedTuple):
    """What a port of testpmd counted; bytes without frame check sequences."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int


class Prompt:
    """An interactive testpmd, wherever it runs.

    Args:
        answers, commands: file descriptors, of what it writes and of what it reads.
    """

    def __init__(self, answers: int, commands: int) -> None:
        self._answers = answers
        self._commands = commands

    def command(self, line: str, timeout: float = _TIMEOUT) -> str:
        """What testpmd answers to a command, after all that it has written since the last one.

        Raises:
            Error: it has died, or says nothing.
        """
        self.enter(line)
        return self.read_to_prompt(timeout, line)

    def counts(self) -> Counts:
        """What the port has counted so far.

        Raises:
            Error: testpmd does not say.
        """
        for _ in range(_ATTEMPTS):
            answer = self.command("show port stats 0")
            found = [re.search(rf"{name}:\s*(\d+)", answer) for name in _COUNTERS]
            if all(found):
                return Counts(*(int(match[1]) for match in found if match))
        raise Error(f"{PROGRAM} does not show its counters")

    def wait_for(self, packets: int) -> Counts:
        """The counts as soon as so many packets were received, or after a while."""
        deadline = time.monotonic() + _TIMEOUT
        while (counts := self.counts()).rx_packets < packets and time.monotonic() < deadline:
            pass
        return counts

    def enter(self, lines: str) -> None:
        """Type lines; nobody waits for an answer."""
        left = lines.encode() + b"\n"
        while left:
            left = left[os.write(self._commands, left) :]

    def read_to_prompt(self, timeout: float, echo: str = "") -> str:
        """What testpmd writes after it has echoed a command, up to its prompt.

        It tells of events at any time, even within a word, and begins a new line for them before that.

        Raises:
            Error: the prompt does not come.
        """
        return self.read_until(lambda text: echo in text and text.endswith(_PROMPT), timeout)

    def read_until(self, done: Callable[[str], bool], timeout: float) -> str:
        """What testpmd writes, apart from events.

        Args:
            done: whether that is all, by the text without its line ends.

        Raises:
            Error: it is not, and no more comes.
        """
        deadline = time.monotonic() + timeout
        answer = b""
        while True:
            ready, _, _ = select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))
            part = os.read(self._answers, 65536) if ready else b""
            if not part:
                raise Error(f"{PROGRAM} says nothing more after: {_last_line(answer + self._last_words())}")
            answer = _EVENT.sub(b"", answer + part.replace(b"\r", b""))
            text = answer.decode(errors="replace")
            if done(text.replace("\n", "")):
                return text

    def _last_words(self) -> bytes:
        """What it has written elsewhere; it answers no more."""
        return b""


class Testpmd(Prompt):
    """A testpmd with one port, in interactive mode.

    Args:
        port: the virtual device, as `--vdev` takes it.
        mode: what to do with packets: io, macswap, rxonly, txonly.
        eal: more options for DPDK's environment.
        options: more options for testpmd.
        core: that packets are handled on.
        prompt_core: that its prompt runs on, by default the same.

    Attributes:
        pid: of the process.

    Raises:
        Error: testpmd is not installed, or does not start.
    """

    __test__ = False  # for pytest, which takes the name for a test's

    def __init__(
        self,
        port: str,
        mode: str,
        eal: list[str],
        options: list[str],
        core: int = 0,
        prompt_core: int | None = None,
    ) -> None:
        if shutil.which(PROGRAM) is None:
            raise Error(f"{PROGRAM} is not installed; run: apt-get install dpdk dpdk-dev")
        name = f"ixy{os.getpid()}-{id(self):x}"
        cores = f"0@{core if prompt_core is None else prompt_core},1@{core}"
        environment = ["--lcores", cores, "--no-pci", "--no-telemetry", "--file-prefix", name]
        own = ["-i", "--nb-cores=1", f"--forward-mode={mode}", "--port-topology=loop", "--total-num-mbufs=16384"]
        self._log = os.memfd_create("testpmd")  # apart from the answers, which it would tear apart
        self._process = subprocess.Popen(
            ["stdbuf", "-oL", PROGRAM, *environment, *eal, "--vdev", port, "--", *own, "--no-flush-rx", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        super().__init__(self._process.stdout.fileno(), self._process.stdin.fileno())
        self.read_to_prompt(_START_TIMEOUT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.communicate()
        os.close(self._log)

    def close(self) -> None:
        """Let it end in order, and see to it that it does."""
        if self._process.poll() is not None:
            return
        with suppress(OSError, subprocess.TimeoutExpired):
            self.enter("stop\nquit")
            self._process.wait(_TIMEOUT)
        self.kill()

    def _last_words(self) -> bytes:
        log = os.pread(self._log, os.fstat(self._log).st_size, 0)
        self.kill()
        return log


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"


def back_end(path: str, mode: str, queues: int = 1, eal: list[str] | None = None) -> Testpmd:
    """A vhost-user back end on a socket. Its own memory need not be on huge pages: packets lie in the front end's."""
    port = f"net_vhost0,iface={path},queues={queues}"
    return Testpmd(port, mode, eal or ["--no-huge", "-m", "256"], [f"--rxq={queues}", f"--txq={queues}"])
