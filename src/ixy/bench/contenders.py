"""Programs that are measured at the near end of a veth pair: ours, and what people have besides.

Each does one kind of work from when it is started until it is ended.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple

from ixy.bench.tally import new_tally
from ixy.bench.testpmd import PROGRAM, Testpmd
from ixy.bench.veth import MEMORY, NEAR
from ixy.bench.works import FORWARD, FRAME_BYTES, RECEIVE, RING_SIZE, TRANSMIT
from ixy.errors import Error

CAPTURE, REPLAY = "capture", "replay"
RECORDED = MEMORY / "recorded.pcap"  # what is replayed
_FILE_HEADER, _RECORD_HEADER = 24, 16  # bytes of a pcap
_IXY = [sys.executable, "-m", "ixy"]
_PEERS = [sys.executable, "-m", "ixy.bench.peers"]
_ENDING = 5.0  # seconds that a program gets to end
_TESTPMD_MODES = {RECEIVE: "rxonly", TRANSMIT: "txonly", FORWARD: "macswap"}


class Job(NamedTuple):
    """What is to be done.

    Attributes:
        work: receive, transmit, forward, capture or replay.
        batch: packets at a time; 0 where a program does as it likes.
        cores: that of the program, and that of the far end.
    """

    work: str
    batch: int
    cores: tuple[int, int]


class Running(NamedTuple):
    """A program that runs.

    Attributes:
        pid: of its process.
        ready: whether it has begun; raises `Error` if it has ended instead.
        received: packets that it has received so far.
    """

    pid: int
    ready: Callable[[], bool]
    received: Callable[[], int]


class Contender(NamedTuple):
    """A program.

    Attributes:
        name: as people call it.
        works: the kinds of work that it can do.
        start: starts it, and ends it in the end.
        needs: a program that has to be installed,
        package: and of which package of Debian it is.
        batches: whether it can be told how many packets to take at a time.
        rivals: the contenders with the faster of which it is compared.
    """

    name: str
    works: tuple[str, ...]
    start: Callable[[Job], AbstractContextManager[Running]]
    needs: str = "taskset"
    package: str = ""
    batches: bool = False
    rivals: tuple[str, ...] = ()

    def missing(self) -> str:
        """What keeps it from being measured; empty if nothing does."""
        if self.needs == "scapy":
            return "" if find_spec("scapy") else 'Scapy is not installed; run: pip install "ixy[scapy]"'
        return "" if shutil.which(self.needs) else f"{self.needs} is not installed; run: apt-get install {self.package}"


# ---------------------------------------------------------------------------------------------------------------------
# How they are started


@contextmanager
def _program(
    command: list[str], job: Job, ready: Callable[[], bool], received: Callable[[], int]
) -> Generator[Running]:
    """A command on its core."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(job.cores[0]), *command], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )

        def begun() -> bool:
            if process.poll() is not None:
                raise Error(f"it has ended: {_last_line(said)}")
            return ready()

        try:
            yield Running(process.pid, begun, received)
        finally:
            process.terminate()
            try:
                process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def _told(command: Callable[[Job, str], list[str]]) -> Callable[[Job], AbstractContextManager[Running]]:
    """A program of ours, which writes a tally into a file."""

    def start(job: Job) -> AbstractContextManager[Running]:
        path = MEMORY / "tally"
        tally = new_tally(path)
        return _program(command(job, str(path)), job, lambda: tally[0] >= 0, lambda: max(tally[0], 0))

    return start


def _ours(scheme: str) -> Callable[[Job], AbstractContextManager[Running]]:
    address = f"{scheme}:{NEAR}"
    return _told(lambda job, tally: [sys.executable, "-m", "ixy.bench.works", address, job.work, str(job.batch), tally])


def _peer(kind: str, work: str = "") -> Callable[[Job], AbstractContextManager[Running]]:
    """A loop in Python, by default for the work of the job."""
    return _told(lambda job, tally: [*_PEERS, kind, work or job.work, NEAR, tally])


