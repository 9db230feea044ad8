"""The PCI side of the simulated card, as software meets it. Offsets and bits are those of the PCI specifications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from ixy.sim.card.config import ConfigSpace
from ixy.sim.card.eeprom import build_product_data
from ixy.sim.card.models import MODELS
from ixy.sim.qemu.endpoint import Endpoint
from ixy.sim.qemu.memory import NO_MEMORY, GuestMemory

COMMAND, STATUS, POWER, MSI_CONTROL, MSIX_CONTROL, DEVICE_CONTROL = 0x04, 0x06, 0x44, 0x52, 0x72, 0xA8
MSI_ADDRESS, MSI_DATA, MSI_MASK, MSI_PENDING = 0x54, 0x5C, 0x60, 0x64
VPD_ADDRESS, VPD_DATA = 0xE2, 0xE4
MEMORY, BUS_MASTER, INTX_DISABLE = 0x2, 0x4, 0x400
MSIX_ON, MSIX_MASK = 0x8000, 0x4000
PENDING = 0x2000


@dataclass
class Recorder:
    """A device with one register, and the interrupts that came."""

    word: int = 0
    resets: int = 0
    memory: GuestMemory = NO_MEMORY
    messages: list[tuple[int, int]] = field(default_factory=list)
    levels: list[bool] = field(default_factory=list)

    def read(self, _offset: int, _size: int) -> int:
        return self.word

    def write(self, _offset: int, _size: int, value: int) -> None:
        self.word = value

    def reset(self) -> None:
        self.resets += 1
        self.word = 0

    def set_memory(self, memory: GuestMemory) -> None:
        self.memory = memory

    def message(self, address: int, data: int) -> None:
        self.messages.append((address, data))

    def line(self, asserted: bool) -> None:
        self.levels.append(asserted)


@pytest.fixture
def device() -> Recorder:
    return Recorder()


@pytest.fixture
def endpoint(device: Recorder) -> Endpoint:
    return Endpoint(ConfigSpace(), device, device)


def with_msix(endpoint: Endpoint, *vectors: int) -> None:
    """MSI-X on, and `vectors` unmasked, each with its own address and data."""
    endpoint.config_write(COMMAND, 2, BUS_MASTER)
    endpoint.config_write(MSIX_CONTROL, 2, MSIX_ON)
    for vector in vectors:
        entry = vector * 16
        endpoint.bar_write(4, entry, 4, 0xFEE00000 + vector)
        endpoint.bar_write(4, entry + 4, 4, 0)
        endpoint.bar_write(4, entry + 8, 4, 0x4000 + vector)
        endpoint.bar_write(4, entry + 12, 4, 0)


def test_capabilities_form_a_chain_with_the_places_that_drivers_expect(endpoint: Endpoint) -> None:
    """Power management at 0x40, MSI at 0x50, MSI-X at 0x70, PCI Express at 0xA0, vital product data at 0xE0."""
    assert endpoint.config_read(STATUS, 2) & 0x10
    chain, offset = {}, endpoint.config_read(0x34, 1)
    while offset:
        chain[offset] = endpoint.config_read(offset, 1)
        offset = endpoint.config_read(offset + 1, 1)
    assert list(chain.items()) == [(0x40, 0x01), (0x50, 0x05), (0x70, 0x11), (0xA0, 0x10), (0xE0, 0x03)]
    assert endpoint.config_read(MSI_CONTROL, 2) == 1 << 7 | 1 << 8  # one message, 64-bit address, can be masked
    assert endpoint.config_read(MSIX_CONTROL, 2) == 63
    assert endpoint.config_read(0x74, 4) == 4
    assert endpoint.config_read(0x78, 4) == 0x2004


@pytest.mark.parametrize(("bar", "size"), [(0, 512 << 10), (4, 16 << 10)])
def test_a_bar_tells_its_size(endpoint: Endpoint, bar: int, size: int) -> None:
    """All ones read back as the size's complement and the flags: 64 bits, prefetchable."""
    endpoint.config_write(0x10 + 4 * bar, 4, 0xFFFFFFFF)
    assert endpoint.config_read(0x10 + 4 * bar, 4) == (-size & 0xFFFFFFFF) | 0xC
    endpoint.config_write(0x14 + 4 * bar, 4, 0xFFFFFFFF)
    assert endpoint.config_read(0x14 + 4 * bar, 4) == 0


