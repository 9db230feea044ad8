"""The control virtqueue, 5.1.6.5: commands, one at a time, each waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ixy.drivers.virtio.rings.packed import available_flags, used_flags
from ixy.drivers.virtio.rings.rings import Layout
from ixy.drivers.virtio.transports.transport import Doorbell, ring_doorbell
from ixy.errors import ConfigurationError, DeviceTimeout
from ixy.registers import virtio as reg

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMEOUT = 1.0  # seconds
COMMAND_BYTES = 4096  # behind the ring: class, command, data, and the device's answer in the last byte


class ControlQueue:
    """Sends commands and checks the answers.

    Args:
        address: of the device, for messages.
        memory: ring and command, shape (layout.bytes + COMMAND_BYTES,), uint8.
        layout: of the ring.
        packed: whether it is a packed ring.
        start: the device's address of the memory.
        doorbell: to notify the device with.
    """

    def __init__(
        self, address: str, memory: NDArray[np.uint8], layout: Layout, packed: bool, start: int, doorbell: Doorbell
    ) -> None:
        self._address = address
        self._memory = memory
        self._layout = layout
        self._command = start + layout.bytes
        self._doorbell = doorbell
        self._place = 0
        self._descriptors = memory[: layout.driver].view(np.int64)
        self._available = memory[layout.driver : layout.driver + 4].view(np.uint16)
        self._used = memory[layout.device : layout.device + 4].view(np.uint16)
        self._submit, self._done = (
            (self._submit_packed, self._done_packed) if packed else (self._submit_split, self._done_split)
        )
        memory[:] = 0

    def send(self, command: tuple[int, int], data: bytes) -> None:
        """Let the device carry a command out.

        Raises:
            ConfigurationError: the device refuses.
            DeviceTimeout: it does not answer.
        """
        request = bytes(command) + data
        area = self._memory[self._layout.bytes :]
        area[: len(request)] = np.frombuffer(request, np.uint8)
        area[-1] = 0xFF
        self._submit(len(request))
        ring_doorbell(self._doorbell)
        self._wait(command)
        if area[-1] != reg.CTRL_OK:
            raise ConfigurationError(f"{self._address}: the device refuses control command {command[0]}.{command[1]}")

    def _wait(self, command: tuple[int, int]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not self._done():
            if time.monotonic() > deadline:
                raise DeviceTimeout(
                    f"{self._address}: no answer to control command {command[0]}.{command[1]} within {TIMEOUT:g} s"
                )
            time.sleep(0.0001)

    def _submit_split(self, length: int) -> None:
        """Descriptor 0 is the request, descriptor 1 the answer; every place of the available ring offers 0."""
        answer = self._command + COMMAND_BYTES - 1
        words = [self._command, length | reg.SPLIT_NEXT | 1 << reg.SPLIT_NEXT_SHIFT, answer, 1 | reg.SPLIT_WRITE]
        self._descriptors[:4] = words
        self._place += 1
        self._available[1] = self._place & 0xFFFF

    def _done_split(self) -> bool:
        return int(self._used[1]) == self._place & 0xFFFF

    def _submit_packed(self, length: int) -> None:
        """Two descriptors in a row; the first becomes available last (2.8.17)."""
        size, place = self._layout.size, self._place
        flags = available_flags(place, size)
        word = 2 * (place % size)
        answer = self._command + COMMAND_BYTES - 1
        self._descriptors[word + 2 : word + 4] = answer, 1 | reg.PACKED_WRITE | flags
        self._descriptors[word] = self._command
        self._descriptors[word + 1] = length | reg.PACKED_NEXT | flags
        self._place += 2

    def _done_packed(self) -> bool:
        """The used descriptor overwrites the first of the chain."""
        size, place = self._layout.size, self._place - 2
        both = reg.PACKED_AVAIL | reg.PACKED_USED
        return int(self._descriptors[2 * (place % size) + 1]) & both == used_flags(place, size)
