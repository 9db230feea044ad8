"""Our driver on simulated 82599s in a guest: through sysfs, with the guest's huge pages and page map."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cards import guest_with_cards
from harness import Guest

from ixy.sim.pci.attachment import Attachment

PROGRAMS = Path(__file__).parent / "programs"
SOURCES = Path(__file__).parents[2] / "src"

A, B = "0000:00:10.0", "0000:00:11.0"
FRAMES = 3000


def python(code: str) -> str:
    """A shell command that runs Python `code`, or a program with arguments, in the guest, kernels interpreted."""
    return f"PYTHONPATH={SOURCES} PYTHONDONTWRITEBYTECODE=1 IXY_JIT=0 {sys.executable} {code}"


def driver(guest: Guest, *words: str, timeout: float = 120) -> dict[str, Any]:
    """What the program of that name reports."""
    result = guest.run(python(" ".join([str(PROGRAMS / "our_driver.py"), *words])), timeout)
    assert result.exit_code == 0, result.output
    return json.loads(result.output.splitlines()[-1])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Attachment]]:
    """Two cards: a generator sends into the first, a sink behind the second checks what it gets."""
    cards = [f"sim:a,gen=60,count={FRAMES}", "sim:b,sink=a"]
    with guest_with_cards(tmp_path_factory.mktemp("guest") / "ours", cards) as machine:
        result = machine[0].run("echo 32 > /proc/sys/vm/nr_hugepages && modprobe ixgbe")
        assert result.exit_code == 0, result.output
        yield machine


def kernel_driver(guest: Guest, address: str) -> str:
    return guest.run(f"basename $(readlink /sys/bus/pci/devices/{address}/driver)").output.strip()


def test_two_cards_are_taken_from_the_kernel_used_and_given_back(machine: tuple[Guest, Attachment]) -> None:
    """The kernel's ixgbe has both cards. Ours forwards all frames, in order and unchanged; then the kernel's works."""
    guest, attachment = machine
    assert [kernel_driver(guest, address) for address in (A, B)] == ["ixgbe", "ixgbe"]
    started = time.monotonic()
    report = driver(guest, "forward", A, B, str(FRAMES))
    print(
        f"{FRAMES} frames forwarded by interpreted code in the guest, start included: {time.monotonic() - started:.1f} s"
    )
    assert report["speed"] == 10_000
    assert report["mac"] == attachment.cards[0].card.mac.hex(":")
    assert (report["rx"], report["dropped"], report["tx"]) == (FRAMES, 0, FRAMES)
    found = attachment.machine.sink_report("a", "b")
    assert (found.received, found.lost, found.reordered, found.wrong) == (FRAMES, 0, 0, 0)

    code = f'from ixy.bus.binding import unbind; print(unbind("{A}"), unbind("{B}"))'
    assert guest.run(python(f"-c '{code}'")).output.split() == ["ixgbe", "ixgbe"]
    up = f"""
        name=$(ls /sys/bus/pci/devices/{A}/net)
        ip link set $name up
        until [ "$(cat /sys/class/net/$name/carrier)" = 1 ]; do usleep 10000; done
        cat /sys/class/net/$name/speed
        ip link set $name down
    """
    assert guest.run(up).output.split() == ["10000"]
    assert guest.run("dmesg | grep -E 'ixgbe.*(fail|error|hang|warn)' -i").output == ""
