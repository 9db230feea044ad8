"""Write nonsense into the registers and descriptors of simulated cards, while frames come and go.

Whatever a driver writes, no access leaves the memory that was mapped for the card, each turn of the cards ends, and
after a reset the card works as ever. The same goes for virtual functions, whose mailboxes get nonsense, too. Run it
with the package importable: `python tools/fuzz_card.py 100000000`, and the seed with which it failed. Three quarters of
the writes are descriptors' words; what functions are written comes on top of that.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import numpy as np

import ixy
from ixy.packets.dma import DmaMemory, allocate_rings
from ixy.packets.mempool import Mempool
from ixy.registers import Register, Reset
from ixy.registers import i82599 as reg
from ixy.registers import i82599_vf as vf
from ixy.sim.card.registers import Card
from ixy.sim.card.virtual_function import VirtualFunction
from ixy.sim.machine import BUS_BASE, Machine

ADDRESSES = ("sim:a,cable=b,ready=0", "sim:b,ready=0", "sim:c,gen=200,ready=0")
FUNCTIONS = ("sim:d.vf0,vfs=2,gen=200,ready=0,trust=on", "sim:d.vf1")
ROUND = 1000  # writes between two turns of the cards
CHECK = 200  # rounds between two proofs that a card works after a reset
PATIENCE = 600  # seconds for so many; then a turn of the cards is taken for one that never ends, and the program ends
MINUTE = 60  # seconds between two words on how far it is
MEMORY = 1 << 20
CANARY = 0xA5

ROWS = [row for row in vars(reg).values() if isinstance(row, Register)]
OFFSETS = np.array([offset for row in ROWS for offset in row.offsets])
# Half of the writes to registers go to what moves packets: these rows, of a few queues
BUSY_ROWS = (
    *(reg.RDBAL, reg.RDBAH, reg.RDLEN, reg.RDH, reg.RDT, reg.RXDCTL, reg.SRRCTL, reg.DCA_RXCTRL),
    *(reg.TDBAL, reg.TDBAH, reg.TDLEN, reg.TDH, reg.TDT, reg.TXDCTL),
)
BUSY_QUEUES = (0, 0, 0, 1, 63, 64, 127)
BUSY = np.array(
    [row.offsets[queue] for row in BUSY_ROWS for queue in BUSY_QUEUES]
    + [row.offset for row in (reg.RXCTRL, reg.DMATXCTL, reg.FCTRL, reg.HLREG0, reg.MRQC, reg.CTRL_EXT)] * 4
)
FUNCTION_OFFSETS = np.array([offset for row in vf.ROWS for offset in row.offsets])
FUNCTION_BUSY_ROWS = (
    *(vf.VFRDBAL, vf.VFRDBAH, vf.VFRDLEN, vf.VFRDH, vf.VFRDT, vf.VFRXDCTL, vf.VFSRRCTL),
    *(vf.VFTDBAL, vf.VFTDBAH, vf.VFTDLEN, vf.VFTDH, vf.VFTDT, vf.VFTXDCTL),
)
FUNCTION_BUSY = np.array(
    [row.offsets[queue] for row in FUNCTION_BUSY_ROWS for queue in (0, 0, 3)]
    + [vf.VFMAILBOX.offset, *vf.VFMBMEM.offsets[:3]] * 8
)
FUNCTION_WRITES = 60  # to the registers of each virtual function in a round
MESSAGES = tuple(range(1, 18))
COMMAND = reg.TX_DEXT | reg.TX_DATA | reg.TX_IFCS | reg.TX_EOP


class Fuzzer:
    """Three cards, two of them with a cable, one with a generator, and two pieces of memory, of which one is mapped.

    Args:
        seed: of all that is random.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.machine = Machine(stepped=True)
        self.mapped, self.forbidden = allocate_rings(MEMORY), allocate_rings(MEMORY)
        self.forbidden.bytes[:] = CANARY
        self.machine.map(self.mapped)
        self.words = self.mapped.bytes.view(np.uint64)
        self.work = 0  # frames and descriptors that the cards handled

    def close(self) -> None:
        self.machine.unmap(self.mapped)
        self.mapped.close()
        self.forbidden.close()

    @contextmanager
    def plugged(self) -> Generator[tuple[list[Card], list[VirtualFunction]]]:
        """The cards, open, and the functions of another one."""
        cards = [self.machine.plug_in(address) for address in ADDRESSES]
        functions = [self.machine.plug_in_function(address) for address in FUNCTIONS]
        try:
            for card in cards:
                card.config_write(4, 2, 1 << 2)
            for function in functions:
                function.config_write(4, 2, 1 << 2)
            yield cards, functions
        finally:
            for function in functions:
                self.machine.unplug_function(function)
            for card in cards:
                self.machine.unplug(card)

    def round(self, cards: list[Card], functions: list[VirtualFunction], writes: int) -> None:
        """So many writes, some more to the functions' registers, and a turn of the cards."""
        registers = writes // 4
        self._write_descriptors(writes - registers)
        offsets = np.where(
            self.random.random(registers) < 0.5,
            self.random.choice(BUSY, registers),
            self.random.choice(OFFSETS, registers),
        )
        values = self._values(registers)
        which = self.random.integers(0, len(cards), registers)
        for card, offset, value in zip(which.tolist(), offsets.tolist(), values.tolist(), strict=True):
            cards[card].write32(offset, value)
        for card in cards:
            self._bring_up(card)
        for function in functions:
            self._disturb(function)
        self.work += self.machine.step()
        if not (self.forbidden.bytes == CANARY).all():
            raise AssertionError("a card wrote to memory that is not mapped for it")

    def _disturb(self, function: VirtualFunction) -> None:
        """Nonsense for a virtual function, whose queues work now and then."""
        busy = self.random.random(FUNCTION_WRITES) < 0.7
        offsets = np.where(
            busy,
            self.random.choice(FUNCTION_BUSY, FUNCTION_WRITES),
            self.random.choice(FUNCTION_OFFSETS, FUNCTION_WRITES),
        )
        for offset, value in zip(offsets.tolist(), self._values(FUNCTION_WRITES).tolist(), strict=True):
            function.write32(offset, value)
        self.ask(function, int(self.random.choice(MESSAGES)) | int(self.random.integers(0, 256)) << vf.INFO_SHIFT)
        if self.random.random() < 0.1:
            function.reset()
        if self.random.random() < 0.5:
            self.set_up(function, self._address(self.mapped) & ~0x7F)

    def ask(self, function: VirtualFunction, message: int) -> int:
        """Send a message, whatever stands behind its first word in the mailbox; what the first one is then."""
        function.write32(vf.VFMAILBOX.offset, vf.VFMAILBOX.mask("VFU"))
        function.write32(vf.VFMBMEM.offset, message)
        function.write32(vf.VFMAILBOX.offset, vf.VFMAILBOX.mask("REQ"))
        return function.read32(vf.VFMBMEM.offset)

    def set_up(self, function: VirtualFunction, base: int) -> None:
        """Have it reset by the mailbox, and a queue of it work each way, with one ring for both."""
        function.write32(vf.VFCTRL.offset, vf.VFCTRL.mask("RST"))
        self.ask(function, vf.RESET)
        for low, high, length, tail, control in (
            (vf.VFRDBAL, vf.VFRDBAH, vf.VFRDLEN, vf.VFRDT, vf.VFRXDCTL),
            (vf.VFTDBAL, vf.VFTDBAH, vf.VFTDLEN, vf.VFTDT, vf.VFTXDCTL),
        ):
            function.write32(low.offset, base & 0xFFFFFFFF)
            function.write32(high.offset, base >> 32)
            function.write32(length.offset, 4096)
            function.write32(control.offset, reg.RXDCTL.value(ENABLE=1))
            function.read32(control.offset)
            function.write32(tail.offset, int(self.random.integers(0, 256)))

    def prove_functions(self, functions: list[VirtualFunction]) -> None:
        """One that is reset is told its address, whatever was written before, and by the other one."""
        for number, function in enumerate(functions):
            function.reset()
            time.sleep(0.005)  # it has sent so many messages that only one in a millisecond is answered
            if self.ask(function, vf.RESET) != vf.RESET | vf.ACK:
                raise AssertionError(f"virtual function {number} is not answered after a reset")

    def _bring_up(self, card: Card) -> None:
        """Now and then all is made to work, so that nonsense meets a card that moves packets."""
        if self.random.random() < 0.5:
            return
        if self.random.random() < 0.1:
            card.write32(reg.CTRL.offset, reg.CTRL.value(RST=1))
            card.read32(reg.CTRL.offset)
        base = self._address(self.mapped) & ~0x7F
        for low, high, length, tail, control in (
            (reg.RDBAL, reg.RDBAH, reg.RDLEN, reg.RDT, reg.RXDCTL),
            (reg.TDBAL, reg.TDBAH, reg.TDLEN, reg.TDT, reg.TXDCTL),
        ):
            card.write32(control.offset, 0)
            card.write32(low.offset, base & 0xFFFFFFFF)
            card.write32(high.offset, base >> 32)
            card.write32(length.offset, 4096)
            card.write32(control.offset, reg.RXDCTL.value(ENABLE=1))
            card.read32(control.offset)
            card.write32(tail.offset, int(self.random.integers(0, 256)))
        card.write32(reg.FCTRL.offset, reg.FCTRL.value(UPE=1, MPE=1, BAM=1))
        card.write32(reg.DMATXCTL.offset, reg.DMATXCTL.value(TE=1))
        card.write32(reg.RXCTRL.offset, 1)

    def _address(self, memory: DmaMemory) -> int:
        """A bus address in a piece of memory, or just before its end."""
        return BUS_BASE + memory.offset + int(self.random.integers(0, memory.size))

    def _values(self, count: int) -> np.ndarray:
        """Values of registers: any, few bits, small ones, all ones, or parts of addresses."""
        kinds = self.random.integers(0, 6, count)
        address = self._address(self.mapped if self.random.random() < 0.7 else self.forbidden)
        return np.choose(
            kinds,
            [
                self.random.integers(0, 1 << 32, count),
                1 << self.random.integers(0, 32, count),
                self.random.integers(0, 4096, count),
                np.full(count, 0xFFFFFFFF),
                np.full(count, address & 0xFFFFFFFF),
                np.full(count, address >> 32),
            ],
        )

    def _write_descriptors(self, count: int) -> None:
        """Descriptors anywhere in the mapped memory: addresses inside and outside, commands right and wrong."""
        places = self.random.integers(0, len(self.words) // 2, count // 2) * 2
        lengths = self.random.integers(0, 1 << self.random.integers(4, 13, count // 2))
        inside = BUS_BASE + self.mapped.offset + self.random.integers(0, MEMORY, count // 2)
        outside = BUS_BASE + self.forbidden.offset + self.random.integers(-4096, MEMORY + 4096, count // 2)
        good = COMMAND | lengths & 0xFFFF | lengths << reg.TX_PAYLEN_SHIFT
        odd = good ^ 1 << self.random.integers(0, 48, count // 2)
        anything = self.random.integers(-(1 << 63), 1 << 63, count // 2)
        kinds = self.random.integers(0, 20, count // 2)
        self.words[places] = np.select([kinds == 0, kinds == 1], [outside, anything], inside).astype(np.uint64)
        kinds = self.random.integers(0, 20, count // 2)
        self.words[places + 1] = np.select([kinds == 0, kinds == 1], [odd, anything], good).astype(np.uint64)

    def prove(self) -> None:
        """Cards that nonsense was written to, reset, bring packets from one driver to the other."""
        with (
            ixy.open("sim:a,cable=b", sim=self.machine, link_timeout=0) as a,
            ixy.open("sim:b", sim=self.machine, link_timeout=0) as b,
            Mempool(64) as pool,
        ):
            with pool.allocate(32, 60) as batch:
                for number, packet in enumerate(batch):
                    packet[:] = b"\xff" * 12 + b"\x88\xb5" + bytes([number]) * 46
                a.tx[0].send(batch)
            self.machine.step(10)
            with b.rx[0].receive(64) as batch:
                if [packet[20] for packet in batch] != list(range(32)):
                    raise AssertionError(f"{len(batch)} of 32 packets arrived after a reset, or wrong ones")


def fuzz(writes: int, seed: int, proven: Callable[[int], None]) -> int:
    """So many writes, between proofs that all still works; how many frames and descriptors the cards handled.

    Args:
        proven: is told after each proof how many writes are left.

    Raises:
        AssertionError: it does not, or memory was written to that no card may touch.
    """
    fuzzer = Fuzzer(seed)
    try:
        left = writes
        while left > 0:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            with fuzzer.plugged() as (cards, functions):
                for card in cards:
                    fuzzer.machine.cards[card.name].reset(Reset.SOFTWARE)
                for _ in range(CHECK):
                    fuzzer.round(cards, functions, min(left, ROUND))
                    left -= ROUND
                    if left <= 0:
                        break
                fuzzer.prove_functions(functions)
            fuzzer.prove()
            proven(max(left, 0))
        return fuzzer.work
    finally:
        faulthandler.cancel_dump_traceback_later()
        fuzzer.close()


def main() -> None:
    writes = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    logging.disable(logging.CRITICAL)  # of what it does wrong, the cards' driver is told once and again
    print(f"seed {seed}", flush=True)
    begin = told = time.monotonic()

    def proven(left: int) -> None:
        nonlocal told
        if time.monotonic() > told + MINUTE:
            told = time.monotonic()
            print(f"{writes - left} of {writes} writes", flush=True)

    work = fuzz(writes, seed, proven)
    print(f"{writes} writes, {work} frames and descriptors handled in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
