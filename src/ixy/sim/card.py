"""The part of a simulated 82599 that software talks to: configuration space and registers, with their side effects.

A register without a rule below is plain memory. Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.registers import Register
from ixy.registers import i82599 as reg
from ixy.sim import rack as state
from ixy.sim.eeprom import EEPROM_WORDS, build_eeprom

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.sim.machine import Machine

VENDOR, DEVICE = 0x8086, 0x10FB  # 82599ES 10-Gigabit SFI/SFP+
_CLASS_ETHERNET = 0x020000
_STICKY = 0xFFFFFFFF  # statistics stay there instead of wrapping (8.2.3.23)

# Statistics register → column of the rack's counters
_COUNTERS = [
    (reg.GPRC, state.RX_GOOD),
    (reg.BPRC, state.RX_BROADCAST),
    (reg.MPRC, state.RX_MULTICAST),
    (reg.TPR, state.RX_TOTAL),
    (reg.GPTC, state.TX_GOOD),
    (reg.TPT, state.TX_GOOD),
    (reg.QPRC[0], state.RX_GOOD),
    (reg.QPTC[0], state.TX_GOOD),
    (reg.RUC, state.RX_UNDERSIZE),
    (reg.ROC, state.RX_OVERSIZE),
    (reg.RXMPC[0], state.RX_MISSED),
    (reg.QPRDC[0], state.RX_NO_DESCRIPTOR),
]
# Pairs of registers that hold the low 32 and the high 4 bits of a count; reading the high one clears both.
_WIDE_COUNTERS = [(reg.GORCL, reg.GORCH, state.RX_GOOD_BYTES), (reg.GOTCL, reg.GOTCH, state.TX_GOOD_BYTES)]

_DEFAULTS = [row for row in vars(reg).values() if isinstance(row, Register) and row.reset]


class Card:
    """One card of a machine.

    Args:
        machine: that the card is plugged into.
        index: of the card's row in the machine's rack.
        name: by which the user knows it.
    """

    def __init__(self, machine: Machine, index: int, name: str) -> None:
        self.name = name
        self.index = index
        self.mac = bytes([0x02, 0x69, 0x78, 0x79, 0, index + 1])  # locally administered; "ixy"
        self.wired = False
        self._machine = machine
        self._registers = machine.rack.registers[index]
        self._counters = machine.rack.counters[index]
        self._eeprom = build_eeprom(self.mac)
        self._config = bytearray(256)
        self._config[0:4] = VENDOR.to_bytes(2, "little") + DEVICE.to_bytes(2, "little")
        self._config[9:12] = _CLASS_ETHERNET.to_bytes(3, "little")
        self._cleared: dict[int, int] = {}
        self._reads: dict[int, Callable[[], int]] = {}
        self._writes: dict[int, Callable[[int], None]] = {}
        self._set_rules()
        self.reset()

    # -----------------------------------------------------------------------------------------------------------------
    # What the bus asks for

    def config_read(self, offset: int, size: int) -> int:
        """`size` bytes of the configuration space."""
        return int.from_bytes(self._config[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Only the command register is writable; its bus master bit lets the card do DMA."""
        if offset == 4:
            with self._machine.paused():
                self._config[4 : 4 + size] = value.to_bytes(size, "little")
                self._machine.rack.wires[self.index, state.BUS_MASTER] = self._config[4] >> 2 & 1

    def read32(self, offset: int) -> int:
        """A read of BAR 0 at a multiple of 4, with its side effects; beyond the BAR, all ones as on the bus."""
        if offset % 4 or not 0 <= offset < reg.BAR0_SIZE:
            return 0xFFFFFFFF
        rule = self._reads.get(offset)
        return rule() if rule else int(self._registers[offset // 4])

    def write32(self, offset: int, value: int) -> None:
        """A write to BAR 0 at a multiple of 4, with its side effects; beyond the BAR it goes nowhere."""
        if offset % 4 or not 0 <= offset < reg.BAR0_SIZE:
            return
        # The rack pauses: when this returns, the write has taken effect on all that it does.
        with self._machine.paused():
            rule = self._writes.get(offset)
            if rule:
                rule(value)
            else:
                self._registers[offset // 4] = value

    # -----------------------------------------------------------------------------------------------------------------
    # Reset

    def reset(self) -> None:
        """4.2.1.6: all registers to their defaults; statistics are as if they had been read."""
        self._registers[:] = 0
        for row in _DEFAULTS:
            for register in row:
                self._registers[register.offset // 4] = register.reset
        self._set(reg.EEC, EE_PRES=1, AUTO_RD=1)
        self._set(reg.RDRXCTL, DMAIDONE=1)
        self._set(reg.SECRXSTAT, SECRX_RDY=0)
        self._set(reg.RAL[0], ADDRESS=int.from_bytes(self.mac[:4], "little"))
        self._set(reg.RAH[0], ADDRESS=int.from_bytes(self.mac[4:], "little"), AV=1)
        self._machine.rack.wires[self.index, state.STAGED] = 0
        self._machine.rack.wires[self.index, state.TX_QUEUES] = 0
        self._cleared = {column: int(self._counters[column]) for column in range(state.COUNTERS)}

    # -----------------------------------------------------------------------------------------------------------------
    # Rules

    def _set_rules(self) -> None:
        reads, writes = self._reads, self._writes
        reads[reg.STATUS.offset] = self._read_status
        reads[reg.LINKS.offset] = self._read_links
        reads[reg.SWSM.offset] = self._read_swsm
        reads[reg.EICR.offset] = lambda: self._take(reg.EICR)
        writes[reg.CTRL.offset] = self._write_ctrl
        writes[reg.EEC.offset] = self._write_eec
        writes[reg.EERD.offset] = self._write_eerd
        writes[reg.EIMS.offset] = lambda value: self._put(reg.EIMS, self._get(reg.EIMS) | value)
        writes[reg.EIMC.offset] = lambda value: self._put(reg.EIMS, self._get(reg.EIMS) & ~value)
        writes[reg.AUTOC.offset] = lambda value: self._put(reg.AUTOC, value & ~reg.AUTOC.mask("RESTART_AN"))
        writes[reg.SECRXCTRL.offset] = self._write_secrxctrl
        for read_only in (reg.STATUS, reg.LINKS, reg.SECRXSTAT):
            writes[read_only.offset] = self._ignore
        for queue, register in enumerate(reg.TXDCTL):
            writes[register.offset] = lambda value, queue=queue: self._write_txdctl(queue, value)
        for register, column in _COUNTERS:
            reads[register.offset] = lambda register=register, column=column: self._read_counter(register, column)
        for low, high, column in _WIDE_COUNTERS:
            reads[low.offset] = lambda column=column: self._since_cleared(column) & 0xFFFFFFFF
            reads[high.offset] = lambda column=column: self._clear(column) >> 32 & 0xF

    def _ignore(self, value: int) -> None:
        """A write to a read-only register goes nowhere."""

    def _read_status(self) -> int:
        """PCIE_MASTER_ENABLE falls once software has disabled the master (5.2.5.3.2)."""
        disabled = reg.CTRL.decode(self._get(reg.CTRL))["PCIE_MASTER_DISABLE"]
        return reg.STATUS.value(PCIE_MASTER_ENABLE=1 - disabled, LINKUP=int(self.wired))

    def _read_links(self) -> int:
        return reg.LINKS.value(LINK_UP=1, LINK_SPEED=3) if self.wired else 0

    def _read_swsm(self) -> int:
        """Reading takes the semaphore: SMBI is 0 for the one who got it (10.5.4)."""
        value = self._get(reg.SWSM)
        self._put(reg.SWSM, value | reg.SWSM.mask("SMBI"))
        return value

    def _write_ctrl(self, value: int) -> None:
        if value & reg.CTRL.mask("RST", "LRST"):
            self.reset()
        else:
            self._put(reg.CTRL, value)

    def _write_eec(self, value: int) -> None:
        """Access to the EEPROM is granted as soon as it is asked for (8.2.3.2.1)."""
        fields = reg.EEC.decode(value)
        self._put(reg.EEC, value)
        self._set(reg.EEC, EE_GNT=fields["EE_REQ"], EE_PRES=1, AUTO_RD=1)

    def _write_eerd(self, value: int) -> None:
        """Read one word of the EEPROM (8.2.3.2.2)."""
        fields = reg.EERD.decode(value)
        if fields["START"]:
            word = self._eeprom[fields["ADDR"] % EEPROM_WORDS]
            self._put(reg.EERD, reg.EERD.value(DONE=1, ADDR=fields["ADDR"], DATA=word))

    def _write_secrxctrl(self, value: int) -> None:
        """The receive path through the security block empties at once (4.6.7)."""
        self._put(reg.SECRXCTRL, value)
        self._set(reg.SECRXSTAT, SECRX_RDY=reg.SECRXCTRL.decode(value)["RX_DIS"])

    def _write_txdctl(self, queue: int, value: int) -> None:
        """The software flush clears itself; the rack looks only at as many queues as may run."""
        self._put(reg.TXDCTL[queue], value & ~reg.TXDCTL.mask("SWFLSH"))
        enabled = [number for number, row in enumerate(reg.TXDCTL) if self._get(row) & row.mask("ENABLE")]
        self._machine.rack.wires[self.index, state.TX_QUEUES] = enabled[-1] + 1 if enabled else 0

    def _read_counter(self, register: Register, column: int) -> int:
        key = (register.offset << 8) | column  # several registers may count the same, and each clears by itself
        total = int(self._counters[column])
        count = total - self._cleared.get(key, self._cleared[column])
        self._cleared[key] = total
        return min(count, _STICKY)

    def _since_cleared(self, column: int) -> int:
        return int(self._counters[column]) - self._cleared[column]

    def _clear(self, column: int) -> int:
        count = self._since_cleared(column)
        self._cleared[column] += count
        return count

    # -----------------------------------------------------------------------------------------------------------------
    # The register file

    def _get(self, register: Register) -> int:
        return int(self._registers[register.offset // 4])

    def _put(self, register: Register, value: int) -> None:
        self._registers[register.offset // 4] = value & 0xFFFFFFFF

    def _set(self, register: Register, **fields: int) -> None:
        self._put(register, self._get(register) & ~register.mask(*fields) | register.value(**fields))

    def _take(self, register: Register) -> int:
        """Read a read-clear register."""
        value = self._get(register)
        self._put(register, 0)
        return value
