"""Compressed files: gzip (RFC 1952) and Zstandard (RFC 8878), known by their first bytes, or chosen by a name.

What is compressed is flushed each time, so that a file whose writer was killed holds all that went into it. And it can
be ended after any flush, with nothing known but what went in: so a file on a disk that is full is whole up to there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, Protocol

from ixy.errors import CaptureError

MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
MAGIC_BYTES = max(map(len, MAGICS))
SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
_LEVEL = 1  # the fastest: a capture must keep up


class Codec(Protocol):
    """Compresses one file."""

    def begin(self) -> bytes:
        """What the file begins with."""
        ...

    def compress(self, data: Any) -> bytes:
        """`data` compressed, so that all of it can be read again from what was given back so far."""
        ...

    def ending(self, size: int, checksum: int) -> bytes:
        """What ends the file after any call of `compress`.

        Args:
            size: bytes that went in, in all.
            checksum: CRC-32 of them.
        """
        ...


class Gzip:
    """A member of a gzip file. Its blocks end on bytes, since they are flushed (RFC 1951, 3.2)."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)

    def begin(self) -> bytes:
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no flags, no time, unknown system

    def compress(self, data: Any) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def ending(self, size: int, checksum: int) -> bytes:
        return b"\x03\0" + struct.pack("<II", checksum, size & 0xFFFF_FFFF)  # an empty last block


class Zstd:
    """A frame of Zstandard, without a checksum."""

    def __init__(self) -> None:
        self._library = _zstandard()
        self._stream = self._library.ZstdCompressor(level=_LEVEL).compressobj()

    def begin(self) -> bytes:
        return b""

    def compress(self, data: Any) -> bytes:
        return self._stream.compress(data) + self._stream.flush(self._library.COMPRESSOBJ_FLUSH_BLOCK)

    def ending(self, size: int, checksum: int) -> bytes:  # noqa: ARG002
        return b"\x01\0\0"  # an empty last block, 3.1.1.2


def codec(path: str) -> Codec | None:
    """What compresses a file of this name, if something is to.

    Raises:
        CaptureError: Zstandard is asked for and not installed.
    """
    kind = next((kind for suffix, kind in SUFFIXES.items() if path.endswith(suffix)), None)
    try:
        return {"gzip": Gzip, "zstd": Zstd}[kind]() if kind else None
    except ImportError:
        raise _missing(path) from None


def kind_of(head: bytes) -> str | None:
    """How a file is compressed that begins so, None if it is not."""
    return next((kind for magic, kind in MAGICS.items() if head.startswith(magic)), None)


class Decompressed:
    """The parts of a compressed file, as they were.

    Args:
        path: for messages.
        parts: of the compressed file.
        kind: how it is compressed, see `kind_of`.

    Attributes:
        damage: why they end early, or None.

    Raises:
        CaptureError: Zstandard is not installed.
    """

    def __init__(self, path: object, parts: Iterable[bytes], kind: str) -> None:
        self.damage: str | None = None
        self._parts = parts
        try:
            self._begin, self._error = _decompressor(kind)
        except ImportError:
            raise _missing(path) from None

    def __iter__(self) -> Iterator[bytes]:
        """Member after member, or frame after frame."""
        part = self._begin()
        for packed in self._parts:
            rest = packed
            while rest:
                part = self._begin() if part.eof else part
                try:
                    yield part.decompress(rest)
                except self._error as error:
                    self.damage = f"compressed data is damaged: {error}"
                    return
                rest = part.unused_data
        if not part.eof:
            self.damage = "compressed data is truncated"


def _decompressor(kind: str) -> tuple[Callable[[], Any], type[Exception]]:
    """What makes decompressors, and their error."""
    if kind == "gzip":
        return lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), zlib.error
    library = _zstandard()
    return lambda: library.ZstdDecompressor().decompressobj(), library.ZstdError


def _zstandard() -> Any:
    return import_module("zstandard")


def _missing(path: object) -> CaptureError:
    return CaptureError(f"{path}: Zstandard needs a package; run: pip install 'ixy[zstd]'")