def _testpmd(driver: str) -> Callable[[Job], AbstractContextManager[Running]]:
    """A driver of DPDK's, with its options behind a comma."""

    @contextmanager
    def start(job: Job) -> Generator[Running]:
        options = [f"--burst={job.batch}", f"--txpkts={FRAME_BYTES}", f"--rxd={RING_SIZE}", f"--txd={RING_SIZE}"]
        name, _, more = driver.partition(",")
        port, memory = ",".join(filter(None, [f"{name}0", f"iface={NEAR}", more])), ["--no-huge", "-m", "256"]
        program = Testpmd(port, _TESTPMD_MODES[job.work], memory, options, *job.cores)
        try:
            program.command("start")
            yield Running(program.pid, lambda: True, lambda: program.counts().rx_packets)
        finally:
            program.close()

    return start


def _captures(command: list[str]) -> Callable[[Job], AbstractContextManager[Running]]:
    """A program that writes a pcap: the file tells how many packets it has received."""
    path = MEMORY / "captured.pcap"

    @contextmanager
    def start(job: Job) -> Generator[Running]:
        try:
            with _program([*command, str(path)], job, path.exists, lambda: recorded(path)) as running:
                yield running
        finally:
            path.unlink(missing_ok=True)

    return start


def recorded(path: Path) -> int:
    """How many of the packets that are measured a pcap holds."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    return max(size - _FILE_HEADER, 0) // (_RECORD_HEADER + FRAME_BYTES)


def _sends(command: list[str]) -> Callable[[Job], AbstractContextManager[Running]]:
    """A program of which only the far end knows how much it sends."""
    return lambda job: _program(command, job, lambda: True, lambda: 0)


# ---------------------------------------------------------------------------------------------------------------------
# Which there are

_ALL = (RECEIVE, TRANSMIT, FORWARD)
_AF_XDP = ("net_af_xdp", "net_af_xdp,busy_budget=0")  # as it comes, and without busy polling
_TCPREPLAY = ["tcpreplay", "--quiet", "--preload-pcap", "--topspeed", "--loop=0", f"--intf1={NEAR}", str(RECORDED)]

DRIVERS = [
    Contender("ixy xdp:", _ALL, _ours("xdp"), batches=True, rivals=_AF_XDP),
    *(Contender(name, _ALL, _testpmd(name), PROGRAM, "dpdk dpdk-dev", batches=True) for name in _AF_XDP),
    Contender("ixy packet:", _ALL, _ours("packet"), batches=True, rivals=("net_af_packet",)),
    Contender("net_af_packet", _ALL, _testpmd("net_af_packet"), PROGRAM, "dpdk dpdk-dev", batches=True),
    Contender("tcpreplay", (TRANSMIT,), _sends(_TCPREPLAY), "tcpreplay", "tcpreplay"),
    Contender("AF_PACKET socket", _ALL, _peer("socket")),
    Contender("Scapy", _ALL, _peer("scapy"), "scapy"),
]

TOOLS = [
    *(
        Contender(f"ixy capture {scheme}:", (CAPTURE,), _captures([*_IXY, "capture", f"{scheme}:{NEAR}"]))
        for scheme in ("packet", "xdp")
    ),
    Contender("tcpdump -w", (CAPTURE,), _captures(["tcpdump", "-Z", "root", "-i", NEAR, "-w"]), "tcpdump", "tcpdump"),
    Contender("AF_PACKET socket, a file", (CAPTURE,), _captures([*_PEERS, "socket", CAPTURE, NEAR])),
    Contender("Scapy sniff", (CAPTURE,), _captures([*_PEERS, "scapy", CAPTURE, NEAR]), "scapy"),
    *(
        Contender(
            f"ixy replay {scheme}:",
            (REPLAY,),
            _sends([*_IXY, "replay", str(RECORDED), f"{scheme}:{NEAR}", "--topspeed", "--loop", "0"]),
        )
        for scheme in ("packet", "xdp")
    ),
    *(
        Contender(f"ixy generate {scheme}:", (REPLAY,), _sends([*_IXY, "generate", f"{scheme}:{NEAR}"]))
        for scheme in ("packet", "xdp")
    ),
    Contender("tcpreplay --topspeed", (REPLAY,), _sends(_TCPREPLAY), "tcpreplay", "tcpreplay"),
    Contender("AF_PACKET socket, send", (REPLAY,), _peer("socket", TRANSMIT)),
    Contender("Scapy sendp", (REPLAY,), _sends([*_PEERS, "scapy", REPLAY, NEAR, str(RECORDED)]), "scapy"),
]
