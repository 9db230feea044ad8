"""Packet headers by name: one table of their fields, and where in a packet each of them begins.

What is written here drives all that knows headers: packets in Python (`packet.ipv4.src`), whole batches
(`batch.ipv4.src`, see `packets.arrays`), and packets in kernels, compiled and interpreted.

A header is false where a packet has none. It is found behind whatever comes before it: up to two VLAN tags, the options
of IPv4, the extension headers of IPv6. A header that is cut off, or lies in another fragment, is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast, overload

from ixy.jit import compiled, outlined, shared
from ixy.trouble import HEADER_END, NO_HEADER

if TYPE_CHECKING:
    from typing import Self

ABSENT = 1 << 40  # where a header begins that is not there: behind the end of every packet

# EtherTypes (IEEE 802) and protocols (IANA)
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_VLAN, _QINQ = 0x8100, 0x88A8
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_ICMP, _TCP, _UDP, _GRE, _ICMP6 = 1, 6, 17, 47, 58
_VXLAN_PORT = 4789
_TYPE = 12  # where the EtherType stands
_PLAIN = 14  # where what it announces begins, without tags
_MOST_TAGS = 2
_MOST_EXTENSIONS = 8
_OFFSET, _MORE = 0x1FFF, 0x2000  # of IPv4's flags and fragment offset: the offset, and whether fragments follow


class Bytes(Protocol):
    """What headers are read from."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


# ---------------------------------------------------------------------------------------------------------------------
# Addresses, which print and compare as people write them


