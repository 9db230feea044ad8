"""Packets, headers and records as types of compiled code: what kinds there are, and what can be done with them.

How it is done, by addresses, is in `unsafe.views`. What fields there are is written in `ixy.headers` and in the user's
records. A sentence that is raised here is the user's to read, see `kernels.compilation`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from enum import EnumMeta, IntFlag
from typing import Any

import numpy as np
from numba import typeof
from numba.core import errors, types
from numba.core.typeconv.castgraph import Conversion
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    infer,
    infer_getattr,
    infer_global,
    signature,
)
from numba.core.typing.typeof import typeof_impl

from ixy import functions, verdicts
from ixy.headers import HEADERS, Field, Ipv6Address, fields

# Numba's internals have no types.
# pyright: basic, reportOptionalCall=false

# Columns of `Packets`, and what they are of a packet; those of them that a kernel may assign
COLUMNS = {"flags": "flags", "hashes": "hash", "vlans": "vlan", "times": "time", "segments": "segments"}
SETTABLE = ("flags", "vlan", "segments")
BYTES = types.Array(types.uint8, 1, "C")
PACKET_METHODS = ("insert", "remove")
WIDE = 16  # bytes of a field that is two integers
VERDICTS = types.Array(types.int64, 1, "C")
TEXTS = types.UnicodeType | types.StringLiteral
WHOLE = types.Integer | types.Boolean | types.IntEnumMember


class PacketType(types.Type):
    """A packet.

    Args:
        room: the bytes that its buffer has.
        columns: those that its path has, name and type of each.
        chain: how many buffers it may lie in, and how many there are, a mask; None where it lies in one.
    """

    def __init__(self, room: int, columns: dict[str, Any], chain: tuple[int, int] | None) -> None:
        self.room, self.columns, self.chain = room, columns, chain
        super().__init__(f"ixy.Packet({', '.join([str(room), *columns, *(['parts'] if chain else [])])})")


class HeaderType(types.Type):
    """A header of a packet."""

    def __init__(self, packet: PacketType, header: str) -> None:
        self.packet, self.header = packet, header
        super().__init__(f"{packet}.{header}")


class AddressType(types.Integer):
    """An address that is one integer: an int64 that also compares with text.

    Args:
        kind: its class in Python.
    """

    plain = types.int64  # what it is to who knows no addresses

    def __init__(self, kind: type) -> None:
        self.kind = kind
        super().__init__("int64", 64, signed=True)

    @property
    def key(self) -> Any:
        return self.kind

    def can_convert_to(self, typingctx: Any, other: Any) -> Any:
        if isinstance(other, types.Number):
            return max(typingctx.can_convert(types.int64, other), Conversion.promote)
        return None


class WideAddressType(types.UniTuple):
    """An IPv6 address, two int64 that also compare with text."""

    kind = Ipv6Address
    plain = types.UniTuple(types.int64, 2)

    def __init__(self) -> None:
        super().__init__(types.int64, 2)

    def __unliteral__(self) -> Any:
        return self


class FlagsType(types.EnumClass):
    """A class of flags, such as `ixy.Flags`: its members are integers, as they are in Python."""

    basename = "Flags"

    def __init__(self, known: type[IntFlag]) -> None:
        super().__init__(known, types.int64)

    @property
    def member_type(self) -> Any:
        return self.dtype


class RecordType(types.Type):
    """A record of the user's, or one within it."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        super().__init__(f"ixy.Record({dtype!r})")


