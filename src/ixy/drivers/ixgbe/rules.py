"""Rules on an 82599: its filters, as tables that rules are put into.

Of the filters that a packet matches, the one counts that comes first: by Ethertype, then by five fields (which no X550
has) and by SYN, then the flow director (7.1.2). Sections are those of the Intel 82599 datasheet, revision 3.3.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ixy.drivers.rules import Network, Rule, no_such_rule
from ixy.errors import ConfigurationError
from ixy.registers import i82599 as reg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from ixy.registers import RegisterFile

_IPV4, _IPV6 = 0x0800, 0x86DD
_TUPLE_PROTOCOLS = {"tcp": 0, "udp": 1, "sctp": 2, None: 3}  # FTQF.PROTOCOL
_FLOW_TYPES = {"udp": 1, "tcp": 2, "sctp": 3, None: 0}  # FDIRCMD.L4TYPE
_LEAST_PRIORITY = 1  # DPDK has none below
_ADD_FLOW, _REMOVE_FLOW = 1, 2  # FDIRCMD.CMD
_TABLE_64K, TABLE_KIB = 1, 64  # FDIRCTRL.PBALLOC, and what that takes from the receive buffer
_BUCKETS = 2048  # of a table of that size
_DROP_QUEUE = 127
_LONGEST_LIST = 10
_HASH_KEY = 0x6D5A56DA  # any with about as many ones as zeros
_TIMEOUT = 1.0  # seconds; a command and a new table take microseconds


class Table:
    """One kind of filters: numbered places, of which each holds a rule.

    Attributes:
        name: for messages.
        size: how many places there are.
        rules: what is in them, by number; of a call that was interrupted, what may be.
    """

    name: str
    size: int

    def __init__(self, address: str, regs: RegisterFile) -> None:
        self.rules: dict[int, Rule] = {}
        self._address = address
        self._regs = regs

    def lacks(self, rule: Rule) -> str:
        """Why the table cannot hold such a rule; "" if it can."""
        raise NotImplementedError

    def add(self, rule: Rule) -> Rule:
        """Put a rule into the first free place.

        Raises:
            ConfigurationError: there is none.
        """
        place = next((place for place in range(self.size) if place not in self.rules), None)
        if place is None:
            raise ConfigurationError(
                f"{self._address}: {rule}: all {self.size} places for rules by {self.name} are taken"
            )
        rule = self.rules[place] = rule.inside(self.name)
        self._write(place, rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Make the place of a rule free, if it has one. An interrupted call goes on where it was."""
        for place in [place for place, there in self.rules.items() if there == rule]:
            self._clear(place, rule)
            del self.rules[place]

    def _write(self, place: int, rule: Rule) -> None:
        raise NotImplementedError

    def _clear(self, place: int, rule: Rule) -> None:
        raise NotImplementedError


class ByEthertype(Table):
    """7.1.2.3. The queue is there before the filter is enabled."""

    name, size = "Ethertype", reg.ETQF.count

    def lacks(self, rule: Rule) -> str:
        if rule.ethertype is None:
            return "compares Ethertypes"
        if rule.ethertype in (_IPV4, _IPV6):
            return "is not for IP packets, whose fields other rules compare"
        if rule.priority:
            return "has no priorities"
        return "" if rule.queue is not None else "does not drop"

    def _write(self, place: int, rule: Rule) -> None:
        assert rule.ethertype is not None
        assert rule.queue is not None
        self._regs.write(reg.ETQS[place], RX_QUEUE=rule.queue, QUEUE_ENABLE=1)
        self._regs.write(reg.ETQF[place], ETYPE=rule.ethertype, FILTER_ENABLE=1)

    def _clear(self, place: int, rule: Rule) -> None:  # noqa: ARG002
        self._regs.write(reg.ETQF[place])
        self._regs.write(reg.ETQS[place])


class BySyn(Table):
    """7.1.2.6. With a priority it goes before the rules by five fields, else behind them."""

    name, size = "SYN", 1

    def lacks(self, rule: Rule) -> str:
        if not rule.syn:
            return "compares SYN"
        return "" if rule.queue is not None else "does not drop"

    def _write(self, place: int, rule: Rule) -> None:  # noqa: ARG002
        assert rule.queue is not None
        self._regs.write(reg.SYNQF, QUEUE_ENABLE=1, RX_QUEUE=rule.queue, SYNQFP=int(rule.priority > 0))

    def _clear(self, place: int, rule: Rule) -> None:  # noqa: ARG002
        self._regs.write(reg.SYNQF)


