"""Our driver, run in a guest with two simulated 82599s."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Guest
from in_guest import PROGRAMS, python

from ixy.registers.i82599 import RXCTRL
from ixy.sim.qemu.attachment import Attachment
from ixy.sim.wires.generator import LIMIT

A, B = "0000:00:10.0", "0000:00:11.0"
FRAMES = 2000

# A generator sends into the first card, 2000 frames a second; a sink behind the second checks what it gets.
CARDS = ["sim:a,gen=60,rate=2e3", "sim:b,sink=a"]


def driver(guest: Guest, *words: str, timeout: float = 120) -> dict[str, Any]:
    """What the program of that name reports."""
    result = guest.run(python(" ".join([str(PROGRAMS / "our_driver.py"), *words])), timeout)
    assert result.exit_code == 0, result.output
    return json.loads(result.output.splitlines()[-1])


def kernel_drivers(guest: Guest) -> list[str]:
    """Which drivers of the kernel have the two cards."""
    return guest.run(
        f"cd /sys/bus/pci/devices; for card in {A} {B}; do basename $(readlink $card/driver); done"
    ).output.split()


def free_pages(guest: Guest) -> str:
    return guest.run("cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").output


def wait_for_pages(guest: Guest, count: str) -> None:
    """Wait until as many huge pages are free."""
    deadline = time.monotonic() + 60
    while (free := free_pages(guest)) != count:
        assert time.monotonic() < deadline, f"{free.strip()} huge pages are free"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_file(guest: Guest, running: int, name: str) -> Path:
    """Wait until a command has left a file in its working directory; the file."""
    path = guest.place(running) / name
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, (guest.place(running) / "output").read_text()
        time.sleep(0.01)
    return path


@contextmanager
def killed_under_traffic(guest: Guest) -> Iterator[int]:
    """A process that forwards packets, by its id; at the end it is killed while they flow, and keeps no huge page."""
    before = free_pages(guest)
    running = guest.start(python(f"{PROGRAMS / 'our_driver.py'} forward_for_ever {A} {B}"))
    wait_for_file(guest, running, "flowing")
    pid = int((guest.place(running) / "pid").read_text())
    yield pid
    guest.run(f"kill -9 {pid}")
    assert guest.wait(running).exit_code == 137
    wait_for_pages(guest, before)


@contextmanager
def silence(attachment: Attachment) -> Iterator[None]:
    """The generator rests. Afterwards it makes up for what was due meanwhile."""
    limit = attachment.machine.rack.inputs[attachment.cards[0].card.index, LIMIT : LIMIT + 1]
    limit[0] = 1  # it has sent more than one frame
    yield
    limit[0] = 0  # no limit


def offer(attachment: Attachment, frames: int) -> None:
    """Wait until the generator has offered so many more frames to the first card, whether it takes them or not."""
    wanted = attachment.machine.sink_report("a", "b").sent + frames
    deadline = time.monotonic() + 60
    while attachment.machine.sink_report("a", "b").sent < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_stopped(attachment: Attachment) -> None:
    """Both cards were reset: they receive nothing (8.2.3.8.4)."""
    assert [card.card.read32(RXCTRL.offset) & 1 for card in attachment.cards] == [0, 0]


def check_forwarded(report: dict[str, Any], attachment: Attachment) -> None:
    """As many frames as wanted left the second card; the link and the address are those of the model."""
    assert report["speed"] == 10_000
    assert report["mac"] == attachment.cards[0].card.mac.hex(":")
    assert report["rx"] >= report["tx"] >= FRAMES


def check_sunk(attachment: Attachment, sent: int) -> None:
    """All that was sent has arrived, in order and unchanged."""
    found = attachment.machine.sink_report("a", "b")
    assert (found.received, found.reordered, found.wrong) == (sent, 0, 0)


def dma_refused(attachment: Attachment) -> int:
    """How many DMA accesses of the cards were refused."""
    return sum(attachment.machine.dma_refused(card.card) for card in attachment.cards)
