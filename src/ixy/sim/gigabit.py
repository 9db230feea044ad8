"""A partner for the driver of the gigabit cards, in the same process: rings that are worked on strictly, and as much of
the registers as a driver needs to come up.

`ixy.drivers.e1000.inprocess` plugs it in where a card would be. `deliver` puts a frame into the next receive buffer,
`drain` takes one off the transmit ring. A descriptor that a card could not understand is not worked on, and counted:
addresses outside the memory that the driver has mapped, bits that have no meaning, lengths that cannot be.

Sections are those of the Intel 82574 datasheet, revision 3.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ixy.jit import compiled
from ixy.packets.buffers import BUFFER_SIZE
from ixy.packets.dma import PAGE, window
from ixy.registers import Register
from ixy.registers import e1000 as reg
from ixy.unsafe import copy, load_acquire, store_release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ixy.packets.dma import DmaMemory

BUS_BASE = 1 << 36  # the card's address of the first byte of the process's window: no pointer equals it
BAR_BYTES = 0x20000
NEWER, OLDER = 0x10D3, 0x100E  # device ids: an 82574L, an 82540EM
_PAGE_SHIFT = PAGE.bit_length() - 1
_STEP = 0x100 >> 2  # words from a register of queue 0 to that of queue 1

# Words of a port's `state`
RECEIVED = 0  # frames put into buffers
SENT = 1  # frames taken
REFUSED = 2  # descriptors that make no sense
STATE_WORDS = 8

_COMMANDS = reg.TX_EOP | reg.TX_IFCS | reg.TX_RS


class Port(NamedTuple):
    """A card as its kernels see it.

    Attributes:
        memory: the process's window, uint8.
        words: the same memory as int64.
        allowed: per page of it, 1 if the driver has mapped it, uint8.
        registers: by word, uint32.
        state: shape (STATE_WORDS,), int64.
        extended: 1 if receive descriptors are extended ones.
    """

    memory: NDArray[np.uint8]
    words: NDArray[np.int64]
    allowed: NDArray[np.uint8]
    registers: NDArray[np.uint32]
    state: NDArray[np.int64]
    extended: int


@compiled
def place_of(port: Port, address: int, size: int) -> int:
    """Where in the memory a DMA address lies; -1 if the driver has not mapped all of these bytes."""
    place = address - BUS_BASE
    if place < 0 or size <= 0 or place + size > port.memory.size:
        return -1
    if port.allowed[place >> _PAGE_SHIFT] == 0 or port.allowed[(place + size - 1) >> _PAGE_SHIFT] == 0:
        return -1
    return place


@compiled
def next_descriptor(port: Port, low: int, head: int, tail: int) -> int:
    """The index in `words` of the descriptor at a ring's head; -1 if there is none that the card owns.

    Args:
        low, head, tail: the ring's registers, by word; the base's upper half follows the lower one.
    """
    registers = port.registers
    at = np.int64(registers[head])
    if at == load_acquire(registers, tail):
        return -1
    base = np.int64(registers[low]) | np.int64(registers[low + 1]) << 32
    place = place_of(port, int(base + reg.DESCRIPTOR_BYTES * at), reg.DESCRIPTOR_BYTES)
    if place < 0:
        port.state[REFUSED] += 1
        return -1
    return place >> 3


@compiled
def advance(port: Port, low: int, head: int) -> None:
    """Go on to the ring's next descriptor."""
    at = np.int64(port.registers[head]) + 1
    port.registers[head] = 0 if at * reg.DESCRIPTOR_BYTES == port.registers[low + 2] else at


@compiled
def deliver(port: Port, queue: int, frame: NDArray[np.uint8], size: int) -> bool:
    """Put a frame, one buffer long at most, into the next receive buffer; False if the driver has given none (7.1)."""
    low, head, tail = _RDBAL + _STEP * queue, _RDH + _STEP * queue, _RDT + _STEP * queue
    word = next_descriptor(port, low, head, tail)
    if word < 0:
        return False
    place = place_of(port, port.words[word], BUFFER_SIZE)
    if place < 0 or (port.extended != 0 and port.words[word + 1] != 0):  # 7.1.4.1: DD must be 0 there, and the rest
        port.state[REFUSED] += 1
        return False
    copy(port.memory, place, frame, 0, size)
    status = reg.RX_DD | reg.RX_EOP
    if port.extended != 0:
        port.words[word] = 0
        status |= size << reg.RX_LENGTH_SHIFT
    else:
        status = status << reg.RX_LEGACY_STATUS_SHIFT | size
    store_release(port.words, word + 1, status)
    advance(port, low, head)
    port.state[RECEIVED] += 1
    return True


