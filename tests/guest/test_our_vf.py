"""Our driver on virtual functions of a simulated 82599 in a guest, beside Linux's own: through sysfs, and through VFIO.

Function 0 is ours, which answers pings; they come from the host, along the card's wire, and from function 1, which
Linux's ixgbevf drives.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cards import guest_with_cards
from in_guest import PROGRAMS, python
from namespace import Namespace
from ours import A, B, driver, free_pages, wait_for_pages, wait_until
from rig import GUEST, HOST, Rig

RESPONDER = Path(__file__).parents[2] / "examples" / "responder.py"
OTHER = "10.82.99.3"
MAC = "02:00:00:00:00:01"
BROADCAST = "10.82.99.255"
USER = "nobody"


class Functions(Rig):
    """A guest with functions 0 and 1, and the host at the other end of the card's wire."""

    @contextmanager
    def answering(self, command: str = f"{RESPONDER} {A} {GUEST}") -> Iterator[int]:
        """A process of ours answers pings meanwhile, by its id; at the end it is killed, and keeps no huge page."""
        before = free_pages(self.guest)
        running = self.guest.start(python(command))
        wait_until(self.answers)
        pid = int((self.guest.place(running) / "pid").read_text())
        yield pid
        self.guest.run(f"kill -9 {pid}")
        assert self.guest.wait(running).exit_code == 137
        wait_for_pages(self.guest, before)

    @contextmanager
    def pinged(self, target: str) -> Iterator[None]:
        """The host pings meanwhile, whether there is an answer or not."""
        process = self.host.start("ping", "-b", "-i", "0.2", "-q", target)
        try:
            yield
        finally:
            process.terminate()
            process.communicate()

    def answers(self) -> bool:
        """Whether the host gets an answer."""
        return self.host.try_run("ping", "-c", "1", "-W", "1", "-q", GUEST)

    def refused(self) -> int:
        """How many DMA accesses of function 0 were refused."""
        return self.attachment.functions[0].virtual.dma_refused

    def stopped(self) -> bool:
        """Whether function 0's queues are off."""
        function = self.attachment.functions[0].virtual
        return not any(function.read32(offset) >> 25 & 1 for offset in (0x1028, 0x2028))


@contextmanager
def booted(directory: Path, name: str, *, iommu: bool) -> Iterator[Functions]:
    addresses = [f"sim:a.vf0,vfs=2,mac={MAC},tap={name}", "sim:a.vf1"]
    with (
        guest_with_cards(directory, addresses, iommu=iommu) as (guest, attachment),
        Namespace(name, name, f"{HOST}/24") as host,
    ):
        print(f"boot: {guest.boot_seconds:.1f} s")
        yield Functions(guest, attachment, host)


@pytest.fixture(scope="module")
def sysfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Functions]:
    """A machine without an IOMMU, whose kernel drives both functions; the second has an address."""
    with booted(tmp_path_factory.mktemp("guest") / "sysfs", "ixyourvf", iommu=False) as rig:
        rig.run("echo 32 > /proc/sys/vm/nr_hugepages && modprobe ixgbevf")
        rig.run(f"/usr/sbin/ip link set eth1 up && /usr/sbin/ip addr add {OTHER}/24 dev eth1")
        yield rig


@pytest.fixture(scope="module")
def vfio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Functions]:
    """A machine with an IOMMU, whose function 0 is bound to vfio-pci for an ordinary user. It has no huge pages."""
    with booted(tmp_path_factory.mktemp("guest") / "vfio", "ixyourvfio", iommu=True) as rig:
        code = f'from ixy.bus.binding import bind; bind("{A}", user="{USER}")'
        rig.run("modprobe -a vfio-pci vfio_iommu_type1 && " + python(f"-c '{code}'"))
        yield rig


def test_pings_through_sysfs_until_it_is_killed(sysfs: Functions) -> None:
    """Taken from Linux's ixgbevf, which keeps function 1: all pings are answered, to the host and to that. SIGKILL
    while packets flow: the guardian resets the function before huge pages are free, and no DMA comes late. The next
    process answers pings again.
    """
    assert driver(sysfs.guest, "look_at", A)["kernel_driver"] == "ixgbevf"
    before = free_pages(sysfs.guest)
    with ExitStack() as traffic:
        with sysfs.answering() as pid:
            assert free_pages(sysfs.guest) != before
            assert "100 received" in sysfs.host.run("ping", "-A", "-c", "100", "-q", GUEST)
            assert "20 packets received" in sysfs.run(f"ping -A -c 20 -q {GUEST}")
            error = driver(sysfs.guest, "attempt", A, B, "1")["error"]
            assert error.startswith(f"DeviceBusy: {A} is in use by process {pid} ({sys.executable} ")
            report = driver(sysfs.guest, "look_at", A)
            traffic.enter_context(sysfs.pinged(GUEST))
        assert (report["model"], report["bus"], report["link_speed"]) == ("82599 virtual function", "sysfs", 10_000)
        assert report["registers"]["VFRXDCTL[0]"] & 1 << 25
        assert sysfs.stopped()
        running = sysfs.guest.start(python(str(PROGRAMS / "all_pages.py")))
        place = sysfs.guest.place(running)
        wait_until((place / "filled").exists)
    assert not sysfs.answers()
    (place / "look").touch()
    assert json.loads(sysfs.guest.wait(running).output)["changed"] == []
    assert sysfs.refused() == 0
    with sysfs.answering():
        assert "20 received" in sysfs.host.run("ping", "-A", "-c", "20", "-q", GUEST)


def test_given_back_to_the_kernel(sysfs: Functions) -> None:
    code = f'from ixy.bus.binding import unbind; print(unbind("{A}"))'
    assert sysfs.run(python(f"-c '{code}'")).split() == ["ixgbevf"]


def test_pings_through_vfio_as_an_ordinary_user(vfio: Functions) -> None:
    """The limit on locked memory is too small at first: the error says what is needed. Then all pings are answered."""
    command = f"{PROGRAMS / 'as_user.py'} {USER} 65536 {RESPONDER} {A} {GUEST}"
    result = vfio.guest.run(python(command))
    needed = re.search(r"the limit on locked memory is 65536 bytes, but (\d+) are needed", result.output)
    assert needed, result.output
    with vfio.answering(command.replace("65536", needed[1])):
        assert "100 received" in vfio.host.run("ping", "-A", "-c", "100", "-q", GUEST)
    assert vfio.refused() == 0
    assert vfio.stopped()


def test_interrupts_and_a_look_through_vfio(vfio: Functions) -> None:
    """The driver sleeps while no frame comes; the next one wakes it, by MSI-X. Then the process that has the function
    open tells what the physical function lets it have, counters, registers."""
    running = vfio.guest.start(python(f"{PROGRAMS / 'our_driver.py'} wait_and_look {A}"))
    wait_until((vfio.guest.place(running) / "asleep").exists)
    with vfio.pinged(BROADCAST):
        result = vfio.guest.wait(running)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    assert report["woken"]
    assert report["received"] > 0
    assert (report["driver"], report["bus"], report["max_rx_queues"]) == ("ixgbevf", "VFIO", 4)
    assert report["mac"] == MAC
    assert "3 interrupts by MSI-X" in report["features"]
    assert report["counters"]["VFGPRC"] > 0
    assert report["registers"]["VFRXDCTL[0]"] & 1 << 25