def test_there_are_no_other_bars(endpoint: Endpoint) -> None:
    for offset in (0x18, 0x1C, 0x28, 0x30):
        endpoint.config_write(offset, 4, 0xFFFFFFFF)
        assert endpoint.config_read(offset, 4) == 0


def test_identification_is_read_only(endpoint: Endpoint) -> None:
    endpoint.config_write(0x00, 4, 0)
    endpoint.config_write(0x08, 4, 0)
    assert endpoint.config_read(0x00, 4) == 0x10FB8086
    assert endpoint.config_read(0x08, 4) == 0x02000001


def test_addresses_are_claimed_only_while_memory_decoding_is_on(endpoint: Endpoint) -> None:
    """BAR 0 at 0xE0000000: its first and last word are claimed, what crosses its end is not."""
    endpoint.config_write(0x10, 4, 0xE0000000)
    endpoint.config_write(0x20, 4, 0xE0100000)
    assert endpoint.decode(0xE0000000, 4) is None
    endpoint.config_write(COMMAND, 2, MEMORY)
    assert endpoint.decode(0xE0000000, 4) == (0, 0)
    assert endpoint.decode(0xE007FFFC, 4) == (0, 0x7FFFC)
    assert endpoint.decode(0xE007FFFC, 8) is None
    assert endpoint.decode(0xE0102000, 8) == (4, 0x2000)
    assert endpoint.decode(0xDFFFFFFF, 1) is None
    endpoint.config_write(POWER, 2, 3)
    assert endpoint.decode(0xE0000000, 4) is None


def test_the_device_sees_memory_only_as_bus_master(endpoint: Endpoint, device: Recorder) -> None:
    memory = GuestMemory(np.zeros(16, np.uint8), np.array([[0x1000, 16, 0]]))
    endpoint.set_memory(memory)
    assert device.memory is NO_MEMORY
    endpoint.config_write(COMMAND, 2, BUS_MASTER)
    assert device.memory is memory
    endpoint.config_write(COMMAND, 2, 0)
    assert device.memory is NO_MEMORY


def test_a_vector_sends_its_message(endpoint: Endpoint, device: Recorder) -> None:
    with_msix(endpoint, 0, 63)
    endpoint.signal(63)
    endpoint.signal(0)
    assert device.messages == [(0xFEE0003F, 0x403F), (0xFEE00000, 0x4000)]


@pytest.mark.parametrize("mask", ["vector", "function", "bus master"])
def test_a_masked_vector_is_pending_and_comes_once(endpoint: Endpoint, device: Recorder, mask: str) -> None:
    """Vector 9 is signalled twice while something holds it back: its pending bit is set, and one message follows."""
    hold, release = {
        "vector": (lambda: endpoint.bar_write(4, 9 * 16 + 12, 4, 1), lambda: endpoint.bar_write(4, 9 * 16 + 12, 4, 0)),
        "function": (
            lambda: endpoint.config_write(MSIX_CONTROL, 2, MSIX_ON | MSIX_MASK),
            lambda: endpoint.config_write(MSIX_CONTROL, 2, MSIX_ON),
        ),
        "bus master": (lambda: endpoint.config_write(COMMAND, 2, 0), lambda: endpoint.config_write(COMMAND, 2, 4)),
    }[mask]
    with_msix(endpoint, 9)
    hold()
    endpoint.signal(9)
    endpoint.signal(9)
    assert device.messages == []
    assert endpoint.bar_read(4, PENDING, 8) == 1 << 9
    assert endpoint.bar_read(4, PENDING + 1, 1) == 1 << 1
    release()
    assert device.messages == [(0xFEE00009, 0x4009)]
    assert endpoint.bar_read(4, PENDING, 8) == 0