class _Address(int):
    """A number that prints as people write such an address, and equals that text; but it has a number's hash.

    Args:
        value: the number, or the text.

    Attributes:
        form: what such a text is called, and an example.

    Raises:
        ValueError: the text is no address.
    """

    form: ClassVar[str]

    def __new__(cls, value: int | str = 0) -> Self:
        return cls.parse(value) if isinstance(value, str) else super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Raises:
            ValueError: it is no address.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __format__(self, form: str) -> str:
        return format(str(self), form)

    def __eq__(self, other: object) -> bool:
        return int(self) == (_parsed(type(self), other) if isinstance(other, str) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__


class MacAddress(_Address):
    """An Ethernet address, a number of 48 bits: 02:00:00:00:00:01."""

    form = "Ethernet address such as 02:00:00:00:00:01"

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _MAC.fullmatch(text):
            raise ValueError(f"{text!r} is no {cls.form}")
        return cls(int(re.sub("[:-]", "", text), 16))

    def __str__(self) -> str:
        return int(self).to_bytes(6).hex(":")


class Ipv4Address(_Address):
    """An IPv4 address, a number of 32 bits: 10.0.0.1."""

    form = "IPv4 address such as 10.0.0.1"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(int(IPv4Address(text)))
        except ValueError as error:
            raise ValueError(f"{text!r} is no {cls.form}") from error

    def __str__(self) -> str:
        return str(IPv4Address(int(self)))


class Ipv6Address(tuple[int, int]):
    """An IPv6 address: its upper and lower half, as kernels compute with them, in signed numbers of 64 bits. It prints
    as 2001:db8::1 and equals that text.

    Args:
        value: both halves, or the text.
    """

    __slots__ = ()
    form = "IPv6 address such as 2001:db8::1"

    def __new__(cls, value: tuple[int, int] | str = (0, 0)) -> Self:
        return cls.parse(value) if isinstance(value, str) else super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls.of(int(IPv6Address(text)))
        except ValueError as error:
            raise ValueError(f"{text!r} is no {cls.form}") from error

    @classmethod
    def of(cls, value: int) -> Self:
        """From a number of 128 bits."""
        return cls((_signed(value >> 64), _signed(value)))

    def __str__(self) -> str:
        return str(IPv6Address(int(self)))

    def __repr__(self) -> str:
        return f"Ipv6Address({str(self)!r})"

    def __int__(self) -> int:
        return (self[0] & _WORD) << 64 | self[1] & _WORD

    def __eq__(self, other: object) -> bool:
        other = _parsed(type(self), other) if isinstance(other, str) else other
        return isinstance(other, tuple) and (self[0], self[1]) == cast("tuple[int, int]", other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(int(self))


def _parsed(kind: Any, text: str) -> object:
    """The address that a text means; None if it means none."""
    try:
        return kind.parse(text)
    except ValueError:
        return None


def is_address(text: str) -> bool:
    """Whether a text is an address of any kind."""
    return any(_parsed(kind, text) is not None for kind in (MacAddress, Ipv4Address, Ipv6Address))


_MAC = re.compile("[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")

_WORD = (1 << 64) - 1


def _signed(value: int) -> int:
    """The lower 64 bits as a signed number."""
    return ((value & _WORD) ^ 1 << 63) - (1 << 63)


# ---------------------------------------------------------------------------------------------------------------------
# Fields

T = TypeVar("T", bound="int | tuple[int, int]")
H = TypeVar("H", bound="Header")


class Field(Generic[T]):
    """An unsigned integer of a header, in network byte order.

    Attributes:
        offset, size: where it lies in the header, in bytes; a field of 16 bytes is two signed integers of 8.
        shift, mask: where in those bytes.
        kind: what it is in Python.
    """

    def __init__(self, offset: int, size: int, kind: Callable[..., T] = int, *, shift: int = 0, bits: int = 0) -> None:
        self.offset, self.size, self.kind, self.shift = offset, size, kind, shift
        self.mask = (1 << (bits or 8 * size)) - 1

    def __set_name__(self, owner: type[Header], name: str) -> None:
        self.name = f"packet.{owner.name}.{name}"

    @overload
    def __get__(self, header: None, owner: type[Header]) -> Self: ...
    @overload
    def __get__(self, header: Header, owner: type[Header]) -> T: ...
    def __get__(self, header: Header | None, owner: type[Header]) -> Self | T:
        if header is None:
            return self
        value = (self._word(header) >> self.shift) & self.mask
        return cast(Any, Ipv6Address.of(value)) if self.size == 16 else self.kind(value)

    def __set__(self, header: Header, value: T | str | bytes | int) -> None:
        number = self.number(value)
        kept = self._word(header) & ~(self.mask << self.shift)
        word = kept | (number & self.mask) << self.shift
        for i in range(self.size):
            header.packet[header.at + self.offset + i] = (word >> 8 * (self.size - 1 - i)) & 0xFF

    def number(self, value: T | str | bytes | int) -> int:
        """What is assigned, as a number: an address also as text, or as bytes."""
        if self.kind is not int and isinstance(value, str):
            value = cast(T, cast(Any, self.kind).parse(value))
        if self.kind is not int and isinstance(value, bytes) and len(value) == self.size:
            return int.from_bytes(value, "big")
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{self.name} is a number, and cannot be {value!r}")
        return int(Ipv6Address(value)) if isinstance(value, tuple) else int(value)

    def _word(self, header: Header) -> int:
        packet, at = header.packet, header.at + self.offset
        header.check(self.name)
        word = 0
        for i in range(self.size):
            word = word << 8 | packet[at + i]
        return word


class Header:
    """A header of a packet, false where the packet has none.

    Attributes:
        packet: that it belongs to.
        at: where in the packet it begins; `ABSENT` where there is none.
    """

    name: ClassVar[str]
    locate: ClassVar[Callable[[Any], int]]
    methods: ClassVar[dict[str, Callable[[Any, int], None]]] = {}

    def __init__(self, packet: Bytes, at: int) -> None:
        self.packet, self.at = packet, at

    def __bool__(self) -> bool:
        return self.at != ABSENT

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("packet", "at") and name not in fields(type(self)):
            raise AttributeError(f"packet.{self.name} has no {name!r}; it has {', '.join(fields(type(self)))}")
        object.__setattr__(self, name, value)

    def check(self, what: str) -> None:
        """
        Raises:
            IndexError: there is no such header, or the packet, which was cut since, ends before the header does.
        """
        if not self:
            raise IndexError(NO_HEADER.format(what))
        end = self.at + size(type(self))
        if end > len(self.packet):
            raise IndexError((what + HEADER_END).format(end, len(self.packet)))

    def __repr__(self) -> str:
        if not self:
            return f"<no {self.name}>"
        return f"<{self.name} {', '.join(f'{name}={getattr(self, name)}' for name in fields(type(self)))}>"


@cache
def fields(header: type[Header]) -> dict[str, Field[Any]]:
    """The fields of a kind of header, by name."""
    return {name: field for name, field in vars(header).items() if isinstance(field, Field)}


@cache
def size(header: type[Header]) -> int:
    """The bytes that a kind of header has at least, all its fields among them."""
    return max(field.offset + field.size for field in fields(header).values())


# ---------------------------------------------------------------------------------------------------------------------
# Where headers begin: kernels over a packet's bytes


@shared(compiled)
def word(packet: Bytes, at: int) -> int:
    """Two bytes in network byte order."""
    return packet[at] << 8 | packet[at + 1]


@shared(compiled)
def ether_type(packet: Bytes) -> int:
    """Where the EtherType stands, behind the tags (IEEE 802.1Q); `ABSENT` where the packet is too short."""
    at = _TYPE
    for _ in range(_MOST_TAGS):
        if at + 2 > len(packet):
            return ABSENT
        kind = word(packet, at)
        if kind != _VLAN and kind != _QINQ:
            return at
        at += 4
    return at if at + 2 <= len(packet) else ABSENT


@shared(compiled)
def network(packet: Bytes, kind: int, size: int) -> int:
    """Where what an EtherType announces begins, of which at least `size` bytes must be there."""
    at = ether_type(packet)
    if at == ABSENT or at + 2 + size > len(packet) or word(packet, at) != kind:
        return ABSENT
    return at + 2


@shared(compiled)
def is_plain(packet: Bytes) -> bool:
    """Whether a packet is IPv4 without tags and options, as most are."""
    return len(packet) >= _PLAIN + 20 and word(packet, _TYPE) == _IPV4 and packet[_PLAIN] == 0x45


@shared(compiled)
def transport(packet: Bytes, over4: int, over6: int, size: int) -> int:
    """Where the header of a protocol begins, of which at least `size` bytes must be there.

    Args:
        over4, over6: the protocol's number over IPv4 and over IPv6, -1 where it has none.
    """
    return _behind_plain(packet, over4, size) if is_plain(packet) else _any_transport(packet, over4, over6, size)


@shared(compiled)
def _behind_plain(packet: Bytes, protocol: int, size: int) -> int:
    """What `_behind_ipv4` finds in such a packet."""
    if len(packet) < _PLAIN + 20 + size or packet[_PLAIN + 9] != protocol or word(packet, _PLAIN + 6) & _OFFSET != 0:
        return ABSENT
    return ABSENT if word(packet, _PLAIN + 2) < 20 + size else _PLAIN + 20


@shared(outlined)
def _any_transport(packet: Bytes, over4: int, over6: int, size: int) -> int:
    at = ether_type(packet)
    if at == ABSENT:
        return ABSENT
    kind = word(packet, at)
    at += 2
    if kind == _IPV4:
        at = _behind_ipv4(packet, at, over4, size)
    elif kind == _IPV6:
        at = _behind_ipv6(packet, at, over6)
    else:
        return ABSENT
    return at if at + size <= len(packet) else ABSENT


@shared(compiled)
def _behind_ipv4(packet: Bytes, at: int, protocol: int, size: int) -> int:
    """Where IPv4's payload begins, if it is the first fragment of this protocol and has so many bytes (RFC 791)."""
    if at + 20 > len(packet):
        return ABSENT
    first = packet[at]
    if first < 0x45 or first > 0x4F or packet[at + 9] != protocol or word(packet, at + 6) & _OFFSET != 0:
        return ABSENT
    header = 4 * (first & 15)
    return at + header if header + size <= word(packet, at + 2) else ABSENT


@shared(compiled)
def _behind_ipv6(packet: Bytes, at: int, protocol: int) -> int:
    """Where the payload behind IPv6 and its extension headers begins, if it is of this protocol (RFC 8200, 4)."""
    if at + 40 > len(packet) or packet[at] >> 4 != 6:
        return ABSENT
    following = packet[at + 6]
    at += 40
    for _ in range(_MOST_EXTENSIONS + 1):
        if following == protocol:
            return at
        if at + 8 > len(packet):
            return ABSENT
        size = 8 * packet[at + 1] + 8
        if following == _FRAGMENT:
            if word(packet, at + 2) >> 3 != 0:
                return ABSENT
            size = 8
        elif following == _AUTHENTICATION:  # RFC 4302, 2.2: in words of 4 bytes
            size = 4 * packet[at + 1] + 8
        elif following != _HOP_BY_HOP and following != _ROUTING and following != _DESTINATION:
            return ABSENT
        following = packet[at]
        at += size
    return ABSENT


@shared(compiled)
def _eth(packet: Bytes) -> int:
    return 0 if len(packet) >= 14 else ABSENT


@shared(compiled)
def _vlan(packet: Bytes) -> int:
    if len(packet) < _TYPE + 6:
        return ABSENT
    kind = word(packet, _TYPE)
    return _TYPE + 2 if kind == _VLAN or kind == _QINQ else ABSENT


@shared(compiled)
def _arp(packet: Bytes) -> int:
    return network(packet, _ARP, 28)


@shared(compiled)
def _ipv4(packet: Bytes) -> int:
    return _PLAIN if is_plain(packet) else _any_ipv4(packet)


@shared(outlined)
def _any_ipv4(packet: Bytes) -> int:
    at = network(packet, _IPV4, 20)
    if at == ABSENT or packet[at] < 0x45 or packet[at] > 0x4F or at + 4 * (packet[at] & 15) > len(packet):
        return ABSENT
    return at


@shared(compiled)
def _ipv6(packet: Bytes) -> int:
    at = network(packet, _IPV6, 40)
    if at == ABSENT or packet[at] >> 4 != 6:
        return ABSENT
    return at


@shared(compiled)
def _icmp(packet: Bytes) -> int:
    return transport(packet, _ICMP, -1, 8)


@shared(compiled)
def _icmp6(packet: Bytes) -> int:
    return transport(packet, -1, _ICMP6, 8)


@shared(compiled)
def _tcp(packet: Bytes) -> int:
    return transport(packet, _TCP, _TCP, 20)


@shared(compiled)
def _udp(packet: Bytes) -> int:
    return transport(packet, _UDP, _UDP, 8)


@shared(compiled)
def _vxlan(packet: Bytes) -> int:
    at = transport(packet, _UDP, _UDP, 16)
    if at == ABSENT or word(packet, at + 2) != _VXLAN_PORT:
        return ABSENT
    return at + 8


@shared(compiled)
def _gre(packet: Bytes) -> int:
    return transport(packet, _GRE, _GRE, 4)


# ---------------------------------------------------------------------------------------------------------------------
# Checksums (RFC 1071)


@shared(compiled)
def words_sum(packet: Bytes, at: int, end: int) -> int:
    """The sum of 16-bit words from `at` to before `end`, within the packet; an odd byte is followed by a zero."""
    end = min(end, len(packet))
    total = 0
    while at + 1 < end:
        total += word(packet, at)
        at += 2
    if at < end:
        total += packet[at] << 8
    return total


@shared(compiled)
def folded(total: int) -> int:
    """The checksum that a sum of 16-bit words gives."""
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


@shared(compiled)
def put_word(packet: Bytes, at: int, value: int) -> None:
    packet[at] = value >> 8 & 0xFF
    packet[at + 1] = value & 0xFF


@shared(compiled)
def update_ipv4_checksum(packet: Bytes, at: int) -> None:
    if at + 20 <= len(packet):
        put_word(packet, at + 10, 0)
        put_word(packet, at + 10, folded(words_sum(packet, at, at + 4 * (packet[at] & 15))))


@shared(outlined)
def _update_transport_checksum(packet: Bytes, at: int, field: int, protocol: int) -> None:
    """Make the checksum of a header anew, over pseudo-header (RFC 768, RFC 9293, RFC 8200 8.1) and payload.

    That of a datagram in fragments covers what is not here: it is left alone. So is one whose lengths make no sense.
    Behind a routing header the destination of the IPv6 header is taken for the last.

    Args:
        field: where in the header it stands.
    """
    ip = ether_type(packet) + 2
    if ip + 20 > len(packet) or at + field + 2 > len(packet):
        return
    if word(packet, ip - 2) == _IPV4:
        if word(packet, ip + 6) & _MORE != 0:
            return
        end = ip + word(packet, ip + 2)
        total = words_sum(packet, ip + 12, ip + 20)
    else:
        end = ip + 40 + word(packet, ip + 4)
        total = words_sum(packet, ip + 8, ip + 40)
    if protocol == _UDP:
        end = min(end, at + word(packet, at + 4))
    end = min(end, len(packet))
    if end < at + field + 2:
        return
    put_word(packet, at + field, 0)
    total += protocol + (end - at) + words_sum(packet, at, end)
    put_word(packet, at + field, folded(total))


@shared(compiled)
def update_tcp_checksum(packet: Bytes, at: int) -> None:
    _update_transport_checksum(packet, at, 16, _TCP)


@shared(compiled)
def update_udp_checksum(packet: Bytes, at: int) -> None:
    _update_transport_checksum(packet, at, 6, _UDP)
    if at + 8 <= len(packet) and word(packet, at + 6) == 0:
        put_word(packet, at + 6, 0xFFFF)  # RFC 768: zero means that there is none


@shared(compiled)
def update_icmp_checksum(packet: Bytes, at: int) -> None:
    """Over all that follows; an ICMP message has no length of its own, so IPv4's counts (RFC 792)."""
    ip = ether_type(packet) + 2
    if ip + 20 <= len(packet) and at + 4 <= len(packet):
        put_word(packet, at + 2, 0)
        put_word(packet, at + 2, folded(words_sum(packet, at, ip + word(packet, ip + 2))))


@shared(compiled)
def update_icmp6_checksum(packet: Bytes, at: int) -> None:
    _update_transport_checksum(packet, at, 2, _ICMP6)


_THREE_WORDS = 0xFFFF_FFFF_FFFF


@shared(compiled)
def adjusted(checksum: int, old: int, new: int) -> int:
    """A checksum after a part of what it covers has changed from `old` to `new`, integers of up to 48 bits that begin
    at an even byte (RFC 1624, equation 3)."""
    total = (~checksum & 0xFFFF) + (~old & _THREE_WORDS) + (new & _THREE_WORDS)
    return folded((total & 0xFFFF_FFFF) + (total >> 32))  # words may be added up in one: 2^16 is 1 modulo 2^16 - 1


# ---------------------------------------------------------------------------------------------------------------------
# The table


class _Summed(Header):
    """A header with a checksum."""

    def update_checksum(self) -> None:
        """Make the checksum anew, over all that it covers.

        Raises:
            IndexError: the packet has no such header.
        """
        self.check(f"packet.{self.name}.update_checksum")
        self.methods["update_checksum"](self.packet, self.at)


class Ethernet(Header):
    """IEEE 802.3, and the tag of a VLAN behind it is a header of its own."""

    name, locate = "eth", staticmethod(_eth)
    dst = Field(0, 6, MacAddress)
    src = Field(6, 6, MacAddress)
    type = Field(12, 2)


class Vlan(Header):
    """The outermost tag (IEEE 802.1Q)."""

    name, locate = "vlan", staticmethod(_vlan)
    priority = Field(0, 2, shift=13, bits=3)
    dei = Field(0, 2, shift=12, bits=1)
    id = Field(0, 2, bits=12)
    type = Field(2, 2)


class Arp(Header):
    """RFC 826, for IPv4 over Ethernet."""

    name, locate = "arp", staticmethod(_arp)
    hardware = Field(0, 2)
    protocol = Field(2, 2)
    hardware_size = Field(4, 1)
    protocol_size = Field(5, 1)
    operation = Field(6, 2)
    sender_mac = Field(8, 6, MacAddress)
    sender = Field(14, 4, Ipv4Address)
    target_mac = Field(18, 6, MacAddress)
    target = Field(24, 4, Ipv4Address)


class Ipv4(_Summed):
    """RFC 791."""

    name, locate = "ipv4", staticmethod(_ipv4)
    methods: ClassVar[dict[str, Callable[[Any, int], None]]] = {"update_checksum": update_ipv4_checksum}
    version = Field(0, 1, shift=4, bits=4)
    ihl = Field(0, 1, bits=4)
    tos = Field(1, 1)
    length = Field(2, 2)
    id = Field(4, 2)
    df = Field(6, 2, shift=14, bits=1)
    mf = Field(6, 2, shift=13, bits=1)
    offset = Field(6, 2, bits=13)
    ttl = Field(8, 1)
    protocol = Field(9, 1)
    checksum = Field(10, 2)
    src = Field(12, 4, Ipv4Address)
    dst = Field(16, 4, Ipv4Address)


class Ipv6(Header):
    """RFC 8200. In kernels an address is two integers, its upper and its lower half."""

    name, locate = "ipv6", staticmethod(_ipv6)
    version = Field(0, 4, shift=28, bits=4)
    traffic_class = Field(0, 4, shift=20, bits=8)
    flow = Field(0, 4, bits=20)
    length = Field(4, 2)
    next_header = Field(6, 1)
    hop_limit = Field(7, 1)
    src = Field(8, 16, Ipv6Address)
    dst = Field(24, 16, Ipv6Address)


class Icmp(_Summed):
    """RFC 792; identifier and sequence number are those of an echo."""

    name, locate = "icmp", staticmethod(_icmp)
    methods: ClassVar[dict[str, Callable[[Any, int], None]]] = {"update_checksum": update_icmp_checksum}
    type = Field(0, 1)
    code = Field(1, 1)
    checksum = Field(2, 2)
    id = Field(4, 2)
    sequence = Field(6, 2)


class Icmp6(_Summed):
    """RFC 4443."""

    name, locate = "icmp6", staticmethod(_icmp6)
    methods: ClassVar[dict[str, Callable[[Any, int], None]]] = {"update_checksum": update_icmp6_checksum}
    type = Field(0, 1)
    code = Field(1, 1)
    checksum = Field(2, 2)
    id = Field(4, 2)
    sequence = Field(6, 2)


class Tcp(_Summed):
    """RFC 9293."""

    name, locate = "tcp", staticmethod(_tcp)
    methods: ClassVar[dict[str, Callable[[Any, int], None]]] = {"update_checksum": update_tcp_checksum}
    sport = Field(0, 2)
    dport = Field(2, 2)
    seq = Field(4, 4)
    ack = Field(8, 4)
    offset = Field(12, 1, shift=4, bits=4)
    flags = Field(13, 1)
    is_ack = Field(13, 1, shift=4, bits=1)
    is_rst = Field(13, 1, shift=2, bits=1)
    is_syn = Field(13, 1, shift=1, bits=1)
    is_fin = Field(13, 1, bits=1)
    window = Field(14, 2)
    checksum = Field(16, 2)
    urgent = Field(18, 2)


class Udp(_Summed):
    """RFC 768."""

    name, locate = "udp", staticmethod(_udp)
    methods: ClassVar[dict[str, Callable[[Any, int], None]]] = {"update_checksum": update_udp_checksum}
    sport = Field(0, 2)
    dport = Field(2, 2)
    length = Field(4, 2)
    checksum = Field(6, 2)


class Vxlan(Header):
    """RFC 7348, behind its port."""

    name, locate = "vxlan", staticmethod(_vxlan)
    flags = Field(0, 1)
    vni = Field(4, 4, shift=8, bits=24)


class Gre(Header):
    """RFC 2784."""

    name, locate = "gre", staticmethod(_gre)
    flags = Field(0, 2)
    protocol = Field(2, 2)


class Named(Generic[H]):
    """A header by its name: of a packet, or as arrays of all packets of a batch."""

    def __init__(self, kind: type[H]) -> None:
        self.kind = kind

    @overload
    def __get__(self, thing: None, owner: type[Headers]) -> Self: ...
    @overload
    def __get__(self, thing: ManyHeaders, owner: type[Headers]) -> Any: ...
    @overload
    def __get__(self, thing: Headers, owner: type[Headers]) -> H: ...
    def __get__(self, thing: Headers | None, owner: type[Headers]) -> Any:
        return self if thing is None else thing.header(self.kind)


class Headers:
    """What has headers by name: a packet."""

    __slots__ = ()
    eth = Named(Ethernet)
    arp = Named(Arp)
    ipv4 = Named(Ipv4)
    ipv6 = Named(Ipv6)
    icmp = Named(Icmp)
    icmp6 = Named(Icmp6)
    tcp = Named(Tcp)
    udp = Named(Udp)
    vxlan = Named(Vxlan)
    gre = Named(Gre)

    @property
    def vlan(self) -> Any:
        """The outermost tag, a `Vlan`; an integer, see `Flags.VLAN`, where the device takes tags out of packets."""
        return self.header(Vlan)

    def header(self, kind: type[Header]) -> Any:
        """The header of this kind."""
        packet = cast(Bytes, self)
        return kind(packet, kind.locate(packet))


class ManyHeaders(Headers):
    """What has headers of many packets by name: a batch."""

    __slots__ = ()


HEADERS: dict[str, type[Header]] = {
    kind.name: kind for kind in (Ethernet, Vlan, Arp, Ipv4, Ipv6, Icmp, Icmp6, Tcp, Udp, Vxlan, Gre)
}
