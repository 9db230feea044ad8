"""What the driver writes to a VirtIO device on PCI, register by register: modern (4.1.4.3) and legacy (4.1.4.10).

Sections are those of the Virtual I/O Device specification, version 1.2. The device is a model of its registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from ixy.device import Device
from ixy.drivers import Link
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.pci_legacy import PciLegacy
from ixy.drivers.virtio.transports.pci_modern import PciModern
from ixy.drivers.virtio.transports.transport import RingAddresses
from ixy.errors import ConfigurationError, MemoryUnavailable, UnsupportedDevice
from ixy.packets.dma import DmaMapping

DMA = 0x5_A000_0000  # where the device sees the first memory that it is given
MAC = bytes.fromhex("020304050607")
RING = 16

# Feature bits by their numbers in 5.1.3 and 6: MTU, MAC, STATUS; VERSION_1 and SPEED_DUPLEX; of which GSO is refused
MTU, MAC_BIT, GSO, STATUS, ANY_LAYOUT = 1 << 3, 1 << 5, 1 << 6, 1 << 16, 1 << 27
VERSION_1, SPEED_DUPLEX = 1 << 32, 1 << 63


class Registers(np.ndarray):
    """Memory of a BAR in which each access is one of the device's."""

    def __array_finalize__(self, parent: Any) -> None:
        self.function = getattr(parent, "function", None)
        self.start = getattr(parent, "start", 0)

    def _offset(self) -> int:
        return self.__array_interface__["data"][0] - self.start

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return super().__getitem__(index)
        return self.function.read(self._offset() + index * self.itemsize, self.itemsize)

    def __setitem__(self, index: int, value: int) -> None:
        self.function.write(self._offset() + index * self.itemsize, self.itemsize, int(value))