def test_pending_bits_are_read_only(endpoint: Endpoint) -> None:
    endpoint.bar_write(4, PENDING, 4, 0xFFFFFFFF)
    assert endpoint.bar_read(4, PENDING, 4) == 0


def test_without_msix_nothing_is_sent(endpoint: Endpoint, device: Recorder) -> None:
    endpoint.config_write(COMMAND, 2, BUS_MASTER)
    endpoint.signal(0)
    with_msix(endpoint, 0)
    assert device.messages == []


def test_the_line_follows_the_device_unless_disabled(endpoint: Endpoint, device: Recorder) -> None:
    """The interrupt status bit tells the device's wish even while INTx is disabled or MSI-X is on."""
    endpoint.set_line(True)
    endpoint.set_line(True)
    assert device.levels == [True]
    assert endpoint.config_read(STATUS, 2) & 8
    endpoint.config_write(COMMAND, 2, INTX_DISABLE)
    assert device.levels == [True, False]
    assert endpoint.config_read(STATUS, 2) & 8
    endpoint.config_write(COMMAND, 2, 0)
    endpoint.config_write(MSIX_CONTROL, 2, MSIX_ON)
    assert device.levels == [True, False, True, False]
    endpoint.set_line(False)
    endpoint.config_write(MSIX_CONTROL, 2, 0)
    assert device.levels == [True, False, True, False]
    assert not endpoint.config_read(STATUS, 2) & 8


def flr(endpoint: Endpoint) -> None:
    endpoint.config_write(DEVICE_CONTROL, 2, 0x8000)


def flr_by_byte(endpoint: Endpoint) -> None:
    endpoint.config_write(DEVICE_CONTROL + 1, 1, 0x80)


def wake_from_d3(endpoint: Endpoint) -> None:
    endpoint.config_write(POWER, 2, 3)
    endpoint.config_write(POWER, 2, 0)


@pytest.mark.parametrize("reset", [flr, flr_by_byte, wake_from_d3, Endpoint.reset])
def test_a_reset_leaves_everything_as_after_power_on(
    endpoint: Endpoint, device: Recorder, reset: Callable[[Endpoint], None]
) -> None:
    before = [endpoint.config_read(offset, 4) for offset in range(0, 256, 4)]
    endpoint.config_write(0x10, 4, 0xE0000000)
    with_msix(endpoint, 3)
    endpoint.bar_write(4, 3 * 16 + 12, 4, 1)
    endpoint.signal(3)
    endpoint.bar_write(0, 0x100, 4, 0xCAFE)
    reset(endpoint)
    assert device.resets == 1
    assert endpoint.bar_read(0, 0x100, 4) == 0
    assert [endpoint.config_read(offset, 4) for offset in range(0, 256, 4)] == before
    assert endpoint.bar_read(4, PENDING, 8) == 0
    assert endpoint.bar_read(4, 3 * 16, 16) == 1 << 96
    assert device.messages == []


def test_a_reset_takes_the_line_back(endpoint: Endpoint, device: Recorder) -> None:
    endpoint.set_line(True)
    endpoint.reset()
    assert device.levels == [True, False]


def test_behind_the_end_of_the_configuration_space_is_nothing(endpoint: Endpoint) -> None:
    endpoint.config_write(0xFFFFFFFC, 4, 1)
    assert endpoint.config_read(0xFFFFFFFC, 4) == 0xFFFFFFFF
    assert endpoint.config_read(0xFE, 4) >> 16 == 0xFFFF


# ---------------------------------------------------------------------------------------------------------------------
# MSI