@compiled
def drain(port: Port, queue: int, taken: NDArray[np.uint8]) -> int:
    """Take the next frame off a transmit ring, by a legacy descriptor (7.2); its length, 0 if there is none."""
    low, head, tail = _TDBAL + _STEP * queue, _TDH + _STEP * queue, _TDT + _STEP * queue
    word = next_descriptor(port, low, head, tail)
    if word < 0:
        return 0
    command = port.words[word + 1]
    size = command & 0xFFFF
    place = place_of(port, port.words[word], size)
    whole = reg.TX_EOP | reg.TX_IFCS
    if place < 0 or size > taken.size or command & ~(_COMMANDS | 0xFFFF) != 0 or command & whole != whole:
        port.state[REFUSED] += 1
        return 0
    copy(taken, 0, port.memory, place, size)
    if command & reg.TX_RS != 0:
        store_release(port.words, word + 1, command | reg.TX_DD)
    advance(port, low, head)
    port.state[SENT] += 1
    return size


_RDBAL, _RDH, _RDT = reg.RDBAL.offset >> 2, reg.RDH.offset >> 2, reg.RDT.offset >> 2
_TDBAL, _TDH, _TDT = reg.TDBAL.offset >> 2, reg.TDH.offset >> 2, reg.TDT.offset >> 2


class Gigabit:
    """A gigabit card of this process: its registers, see `ixy.bus.Bar`, its configuration space, and what it may reach.

    Args:
        device: its PCI device id.
        mac: in its EEPROM.

    Attributes:
        port: for the kernels.
        config: its configuration space.
    """

    def __init__(self, device: int = NEWER, mac: bytes = bytes.fromhex("020000000001")) -> None:
        newer = device == NEWER
        self.words = np.zeros(BAR_BYTES // 4, np.uint32)
        memory = window().bytes
        allowed = np.zeros(window().size // PAGE, np.uint8)
        state = np.zeros(STATE_WORDS, np.int64)
        self.port = Port(memory, memory.view(np.int64), allowed, self.words, state, int(newer))
        self.config = bytearray(0x8086.to_bytes(2, "little") + device.to_bytes(2, "little") + bytes(252))
        self._eeprom = [*np.frombuffer(mac, "<u2").tolist(), *[0] * 61]
        self._eerd = reg.EERD if newer else reg.EERD_8254X
        self._counters = {each.offset for row in reg.rows(newer=newer) if row.mode is reg.RC for each in row}
        self._set(reg.STATUS, reg.STATUS.value(LU=1, FD=1, SPEED=2, GIO_MASTER_ENABLE=1))
        self._set(reg.EEC, reg.EEC.value(AUTO_RD=1, EE_PRES=1))

    def _set(self, register: Register, value: int) -> None:
        self.words[register.offset // 4] = value

    def doorbell(self, offset: int) -> NDArray[np.uint32]:
        """The register at byte `offset`, for kernels."""
        return self.words[offset // 4 : offset // 4 + 1]

    def read32(self, offset: int) -> int:
        """Counters clear, and a semaphore is taken, by being read."""
        value = int(self.words[offset // 4])
        if offset in self._counters:
            self.words[offset // 4] = 0
        elif offset == reg.SWSM.offset:
            self.words[offset // 4] |= 1
        return value

    def write32(self, offset: int, value: int) -> None:
        """EEPROM and PHY answer at once, a reset is over at once."""
        if offset == reg.STATUS.offset:
            return
        if offset == self._eerd.offset:
            place = self._eerd.fields["ADDR"].of(value)
            value = self._eerd.value(DONE=1, ADDR=place, DATA=self._eeprom[place])
        elif offset == reg.MDIC.offset:
            value |= reg.MDIC.value(READY=1)
        elif offset == reg.CTRL.offset:
            value &= ~reg.CTRL.mask("RST")
            enabled = int(not reg.CTRL.fields["GIO_MASTER_DISABLE"].of(value))
            self._set(reg.STATUS, reg.STATUS.value(LU=1, FD=1, SPEED=2, GIO_MASTER_ENABLE=enabled))
        self.words[offset // 4] = value

    def allow(self, memory: DmaMemory, *, allowed: bool) -> None:
        """Let it reach `memory`, or no longer."""
        self.port.allowed[memory.offset // PAGE : (memory.offset + memory.size) // PAGE] = allowed