class Function:
    """A PCI function whose BAR 4 or I/O ports are a device's.

    Attributes:
        config: configuration space: bus mastering is on, as another driver may have left it.
        log: what was written, by the names of 4.1.4.3, in order; of the configuration space, the command register.
    """

    address = "card"

    def __init__(self, device_config: bytes) -> None:
        self.config = bytearray(256)
        self.config[4] = 1 << 2
        self.log: list[tuple[str, int]] = []
        self.device_config = bytearray(device_config)
        self.fd, self.start = 77, 0xC000
        self.next = DMA
        self.registers: dict[tuple[int, int], str] = {}

    def config_read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.config[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        assert (offset, size) == (4, 2)
        self.config[offset : offset + size] = value.to_bytes(size, "little")
        self.log.append(("command", value))

    def ports(self, index: int) -> Function:
        assert index == 0
        return self

    def map(self, memory: Any) -> DmaMapping:
        pages = np.arange(self.next, self.next + memory.size, memory.page_size, dtype=np.int64)
        self.next += memory.size
        return DmaMapping(pages, memory.page_size)

    def unmap(self, memory: Any) -> None:
        pass

    def close(self) -> None:
        self.log.append(("closed", 0))


class Modern(Function):
    """Its structures lie in BAR 4: common configuration at 0x100, notifications at 0x1000, two rings 8 bytes apart, and
    the network device's configuration at 0x2000.

    Attributes:
        insists: bits of the device status that it clears again.
        doorbells: what was written to the notification structure, from which compiled code keeps nobody away.
    """

    COMMON: ClassVar = {
        (0, 4): "device_feature_select",
        (4, 4): "device_feature",
        (8, 4): "driver_feature_select",
        (12, 4): "driver_feature",
        (16, 2): "config_msix_vector",
        (20, 1): "device_status",
        (21, 1): "config_generation",
        (22, 2): "queue_select",
        (24, 2): "queue_size",
        (26, 2): "queue_msix_vector",
        (28, 2): "queue_enable",
        (30, 2): "queue_notify_off",
        (32, 4): "queue_desc",
        (36, 4): "queue_desc_high",
        (40, 4): "queue_driver",
        (44, 4): "queue_driver_high",
        (48, 4): "queue_device",
        (52, 4): "queue_device_high",
    }

    def __init__(self, features: int, config: bytes = MAC + bytes(14), insists: int = 0) -> None:
        super().__init__(config)
        self.features = features
        self.insists = insists
        self.values = dict.fromkeys(self.COMMON.values(), 0)
        self.sizes = [256, 100]
        self.config[6] = 1 << 4
        self.config[0x34] = 0x42  # the two low bits are reserved
        self._capability(0x40, 0x54, 1, 0x100, 56)
        self._capability(0x54, 0x68, 2, 0x1000, 10, multiplier=8)
        self._capability(0x68, 0, 4, 0x2000, 20)
        memory = np.full(0x2000 // 4 + 5, 0xFFFFFFFF, np.uint32)
        self.doorbells = memory.view(np.uint16)[0x1000 // 2 : 0x2000 // 2]
        self.words = memory.view(Registers)
        self.words.function, self.words.start = self, memory.ctypes.data

    def _capability(
        self, at: int, following: int, kind: int, offset: int, length: int, multiplier: int = 0, bar: int = 4
    ) -> None:
        """4.1.4: id, next, length, type, BAR, id, padding, offset, length; multiplier for notifications."""
        numbers = b"".join(number.to_bytes(4, "little") for number in (offset, length, multiplier))
        self.config[at : at + 20] = bytes([9, following, 20, kind, bar, 0, 0, 0]) + numbers

    def bar(self, index: int) -> Modern:
        assert index == 4
        return self

    def read(self, offset: int, size: int) -> int:
        if offset >= 0x2000:
            return int.from_bytes(self.device_config[offset - 0x2000 :][:size], "little")
        name = self.COMMON[offset - 0x100, size]
        if name == "device_feature":
            return self.features >> 32 * self.values["device_feature_select"] & 0xFFFFFFFF
        if name == "queue_size":
            return self.sizes[self.values["queue_select"]]
        if name == "queue_notify_off":
            return self.values["queue_select"]
        return self.values[name]

    def write(self, offset: int, size: int, value: int) -> None:
        if offset >= 0x2000:
            self.log.append((f"configuration {offset - 0x2000}, {size}", value))
            return
        if offset >= 0x1000:
            assert size == 2
            self.doorbells[(offset - 0x1000) // 2] = value
            return
        name = self.COMMON[offset - 0x100, size]
        self.values[name] = value & ~self.insists if name == "device_status" else value
        self.log.append((name, value))

    def rung(self) -> dict[int, int]:
        """The doorbells that were rung since the last look, by their offsets: what was written."""
        found = {2 * int(place): int(self.doorbells[place]) for place in np.flatnonzero(self.doorbells != 0xFFFF)}
        self.doorbells[:] = 0xFFFF
        return found


def halves(name: str, address: int) -> list[tuple[str, int]]:
    return [(name, address & 0xFFFFFFFF), (f"{name}_high", address >> 32)]


def ring(index: int, size: int, start: int) -> list[tuple[str, int]]:
    """4.1.5.1.3: what is said of a ring whose parts follow each other: descriptors of 16 bytes, available ring, and on
    the next page the used ring; without an interrupt, and enabled last.
    """
    return [
        ("queue_select", index),
        ("queue_size", size),
        ("queue_msix_vector", 0xFFFF),
        *halves("queue_desc", start),
        *halves("queue_driver", start + 16 * size),
        *halves("queue_device", start + 4096),
        ("queue_enable", 1),
    ]


def without_selection(log: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Without what only prepares to read."""
    return [
        entry
        for entry, following in zip(log, [*log[1:], ("", 0)], strict=True)
        if entry[0] != "device_feature_select" and not (entry[0] == "queue_select" and following[0] != "queue_size")
    ]


def test_a_modern_device_is_brought_up() -> None:
    """3.1.1: reset, acknowledge, features in two halves, FEATURES_OK, rings, bus mastering, DRIVER_OK; then a doorbell
    for the receive buffers. Its line interrupt is off. At the end it is reset, and bus mastering goes.
    """
    config = MAC + bytes([1, 0, 0, 0]) + (9000).to_bytes(2, "little") + (25_000).to_bytes(4, "little") + bytes(4)
    offered = VERSION_1 | SPEED_DUPLEX | MTU | MAC_BIT | STATUS | GSO
    function = Modern(offered, config)
    driver = VirtioNet(PciModern(function), ring_size=RING, pool_size=64)  # type: ignore[arg-type]
    brought_up = [
        ("device_status", 0),
        ("command", 0),
        ("command", 1 << 10),
        ("device_status", 1),
        ("device_status", 1 | 2),
        ("driver_feature_select", 0),
        ("driver_feature", MTU | MAC_BIT | STATUS),
        ("driver_feature_select", 1),
        ("driver_feature", 1 << 0 | 1 << 31),
        ("device_status", 1 | 2 | 8),
        *ring(0, RING, DMA),
        *ring(1, RING, DMA + 2 * 4096),
        ("config_msix_vector", 0xFFFF),
        ("command", 1 << 10 | 1 << 2),
        ("command", 1 << 10 | 1 << 2),
        ("device_status", 1 | 2 | 8 | 4),
    ]
    assert without_selection(function.log) == brought_up
    assert function.rung() == {0: 0}
    with Device(driver) as device:
        assert (device.mac, device.link, driver.mtu()) == (MAC, Link(True, 25_000), 9000)
        assert device.tx[0].send(device.rx[0].pool.allocate(1)) == 1
        assert function.rung() == {8: 1}
        function.log.clear()
    assert function.log == [("device_status", 0), ("command", 1 << 10), ("command", 1 << 10), ("closed", 0)]


@pytest.mark.parametrize(("limit", "size"), [(256, 64), (64, 64), (63, 32), (100, 64), (33, 32), (32, 32)])
def test_a_modern_ring_is_a_power_of_two(limit: int, size: int) -> None:
    """The driver asks for 64 descriptors, and takes the largest power of two that the device has room for."""
    function = Modern(VERSION_1)
    function.sizes = [limit, 256]
    with Device(VirtioNet(PciModern(function), ring_size=64, pool_size=128)) as device:  # type: ignore[arg-type]
        sizes = [value for name, value in function.log if name == "queue_size"]
        assert (device.rx[0].ring.size, device.tx[0].ring.size) == (size, 64)
        assert sizes == [size, 64]


def test_a_device_without_a_ring_is_refused() -> None:
    """4.1.4.3: a size of 0 says that there is no such ring."""
    function = Modern(VERSION_1)
    function.sizes = [256, 0]
    with pytest.raises(ConfigurationError, match="card: the device has no ring 1"):
        VirtioNet(PciModern(function), ring_size=RING, pool_size=64)  # type: ignore[arg-type]


def test_a_modern_device_that_does_not_take_the_features() -> None:
    """It clears FEATURES_OK again: it is told that the driver has given up, and is reset (3.1.1, 2.1.2)."""
    function = Modern(VERSION_1 | MAC_BIT, insists=8)
    with pytest.raises(UnsupportedDevice, match="card: the device does not work with MAC, VERSION_1"):
        VirtioNet(PciModern(function), ring_size=RING, pool_size=64)  # type: ignore[arg-type]
    statuses = [value for name, value in function.log if name == "device_status"]
    assert statuses == [0, 1, 1 | 2, 1 | 2 | 8, 1 | 2 | 128, 0]


def test_a_modern_device_must_offer_version_1() -> None:
    function = Modern(ANY_LAYOUT)
    with pytest.raises(UnsupportedDevice, match="must offer VERSION_1"):
        VirtioNet(PciModern(function), ring_size=RING, pool_size=64)  # type: ignore[arg-type]


def test_a_modern_devices_mac_address_cannot_be_written() -> None:
    """5.1.4: it is read-only; there is a command for it, which this device does not offer."""
    function = Modern(VERSION_1 | MAC_BIT)
    with Device(VirtioNet(PciModern(function), ring_size=RING, pool_size=64)) as device:  # type: ignore[arg-type]
        function.log.clear()
        with pytest.raises(ConfigurationError, match="does not let its MAC address be changed"):
            device.mac = bytes.fromhex("020000000009")
        assert function.log == []


@pytest.mark.parametrize(("status", "needs"), [(0x0F, False), (0x4F, True)])
def test_a_device_that_needs_a_reset_says_so(status: int, needs: bool) -> None:
    """2.1: DEVICE_NEEDS_RESET is 64."""
    function = Modern(VERSION_1)
    transport = PciModern(function)  # type: ignore[arg-type]
    function.values["device_status"] = status
    assert transport.failed() == needs


def test_bytes_of_a_modern_configuration_are_written_one_by_one() -> None:
    function = Modern(VERSION_1)
    PciModern(function).config_write(3, b"\x0a\x0b")  # type: ignore[arg-type]
    assert function.log == [("configuration 3, 1", 0x0A), ("configuration 4, 1", 0x0B)]


Change = Callable[[Modern], None]


def moved(at: int, offset: int, length: int) -> Change:
    def change(function: Modern) -> None:
        kind = function.config[at + 3]
        function._capability(at, function.config[at + 1], kind, offset, length, 8)

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (moved(0x68, 0x2000, 21), "a VirtIO structure lies outside of BAR 4"),
        (moved(0x68, 0x2004, 20), "a VirtIO structure lies outside of BAR 4"),
        (moved(0x68, 0x1FFE, 20), "a VirtIO structure lies outside of BAR 4"),
        (moved(0x68, 0x1FFF, 20), "a VirtIO structure lies outside of BAR 4"),
        (lambda function: function.config.__setitem__(0x68 + 3, 5), r"VirtIO structures \[4\] are missing"),
        (lambda function: function.config.__setitem__(0x54 + 3, 3), r"VirtIO structures \[2\] are missing"),
        (lambda function: function.config.__setitem__(0x68 + 4, 6), r"VirtIO structures \[4\] are missing"),
        (lambda function: function.config.__setitem__(6, 1 << 3), r"VirtIO structures \[1, 2, 4\] are missing"),
        (lambda function: function.config.__setitem__(6, 0), r"VirtIO structures \[1, 2, 4\] are missing"),
    ],
)
def test_structures_that_are_not_there(change: Change, complaint: str) -> None:
    """Beyond the end of their BAR by a byte or a word, where no register can be, missing, or in a BAR that does not
    exist. The last byte of the BAR belongs to it, as all other tests show.
    """
    function = Modern(VERSION_1)
    change(function)
    with pytest.raises(UnsupportedDevice, match=complaint):
        PciModern(function)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("length", "multiplier", "fits"), [(10, 8, True), (9, 8, False), (8, 8, False), (64, 3, False), (4, 2, True)]
)
def test_doorbells_lie_in_their_structure(length: int, multiplier: int, fits: bool) -> None:
    """4.1.4.4: that of ring 1 takes two bytes at its place times the multiplier, where 16 bits can be written."""
    function = Modern(VERSION_1)
    function._capability(0x54, 0x68, 2, 0x1000, length, multiplier)
    transport = PciModern(function)  # type: ignore[arg-type]
    if fits:
        doorbell = transport.doorbell(1)
        doorbell.register[0] = doorbell.value
        assert function.rung() == {multiplier: 1}
    else:
        with pytest.raises(UnsupportedDevice, match="card: the doorbell of ring 1 lies outside of its structure"):
            transport.doorbell(1)


# ---------------------------------------------------------------------------------------------------------------------
# Legacy


class Legacy(Function):
    """Its registers are I/O ports."""

    PORTS: ClassVar = {
        (0, 4): "device_features",
        (4, 4): "driver_features",
        (8, 4): "queue_address",
        (12, 2): "queue_size",
        (14, 2): "queue_select",
        (16, 2): "queue_notify",
        (18, 1): "device_status",
        (19, 1): "isr_status",
    }

    def __init__(self, features: int) -> None:
        super().__init__(MAC + bytes([1, 0]))
        self.values = dict.fromkeys(self.PORTS.values(), 0) | {"device_features": features, "queue_size": RING}

    def read(self, offset: int, size: int) -> int:
        if offset >= 20:
            return int.from_bytes(self.device_config[offset - 20 :][:size], "little")
        return self.values[self.PORTS[offset, size]]

    def write(self, offset: int, size: int, value: int) -> None:
        name = self.PORTS.get((offset, size), f"{offset} of {size}")
        self.values[name] = value
        self.log.append((name, value))


def test_a_legacy_device_is_brought_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.1.2: as a modern one, but features have 32 bits and are not settled, and a ring has one address, in pages. It
    is notified by a write to its file (4.1.4.10), and its MAC address is written byte by byte.
    """
    function = Legacy(ANY_LAYOUT | MAC_BIT | STATUS | GSO)
    rung: list[tuple[int, bytes, int]] = []
    monkeypatch.setattr(
        "ixy.drivers.virtio.device.ring_doorbell", lambda bell: rung.append((bell.fd, bytes(bell.message), bell.offset))
    )
    driver = VirtioNet(PciLegacy(function), ring_size=64, pool_size=64)  # type: ignore[arg-type]
    brought_up = [
        ("device_status", 0),
        ("command", 0),
        ("command", 1 << 10),
        ("device_status", 1),
        ("device_status", 1 | 2),
        ("driver_features", ANY_LAYOUT | MAC_BIT | STATUS),
        ("queue_select", 0),
        ("queue_select", 1),
        ("queue_select", 0),
        ("queue_address", DMA >> 12),
        ("queue_select", 1),
        ("queue_address", (DMA >> 12) + 2),
        ("command", 1 << 10 | 1 << 2),
        ("command", 1 << 10 | 1 << 2),
        ("device_status", 1 | 2 | 4),
    ]
    assert function.log == brought_up
    assert rung == [(77, b"\0\0", 0xC000 + 16)]
    bell = driver.tx_rings[0].state.doorbell
    assert (bell.fd, bytes(bell.message), bell.offset) == (77, b"\1\0", 0xC000 + 16)
    with Device(driver) as device:
        assert device.rx[0].ring.size == device.tx[0].ring.size == RING  # the device's to say
        assert (device.mac, device.link) == (MAC, Link(True, 10_000))
        function.log.clear()
        device.mac = bytes.fromhex("020000000009")
        assert function.log == [(f"{20 + n} of 1", byte) for n, byte in enumerate(bytes.fromhex("020000000009"))]
        function.log.clear()
    assert function.log == [("device_status", 0), ("command", 1 << 10), ("command", 1 << 10), ("closed", 0)]


@pytest.mark.parametrize(("address", "page"), [((1 << 44) - 4096, (1 << 32) - 1), (1 << 44, None)])
def test_a_legacy_ring_has_32_bits_of_pages(address: int, page: int | None) -> None:
    function = Legacy(ANY_LAYOUT)
    transport = PciLegacy(function)  # type: ignore[arg-type]
    where = RingAddresses(RING, address, address, address)
    if page is None:
        with pytest.raises(MemoryUnavailable, match=r"card: a ring at 0x100000000000 is out of the device's reach"):
            transport.set_ring(1, where, lambda: 0)
        assert function.log == []
    else:
        transport.set_ring(1, where, lambda: 0)
        assert function.log == [("queue_select", 1), ("queue_address", page)]


@pytest.mark.parametrize("mac", ["010000000009", "000000000000", "ffffffffffff"])
def test_addresses_that_no_station_has(mac: str) -> None:
    """Of a group, or none: the device hears nothing of it."""
    function = Legacy(ANY_LAYOUT | MAC_BIT)
    with Device(VirtioNet(PciLegacy(function), ring_size=16, pool_size=64)) as device:  # type: ignore[arg-type]
        function.log.clear()
        with pytest.raises(ConfigurationError, match="MAC address"):
            device.mac = bytes.fromhex(mac)
        assert function.log == []