class ElementsType(types.Type):
    """An array in a record."""

    def __init__(self, dtype: np.dtype, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(f"ixy.Elements({dtype!r}, {count})")


class BatchType(types.Type):
    """The packets of a batch, and their verdicts.

    Args:
        packet: the type of each.
        stride: bytes from one buffer to the next.
        numbers: a mask, how many buffers there are.
    """

    def __init__(self, packet: PacketType, stride: int, numbers: int) -> None:
        self.packet, self.stride, self.numbers = packet, stride, numbers
        super().__init__(f"ixy.Packets({packet}, {stride}, {numbers})")


_of_enum = typeof_impl.dispatch(EnumMeta)


@typeof_impl.register(EnumMeta)
def _type_of_enum(known: Any, context: Any) -> Any:
    return FlagsType(known) if issubclass(known, IntFlag) else _of_enum(known, context)


@typeof_impl.register(IntFlag)
def _type_of_flag(_flag: IntFlag, _context: Any) -> Any:
    return types.int64


def packet_type(room: int, packets: Any, chain: tuple[int, int]) -> PacketType:
    """The type of a packet in one of these `Packets`."""
    return column_type(room, typeof(packets), chain)


def column_type(room: int, packets: Any, chain: tuple[int, int]) -> PacketType:
    """The type of one of `packets`, with the columns that are there."""
    known = dict(zip(packets.instance_class._fields, packets.types, strict=True))
    there = {short: known[name] for name, short in COLUMNS.items() if isinstance(known[name], types.Array)}
    goes_on = isinstance(known["nexts"], types.Array)
    return PacketType(room, {short: column.dtype for short, column in there.items()}, chain if goes_on else None)


def scalar(dtype: np.dtype) -> Any:
    return types.float64 if dtype.kind == "f" else types.int64


def kind_of(dtype: np.dtype) -> Any:
    """What a field or element of a record, of this dtype, is to a kernel."""
    if dtype.shape:
        return ElementsType(dtype.base, dtype.shape[0])
    return RecordType(dtype) if dtype.names else scalar(dtype)


def field_type(field: Field[Any]) -> Any:
    """What a field of a header is to a kernel."""
    if field.size == WIDE:
        return WideAddressType()
    return types.int64 if field.kind is int else AddressType(field.kind)


# ---------------------------------------------------------------------------------------------------------------------
# Addresses and text


def parsed(address: Any, text: Any) -> Any:
    """The address of this type that a constant text means: an integer, or two.

    Raises:
        TypingError: it means none, or is not constant.
    """
    if not isinstance(text, types.StringLiteral):
        raise errors.TypingError("an address can be compared with a constant text only")
    try:
        found = address.kind.parse(text.literal_value)
    except ValueError as error:
        raise errors.TypingError(str(error)) from error
    return tuple(found) if isinstance(found, tuple) else int(found)


class _Equality(AbstractTemplate):
    """An address and a text."""

    def generic(self, args: Any, kws: Any) -> Any:
        for address, text in (args, args[::-1]):
            if isinstance(address, AddressType | WideAddressType) and isinstance(text, TEXTS):
                parsed(address, text)
                return signature(types.boolean, address, address)
        return None


infer_global(operator.eq)(_Equality)
infer_global(operator.ne)(_Equality)


@infer_global(operator.contains)
class _Contains(AbstractTemplate):
    """An address among addresses and other integers."""

    def generic(self, args: Any, kws: Any) -> Any:
        known, address = args
        if not (isinstance(known, types.Tuple | types.UniTuple) and isinstance(address, AddressType)):
            return None
        whole = all(isinstance(each, WHOLE) for each in known.types)
        return signature(types.boolean, types.UniTuple(types.int64, len(known)), types.int64) if whole else None


@infer_global(float)
class _Float(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(types.float64, types.int64) if isinstance(args[0], AddressType) else None


# ---------------------------------------------------------------------------------------------------------------------
# Bytes and elements by number


@infer_global(operator.getitem)
class _GetByte(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if isinstance(args[0], PacketType):
            if isinstance(args[1], WHOLE):
                return signature(types.int64, args[0], types.int64)
            if isinstance(args[1], types.SliceType) and not args[1].has_step:
                return signature(BYTES, args[0], args[1])
        if isinstance(args[0], ElementsType) and isinstance(args[1], WHOLE):
            return signature(kind_of(args[0].dtype), args[0], types.int64)
        if isinstance(args[0], BatchType) and isinstance(args[1], WHOLE):
            return signature(args[0].packet, args[0], types.int64)
        return None


@infer_global(operator.setitem)
class _SetByte(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if isinstance(args[0], PacketType):
            if isinstance(args[1], WHOLE) and isinstance(args[2], WHOLE):
                return signature(types.none, args[0], types.int64, types.int64)
            if isinstance(args[1], types.SliceType) and not args[1].has_step:
                if isinstance(args[2], WHOLE):
                    return signature(types.none, args[0], args[1], types.uint8)
                if isinstance(args[2], types.Array) and (args[2].dtype, args[2].ndim) == (types.uint8, 1):
                    return signature(types.none, args[0], args[1], args[2]) if args[2].layout == "C" else None
        if isinstance(args[0], ElementsType) and isinstance(args[1], WHOLE):
            if isinstance(args[2], WHOLE):
                return signature(types.none, args[0], types.int64, types.int64)
            if isinstance(args[2], types.Float):
                return signature(types.none, args[0], types.int64, args[2])
        return None


@infer_global(len)
class _Len(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], PacketType | ElementsType | BatchType):
            return signature(types.int64, args[0])
        return None


@infer
class _Iterate(AbstractTemplate):
    key = "getiter"

    def generic(self, args: Any, kws: Any) -> Any:
        if isinstance(args[0], PacketType):
            return signature(types.iterators.ArrayIterator(BYTES), args[0])
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Attributes by name


def _names(known: Iterable[str]) -> str:
    return ", ".join(known)


@infer_getattr
class _PacketAttributes(AttributeTemplate):
    key = PacketType

    def generic_resolve(self, packet: Any, name: str) -> Any:
        if name in ("length", "size", "total", "number", "queue") or name in packet.columns:
            return types.int64
        if name in PACKET_METHODS:
            return types.BoundFunction(_PACKET_METHODS[name], packet)
        if name in HEADERS:
            HEADERS[name].locate.get_call_template((packet,), {})  # compiles it
            return HeaderType(packet, name)
        if name in COLUMNS.values():
            raise errors.TypingError(f"this packet has no {name!r}: open its device with metadata=({name!r},)")
        known = ["length", "total", "number", "queue", *PACKET_METHODS, *HEADERS, *COLUMNS.values()]
        raise errors.TypingError(f"a packet has no {name!r}; it has {_names(known)}")


@infer_getattr
class _BatchAttributes(AttributeTemplate):
    key = BatchType

    def generic_resolve(self, batch: Any, name: str) -> Any:
        if name == "verdicts":
            return VERDICTS
        raise errors.TypingError(f"a batch has no {name!r}; it has len, packets by number, and verdicts")


@infer_getattr
class _HeaderAttributes(AttributeTemplate):
    key = HeaderType

    def generic_resolve(self, header: Any, name: str) -> Any:
        kind = HEADERS[header.header]
        known = fields(kind)
        if name in kind.methods:
            return types.BoundFunction(_method(name, kind.methods[name], header), header)
        if name in known:
            return field_type(known[name])
        raise errors.TypingError(f"packet.{kind.name} has no {name!r}; it has {_names([*known, *kind.methods])}")


def _method(name: str, kernel: Any, header: HeaderType) -> Any:
    """The template of a method, which is a kernel of the packet and the header's place."""

    class Method(AbstractTemplate):
        key = method_key(name)

        def generic(self, args: Any, kws: Any) -> Any:
            if args or kws:
                return None
            kernel.get_call_template((header.packet, types.int64), {})  # compiles it
            return signature(types.none, recvr=header)

    return Method


def method_key(name: str) -> str:
    """By which the lowering of a method is found."""
    return f"ixy.{name}"


def _packet_method(name: str) -> Any:
    """The template of a method that takes two integers."""

    class Method(AbstractTemplate):
        key = method_key(name)
        this: Any = None  # the packet's type; Numba sets it

        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != 2 or not all(isinstance(each, WHOLE) for each in args):
                return None
            return signature(types.none, types.int64, types.int64, recvr=self.this)

    return Method


_PACKET_METHODS = {name: _packet_method(name) for name in PACKET_METHODS}


@infer_global(functions.now)
class _Now(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return None if args or kws else signature(types.int64)


@infer_global(functions.random)
class _Random(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        one = len(args) == 1 and not kws and isinstance(args[0], WHOLE)
        return signature(types.int64, types.int64) if one else None


@infer_global(bool)
class _IsThere(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], HeaderType):
            return signature(types.boolean, args[0])
        return None


@infer_getattr
class _RecordAttributes(AttributeTemplate):
    key = RecordType

    def generic_resolve(self, record: Any, name: str) -> Any:
        if name in record.dtype.names:
            return kind_of(record.dtype[name])
        raise errors.TypingError(f"the record has no {name!r}; it has {_names(record.dtype.names)}")


@infer_global(verdicts.copy_to)
class _CopyTo(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        whole = not kws and all(isinstance(each, WHOLE) for each in args)
        return signature(types.int64, *[types.int64] * len(args)) if whole else None


@infer_global(functions.prefetch)
class _Prefetch(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) != 2 or not isinstance(args[0], ElementsType) or not isinstance(args[1], WHOLE):
            return None
        return signature(types.none, args[0], types.int64)
