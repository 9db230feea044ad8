"""The PCI transports of VirtIO against a device that is a few numbers: one that is never ready, or makes no sense."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports import pci
from ixy.drivers.virtio.transports.pci_legacy import PciLegacy
from ixy.drivers.virtio.transports.pci_modern import PciModern
from ixy.errors import DeviceTimeout, Error, UnsupportedDevice
from ixy.packets.dma import DmaMapping, allocated
from ixy.registers import virtio as reg

COMMAND = 4
MASTER = 1 << 2

# Of a legacy device, 4.1.4.10: offsets in its I/O BAR
FEATURES, QUEUE_SIZE, STATUS, CONFIG = 0, 12, 18, 20


class FakePorts:
    """Registers of a legacy device: what was written, or what a function says."""

    def __init__(self, access: Callable[[], None]) -> None:
        self.access = access
        self.values: dict[int, int] = {FEATURES: 1 << reg.ANY_LAYOUT | 1 << reg.MAC, QUEUE_SIZE: 256}
        self.reads: dict[int, Callable[[], int]] = {}
        self.fd, self.start = -1, 0

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        self.access()
        return self.reads[offset]() if offset in self.reads else self.values.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        self.access()
        self.values[offset] = value


class FakeFunction:
    """A PCI function with a configuration space of its own, I/O ports, and one BAR of memory.

    Attributes:
        patience: how many accesses it stands before one fails.
    """

    address = "card"

    def __init__(self) -> None:
        self.patience = 1 << 30
        self.config = bytearray(256)
        self.config[COMMAND] = MASTER
        self.io = FakePorts(self.access)
        self.words = np.zeros(1024, np.uint32)
        self.mapped: list[Any] = []
        self.closed = 0

    def access(self) -> None:
        self.patience -= 1
        if self.patience == 0:
            raise Error("card: broken")

    def config_read(self, offset: int, size: int) -> int:
        self.access()
        return int.from_bytes(self.config[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        self.access()
        self.config[offset : offset + size] = value.to_bytes(size, "little")

    def ports(self, index: int) -> FakePorts:  # noqa: ARG002
        return self.io

    def bar(self, index: int) -> FakeFunction:  # noqa: ARG002
        return self

    def map(self, memory: Any) -> DmaMapping:
        self.access()
        self.mapped.append(memory)
        pages = np.arange(memory.size // memory.page_size, dtype=np.int64) * memory.page_size
        return DmaMapping(pages, memory.page_size)

    def unmap(self, memory: Any) -> None:
        if memory in self.mapped:
            self.mapped.remove(memory)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> FakeFunction:
    monkeypatch.setattr(pci, "_TIMEOUT", 0.05)
    return FakeFunction()


def legacy(function: FakeFunction) -> PciLegacy:
    return PciLegacy(function)  # type: ignore[arg-type]


def modern(function: FakeFunction) -> PciModern:
    """Common configuration at 0, notifications at 0x400, the device's configuration at 0x800."""
    function.config[6] = 1 << 4
    function.config[0x34] = 0x40
    for place, (kind, offset, length) in enumerate([(1, 0, 64), (2, 0x400, 256), (4, 0x800, 32)]):
        start = 0x40 + 20 * place
        following = start + 20 if place < 2 else 0
        numbers = b"".join(number.to_bytes(4, "little") for number in (offset, length, 4))
        function.config[start : start + 20] = bytes([9, following, 20, kind, 0, 0, 0, 0]) + numbers
    return PciModern(function)  # type: ignore[arg-type]


class Changing:
    """A register that reads differently each time."""

    def __init__(self) -> None:
        self.value = 0

    def __call__(self, *_: object) -> int:
        self.value = (self.value + 1) & 0xFF
        return self.value


def test_a_legacy_device_that_is_never_reset(function: FakeFunction) -> None:
    """The status does not become 0: it is named, and the device does no DMA any more."""
    function.io.reads[STATUS] = lambda: 1
    with pytest.raises(DeviceTimeout, match=r"^card: device_status did not become 0 within 0\.05 s$"):
        legacy(function).reset()
    assert function.config[COMMAND] & MASTER == 0


