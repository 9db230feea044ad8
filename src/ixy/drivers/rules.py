"""Rules: which packets a device puts into which receive queue, or drops, before it spreads the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from re import fullmatch
from typing import TYPE_CHECKING, Any, NamedTuple

from ixy.arguments import boolean, integer, whole_number
from ixy.errors import ConfigurationError
from ixy.headers import Ipv4Address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Values = Sequence[tuple[str, object]]  # names of arguments and their values; "" for the word's own name

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

_LEAST_ETHERTYPE, _MOST = 0x600, 0xFFFF  # what is below is a length (IEEE 802.3)
_MAX_VLAN, _MAX_PRIORITY = 4095, 7
_ADDRESS_BITS = 32


class Network(NamedTuple):
    """IPv4 addresses that have their first bits in common."""

    address: Ipv4Address
    bits: int

    @property
    def mask(self) -> int:
        return (1 << _ADDRESS_BITS) - (1 << (_ADDRESS_BITS - self.bits))

    def __str__(self) -> str:
        return str(self.address) if self.bits == _ADDRESS_BITS else f"{self.address}/{self.bits}"


@dataclass(frozen=True)
class Rule:
    """Which packets, and what becomes of them. It prints as it can be written, see `parse_rule`.

    Attributes:
        queue: the number of a receive queue, or None: they are dropped.
        ethertype: what a frame carries, behind VLAN tags.
        syn: whether TCP segments with SYN are meant.
        protocol: "tcp", "udp" or "sctp".
        src, dst: IPv4 addresses.
        sport, dport: ports.
        vlan: of its tag.
        priority: among rules that compare the same kind of things, 7 is the first; 0 is for rules that have none.
        table: in which of the device's tables the rule is.
    """

    queue: int | None
    ethertype: int | None = None
    syn: bool = False
    protocol: str | None = None
    src: Network | None = None
    dst: Network | None = None
    sport: int | None = None
    dport: int | None = None
    vlan: int | None = None
    priority: int = 0
    table: str = ""

    def __str__(self) -> str:
        words = ["syn"] if self.syn else [] if self.protocol is None else [self.protocol]
        words += [] if self.ethertype is None else [f"ethertype {self.ethertype:#06x}"]
        for name in ("vlan", "src", "dst", "sport", "dport"):
            value = getattr(self, name)
            words += [] if value is None else [f"{name} {value}"]
        words += [f"priority {self.priority}"] if self.priority else []
        return f"{' '.join(words)} → {'drop' if self.queue is None else f'queue {self.queue}'}"

    @property
    def fields(self) -> tuple[str, ...]:
        """What it compares."""
        names = ("ethertype", "protocol", "src", "dst", "sport", "dport", "vlan")
        return tuple(name for name in names if getattr(self, name) is not None) + ("syn",) * self.syn

    def compares_as(self, other: Rule) -> bool:
        """Whether another rule is for the same packets."""
        return replace(self, queue=None, table="") == replace(other, queue=None, table="")

    def inside(self, table: str) -> Rule:
        """The rule, as it is in this table."""
        return replace(self, table=table)


def no_such_rule(address: str, rule: Rule) -> ConfigurationError:
    """The error of who removes a rule that the device at `address` does not have."""
    return ConfigurationError(f"{address}: {rule} is none of its rules")


def make_rule(
    address: str,
    queues: int,
    *,
    queue: object = None,
    drop: object = False,
    ethertype: object = None,
    syn: object = False,
    protocol: object = None,
    src: object = None,
    dst: object = None,
    sport: object = None,
    dport: object = None,
    vlan: object = None,
    priority: object = None,
) -> Rule:
    """The rule that a caller asks for on the device at `address`, which has so many receive `queues`.

    Raises:
        TypeError: something is of a wrong type.
        ConfigurationError: something is out of bounds, or the parts make no rule.
    """

    def optional(name: str, value: object, low: int, high: int) -> int | None:
        return None if value is None else integer(f"{address}: {name}", value, low, high)

    drops = boolean(f"{address}: drop", drop)
    if drops == (queue is not None):
        raise ConfigurationError(f"{address}: a rule has a queue, or drop=True, and not both")
    rule = Rule(
        queue=optional("queue", queue, 0, queues - 1),
        ethertype=optional("ethertype", ethertype, _LEAST_ETHERTYPE, _MOST),
        syn=boolean(f"{address}: syn", syn),
        protocol=_protocol(address, protocol),
        src=_network(f"{address}: src", src),
        dst=_network(f"{address}: dst", dst),
        sport=optional("sport", sport, 0, _MOST),
        dport=optional("dport", dport, 0, _MOST),
        vlan=optional("vlan", vlan, 0, _MAX_VLAN),
        priority=optional("priority", priority, 1, _MAX_PRIORITY) or 0,
    )
    _check(address, rule)
    return rule


def _check(address: str, rule: Rule) -> None:
    """Refuse parts that contradict each other, whatever the device."""
    if not rule.fields:
        raise ConfigurationError(f"{address}: a rule says which packets: by ethertype, protocol, src, dst, …")
    for name in ("ethertype", "syn"):
        if name in rule.fields and len(rule.fields) > 1:
            others = ", ".join(field for field in rule.fields if field != name)
            raise ConfigurationError(f"{address}: a rule by {name} compares nothing else, such as {others}")
    if rule.protocol is None and (rule.sport, rule.dport) != (None, None):
        raise ConfigurationError(f"{address}: ports are those of a protocol: tcp, udp or sctp")


def _protocol(address: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{address}: protocol must be text, not {type(value).__name__}")
    if value not in PROTOCOLS:
        raise ConfigurationError(f"{address}: protocol {value!r}: possible are {', '.join(PROTOCOLS)}")
    return value


def _network(name: str, value: object) -> Network | None:
    """An address as text, with the number of its bits behind a slash or without, or as a number."""
    if value is None:
        return None
    if not isinstance(value, str):
        return Network(Ipv4Address(integer(name, value, 0, (1 << _ADDRESS_BITS) - 1)), _ADDRESS_BITS)
    text, slash, bits = value.partition("/")
    try:
        address = Ipv4Address(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    found = Network(address, whole_number(f"{name} {value}: bits", bits, 1, _ADDRESS_BITS) if slash else _ADDRESS_BITS)
    if int(address) & ~found.mask:
        raise ConfigurationError(f"{name} {value}: bits are set behind the first {found.bits}")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# As text


def parse_rule(text: str) -> dict[str, Any]:
    """What a rule says that is written as `udp dst 10.0.0.1:53 queue 2`, as arguments of `Rules.add`.

    Words are a protocol, `syn`, `drop`, and pairs of a name and its value. A port may stand behind an address, and an
    arrow before what becomes of the packets.

    Raises:
        ConfigurationError: says which word is not understood.
    """
    words = [word for word in text.split() if word not in ("→", "->")]
    found: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if word in PROTOCOLS:
            _put(text, found, "protocol", word)
        elif word in ("syn", "drop"):
            _put(text, found, word, True)
        elif word not in _VALUES:
            raise ConfigurationError(f"rule {text!r}: {word!r} is not understood: write such as {_EXAMPLE!r}")
        elif not words:
            raise ConfigurationError(f"rule {text!r}: a value is missing behind {word!r}")
        else:
            for name, value in _VALUES[word](f"rule {text!r}: {word}", words.pop(0)):
                _put(text, found, name or word, value)
    return found


def _put(text: str, found: dict[str, object], name: str, value: object) -> None:
    if name in found:
        raise ConfigurationError(f"rule {text!r}: {name} is there twice")
    found[name] = value


def _whole(name: str, text: str) -> Values:
    return [("", whole_number(name, text, 0, _MOST))]


def _ethertype(name: str, text: str) -> Values:
    """Hexadecimal with 0x, else decimal. Digits that begin with 0 may be meant as hexadecimal, decimal or octal."""
    if not fullmatch("0[xX][0-9a-fA-F]+|[1-9][0-9]*", text):
        raise ConfigurationError(
            f"{name} {text!r}: write it in hexadecimal, such as 0x88f7, or in decimal without a 0 before it"
        )
    value = int(text, 0)
    if not _LEAST_ETHERTYPE <= value <= _MOST:
        raise ConfigurationError(f"{name} {text}: {_LEAST_ETHERTYPE:#x} to {_MOST:#x} are possible")
    return [("", value)]


def _source(name: str, text: str) -> Values:
    return _endpoint(name, text, "sport")


def _target(name: str, text: str) -> Values:
    return _endpoint(name, text, "dport")


def _endpoint(name: str, text: str, port: str) -> Values:
    host, colon, number = text.partition(":")
    return [("", host), *([(port, whole_number(name, number, 0, _MOST))] if colon else [])]


_EXAMPLE = "udp dst 10.0.0.1:53 queue 2"
_VALUES: dict[str, Callable[[str, str], Values]] = {
    "ethertype": _ethertype,
    "src": _source,
    "dst": _target,
    **dict.fromkeys(("sport", "dport", "vlan", "priority", "queue"), _whole),
}
