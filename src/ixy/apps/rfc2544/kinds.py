"""The kinds of packets with which a test is made: frames of the RFC's sizes, or the streams of a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ixy.apps.trial import streams_of_file, usual_stream
from ixy.errors import ConfigurationError
from ixy.formats.frames import MAX_FRAME

if TYPE_CHECKING:
    from ixy.apps.streams import Stream

log = logging.getLogger("ixy.apps")

SIZES = (64, 128, 256, 512, 1024, 1280, 1518)  # bytes (RFC 2544, section 9.1)
_CHECK_SEQUENCE = 4  # bytes of a frame that the RFC counts, and no other tool here


def frames(
    sizes: Sequence[int] | None, *, ipv6: bool = False, vlan: int | None = None, flows: int | None = None
) -> dict[str, list[Stream]]:
    """UDP datagrams in frames of several sizes, by the size.

    Args:
        sizes: in bytes, with check sequence; None for the RFC's, of which one that is too small for headers and
            signature is raised to the least that is not.
        ipv6, vlan, flows: see `usual_stream`.

    Raises:
        ConfigurationError: a size is too small or too large.
    """
    least = len(usual_stream(None, ipv6=ipv6, vlan=vlan).frames[0]) + _CHECK_SEQUENCE
    most = MAX_FRAME + _CHECK_SEQUENCE
    for size in sizes or ():
        if not least <= size <= most:
            raise ConfigurationError(
                f"--sizes {size}: {least} to {most} are possible: headers, signature, check sequence take {least}"
            )
    if not sizes and least > SIZES[0]:
        log.warning("frames of %d bytes have no room for headers and signature: %d bytes instead", SIZES[0], least)
    return {
        str(size): [usual_stream(str(size - _CHECK_SEQUENCE), ipv6=ipv6, vlan=vlan, flows=flows)]
        for size in sizes or [max(size, least) for size in SIZES]
    }


def of_file(path: str) -> dict[str, list[Stream]]:
    """The streams of a file, all of them at once: one kind of packets, by the file's name."""
    return {Path(path).name: streams_of_file(path)}
