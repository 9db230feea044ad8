"""The tables of a card that say which pools a frame is for: addresses, VLANs, groups, and what pools may send.

Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ixy.registers import Register
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from ixy.registers import RegisterFile


class Filters:
    """The tables of one card, of which the driver keeps what it has written: pools as numbers with a bit for each.

    The first address is the physical function's, the next ones are those that functions have, and those behind them are
    taken as functions ask for more.

    Args:
        functions: how many there are.
    """

    def __init__(self, registers: RegisterFile, mac: bytes, functions: int) -> None:
        self._registers = registers
        self._addresses: dict[int, tuple[bytes, int]] = {}  # by the entry: address, function
        self._vlans: dict[int, int] = {}  # by the VLAN: the entry of PFVLVF
        self._members: dict[int, int] = {}  # by the VLAN: pools
        self._hashes: dict[int, frozenset[int]] = {}  # by the function: those of its groups
        self._groups: set[int] = set()  # functions that take all groups
        self._functions = functions
        self._clear()
        self._set_address(0, mac, functions)
        registers.read(reg.RAL[0])

    def _clear(self) -> None:
        """Tables have any contents after power-on (4.6.7)."""
        for row in (reg.MTA, reg.VFTA, reg.MPSAR, reg.PFVLVF, reg.PFVLVFB, reg.PFUTA):
            for register in row:
                self._registers.write(register, 0)
        for register in list(reg.RAH)[1:]:
            self._registers.write(register, 0)

    # -----------------------------------------------------------------------------------------------------------------
    # Addresses

    def set_address(self, function: int, mac: bytes) -> bool:
        """Let a function have this address instead of the one it had; False if it is another one's."""
        if self.is_taken(mac, function):
            return False
        self._set_address(1 + function, mac, function)
        return True

    def add_address(self, function: int, mac: bytes) -> bool:
        """Let it have this one besides; False if it is another one's, or there is no room."""
        free = [entry for entry in range(1 + self._functions, reg.RAL.count) if entry not in self._addresses]
        if not free or self.is_taken(mac, function):
            return False
        self._set_address(free[0], mac, function)
        return True

    def drop_addresses(self, function: int, *, all_of_them: bool = False) -> None:
        """Take from a function what was added, or all."""
        for entry, (_, owner) in list(self._addresses.items()):
            if owner == function and (all_of_them or entry > self._functions):
                del self._addresses[entry]
                self._registers.write(reg.RAH[entry], 0)
                self._set_pools(reg.MPSAR, entry, 0)

    def is_taken(self, mac: bytes, function: int) -> bool:
        """Whether an address is not this function's, but another one's."""
        return any(address == mac and owner != function for address, owner in self._addresses.values())

    def _set_address(self, entry: int, mac: bytes, pool: int) -> None:
        self._addresses[entry] = mac, pool
        self._registers.write(reg.RAL[entry], int.from_bytes(mac[:4], "little"))
        self._set_pools(reg.MPSAR, entry, 1 << pool)
        self._registers.write(reg.RAH[entry], ADDRESS=int.from_bytes(mac[4:], "little"), AV=1)

    def _set_pools(self, row: Register, entry: int, pools: int) -> None:
        """Of an entry of a table that has two registers for its pools."""
        self._registers.write(row[2 * entry], pools & 0xFFFFFFFF)
        self._registers.write(row[2 * entry + 1], pools >> 32)

    # -----------------------------------------------------------------------------------------------------------------
    # VLANs

    def join(self, function: int, vlan: int) -> bool:
        """Make a function member of a VLAN; False if the table has no room for it (8.2.3.27.15)."""
        if vlan not in self._vlans:
            free = sorted(set(range(reg.PFVLVF.count)) - set(self._vlans.values()))
            if not free:
                return False
            self._vlans[vlan] = free[0]
            self._registers.write(reg.PFVLVF[free[0]], VLAN_ID=vlan, VI_EN=1)
            self._let_vlan_in(vlan, True)
        self._set_members(vlan, self._members.get(vlan, 0) | 1 << function)
        return True

    def leave(self, function: int, vlan: int) -> None:
        """It is a member no more."""
        if vlan not in self._vlans:
            return
        self._set_members(vlan, self._members[vlan] & ~(1 << function))
        if not self._members[vlan]:
            self._registers.write(reg.PFVLVF[self._vlans.pop(vlan)], 0)
            self._let_vlan_in(vlan, False)
            del self._members[vlan]

    def leave_all(self, function: int) -> None:
        for vlan, members in list(self._members.items()):
            if members >> function & 1:
                self.leave(function, vlan)

    def _set_members(self, vlan: int, pools: int) -> None:
        self._members[vlan] = pools
        self._set_pools(reg.PFVLVFB, self._vlans[vlan], pools)

    def _let_vlan_in(self, vlan: int, passes: bool) -> None:
        register, bit = reg.VFTA[vlan // 32], 1 << vlan % 32
        before = self._registers.read(register)
        self._registers.write(register, before | bit if passes else before & ~bit)

    # -----------------------------------------------------------------------------------------------------------------
    # Groups

    def set_groups(self, function: int, hashes: frozenset[int]) -> None:
        """Let multicasts in with these 12 bits of their address, and those of other functions (8.2.3.7.7)."""
        before = self._all_hashes()
        self._hashes[function] = hashes
        after = self._all_hashes()
        for word in sorted({bits // 32 for bits in before ^ after}):
            value = sum(1 << bits % 32 for bits in after if bits // 32 == word)
            self._registers.write(reg.MTA[word], value)

    def take_all_groups(self, function: int, takes: bool) -> None:
        """Let all multicasts in, as long as a function takes them."""
        (self._groups.add if takes else self._groups.discard)(function)
        self._registers.update(reg.FCTRL, MPE=int(bool(self._groups)))

    def _all_hashes(self) -> frozenset[int]:
        return frozenset[int]().union(*self._hashes.values())

    # -----------------------------------------------------------------------------------------------------------------
    # Pools

    def set_bit(self, row: Register, function: int, on: bool) -> None:
        """A function's bit in a pair of registers."""
        register, bit = row[function // 32], 1 << function % 32
        before = self._registers.read(register)
        self._registers.write(register, before | bit if on else before & ~bit)

    def check_sender(self, function: int, checks: bool) -> None:
        """Whether it must send with its own addresses, and in its VLANs (8.2.3.27.11); what it sends otherwise is
        counted."""
        register, shift = reg.PFVFSPOOF[function // 8], function % 8
        bits = reg.PFVFSPOOF.value(MACAS=1 << shift, VLANAS=1 << shift)
        before = self._registers.read(register)
        self._registers.write(register, before | bits if checks else before & ~bits)
        self.set_bit(reg.PFVMECM, function, checks)
