"""What the physical function's driver does for one virtual function: it answers its messages.

The messages, and which answer there is to each, are those of Linux's and DPDK's drivers, versions 1.0 to 1.4 of their
interface (`ixy.registers.i82599_vf`). What a function asks for is not trusted, and it is let have what it was granted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ixy import clock
from ixy.registers import i82599 as reg
from ixy.registers import i82599_vf as vf
from ixy.sim.spec import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from ixy.sim.physical.driver import Physical

log = logging.getLogger("ixy.sim")

_FROM_11 = frozenset((vf.API_11, vf.API_12, vf.API_13, vf.API_14))
_FROM_12 = _FROM_11 - {vf.API_11}
_FROM_13 = _FROM_12 - {vf.API_12}
_NEGOTIABLE = _FROM_11 | {vf.API_10}
_SHORTEST_FRAME, _PLAIN_FRAME, _LONGEST_FRAME = 68, 1518, 9728  # bytes, with the check sequence
_VLAN_BITS = 0xFFF

# So many messages a function may send at once, and so often one more. A driver that sets a table of 64 VLANs and its
# addresses needs a quarter of that; one that sends without end keeps the card busy with that.
_BURST = 512
_PERIOD_NS = 1_000_000


class Refused(Exception):
    """The answer is no."""


class Function:
    """One virtual function, as its physical one knows it.

    Attributes:
        refused: how many of its requests were refused,
        flooded: and how many of these as it sends too many.
    """

    def __init__(self, physical: Physical, number: int) -> None:
        self.number = number
        self.refused = self.flooded = 0
        self._physical = physical
        self._registers = physical.registers
        self._filters = physical.filters
        self._may_send_from = 0  # when the function has sent as many messages as it may, and one more
        self._clear_to_send = False
        self._answers: dict[int, Callable[[list[int]], None]] = {
            vf.SET_MAC_ADDR: self._set_mac,
            vf.SET_MULTICAST: self._set_multicast,
            vf.SET_VLAN: self._set_vlan,
            vf.SET_LPE: self._set_longest_frame,
            vf.SET_MACVLAN: self._set_more_addresses,
            vf.API_NEGOTIATE: self._negotiate,
            vf.GET_QUEUES: self._get_queues,
            vf.GET_RETA: self._get_table,
            vf.GET_RSS_KEY: self._get_key,
            vf.UPDATE_XCAST_MODE: self._set_mode,
            vf.GET_LINK_STATE: self._get_link_state,
        }
        self.granted(Grant())

    def granted(self, grant: Grant) -> None:
        """It may have this from now on, as who hands it out says; whoever had it before is gone."""
        self._grant = grant
        self.mac = grant.mac or bytes([0x02, 0x69, 0x78, 0x79, 0x80 | self.number, self._physical.index + 1])
        self.refused = self.flooded = 0
        self.was_reset()

    # -----------------------------------------------------------------------------------------------------------------
    # What happens

    def was_reset(self) -> None:
        """It was reset through its configuration space: it has nothing until it asks to be reset."""
        self._clear_to_send = False
        self._take_all()
        for row in (reg.PFVFRE, reg.PFVFTE):
            self._filters.set_bit(row, self.number, False)

    def look_at_link(self) -> None:
        """The link has changed: tell the function to look."""
        self._send([vf.CONTROL | (vf.CTS if self._clear_to_send else 0)])

    def answer(self) -> None:
        """It has sent a message."""
        if not self._take():
            return
        words = self._physical.read_words(self.number)
        self._registers.write(reg.PFMAILBOX[self.number], ACK=1)
        if words[0] & (vf.ACK | vf.NACK):
            return  # an answer of ours, which is there still
        try:
            self._limit()
            if words[0] == vf.RESET:
                self._send(self._reset())
            else:
                self._do(words)
                self._send([words[0] | vf.ACK | vf.CTS, *words[1:]])
        except Refused:
            self.refused += 1
            self._send([words[0] | vf.NACK | (vf.CTS if self._clear_to_send else 0), *words[1:]])

    def _do(self, words: list[int]) -> None:
        """Do what a message asks for, and put what is to be told into its words.

        Raises:
            Refused: it may not be.
        """
        answer = self._answers.get(words[0] & 0xFFFF)
        if answer is None or not self._clear_to_send:
            raise Refused
        answer(words)

    def _limit(self) -> None:
        """Refuse to do anything for a function that sends too many messages."""
        now = clock.monotonic_ns()
        earliest = max(self._may_send_from, now - _BURST * _PERIOD_NS) + _PERIOD_NS
        if earliest > now:
            self.flooded += 1
            if self.flooded == 1:
                log.warning("sim:%s: sends too many messages: some are refused", self._physical.name_of(self.number))
            raise Refused
        self._may_send_from = earliest

    # -----------------------------------------------------------------------------------------------------------------
    # The mailbox (8.2.3.27.2)

    def _take(self) -> bool:
        """Take its words. A function that does not let go of them is made to, and is told nothing."""
        register = reg.PFMAILBOX[self.number]
        self._registers.write(register, PFU=1)
        if self._registers.get(register, "PFU"):
            return True
        self._registers.write(register, RVFU=1)
        self.refused += 1
        return False

    def _send(self, words: list[int]) -> None:
        if self._take():
            self._physical.write_words(self.number, words)
            self._registers.write(reg.PFMAILBOX[self.number], STS=1)

    # -----------------------------------------------------------------------------------------------------------------
    # A reset

    def _reset(self) -> list[int]:
        """It begins anew, with what it was granted; the words that tell it which address it has."""
        self._take_all()
        self._clear_to_send = True
        filters, number, grant = self._filters, self.number, self._grant
        filters.set_address(number, self.mac)
        filters.join(number, grant.vlan)
        always = reg.VLANA_ALWAYS if grant.vlan else reg.VLANA_DESCRIPTOR
        self._registers.write(reg.PFVMVIR[number], TAG=grant.vlan, VLANA=always)
        self._registers.write(reg.PFVML2FLT[number], AUPE=int(not grant.vlan), BAM=1)
        filters.check_sender(number, grant.spoof)
        for row in (reg.PFVFRE, reg.PFVFTE):
            filters.set_bit(row, number, True)
        for queue in self._queues:
            self._registers.write(reg.TDWBAL[queue], 0)
            self._registers.write(reg.TDWBAH[queue], 0)
        address = int.from_bytes(self.mac, "little")
        kind = self._registers.get(reg.MCSTCTRL, "MO")
        return [vf.RESET | vf.ACK, address & 0xFFFFFFFF, address >> 32, kind]

    @property
    def _queues(self) -> range:
        size = self._physical.queues_of_function
        return range(self.number * size, (self.number + 1) * size)

    def _take_all(self) -> None:
        """Take from it what it has been given."""
        filters, number = self._filters, self.number
        self._api = vf.API_10
        self._mode = vf.XCAST_NONE
        filters.leave_all(number)
        filters.drop_addresses(number, all_of_them=True)
        filters.set_groups(number, frozenset())
        filters.take_all_groups(number, False)
        self._registers.write(reg.PFVML2FLT[number], 0)

    # -----------------------------------------------------------------------------------------------------------------
    # Messages

    def _set_mac(self, words: list[int]) -> None:
        """Its own address. One that was given to it is changed only by a function that is trusted."""
        mac = _mac_of(words)
        if mac != self.mac and self._grant.mac is not None and not self._grant.trust:
            raise Refused
        if self._physical.is_anothers(mac, self.number) or not self._filters.set_address(self.number, mac):
            raise Refused
        self.mac = mac

    def _set_more_addresses(self, words: list[int]) -> None:
        """A list of further addresses, one a message: with 1 it begins, with 0 it is empty."""
        index = (words[0] & vf.INFO_MASK) >> vf.INFO_SHIFT
        if index > 0 and self._grant.mac is not None and not self._grant.trust:
            raise Refused
        mac = _mac_of(words) if index > 0 else b""
        if self._physical.is_anothers(mac, self.number):
            raise Refused
        if index <= 1:
            self._filters.drop_addresses(self.number)
        if index > 0 and not self._filters.add_address(self.number, mac):
            raise Refused

    def _set_multicast(self, words: list[int]) -> None:
        """The hashes of groups, two a word."""
        count = min((words[0] & vf.INFO_MASK) >> vf.INFO_SHIFT, vf.MULTICAST_HASHES)
        hashes = [words[1 + i // 2] >> 16 * (i % 2) & 0xFFF for i in range(count)]
        self._filters.set_groups(self.number, frozenset(hashes))
        self._registers.update(reg.PFVML2FLT[self.number], ROMPE=1)

    def _set_vlan(self, words: list[int]) -> None:
        """A VLAN is joined or left; not by who is in one without knowing, and none is left that is none."""
        joins, vlan = words[0] & vf.INFO_MASK, words[1] & _VLAN_BITS
        if self._grant.vlan:
            raise Refused
        if joins and not self._filters.join(self.number, vlan):
            raise Refused
        if not joins and vlan:
            self._filters.leave(self.number, vlan)

    def _set_longest_frame(self, words: list[int]) -> None:
        """With 1.0 a driver is not prepared for frames over several buffers, which are all functions' or none's."""
        longest = _LONGEST_FRAME if self._api in _FROM_11 else _PLAIN_FRAME
        if not _SHORTEST_FRAME <= words[1] <= longest:
            raise Refused
        self._physical.let_longer_frames_in(words[1])

    def _negotiate(self, words: list[int]) -> None:
        if words[1] not in _NEGOTIABLE:
            raise Refused
        self._api = words[1]

    def _get_queues(self, words: list[int]) -> None:
        """How many, whether it is to strip tags that it does not know of, and which queue is the default."""
        self._needs(_FROM_11)
        words[vf.QUEUES_TX] = words[vf.QUEUES_RX] = self._physical.queues_of_function
        words[vf.QUEUES_TRANS_VLAN] = int(bool(self._grant.vlan))
        words[vf.QUEUES_DEFAULT] = 0

    def _get_table(self, words: list[int]) -> None:
        """The redirection table, two bits an entry. It is all functions', as is the key: for who is trusted."""
        self._needs(_FROM_12, trust=True)
        for word in range(len(self._physical.table) // 16):
            entries = self._physical.table[16 * word : 16 * word + 16]
            words[1 + word] = sum((entry & 3) << 2 * i for i, entry in enumerate(entries))

    def _get_key(self, words: list[int]) -> None:
        self._needs(_FROM_12, trust=True)
        words[1 : 1 + len(self._physical.key)] = self._physical.key

    def _set_mode(self, words: list[int]) -> None:
        """Which groups it takes. Who is not trusted gets those that it names; all packets nobody gets from an 82599."""
        self._needs(_FROM_13 if words[1] == vf.XCAST_PROMISC else _FROM_12)
        mode = words[1] if self._grant.trust else min(words[1], vf.XCAST_MULTI)
        if mode >= vf.XCAST_PROMISC:
            raise Refused
        if mode != self._mode:
            named, all_groups = int(mode >= vf.XCAST_MULTI), int(mode == vf.XCAST_ALLMULTI)
            self._registers.update(reg.PFVML2FLT[self.number], ROMPE=named, MPE=all_groups)
            self._filters.take_all_groups(self.number, bool(all_groups))
        self._mode = words[1] = mode

    def _get_link_state(self, words: list[int]) -> None:
        """Whether it is let use the link."""
        self._needs(_FROM_12)
        words[1] = 1

    def _needs(self, versions: frozenset[int], *, trust: bool = False) -> None:
        if self._api not in versions or (trust and not self._grant.trust):
            raise Refused


def _mac_of(words: list[int]) -> bytes:
    """The address in the words behind the first; it must be that of a station."""
    mac = words[1].to_bytes(4, "little") + (words[2] & 0xFFFF).to_bytes(2, "little")
    if mac[0] & 1 or not any(mac):
        raise Refused
    return mac
