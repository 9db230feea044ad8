"""Receive-side scaling (RSS): a hash of a packet's addresses and ports says which receive queue it is for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

from ixy.arguments import octets
from ixy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_BYTES = 40

# The key of Microsoft's verification suite for receive-side scaling, against which published vectors check a hash.
DEFAULT_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")

# The same 16 bits over and over: addresses and ports are whole numbers of 16 bits apart, so source and destination may
# change places.
SYMMETRIC_KEY = bytes.fromhex("6d5a" * (KEY_BYTES // 2))

_KEY_NAMES = {DEFAULT_KEY: "default key", SYMMETRIC_KEY: "symmetric key"}


@dataclass(frozen=True, repr=False)
class Rss:
    """How a device spreads packets over its receive queues.

    The low bits of a packet's Toeplitz hash are its place in the table, where the number of its queue stands. Fragments
    are hashed by their addresses alone. What is not hashed goes to queue 0.

    Attributes:
        key: of the hash, 40 bytes.
        table: the redirection table, numbers of queues; its length is a power of two.
        fields: what is hashed: the addresses of IPv4 and IPv6, with the ports of TCP and UDP.
    """

    key: bytes
    table: tuple[int, ...]
    fields: tuple[str, ...] = ("IPv4", "IPv6", "TCP", "UDP")

    def __str__(self) -> str:
        fields = f"{', '.join(self.fields[:-1])} and {self.fields[-1]}"
        queues = len(set(self.table))
        return f"Toeplitz over {fields}, {queues} queue{'s' * (queues > 1)}, {_KEY_NAMES.get(self.key, 'own key')}"

    def __repr__(self) -> str:
        return f"<Rss {self}>"


def table_of(queues: Sequence[int], entries: int) -> tuple[int, ...]:
    """A redirection table of so many entries: `queues`, over and over."""
    return tuple(islice(cycle(queues), entries))


def check_key(name: str, key: object) -> bytes:
    """The key that a caller asks for: 40 bytes, the word "symmetric", or None for the default.

    Raises:
        TypeError: something else.
        ConfigurationError: another word, or not 40 bytes.
    """
    if key is None:
        return DEFAULT_KEY
    if not isinstance(key, str):
        return octets(name, key, KEY_BYTES, "a key")
    if key != "symmetric":
        raise ConfigurationError(f"{name} {key!r}: write 'symmetric', or {KEY_BYTES} bytes")
    return SYMMETRIC_KEY
