"""What a device can be asked to do to packets besides carrying them: the words for it, and what is refused."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import cast

from ixy.errors import ConfigurationError

OFFLOADS = {
    "checksum": ("flags",),
    "vlan": ("vlan",),
    "segmentation": ("segments", "parts"),
    "coalescing": ("segments", "parts"),
    "stamps": ("time",),
}
"""What can be asked for, by the names that `ixy.open` takes, and the metadata that each needs."""

MIN_MTU, MAX_MTU = 68, 65535  # bytes: what IPv4 asks of a link (RFC 791, 3.2), and what a packet of it can have


def check_offloads(
    address: str, names: object, possible: Container[object], metadata: Sequence[str] | None = None
) -> tuple[str, ...]:
    """What is asked for as offloads, once each, in the order of `OFFLOADS`.

    Args:
        possible: what the device can do.
        metadata: what it was asked to tell; None where that was checked before.

    Raises:
        TypeError: no sequence of names.
        ConfigurationError: says which name nobody knows, which the device cannot do, or which metadata is missing.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"offloads must be names, such as ('checksum', 'vlan'), not {names!r}")
    asked: list[object] = list(cast(Iterable[object], names))
    for name in asked:
        if name not in OFFLOADS:
            raise ConfigurationError(f"{address}: offload {name!r}: possible are {', '.join(OFFLOADS)}")
        if name not in possible:
            raise ConfigurationError(f"{address}: the device does not do {name!r}: leave it out of offloads")
    found = tuple(name for name in OFFLOADS if name in asked)
    if metadata is not None:
        for name in found:
            missing = [needed for needed in OFFLOADS[name] if needed not in metadata]
            if missing:
                raise ConfigurationError(f"{address}: offload {name!r} needs metadata=({missing[0]!r},) too")
    return found
