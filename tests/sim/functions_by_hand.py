"""Virtual functions, driven by a test as a driver would: it writes registers, messages and descriptors."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np

from ixy.bus.simulated import SimulatedVirtualFunction
from ixy.packets.dma import allocate_rings
from ixy.sim.machine import Machine

VFCTRL, VFSTATUS, VFLINKS, VFMBMEM, VFMAILBOX = 0x00, 0x08, 0x10, 0x200, 0x2FC
VTEICR, VTEIMS, VTEIAC, VTIVAR, VTIVAR_MISC = 0x100, 0x108, 0x110, 0x120, 0x140
RDBAL, RDLEN, SRRCTL, RDH, RDT, RXDCTL = 0x1000, 0x1008, 0x1014, 0x1010, 0x1018, 0x1028
TDBAL, TDLEN, TDH, TDT, TXDCTL = 0x2000, 0x2008, 0x2010, 0x2018, 0x2028
VFGPRC, VFGORC, VFMPRC, VFGPTC, VFGOTC = 0x101C, 0x1020, 0x1034, 0x201C, 0x2020
RST, ENABLE = 1 << 26, 1 << 25
REQ, ACKS, VFU, PFU, PFSTS, PFACK, RSTI, RSTD = (1 << bit for bit in range(8))
# Messages, and what is said of them in the answer
RESET, SET_MAC, SET_MULTICAST, SET_VLAN, SET_LPE, SET_MACVLAN, NEGOTIATE = 1, 2, 3, 4, 5, 6, 8
GET_QUEUES, GET_RETA, GET_KEY, SET_MODE, GET_LINK = 9, 10, 11, 12, 16
YES, NO, CTS = 1 << 31, 1 << 30, 1 << 29
API_10, API_11, API_12, API_13, API_14 = 0, 2, 3, 4, 5

SLOTS = 16  # descriptors a ring
RX_RING, TX_RING, BUFFERS, BUFFER = 0, 1 << 12, 1 << 16, 4096


class Function:
    """A virtual function, and 2 MiB of memory that it may reach."""

    def __init__(self, machine: Machine, address: str) -> None:
        self.machine = machine
        self.bus = SimulatedVirtualFunction(address, machine)
        self.card = self.bus.card
        self.bar = self.bus.bar(0)
        self.read, self.write = self.bar.read32, self.bar.write32
        self.memory = allocate_rings(1)
        self.base = int(self.bus.map(self.memory).pages[0])
        words = self.memory.bytes.view(np.int64)
        self.rx = words[RX_RING // 8 :][: 2 * SLOTS].reshape(SLOTS, 2)
        self.tx = words[TX_RING // 8 :][: 2 * SLOTS].reshape(SLOTS, 2)
        self.rx_next = self.tx_next = 0

    # -- the mailbox

    def ask(self, *words: int) -> list[int]:
        """Send a message, and return the answer, the whole mailbox."""
        self.write(VFMAILBOX, VFU)
        assert self.read(VFMAILBOX) & VFU
        for i, word in enumerate(words):
            self.write(VFMBMEM + 4 * i, word)
        self.write(VFMAILBOX, REQ)
        assert self.read(VFMAILBOX) & (PFSTS | PFACK) == PFSTS | PFACK
        return self.message()

    def message(self) -> list[int]:
        """Read what is in the mailbox, and acknowledge it."""
        self.write(VFMAILBOX, VFU)
        words = [self.read(VFMBMEM + 4 * i) for i in range(16)]
        self.write(VFMAILBOX, ACKS)
        return words

    def agrees(self, *words: int) -> bool:
        """Whether the answer is yes; it must be an answer to this, from who goes on listening."""
        answer = self.ask(*words)
        assert answer[0] & ~(YES | NO) == words[0] | CTS
        return answer[0] & (YES | NO) == YES

    def reset(self, api: int = API_13) -> bytes:
        """As a driver begins: the address that it is told."""
        self.write(VFCTRL, RST)
        answer = self.ask(RESET)
        assert answer[0] == RESET | YES
        assert self.agrees(NEGOTIATE, api)
        return mac_of(answer)

    # -- packets

    def set_up(self, given: int = SLOTS - 1) -> bytes:
        """Reset it, and enable queue 0 both ways, with so many buffers; its address."""
        self.bus.config_write(4, 2, 1 << 2)
        mac = self.reset()
        for base, length, place in ((RDBAL, RDLEN, RX_RING), (TDBAL, TDLEN, TX_RING)):
            self.write(base, (self.base + place) & 0xFFFFFFFF)
            self.write(base + 4, (self.base + place) >> 32)
            self.write(length, SLOTS * 16)
        self.rx[:, 0] = [self.base + BUFFERS + BUFFER * slot for slot in range(SLOTS)]
        self.rx[:, 1] = 0
        self.rx_next = self.tx_next = 0
        self.write(SRRCTL, 1 << 25 | 1 << 28 | 2)
        self.write(RXDCTL, ENABLE)
        self.write(TXDCTL, ENABLE)
        self.bar.doorbell(RDT)[0] = given
        return mac

    def post(self, data: bytes, command: int = 0, address: int | None = None) -> None:
        """Hand a packet of one buffer over."""
        slot = self.tx_next
        place = BUFFERS + BUFFER * (SLOTS + slot)
        self.memory.bytes[place:][: len(data)] = np.frombuffer(data, np.uint8)
        where = self.base + place if address is None else address
        word = len(data) << 46 | 1 << 29 | 3 << 20 | 1 << 24 | 1 << 25 | 1 << 27 | command | len(data)
        self.tx[slot] = where, word
        self.tx_next = (slot + 1) % SLOTS
        self.bar.doorbell(TDT)[0] = self.tx_next

    def take(self) -> list[bytes]:
        """What has come, its buffers given back."""
        frames: list[bytes] = []
        while self.rx[self.rx_next, 1] & 1:
            size = int(self.rx[self.rx_next, 1]) >> 32 & 0xFFFF
            frames.append(self.memory.bytes[BUFFERS + BUFFER * self.rx_next :][:size].tobytes())
            self.rx[self.rx_next] = self.base + BUFFERS + BUFFER * self.rx_next, 0
            self.rx_next = (self.rx_next + 1) % SLOTS
            self.bar.doorbell(RDT)[0] = (self.rx_next - 1) % SLOTS
        return frames

    def send(self, *frames: bytes) -> None:
        """Hand packets over, and let the card work them off."""
        for data in frames:
            self.post(data)
        self.machine.step(2)

    def close(self) -> None:
        self.bus.config_write(4, 2, 0)
        self.bus.unmap(self.memory)
        self.bus.close()
        self.memory.close()


def mac_of(answer: Sequence[int]) -> bytes:
    return answer[1].to_bytes(4, "little") + (answer[2] & 0xFFFF).to_bytes(2, "little")


def words_of(mac: bytes) -> tuple[int, int]:
    return int.from_bytes(mac[:4], "little"), int.from_bytes(mac[4:], "little")


@contextmanager
def functions(machine: Machine, *addresses: str) -> Generator[list[Function]]:
    """These functions, until the block ends."""
    opened: list[Function] = []
    try:
        for address in addresses:  # one by one: what was opened before one that fails is closed
            opened.append(Function(machine, address))  # noqa: PERF401
        yield opened
    finally:
        for function in reversed(opened):
            function.close()