class ByFiveFields(Table):
    """7.1.2.5: each filter says which fields it compares. Addresses and ports are written as on the wire."""

    name, size = "five fields", reg.FTQF.count

    def lacks(self, rule: Rule) -> str:
        if rule.syn or rule.ethertype is not None or rule.vlan is not None:
            return f"does not compare {rule.fields[-1]}"
        if any(network and network.bits < 32 for network in (rule.src, rule.dst)):
            return "compares whole addresses"
        return "" if rule.queue is not None else "does not drop"

    def _write(self, place: int, rule: Rule) -> None:
        assert rule.queue is not None
        fields = (rule.src, rule.dst, rule.sport, rule.dport, rule.protocol)
        masked = sum(1 << bit for bit, field in enumerate(fields) if field is None)
        regs = self._regs
        regs.write(reg.SAQF[place], ADDRESS=_on_the_wire(rule.src))
        regs.write(reg.DAQF[place], ADDRESS=_on_the_wire(rule.dst))
        ports = struct.unpack("<I", struct.pack(">HH", rule.sport or 0, rule.dport or 0))[0]
        regs.write(reg.SDPQF[place], ports)
        regs.write(reg.L34TIMIR[place], SIZE_BP=1, MUST_BE_64=64, RX_QUEUE=rule.queue)
        regs.write(
            reg.FTQF[place],
            PROTOCOL=_TUPLE_PROTOCOLS[rule.protocol],
            PRIORITY=max(rule.priority, _LEAST_PRIORITY),
            MASK=masked,
            POOL_MASK=1,
            QUEUE_ENABLE=1,
        )

    def _clear(self, place: int, rule: Rule) -> None:  # noqa: ARG002
        self._regs.write(reg.FTQF[place])