def with_msi(endpoint: Endpoint) -> None:
    endpoint.config_write(MSI_ADDRESS, 4, 0xFEE01003)  # the low bits are not there
    endpoint.config_write(MSI_ADDRESS + 4, 4, 1)
    endpoint.config_write(MSI_DATA, 2, 0x4021)
    endpoint.config_write(COMMAND, 2, BUS_MASTER)
    endpoint.config_write(MSI_CONTROL, 2, 1)


def test_msi_sends_a_message_for_each_time_the_line_would_rise(endpoint: Endpoint, device: Recorder) -> None:
    with_msi(endpoint)
    for asserted in (True, True, False, True, False):
        endpoint.set_line(asserted)
    assert device.messages == [(0x1_FEE0_1000, 0x4021)] * 2
    assert device.levels == []


@pytest.mark.parametrize("mask", ["message", "bus master"])
def test_msi_that_is_masked_is_pending(endpoint: Endpoint, device: Recorder, mask: str) -> None:
    """It is sent when the mask goes, unless what it was for has gone before."""
    with_msi(endpoint)

    def close(closed: bool) -> None:
        if mask == "message":
            endpoint.config_write(MSI_MASK, 4, int(closed))
        else:
            endpoint.config_write(COMMAND, 2, 0 if closed else BUS_MASTER)

    close(True)
    endpoint.set_line(True)
    assert (device.messages, endpoint.config_read(MSI_PENDING, 4)) == ([], 1)
    close(False)
    assert (len(device.messages), endpoint.config_read(MSI_PENDING, 4)) == (1, 0)
    endpoint.set_line(False)
    close(True)
    endpoint.set_line(True)
    endpoint.set_line(False)
    close(False)
    assert len(device.messages) == 1


def test_msix_goes_before_msi(endpoint: Endpoint, device: Recorder) -> None:
    with_msi(endpoint)
    with_msix(endpoint, 0)
    endpoint.set_line(True)
    assert device.messages == []
    endpoint.signal(0)
    assert device.messages == [(0xFEE00000, 0x4000)]


# ---------------------------------------------------------------------------------------------------------------------
# Vital product data (PCI Local Bus 3.0, appendix I)


def product_data(endpoint: Endpoint, size: int) -> bytes:
    words: list[bytes] = []
    for place in range(0, size, 4):
        endpoint.config_write(VPD_ADDRESS, 2, place)
        assert endpoint.config_read(VPD_ADDRESS, 2) == 0x8000 | place  # the data are there
        words.append(endpoint.config_read(VPD_DATA, 4).to_bytes(4, "little"))
    return b"".join(words)


def test_vital_product_data(device: Recorder) -> None:
    """A name, then fields that can be read, the last of which makes the sum of all bytes so far 0; then the end."""
    endpoint = Endpoint(ConfigSpace(build_product_data(bytes.fromhex("026978790001"), MODELS["82599"])), device, device)
    data = product_data(endpoint, 128)
    assert data[0] == 0x82
    name = 3 + int.from_bytes(data[1:3], "little")
    assert data[3:name] == b"Simulated Intel 82599"
    assert data[name] == 0x90
    end = name + 3 + int.from_bytes(data[name + 1 : name + 3], "little")
    fields, place = {}, name + 3
    while place < end:
        fields[data[place : place + 2]] = data[place + 3 : place + 3 + data[place + 2]]
        place += 3 + data[place + 2]
    assert fields[b"SN"] == b"026978790001"
    assert sum(data[:end]) & 0xFF == 0
    assert list(fields)[-1] == b"RV"
    assert data[end] == 0x78


def test_vital_product_data_cannot_be_written(device: Recorder) -> None:
    """The flag says that it was done all the same."""
    endpoint = Endpoint(ConfigSpace(build_product_data(bytes(6), MODELS["x540"])), device, device)
    before = product_data(endpoint, 16)
    endpoint.config_write(VPD_DATA, 4, 0x12345678)
    endpoint.config_write(VPD_ADDRESS, 2, 0x8004)
    assert endpoint.config_read(VPD_ADDRESS, 2) == 4
    assert product_data(endpoint, 16) == before
