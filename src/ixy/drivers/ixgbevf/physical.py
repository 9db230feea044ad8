"""What a virtual function asks of its physical one: the words of the agreement between drivers, version by version.

The numbers are those of Linux's and DPDK's drivers of the physical function, which agree on them.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from ixy.drivers.ixgbevf.mailbox import Mailbox, Refused
from ixy.drivers.rss import KEY_BYTES
from ixy.errors import ConfigurationError, Error, UnsupportedDevice
from ixy.registers import i82599_vf as reg

if TYPE_CHECKING:
    from collections.abc import Sequence


class Version(NamedTuple):
    """Of the agreement."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


VERSIONS = {
    Version(1, 4): reg.API_14,
    Version(1, 3): reg.API_13,
    Version(1, 2): reg.API_12,
    Version(1, 1): reg.API_11,
    Version(1, 0): reg.API_10,
}
"""The versions that are asked for, the newest first, and their numbers."""

_HASH_SHIFTS = (4, 3, 2, 0)  # 12 of the last 16 bits of a group's address: which of them, the physical function says
TABLE_ENTRIES, _PER_WORD = 128, 16  # of the redirection table: a queue takes 2 bits


class Mode(IntEnum):
    """What is received besides packets for the station's addresses; each is more than the one before."""

    BROADCASTS = reg.XCAST_NONE
    GROUPS = reg.XCAST_MULTI
    ALL_GROUPS = reg.XCAST_ALLMULTI
    PROMISCUOUS = reg.XCAST_PROMISC


MODES = {
    Mode.BROADCASTS: "its own packets and broadcasts",
    Mode.GROUPS: "its own packets, broadcasts and groups that are asked for",
    Mode.ALL_GROUPS: "its own packets, broadcasts and all groups",
    Mode.PROMISCUOUS: "all packets",
}


class Queues(NamedTuple):
    """How many queues the function has, and whether the port has a VLAN, whose tags it does not see."""

    rx: int
    tx: int
    port_vlan: bool


