"""A control command as the device finds it in memory when it is notified, byte by byte (5.1.6.5, 2.7.4.2, 2.8.6)."""

from __future__ import annotations

import pytest

from ixy.device import Device
from ixy.drivers.virtio import control
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.registers import virtio as reg
from ixy.sim.virtio import BUS_BASE, BackEnd

CONTROL, SIZE = 2, 16
FEATURES = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.CTRL_VQ | 1 << reg.CTRL_RX | 1 << reg.CTRL_VLAN
NEXT, WRITE, AVAIL, USED = 1 << 0, 1 << 1, 1 << 7, 1 << 15


class Obedient(BackEnd):
    """A device that carries commands out at once.

    Attributes:
        commands: class, command and data of each.
        before: how many there were before those.
    """

    def __init__(self, features: int) -> None:
        super().__init__("model", features)
        self.commands: list[bytes] = []
        self.before = 0

    def ring_limit(self, index: int) -> int:
        return SIZE if index == CONTROL else super().ring_limit(index)

    def rung(self) -> None:
        """Two descriptors: the request, which is only read, and one byte for the answer, which is none yet."""
        count = self.before + len(self.commands)
        request, answer = self._packed(count) if self.queues[CONTROL].packed else self._split(count)
        assert self._memory(answer, 1) == b"\xff"
        self.commands.append(self._memory(*request))
        self.queues[CONTROL].memory[answer - BUS_BASE] = 0

    def _split(self, count: int) -> tuple[tuple[int, int], int]:
        """The available index has moved by one, whatever is in flight; the place names the first descriptor."""
        ring = self.queues[CONTROL]
        assert self._number(ring.driver + 2, 2) == (count + 1) % 65_536
        first = self._number(ring.driver + 4 + 2 * (count % SIZE), 2)
        request, second = self._descriptor(first, flags=NEXT)
        answer, _ = self._descriptor(second, flags=WRITE)
        self._set(ring.device + 4 + 8 * (count % SIZE), 4, first)
        self._set(ring.device + 8 + 8 * (count % SIZE), 4, 1)
        self._set(ring.device + 2, 2, (count + 1) % 65_536)
        assert answer[1] == 1
        return request, answer[0]

    def _descriptor(self, number: int, *, flags: int) -> tuple[tuple[int, int], int]:
        at = self.queues[CONTROL].descriptors + 16 * number
        assert self._number(at + 12, 2) == flags
        return (self._number(at, 8), self._number(at + 8, 4)), self._number(at + 14, 2)

    def _packed(self, count: int) -> tuple[tuple[int, int], int]:
        """Two descriptors further each time; both with the wrap counter, which is 1 in the first round."""
        ring = self.queues[CONTROL]
        place = 2 * count
        flags = AVAIL if place // SIZE % 2 == 0 else USED
        at = ring.descriptors + 16 * (place % SIZE)
        assert (self._number(at + 14, 2), self._number(at + 30, 2)) == (flags | NEXT, flags | WRITE)
        assert self._number(at + 24, 4) == 1
        found = (self._number(at, 8), self._number(at + 8, 4)), self._number(at + 16, 8)
        self._set(at + 8, 4, 1)
        self._set(at + 14, 2, AVAIL | USED if place // SIZE % 2 == 0 else 0)
        return found

    def _memory(self, address: int, size: int) -> bytes:
        return self.queues[CONTROL].memory[address - BUS_BASE :][:size].tobytes()

    def _number(self, offset: int, size: int) -> int:
        return int.from_bytes(self.queues[CONTROL].memory[offset : offset + size].tobytes(), "little")

    def _set(self, offset: int, size: int, value: int) -> None:
        self.queues[CONTROL].memory[offset : offset + size] = list(value.to_bytes(size, "little"))


@pytest.mark.parametrize("features", [FEATURES, FEATURES | 1 << reg.RING_PACKED], ids=["split", "packed"])
def test_commands_in_memory(features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 commands of different lengths, more than four rounds of the ring; the first was sent on opening."""
    model = Obedient(features)
    monkeypatch.setattr(control, "ring_doorbell", lambda _: model.rung())
    with Device(VirtioNet(InProcess(model), ring_size=SIZE, pool_size=64)) as device:
        stations = [bytes([2, 0, 0, 0, 0, number]) for number in range(5)]
        expected = [bytes([0, 0, 1])]
        for turn in range(35):
            device.set_vlan_filter(turn, True)
            device.set_mac_filter(stations[: turn % 6])
            table = b"".join(stations[: turn % 6])
            expected += [bytes([2, 0, turn, 0]), bytes([1, 0, turn % 6, 0, 0, 0]) + table + bytes(4)]
        assert model.commands == expected


def test_commands_are_counted_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those around number 65,536."""
    model = Obedient(FEATURES)
    monkeypatch.setattr(control, "ring_doorbell", lambda _: model.rung())
    driver = VirtioNet(InProcess(model), ring_size=SIZE, pool_size=64)
    with Device(driver) as device:
        model.before = 65_532
        driver._control._place += model.before  # type: ignore[union-attr]
        for vlan in range(5):
            device.set_vlan_filter(vlan, True)
        assert len(model.commands) == 6
