"""A guest whose card DPDK's testpmd drives, by the net_ixgbe of Debian's package, and the test at the wire's end."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from cards import guest_with_cards
from harness import Guest

from ixy.bench.testpmd import Prompt
from ixy.registers import i82599 as reg
from ixy.sim.card import state
from ixy.sim.qemu.attachment import Attachment

CARD = "0000:00:10.0"
_TIMEOUT = 120.0  # seconds: a busy machine takes its time

_PREPARE = f"""set -e
echo 64 > /proc/sys/vm/nr_hugepages
mkdir -p /dev/hugepages
mount -t hugetlbfs none /dev/hugepages
modprobe uio_pci_generic
echo 8086 10fb > /sys/bus/pci/drivers/uio_pci_generic/new_id
[ -e /sys/bus/pci/drivers/uio_pci_generic/{CARD} ]
stty -F /dev/ttyS2 raw -echo
"""

# One processor runs the prompt and the packets' loop in turn. Everything is told at the prompt.
_TESTPMD = (
    f"exec dpdk-testpmd --lcores 0@0,1@0 --no-telemetry --in-memory -a {CARD} -d librte_net_ixgbe.so "
    "--log-level=pmd.net.ixgbe.init:debug "
    "-- -i --nb-cores=1 --total-num-mbufs=8192 --no-flush-rx < /dev/ttyS2 > /dev/ttyS2 2>&1"
)


class Wire:
    """The other end of a card's `cable=unix:`: each frame is preceded by its length."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect(str(path))
        self._read = b""

    def send(self, frames: Sequence[bytes]) -> None:
        self._socket.sendall(b"".join(struct.pack("!I", len(frame)) + frame for frame in frames))

    def receive(self, count: int) -> list[bytes]:
        """The next frames that the card sends, without check sequences."""
        return [self._take(*struct.unpack("!I", self._take(4))) for _ in range(count)]

    def is_silent(self) -> bool:
        """Whether nothing lies there that was not taken."""
        self._socket.setblocking(False)
        try:
            self._read += self._socket.recv(1)
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(_TIMEOUT)
        return not self._read

    def _take(self, size: int) -> bytes:
        while len(self._read) < size:
            part = self._socket.recv(1 << 16)
            assert part, "the card has hung up"
            self._read += part
        data, self._read = self._read[:size], self._read[size:]
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Received(NamedTuple):
    """What testpmd says of a packet that it has received.

    Attributes:
        source: address, without colons.
        length: in bytes.
        segments: how many buffers it lies in.
        queue: on which it came.
        values: other numbers, such as `RSS hash` and `VLAN tci`.
        kind: the packet type that the card told, if any.
        flags: as DPDK calls them, without `RTE_MBUF_F_RX_`.
    """

    source: str
    length: int
    segments: int
    queue: int
    values: dict[str, int]
    kind: str
    flags: set[str]


_PACKET = re.compile(r"^  src=(\S+) - (.*?) *\n  ol_flags: (.*?) *\n", re.MULTILINE)
_REFUSED = re.compile(
    r"Bad arguments|Command not found|Ambiguous command|Invalid|[Ff]ailed|with error|Caught PMD error"
)
_PREFIX = "RTE_MBUF_F_RX_"


def _packets(text: str) -> list[Received]:
    found: list[Received] = []
    for source, line, flags in _PACKET.findall(text):
        values = {name: int(value, 0) for name, value in re.findall(r"([\w ]+?)=(0x[0-9a-f]+|\d+)(?=\s|$)", line)}
        values = {name.strip(): value for name, value in values.items()}
        kind = "".join(re.findall(r"hw ptype: (.*?) *- sw", line))
        length, segments, queue = (values.pop(name) for name in ("length", "nb_segs", "Receive queue"))
        names = {name.removeprefix(_PREFIX) for name in flags.split()}
        found.append(Received(source.replace(":", ""), length, segments, queue, values, kind, names))
    return found