class ByFlowDirector(Table):
    """7.1.2.7, perfect match. All its rules compare the same bits of the same fields, those of the first one.

    Args:
        halted: a context in which no packet is received, for a table that is to be made; it takes `TABLE_KIB` of the
            receive buffer.
    """

    name, size = "flow director", 1024 * 2 - 2

    def __init__(self, address: str, regs: RegisterFile, halted: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__(address, regs)
        self._halted = halted
        self._made = False

    def lacks(self, rule: Rule) -> str:
        if rule.syn or rule.ethertype is not None:
            return f"does not compare {rule.fields[-1]}"
        if rule.priority:
            return "has no priorities"
        first = next(iter(self.rules.values()), None)
        if first is not None and _compared(first) != _compared(rule):
            return f"compares in all rules what it does in the first of them, {first}"
        return ""

    def _write(self, place: int, rule: Rule) -> None:
        regs = self._regs
        if not self._made:
            self._make()
        if len(self.rules) == 1:
            self._set_masks(rule)
        regs.write(reg.FDIRIPSA, ADDRESS=_on_the_wire(rule.src))
        regs.write(reg.FDIRIPDA, ADDRESS=_on_the_wire(rule.dst))
        regs.write(reg.FDIRPORT, SOURCE=rule.sport or 0, DESTINATION=rule.dport or 0)
        regs.write(reg.FDIRVLAN, VLAN=rule.vlan or 0)
        self._name(place, rule)
        self._command(
            CMD=_ADD_FLOW,
            L4TYPE=_FLOW_TYPES[rule.protocol],
            DROP=int(rule.queue is None),
            LAST=1,
            QUEUE_EN=1,
            RX_QUEUE=_DROP_QUEUE if rule.queue is None else rule.queue,
        )

    def _clear(self, place: int, rule: Rule) -> None:
        if self._made:
            self._regs.wait(reg.FDIRCMD, _TIMEOUT, CMD=0)  # that of an interrupted call
            self._name(place, rule)
            self._command(CMD=_REMOVE_FLOW)

    def _make(self) -> None:
        """7.1.2.7.11: the table is made while no packet comes."""
        regs = self._regs
        with self._halted():
            regs.write(reg.FDIRHKEY, KEY=_HASH_KEY)
            regs.write(
                reg.FDIRCTRL,
                PBALLOC=_TABLE_64K,
                PERFECT_MATCH=1,
                DROP_QUEUE=_DROP_QUEUE,
                MAX_LENGTH=_LONGEST_LIST,
            )
            regs.wait(reg.FDIRCTRL, _TIMEOUT, INIT_DONE=1)
        self._made = True

    def _set_masks(self, rule: Rule) -> None:
        """What is not compared: a bit that is set is left out. Those of ports are the other way round (8.2.3.21.6)."""
        regs = self._regs
        source, target = (0 if network is None else network.mask for network in (rule.src, rule.dst))
        regs.write(reg.FDIRSIP4M, IPM=_swapped(~source))
        regs.write(reg.FDIRDIP4M, IPM=_swapped(~target))
        for register in (reg.FDIRTCPM, reg.FDIRUDPM):
            regs.write(register, SPORTM=_unless(rule.sport), DPORTM=_unless(rule.dport))
        anything = int(rule.protocol is None)
        regs.write(reg.FDIRM, VLANID=int(rule.vlan is None), VLANP=1, POOL=1, L4P=anything, FLEX=1, DIPV6=1)

    def _name(self, place: int, rule: Rule) -> None:
        """The filter is known by its hash and the number of its place."""
        self._regs.write(reg.FDIRHASH, HASH=flow_hash(rule) % _BUCKETS, BUCKET_VALID=1, SW_INDEX=place)

    def _command(self, **fields: int) -> None:
        self._regs.write(reg.FDIRCMD, **fields)
        self._regs.wait(reg.FDIRCMD, _TIMEOUT, CMD=0)


class Tables:
    """All of a card's tables. Whoever changes them holds the device's lock.

    Args:
        address: the card's, for messages.
        regs: its registers.
        halted: see `ByFlowDirector`.
        five_fields: whether the card has filters by five fields.

    Attributes:
        rules: that were added, in this order. A table may hold one more, of a call that was interrupted.
    """

    def __init__(
        self,
        address: str,
        regs: RegisterFile,
        halted: Callable[[], AbstractContextManager[object]],
        *,
        five_fields: bool,
    ) -> None:
        self.rules: list[Rule] = []
        self._address = address
        self._tables: list[Table] = [ByEthertype(address, regs), BySyn(address, regs)]
        self._tables += [ByFiveFields(address, regs)] if five_fields else []
        self._tables.append(ByFlowDirector(address, regs, halted))

    def add(self, rule: Rule) -> Rule:
        """Put a rule into the first table that can hold it; the rule as it is there.

        Raises:
            ConfigurationError: none can, or it is full, or there is a rule for the same packets.
        """
        self._clear_left()
        same = next((other for other in self.rules if other.compares_as(rule)), None)
        if same is not None:
            raise ConfigurationError(f"{self._address}: there is a rule {same} already: remove it first")
        table = self._table_for(rule)
        try:
            self.rules.append(table.add(rule))
            return self.rules[-1]
        except BaseException:
            self._clear_left()
            raise

    def remove(self, rule: Rule) -> None:
        """Take a rule out of its table.

        Raises:
            ConfigurationError: it is none of `rules`.
        """
        if rule not in self.rules:
            raise no_such_rule(self._address, rule)
        next(table for table in self._tables if table.name == rule.table).remove(rule)
        self.rules.remove(rule)

    def _clear_left(self) -> None:
        """Take out of the tables what a call that was interrupted has left there."""
        for table in self._tables:
            for rule in [rule for rule in table.rules.values() if rule not in self.rules]:
                table.remove(rule)

    def _table_for(self, rule: Rule) -> Table:
        reasons = {table.name: table.lacks(rule) for table in self._tables}
        table = next((table for table in self._tables if not reasons[table.name]), None)
        if table is not None:
            return table
        told = "; ".join(f"its table by {name} {reason}" for name, reason in self._relevant(rule, reasons))
        raise ConfigurationError(f"{self._address}: {rule} cannot be had: {told}")

    def _relevant(self, rule: Rule, reasons: dict[str, str]) -> Sequence[tuple[str, str]]:
        """The tables that a rule could have been meant for, with their reasons."""
        own = {"Ethertype"} if rule.ethertype is not None else {"SYN"} if rule.syn else {"five fields", "flow director"}
        return [(name, reason) for name, reason in reasons.items() if name in own]


# ---------------------------------------------------------------------------------------------------------------------
# The flow director's hash


def flow_hash(rule: Rule) -> int:
    """The hash of what a rule compares, whose low bits name a bucket.

    For each bit of the key, repeated as long as the fields are, 16 bits of the fields are added without carry
    (7.1.2.7.16).
    """
    fields = struct.pack(
        ">HI12xI12xHHHBB",
        rule.vlan or 0,
        rule.src.address if rule.src else 0,
        rule.dst.address if rule.dst else 0,
        rule.sport or 0,
        rule.dport or 0,
        0,  # two bytes from anywhere in the frame,
        0,  # and the pool: they are not compared
        _FLOW_TYPES[rule.protocol],
    )
    width, stream = 8 * len(fields), int.from_bytes(fields, "big")
    around = (stream & 0x7FFF) << (width + 15) | stream << 15 | stream >> (width - 15)
    total = 0
    for bit in range(width + 15):
        if _HASH_KEY >> (bit + 1) % 32 & 1:
            total ^= around >> bit & 0xFFFF
    return total


def _compared(rule: Rule) -> tuple[object, ...]:
    """Which bits of which fields."""
    return rule.fields, rule.src and rule.src.bits, rule.dst and rule.dst.bits


def _on_the_wire(network: Network | None) -> int:
    """An address as registers have it: the first byte on the wire is the lowest."""
    return _swapped(int(network.address)) if network else 0


def _swapped(value: int) -> int:
    return int.from_bytes((value & 0xFFFFFFFF).to_bytes(4, "big"), "little")


def _unless(port: int | None) -> int:
    return 0xFFFF if port is None else 0
