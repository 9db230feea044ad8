"""Who looks on when a driver hands memory to a card: which descriptors and buffers are whose.

A card cannot know whether what it finds in memory was meant for it. So each doorbell is looked at before the card
hears it, each write to memory before it is done. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.registers import i82599 as reg
from ixy.sim.card.driver_rules import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.course.bench import Bench, BenchMemory
    from ixy.registers import Register
    from ixy.sim.card.registers import Card

_QUEUES = 8  # those that are looked at, each way
_ENABLE = reg.RXDCTL.mask("ENABLE")
_RXEN = reg.RXCTRL.mask("RXEN")
_REGISTERS = {register.offset: register for row in reg.ROWS for register in (row if row.count > 1 else (row,))}


def register_at(offset: int) -> Register | None:
    """The register there; None if it is none that is known."""
    return _REGISTERS.get(offset)


class Ring:
    """The ring of one queue, as the card's registers have it."""

    def __init__(self, bench: Bench, card: Card, queue: int, *, receives: bool) -> None:
        rows = (
            (reg.RDBAL, reg.RDBAH, reg.RDLEN, reg.RDH, reg.RDT, reg.RXDCTL)
            if receives
            else (reg.TDBAL, reg.TDBAH, reg.TDLEN, reg.TDH, reg.TDT, reg.TXDCTL)
        )
        self.low, self.high, self.length, self.head, self.tail, self.control = (row[queue] for row in rows)
        self.receives = receives
        self.queue = queue
        self.name = f"{'receive' if receives else 'transmit'} queue {queue}"
        self._bench = bench
        self._card = card

    def get(self, register: Register) -> int:
        """What a register holds, without a look of the driver's."""
        return int(self._bench.machine.rack.registers[self._card.index, register.offset // 4])

    @property
    def enabled(self) -> bool:
        return bool(self.get(self.control) & _ENABLE)

    @property
    def base(self) -> int:
        return self.get(self.high) << 32 | self.get(self.low) & ~0x7F

    @property
    def size(self) -> int:
        """Descriptors."""
        return self.get(self.length) // reg.DESCRIPTOR_BYTES

    def from_to(self, start: int, end: int) -> list[int]:
        """The slots from one place to another."""
        return [(start + i) % self.size for i in range((end - start) % self.size)] if self.size else []

    def owned(self) -> list[int]:
        """The slots that are the card's."""
        return self.from_to(self.get(self.head), self.get(self.tail)) if self.enabled else []

    def descriptor(self, slot: int) -> tuple[int, int] | None:
        """Its two words; None where there is no memory."""
        memory = self._bench.bus.find(self.base + slot * reg.DESCRIPTOR_BYTES)
        if memory is None:
            return None
        start = memory.start + self.base - memory.address + slot * reg.DESCRIPTOR_BYTES
        data = self._bench.memory.bytes[start:][: reg.DESCRIPTOR_BYTES].tobytes()
        return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")

    def take_fresh(self, slot: int) -> bool:
        """Whether a descriptor was written since the card had it; from now on it was not."""
        memory = self._bench.bus.find(self.base + slot * reg.DESCRIPTOR_BYTES)
        if memory is None:
            return True
        start = self.base - memory.address + slot * reg.DESCRIPTOR_BYTES
        fresh = any(memory.fresh[start : start + reg.DESCRIPTOR_BYTES])
        memory.fresh[start : start + reg.DESCRIPTOR_BYTES] = bytes(reg.DESCRIPTOR_BYTES)
        return fresh

    def buffer(self, slot: int) -> tuple[int, int]:
        """The address and the length of the buffer that a descriptor of the card's names."""
        words = self.descriptor(slot)
        if words is None:
            return 0, 0
        if self.receives:
            return words[0], (self.get(reg.SRRCTL[self.queue]) & reg.SRRCTL.mask("BSIZEPACKET")) << 10
        return words[0], words[1] & reg.TX_LENGTH_MASK


class Watch:
    """Who looks on at one card."""

    def __init__(self, bench: Bench, card: Card) -> None:
        self._bench = bench
        self.rx = [Ring(bench, card, queue, receives=True) for queue in range(_QUEUES)]
        self.tx = [Ring(bench, card, queue, receives=False) for queue in range(_QUEUES)]
        self.rings = (*self.rx, *self.tx)
        self._checks: dict[int, Callable[[int], None]] = {reg.RXCTRL.offset: self._before_rxctrl}
        for ring in self.rings:
            self._checks[ring.tail.offset] = lambda value, ring=ring: self._before_tail(ring, value)
            self._checks[ring.control.offset] = lambda value, ring=ring: self._before_control(ring, value)

    def before_write(self, offset: int, value: int) -> None:
        """The driver is about to write a register."""
        if check := self._checks.get(offset):
            check(value)

    # -----------------------------------------------------------------------------------------------------------------
    # Registers

    def _before_rxctrl(self, value: int) -> None:
        if value & _RXEN and not self.rx[0].get(reg.RXCTRL) & _RXEN and not any(ring.enabled for ring in self.rx):
            self._bench.note(
                "set RXCTRL.RXEN last, when the receive queues are enabled: packets come from that moment on",
                "RXCTRL",
                "4.6.7",
            )

    def _before_control(self, ring: Ring, value: int) -> None:
        """A queue is enabled: where is its ring?"""
        if not value & _ENABLE or ring.enabled:
            return
        names = f"{ring.low.name} and {ring.high.name}".replace("[0]", "")
        section = ring.low.section
        self._judge_address(ring.base, names, section, "the ring")
        memory = self._bench.bus.find(ring.base)
        if ring.size == 0:
            self._bench.note(
                "write the length of the ring, in bytes, before the queue is enabled", *_about(ring.length)
            )
        elif memory is not None and ring.base + ring.size * reg.DESCRIPTOR_BYTES > memory.address + memory.size:
            self._bench.note(
                f"the ring of {ring.size} descriptors of 16 bytes is longer than its memory of {memory.size} bytes",
                *_about(ring.length),
            )

    def _before_tail(self, ring: Ring, value: int) -> None:
        """A doorbell."""
        self._bench.accesses["RDT" if ring.receives else "TDT"] += 1
        if not ring.enabled or ring.size == 0:
            return
        if value >= ring.size:
            rule = BY_NAME["rx-tail-beyond" if ring.receives else "tx-tail-beyond"]
            self._bench.note(f"{rule.sentence}: it is {value} of {ring.size}", rule.subject, rule.section)
            return
        head, tail = ring.get(ring.head), ring.get(ring.tail)
        if (value - tail) % ring.size > (head - tail - 1) % ring.size:
            self._bench.note(
                f"{_bare(ring.tail)} {value} reaches or overtakes {_bare(ring.head)} {head}: where both are equal the "
                "ring is empty to the card, so one descriptor stays unused",
                _bare(ring.tail),
                "7.1.9" if ring.receives else "7.2.3.3",
            )
        for slot in ring.from_to(tail, value):
            if ring.receives:
                self._judge_rx(ring, slot)
            else:
                self._judge_tx(ring, slot)
        self._judge_packets(ring, tail, value)

    # -----------------------------------------------------------------------------------------------------------------
    # Descriptors

    def _judge_rx(self, ring: Ring, slot: int) -> None:
        words = ring.descriptor(slot)
        if words is None:
            return
        if not ring.take_fresh(slot):
            self._bench.note(
                f"descriptor {slot} goes back as the card has written it: write the address of a buffer into it again, "
                "and zeros behind, before you bump RDT",
                "Packet Buffer Address",
                "7.1.6.1",
            )
            return
        self._judge_address(words[0], "Packet Buffer Address", "7.1.6.1", f"the buffer of descriptor {slot}", words[1])
        if words[1] & reg.RX_DD:
            self._bench.note(
                f"the second word of descriptor {slot} is no 0: its lowest bit is where the card reports DD, and must "
                "be 0 before",
                "DD",
                "7.1.6.1",
            )
        self._judge_owner(words[0], "Packet Buffer Address", "7.1.9", slot)
        size = ring.buffer(slot)[1]
        memory = self._bench.bus.find(words[0])
        if memory is not None and words[0] + size > memory.address + memory.size:
            self._bench.note(
                f"the card may write {size} bytes into the buffer of descriptor {slot}, which goes beyond its memory",
                "SRRCTL",
                "8.2.3.8.7",
            )
        for other in ring.owned():
            if other != slot and abs(ring.buffer(other)[0] - words[0]) < max(size, 1):
                self._bench.note(
                    f"descriptors {other} and {slot} have the same buffer, or buffers that overlap: one packet will "
                    "overwrite the other",
                    "Packet Buffer Address",
                    "7.1.9",
                )
                break

    def _judge_tx(self, ring: Ring, slot: int) -> None:
        words = ring.descriptor(slot)
        if words is None:
            return
        fresh = ring.take_fresh(slot)
        if not fresh or words == (0, 0):
            self._bench.note(
                f"descriptor {slot} is handed over and was not written: TDT is the one behind the last that was",
                "TDT",
                "7.2.3.3",
            )
            return
        address, command = words
        advanced = command & reg.TX_DEXT != 0
        section = "7.2.3.2.4" if advanced else "7.2.3.2.2"
        if self._bench.bus.find(command) is not None:
            self._bench.note("the words of the descriptor are swapped: the address comes first", "Address", section)
            return
        if advanced and command & reg.TX_DTYP == reg.TX_CONTEXT:
            return
        length = command & reg.TX_LENGTH_MASK
        if length == 0:
            self._bench.note(
                f"DTALEN of descriptor {slot} is 0: the lowest 16 bits of the second word are the length of the buffer",
                "DTALEN",
                section,
            )
        self._judge_address(address, "Address", section, f"the buffer of descriptor {slot}")
        self._judge_owner(address, "DD", "7.2.3.5", slot)
        for other in (other for watch in self._bench.bus.watches.values() for other in watch.rings):
            for theirs in other.owned():
                start, size = other.buffer(theirs)
                if (other is not ring or theirs != slot) and start < address + length and address < start + size:
                    self._bench.note(
                        f"the buffer of descriptor {slot} is still that of descriptor {theirs} of {other.name}: one "
                        "buffer, one owner",
                        "Address",
                        section,
                    )
                    return

    def _judge_packets(self, ring: Ring, tail: int, value: int) -> None:
        """Of a transmit ring: what is handed over ends with a packet's end."""
        if ring.receives or value == tail:
            return
        words = ring.descriptor((value - 1) % ring.size)
        if words is not None and words[1] & reg.TX_LENGTH_MASK and not words[1] & reg.TX_EOP:
            self._bench.note(
                "set EOP in the last descriptor of a packet: without it the card waits for the rest, and sends nothing",
                "EOP",
                "7.2.3.2.4" if words[1] & reg.TX_DEXT else "7.2.3.2.2",
            )

    def _judge_address(self, address: int, subject: str, section: str, what: str, second: int = 0) -> None:
        """Whether an address names memory for DMA; else what it seems to be instead."""
        bus = self._bench.bus
        if (memory := bus.find(address)) is not None:
            if memory.freed:
                self._bench.note(f"{what} lies in memory that was freed", subject, section)
            return
        swapped = int.from_bytes(address.to_bytes(8, "little"), "big")
        halves = address << 32 & (1 << 64) - 1 | address >> 32
        if any(
            (address & ~0x7F) + 0x7F - one.pointer >= 0 and address - one.pointer < one.size for one in bus.memories
        ):
            wrong = f"{address:#x} is a pointer of the process: the card sees {what} at Memory.address"
        elif bus.find(swapped) is not None:
            wrong = f"{address:#x} has its bytes the wrong way round: descriptors are little-endian"
        elif any((halves | 0x7F) - one.address >= 0 and halves - one.address < one.size for one in bus.memories):
            wrong = f"{address:#x} has its halves swapped: the lower 32 bits go into the register whose name ends in L"
        elif second and bus.find(second) is not None:
            wrong = "the words of the descriptor are swapped: the address of the buffer comes first"
        elif any((address ^ one.address) & 0xFFFFFFFF == 0 for one in bus.memories):
            wrong = f"{address:#x} lacks the upper 32 bits of the address"
        else:
            wrong = f"{address:#x} is no memory that the card reaches: it is where the card looks for {what}"
        self._bench.note(wrong, subject, section)

    def _judge_owner(self, address: int, subject: str, section: str, slot: int) -> None:
        """Whether a buffer that the card is given is somebody's."""
        if any(lent.is_free(address) for lent in self._bench.pools):
            self._bench.note(
                f"the buffer of descriptor {slot} is free in the pool: who takes it next shares it with the card",
                subject,
                section,
            )

    # -----------------------------------------------------------------------------------------------------------------
    # Memory

    def before_memory_write(self, address: int, size: int) -> None:
        """The driver is about to write `size` bytes that the card sees at `address`."""
        for ring in self.rings:
            if not ring.enabled:
                continue
            owned = ring.owned()
            if address + size - 1 - ring.base >= 0 and address - ring.base < ring.size * reg.DESCRIPTOR_BYTES:
                first = max(address - ring.base, 0) // reg.DESCRIPTOR_BYTES
                last = (address + size - 1 - ring.base) // reg.DESCRIPTOR_BYTES
                touched = [slot for slot in owned if first <= slot <= last]
                if touched:
                    self._bench.note(
                        f"descriptor {touched[0]} of {ring.name} is written while it is the card's: write it first, "
                        f"then bump {_bare(ring.tail)}",
                        _bare(ring.tail),
                        "7.1.9" if ring.receives else "7.2.3.3",
                    )
                continue
            for slot in owned:
                start, length = ring.buffer(slot)
                if start < address + size and address < start + length:
                    self._note_buffer(ring, slot)
                    break

    def _note_buffer(self, ring: Ring, slot: int) -> None:
        if ring.receives:
            self._bench.note(
                f"a buffer is written that is descriptor {slot}'s of {ring.name}: the card may receive into it",
                "Packet Buffer Address",
                "7.1.9",
            )
        else:
            self._bench.note(
                f"the buffer of descriptor {slot} of {ring.name} is written before the card has sent it: it is the "
                "card's until DD is set",
                "DD",
                "7.2.3.5",
            )

    def before_beyond(self, memory: BenchMemory, offset: int) -> None:
        """The driver is about to go beyond its memory: of a ring?"""
        for ring in self.rings:
            if ring.enabled and ring.base == memory.address:
                self._bench.note(
                    f"there is no descriptor {offset // reg.DESCRIPTOR_BYTES} in a ring of {ring.size}: behind the "
                    "last one comes 0",
                    _bare(ring.tail),
                    "7.1.9" if ring.receives else "7.2.3.3",
                )
                return

    def before_free(self, memory: BenchMemory) -> None:
        """The driver is about to free memory."""
        for ring in self.rings:
            if not ring.enabled:
                continue
            holds = 0 <= ring.base - memory.address < memory.size
            if holds or any(0 <= ring.buffer(slot)[0] - memory.address < memory.size for slot in ring.owned()):
                self._bench.note(
                    f"memory is freed that {ring.name} still uses: disable the queue, and wait until ENABLE reads 0",
                    _bare(ring.control),
                    "4.6.7.1.2" if ring.receives else "4.6.8.1",
                )
                return


def _bare(register: Register) -> str:
    """A register's name, of queue 0 without the number."""
    return register.name.removesuffix("[0]")


def _about(register: Register) -> tuple[str, str]:
    """What a finding is about."""
    return _bare(register), register.section