class Port:
    """The card as port 0 of testpmd.

    Attributes:
        prompt: testpmd's.
        wire: the card's.
        mac: of the card.
    """

    def __init__(self, guest: Guest, attachment: Attachment, wire: Wire, prompt: Prompt) -> None:
        self.guest = guest
        self.attachment = attachment
        self.wire = wire
        self.prompt = prompt
        self.card = attachment.cards[0].card
        self.mac = self.card.mac

    def tell(self, *lines: str) -> str:
        """Give commands; what testpmd says."""
        answers = [self.prompt.command(line, _TIMEOUT) for line in lines]
        for answer in answers:
            assert not _REFUSED.search(answer), answer
        return "".join(answers)

    def configure(self, *lines: str) -> str:
        """Stop the port, give commands, and start it; what testpmd and the driver say."""
        return self.tell("port stop 0", *lines, "port start 0")

    def offer(self, frames: Sequence[bytes]) -> list[Received]:
        """Send frames to the card while testpmd receives; what it says of those that the card stored, by queue.

        Waits for what must come, and for nothing else: the card says how many it took.
        """
        text = ""
        try:
            self.tell("set verbose 1", "set fwd rxonly", "start")
            stored = self._deliver(frames)
            if stored:
                text = self.prompt.read_until(lambda text: text.count("ol_flags: ") >= stored, _TIMEOUT)
        finally:
            text += self.tell("stop")
        found = _packets(text)
        assert len(found) == stored
        return found

    def _deliver(self, frames: Sequence[bytes]) -> int:
        """Send frames, and wait until the card has looked at all; how many it stored."""
        before, offered = self.stored(), self.counter(reg.TPR)
        self.wire.send(frames)
        deadline = time.monotonic() + _TIMEOUT
        while self.counter(reg.TPR) - offered < len(frames):
            assert time.monotonic() < deadline, "the frames did not arrive at the card"
            time.sleep(0.001)
        with self.attachment.machine.paused():  # the last one is stored then
            return self.stored() - before

    def counter(self, register: reg.Register) -> int:
        """What the model has counted for a statistics register since the card was made."""
        return self.card.statistics.total(register)

    def stored(self) -> int:
        return int(self.attachment.machine.rack.queues[0, :, state.QUEUE_RX].sum())

    @contextmanager
    def forwarding(self, mode: str) -> Iterator[None]:
        """Forward meanwhile."""
        self.tell("set verbose 0", f"set fwd {mode}", "start")
        try:
            yield
        finally:
            self.tell("stop")

    def statistics(self) -> dict[str, int]:
        """The extended statistics."""
        lines = re.findall(r"^(\w+): (\d+)$", self.tell("show port xstats 0"), re.MULTILINE)
        return {name: int(value) for name, value in lines}


@contextmanager
def guest_with_testpmd(directory: Path) -> Iterator[Port]:
    """A testpmd that has the card by uio_pci_generic, with its prompt on the guest's third serial port."""
    directory.mkdir()
    console = directory / "console"
    arguments = ["-chardev", f"socket,id=console,path={console},server=on,wait=off", "-serial", "chardev:console"]
    cable = directory / "cable"
    with (
        guest_with_cards(directory / "guest", [f"sim:a,cable=unix:{cable}"], arguments) as (guest, attachment),
        Wire(cable) as wire,
        socket.socket(socket.AF_UNIX) as terminal,
    ):
        print(f"boot: {guest.boot_seconds:.1f} s")
        prepared = guest.run(_PREPARE)
        assert prepared.exit_code == 0, prepared.output
        terminal.connect(str(console))
        prompt = Prompt(terminal.fileno(), terminal.fileno())
        guest.start(_TESTPMD)
        prompt.read_to_prompt(_TIMEOUT)
        yield Port(guest, attachment, wire, prompt)
        guest.kill()  # to end in order takes testpmd half a minute