class Physical:
    """The physical function, as far as a virtual one sees it.

    Attributes:
        mailbox: through which it is asked.
        version: of the agreement.
    """

    def __init__(self, address: str, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.version = Version(1, 0)
        self._address = address
        self._hash_shift = _HASH_SHIFTS[0]  # until it says otherwise

    def reset(self) -> bytes | None:
        """Say that this function was reset, after which all else begins: the station's address, if it has one."""
        self.version = Version(1, 0)
        name = "its reset"
        try:
            words = self.mailbox.ask(name, reg.RESET)
        except Refused:  # which means that it has no address yet
            return None
        mac = struct.pack("<2I", *words[:2])[:6]
        if mac[0] & 1 or not any(mac):
            raise self._nonsense(name, f"the address {mac.hex(':')}")
        if words[2] >= len(_HASH_SHIFTS):
            raise self._nonsense(name, f"the kind {words[2]:#x} of filter")
        self._hash_shift = _HASH_SHIFTS[words[2]]
        return mac

    def negotiate(self) -> None:
        """Agree on the newest version that both know."""
        for version, number in VERSIONS.items():
            try:
                self.mailbox.ask(f"version {version} of the mailbox's messages", reg.API_NEGOTIATE, [number, 0])
            except Refused:
                continue
            self.version = version
            return

    def queues(self) -> Queues:
        """How many there are."""
        if self.version < (1, 1):
            return Queues(1, 1, False)
        name = "how many queues it has"
        tx, rx, classes, default = self.mailbox.ask(name, reg.GET_QUEUES, [0] * 4)[:4]
        if not (1 <= rx <= reg.QUEUES and 1 <= tx <= reg.QUEUES):
            raise self._nonsense(name, f"{rx} to receive, {tx} to send")
        if classes > 1 or default:
            raise UnsupportedDevice(
                f"{self._address}: its physical function divides queues by priority (DCB), which this driver does not"
            )
        return Queues(rx, tx, classes == 1)

    def set_mac(self, mac: bytes) -> None:
        """
        Raises:
            ConfigurationError: whoever runs the physical function has set another one, for good.
        """
        self.mailbox.ask(f"the address {mac.hex(':')}", reg.SET_MAC_ADDR, _words(mac))

    def set_addresses(self, addresses: Sequence[bytes]) -> None:
        """Receive packets for these stations too, and for no others.

        Raises:
            ConfigurationError: they are too many, or not allowed.
        """
        if not addresses:
            self.mailbox.ask("to forget addresses", reg.SET_MACVLAN, [0, 0])
        for number, mac in enumerate(addresses, 1):  # the first takes the place of those before, all others are added
            self.mailbox.ask(f"packets for {mac.hex(':')}", reg.SET_MACVLAN, _words(mac), info=min(number, 2))

    def set_groups(self, addresses: Sequence[bytes]) -> None:
        """Receive packets for these groups, by 12 bits of each address (8.2.3.7.7), and so for some others.

        Raises:
            ConfigurationError: they are too many.
        """
        hashes = sorted({int.from_bytes(mac[4:], "little") >> self._hash_shift & 0xFFF for mac in addresses})
        if len(hashes) > reg.MULTICAST_HASHES:
            raise ConfigurationError(f"{self._address}: {len(hashes)} groups: {reg.MULTICAST_HASHES} are possible")
        halves = [*hashes, *[0] * (len(hashes) % 2)]
        words = [low | high << 16 for low, high in zip(halves[::2], halves[1::2], strict=True)]
        self.mailbox.ask("packets for groups", reg.SET_MULTICAST, words, info=len(hashes))

    def set_vlan(self, vlan: int, enabled: bool) -> None:
        """
        Raises:
            ConfigurationError: the port has a VLAN of its own, or there is no room for one more.
        """
        self.mailbox.ask(
            f"VLAN {vlan}" if enabled else f"to leave VLAN {vlan}", reg.SET_VLAN, [vlan], info=int(enabled)
        )

    def set_frame(self, size: int) -> None:
        """How long frames can be, with their check sequence.

        Raises:
            ConfigurationError: too long: on an 82599, all functions must agree on what is longer than usual.
        """
        self.mailbox.ask(f"frames of {size} bytes", reg.SET_LPE, [size])

    def receive(self, wanted: Mode) -> Mode:
        """Receive so much, or as much of it as is allowed, which is told."""
        if self.version < (1, 2):
            return Mode.GROUPS  # which is what there is without being asked for
        newest = Mode.PROMISCUOUS if self.version >= (1, 3) else Mode.ALL_GROUPS
        for mode in range(min(wanted, newest), Mode.BROADCASTS, -1):
            name = MODES[Mode(mode)]
            try:
                granted = self.mailbox.ask(name, reg.UPDATE_XCAST_MODE, [mode])[0]
            except Refused:
                continue
            if granted > mode:
                raise self._nonsense(name, f"mode {granted}")
            return Mode(granted)
        return Mode.BROADCASTS

    def spreading(self) -> tuple[bytes, tuple[int, ...]] | None:
        """Key and table of the hash by which packets are spread, all functions' alike; None if they are not told."""
        if self.version < (1, 2):
            return None
        try:
            packed = self.mailbox.ask("the redirection table", reg.GET_RETA)
            key = self.mailbox.ask("the key of the hash", reg.GET_RSS_KEY)
        except Refused:
            return None
        table = tuple(packed[entry // _PER_WORD] >> 2 * (entry % _PER_WORD) & 3 for entry in range(TABLE_ENTRIES))
        return struct.pack("<10I", *key[: KEY_BYTES // 4]), table

    def allows_link(self) -> bool:
        """Whether the link may be up, whatever the cable says."""
        if self.version < (1, 2):
            return True
        try:
            return self.mailbox.ask("whether its link may be up", reg.GET_LINK_STATE, [0])[0] != 0
        except Refused:  # one that does not know the question
            return True

    def _nonsense(self, name: str, found: str) -> Error:
        return Error(f"{self._address}: its physical function answers {name} with {found}: no sense")


def _words(mac: bytes) -> tuple[int, int]:
    """An address in two words, the first byte on the wire first."""
    return struct.unpack("<2I", mac + bytes(2))