def test_a_modern_device_that_is_never_reset(function: FakeFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = modern(function)
    monkeypatch.setattr(transport, "_read_status", lambda: 0xFF)
    with pytest.raises(DeviceTimeout, match="card: device_status did not become 0"):
        transport.reset()
    assert function.config[COMMAND] & MASTER == 0


def test_a_reset_is_waited_for(function: FakeFunction) -> None:
    """The status becomes 0 at the third look."""
    looks = iter([1, 1, 0])
    function.io.reads[STATUS] = lambda: next(looks)
    legacy(function).reset()
    assert next(looks, None) is None


def test_a_legacy_configuration_that_never_settles(function: FakeFunction) -> None:
    function.io.reads[CONFIG + 6] = Changing()
    with pytest.raises(DeviceTimeout, match="card: the configuration at 6 did not read the same twice"):
        legacy(function).config_read(6, 2)


def test_a_legacy_configuration_that_settles(function: FakeFunction) -> None:
    values = iter([1, 2, 3, 3])
    function.io.reads[CONFIG + 6] = lambda: next(values)
    assert legacy(function).config_read(6, 2) == 3


def test_a_modern_configuration_that_never_settles(function: FakeFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = modern(function)
    monkeypatch.setattr(transport._common, "read", Changing())
    with pytest.raises(DeviceTimeout, match="card: config_generation did not stay the same"):
        transport.config_read(6, 2)


def test_a_modern_configuration_is_read_within_one_generation(
    function: FakeFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generation changes while it is read for the first time: what was read then does not count."""
    transport = modern(function)
    generations, values = iter([1, 2, 2, 2]), iter([0xAAAA, 0x5555])
    monkeypatch.setattr(transport._common, "read", lambda _: next(generations))
    monkeypatch.setattr(transport._device, "read", lambda _: next(values))
    assert transport.config_read(6, 2) == 0x5555


@pytest.mark.parametrize("size", [3, 384, 255, 32767])
def test_a_legacy_ring_of_an_odd_size_is_refused(function: FakeFunction, size: int) -> None:
    """The size is the device's to say, and must be a power of 2 (2.7). Nothing of the device is kept."""
    before = allocated()
    function.io.values[QUEUE_SIZE] = size
    with pytest.raises(UnsupportedDevice, match=f"^card: ring 0 has {size} descriptors, which is no power of 2$"):
        VirtioNet(legacy(function), ring_size=16, pool_size=64)
    assert allocated() == before
    assert function.mapped == []
    assert function.closed == 1


def test_a_device_that_cannot_be_stopped_is_given_up(function: FakeFunction) -> None:
    """It has no bus mastering any more, so its memory can be returned. Closing says what is wrong, once."""
    before = allocated()
    driver = VirtioNet(legacy(function), ring_size=16, pool_size=512)
    assert len(function.mapped) == 2
    function.io.reads[STATUS] = lambda: 1
    with pytest.raises(DeviceTimeout, match="device_status"):
        driver.close()
    assert function.config[COMMAND] & MASTER == 0
    assert (function.mapped, function.closed, allocated()) == ([], 1, before)
    driver.close()
    assert function.closed == 1


def test_a_close_that_is_interrupted_goes_on(function: FakeFunction) -> None:
    """Ctrl-C while the device is being reset: it keeps its memory. The next call resets it, and returns the memory."""
    before = allocated()
    driver = VirtioNet(legacy(function), ring_size=16, pool_size=512)
    looks = iter([1, KeyboardInterrupt, 1, 0])

    def status() -> int:
        look = next(looks)
        if look is KeyboardInterrupt:
            raise KeyboardInterrupt
        return look  # type: ignore[return-value]

    function.io.reads[STATUS] = status
    with pytest.raises(KeyboardInterrupt):
        driver.close()
    assert len(function.mapped) == 2
    assert function.closed == 0
    driver.close()
    assert next(looks, None) is None
    assert (function.mapped, function.closed, allocated()) == ([], 1, before)


def test_whichever_access_fails_nothing_is_left(function: FakeFunction) -> None:
    """The first access to the device fails, then the second, and so on until all succeed: each time the device is given
    up without bus mastering, and no memory and no file stays.
    """
    before, files = allocated(), sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for patience in itertools.count(1):
        function.patience, function.closed = patience, 0
        try:
            driver = VirtioNet(legacy(function), ring_size=16, pool_size=512)
        except Error as error:
            assert str(error) == "card: broken"  # noqa: PT017
        else:
            function.patience = 1 << 30
            driver.close()
            break
        assert function.config[COMMAND] & MASTER == 0
        assert (function.mapped, function.closed, allocated()) == ([], 1, before)
        assert sorted(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
    assert patience > 20
