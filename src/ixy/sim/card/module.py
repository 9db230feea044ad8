"""The SFP+ module in a simulated card's cage: a memory on a two-wire bus (I2C), which software drives bit by bit.

The contents follow SFF-8472, the bus NXP UM10204.
"""

from __future__ import annotations

_ADDRESS = 0xA0


def build_module() -> bytes:
    """The 256 bytes that describe a passive copper cable of 1 m."""
    memory = bytearray(256)
    memory[0:3] = 3, 4, 0x21  # SFP; described by these bytes only; copper pigtail
    memory[8] = 0x04  # passive cable
    memory[12] = 103  # 10.3 Gbit/s
    memory[18] = 1  # metres of copper
    memory[20:36] = b"ixy".ljust(16)
    memory[37:40] = 0x02, 0x69, 0x78  # locally administered
    memory[40:56] = b"SIMULATED-DAC-1M".ljust(16)
    memory[56:60] = b"1".ljust(4)
    memory[63] = sum(memory[:63]) & 0xFF
    memory[68:84] = b"0".ljust(16)
    memory[84:92] = b"240101".ljust(8)
    memory[95] = sum(memory[64:95]) & 0xFF
    return bytes(memory)


class Module:
    """The bus's target. Bits are taken when the clock rises and put out when it falls."""

    def __init__(self) -> None:
        self._memory = build_module()
        self._clock: int = 1  # as the master drives them
        self._data: int = 1
        self._output = 1  # as the target drives the data line
        self._pointer = 0
        self._listen("idle")

    def drive(self, clock: int, data: int) -> None:
        """The master drives the two lines."""
        if clock and self._clock and data != self._data:
            self._listen("idle" if data else "address")  # stop and start
        elif clock and not self._clock:
            self._take(data)
        elif self._clock and not clock:
            self._put()
        self._clock = clock
        self._data = data

    @property
    def data(self) -> int:
        """The data line: low if either side drives it low."""
        return self._data & self._output

    def _listen(self, state: str) -> None:
        self._state = state
        self._count = 0  # bits of the byte under way, its acknowledgement included
        self._byte = 0
        self._output = 1

    def _take(self, bit: int) -> None:
        self._count += 1
        if self._state == "sending":
            if self._count == 9 and bit:
                self._state = "idle"  # the master wants no more
        elif self._count <= 8:
            self._byte = self._byte << 1 | bit

    def _put(self) -> None:
        if self._state == "idle":
            self._output = 1
        elif self._count == 9:
            self._next_byte()
        elif self._state == "sending":
            self._output = self._byte >> 7 - self._count & 1 if self._count < 8 else 1
        elif self._count == 8:
            self._output = 0 if self._accepts() else 1

    def _accepts(self) -> bool:
        """Whether the byte received is for this target; it is acknowledged then."""
        if self._state == "address" and self._byte & 0xFE != _ADDRESS:
            self._state = "idle"
            return False
        return True

    def _next_byte(self) -> None:
        if self._state == "sending" or (self._state == "address" and self._byte & 1):
            self._send()
        elif self._state == "address":
            self._listen("pointer")
        else:
            if self._state == "pointer":
                self._pointer = self._byte
            self._listen("data")  # what is written to a read-only memory is lost

    def _send(self) -> None:
        self._listen("sending")
        self._byte = self._memory[self._pointer]
        self._pointer = (self._pointer + 1) % len(self._memory)
        self._output = self._byte >> 7
