"""Columns of a capture as a table of Apache Arrow's; a field is null where a packet has no such header."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.captures.columns import WIDE, field_of
from ixy.errors import ConfigurationError
from ixy.headers import Field, Ipv6Address

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Absent = NDArray[np.bool_] | None


def arrow_table(columns: Mapping[str, tuple[NDArray[Any], Absent]], *, text: bool) -> Any:
    """A `pyarrow.Table` of columns by name, each with its values and where they are absent.

    Args:
        text: addresses as text, else as numbers and bytes.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    try:
        arrow: Any = import_module("pyarrow")
    except ImportError as error:
        raise ConfigurationError("Arrow tables need pyarrow; run: pip install 'ixy[arrow]'") from error
    return arrow.table({name: _column(arrow, name, *column, text=text) for name, column in columns.items()})


def _column(arrow: Any, name: str, values: NDArray[Any], absent: Absent, *, text: bool) -> Any:
    if absent is None:  # there in all packets
        return _times(arrow, values) if values.dtype.kind == "M" else arrow.array(values)
    field = field_of(name)
    numbers = _octets(arrow, values, absent) if field.size == WIDE else arrow.array(values, mask=absent)
    return _text(arrow, numbers, field) if text and field.kind is not int else numbers


def _times(arrow: Any, values: NDArray[Any]) -> Any:
    """Moments as they are: the earliest of all is one to Arrow, though none to NumPy ("not a time")."""
    kind = arrow.timestamp("ns", tz="UTC")
    return arrow.Array.from_buffers(kind, len(values), [None, arrow.py_buffer(values.view(np.int64))])


def _octets(arrow: Any, halves: NDArray[Any], absent: NDArray[np.bool_]) -> Any:
    """Addresses of 16 bytes."""
    there = np.packbits(~absent, bitorder="little")
    octets = np.ascontiguousarray(halves.astype(">i8"))
    return arrow.Array.from_buffers(arrow.binary(WIDE), len(halves), [arrow.py_buffer(there), arrow.py_buffer(octets)])


def _text(arrow: Any, numbers: Any, field: Field[Any]) -> Any:
    """Addresses as people write them, each once."""
    coded = numbers.dictionary_encode()
    known: list[Any] = coded.dictionary.to_pylist()
    if field.size == WIDE:
        known = [Ipv6Address.of(int.from_bytes(each)) for each in known]
    texts = arrow.array([str(field.kind(each)) for each in known], arrow.string())
    return arrow.DictionaryArray.from_arrays(coded.indices, texts)
