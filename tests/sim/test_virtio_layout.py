"""Where the parts of a VirtIO ring lie (2.7, 2.7.2 and 2.8 of the specification 1.2), and kernels at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ixy.device import Device
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.rings import packed
from ixy.drivers.virtio.rings.rings import Terms, resume_at
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.errors import DeviceTimeout
from ixy.packets.packets import new_packets
from ixy.packets.pool import pools
from ixy.registers import virtio as reg
from ixy.sim.virtio import BackEnd, feed

BASE = 1 << reg.VERSION_1 | 1 << reg.MAC
sizes = pytest.mark.parametrize("size", [16, 64, 128, 256, 512, 1024])


def pages(size: int) -> int:
    return (size + 4095) // 4096 * 4096


def place(array: np.ndarray[Any, Any], start: int) -> tuple[int, int]:
    """Where an array begins and ends, in bytes from `start`."""
    begin = array.__array_interface__["data"][0] - start
    return begin, begin + array.nbytes


@sizes
def test_parts_of_a_split_ring(size: int) -> None:
    """Descriptors of 16 bytes; flags, index, places and used_event of 2 each; on a page of its own flags and index,
    elements of 8 bytes, and avail_event.
    """
    back_end = BackEnd("model", BASE)
    with Device(VirtioNet(InProcess(back_end), ring_size=size, pool_size=size + 32)) as device:
        for ring, queue in zip((device.rx[0].ring, device.tx[0].ring), back_end.queues.values(), strict=False):
            state = ring.state
            start = state.descriptors.__array_interface__["data"][0]
            used = pages(16 * size + 6 + 2 * size)
            assert place(state.descriptors, start) == (0, 16 * size)
            assert place(state.available, start) == (16 * size, 16 * size + 6 + 2 * size)
            assert place(state.used_flags, start) == (used, used + 4)
            assert place(state.used, start) == (used + 4, used + 4 + 8 * size)
            assert place(state.available_event, start) == (used + 4 + 8 * size, used + 6 + 8 * size)
            assert queue.driver - queue.descriptors == 16 * size
            assert queue.device - queue.descriptors == used
            assert queue.descriptors % 4096 == 0
            assert state.available[0] == 1  # no interrupts (2.7.6)
        first, second = (queue.descriptors for queue in back_end.queues.values())
        assert second - first == pages(used + 6 + 8 * size)


@sizes
def test_parts_of_a_packed_ring(size: int) -> None:
    """Descriptors of 16 bytes, then two event suppression structures of 4 bytes, in cache lines of their own."""
    back_end = BackEnd("model", BASE | 1 << reg.RING_PACKED)
    with Device(VirtioNet(InProcess(back_end), ring_size=size, pool_size=size + 32)) as device:
        for ring, queue in zip((device.rx[0].ring, device.tx[0].ring), back_end.queues.values(), strict=False):
            start = ring.state.descriptors.__array_interface__["data"][0]
            assert place(ring.state.descriptors, start) == (0, 16 * size)
            assert place(ring.state.device_event, start) == (16 * size + 64, 16 * size + 68)
            assert queue.driver - queue.descriptors == 16 * size
            assert queue.device - queue.descriptors == 16 * size + 64
            driver_event = queue.memory[queue.driver : queue.driver + 4].tolist()
            assert driver_event == [0, 0, 1, 0]  # no interrupts (2.8.14)
        first, second = (queue.descriptors for queue in back_end.queues.values())
        assert second - first == pages(16 * size + 128)


@pytest.mark.parametrize(("is_packed", "bytes_"), [(False, 4096 * 3), (True, 4096 * 2)])
def test_memory_of_a_ring(is_packed: bool, bytes_: int) -> None:
    """Of 256 descriptors: 4,096 bytes of them and 518, then 2,054; or 4,096 and 128."""
    assert Terms(12, 0, 0, 0, is_packed).layout(256).bytes == bytes_


@pytest.mark.parametrize("features", [BASE, BASE | 1 << reg.IN_ORDER, BASE | 1 << reg.RING_PACKED])
@pytest.mark.parametrize(("first", "last"), [(0, 0), (3, 3), (5, 3), (3, -1)])
def test_nothing_to_send(features: int, first: int, last: int) -> None:
    """Whatever range that is."""
    back_end = BackEnd("model", features)
    with Device(VirtioNet(InProcess(back_end), ring_size=16, pool_size=64)) as device:
        ring = device.tx[0].ring
        before = ring.state.state.tolist()
        assert ring.kernel(ring.state, pools(), new_packets(8), first, last) == 0
        assert ring.state.state.tolist() == before
        assert device.stats().tx_packets == 0


@pytest.mark.parametrize("used", [3, 18])
def test_a_descriptor_that_makes_no_sense_is_named(used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has used some buffers, and written flags that neither side would into the next: a device that takes
    over cannot.
    """
    monkeypatch.setattr(packed, "_RESUME_TIMEOUT", 0.01)
    back_end = BackEnd("model", BASE | 1 << reg.RING_PACKED)
    with Device(VirtioNet(InProcess(back_end), ring_size=16, pool_size=64)) as device:
        for _ in range(used):
            assert feed(back_end.queues[0], np.zeros(60, np.uint8), 60)
            assert len(device.rx[0].receive(1)) == 1
        assert resume_at(device.rx[0].ring) & 0x7FFF == used % 16  # type: ignore[arg-type]
        flags = back_end.queues[0].descriptors + 16 * (used % 16) + 14
        back_end.queues[0].memory[flags : flags + 2] = [0x80, 0x80] if used // 16 else [0, 0]
        with pytest.raises(DeviceTimeout, match=f"^descriptor {used % 16} of a packed ring is neither"):
            resume_at(device.rx[0].ring)  # type: ignore[arg-type]


@pytest.mark.parametrize("features", [BASE, BASE | 1 << reg.IN_ORDER, BASE | 1 << reg.RING_PACKED])
@pytest.mark.parametrize("limit", [0, -1])
def test_nothing_is_wanted(features: int, limit: int) -> None:
    """Nothing is received, and nothing counted, though something is there."""
    back_end = BackEnd("model", features)
    with Device(VirtioNet(InProcess(back_end), ring_size=16, pool_size=64)) as device:
        ring = device.rx[0].ring
        for waiting in (False, True):
            if waiting:
                assert feed(back_end.queues[0], np.zeros(60, np.uint8), 60)
            before = ring.state.state.tolist()
            assert ring.kernel(ring.state, pools(), new_packets(8), limit) == 0
            assert ring.state.state.tolist() == before
