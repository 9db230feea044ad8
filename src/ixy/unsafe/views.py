"""Packets and records in compiled code, by addresses: how the types of `ixy.jittypes` lie in memory and are lowered.

A packet is a pointer to its bytes, one to its length, and one to each column that was asked for; a header is that and a
place; a record, or an array in it, is a pointer whose fields or size the type knows. All of it dissolves into registers
when a kernel is inlined. Each access is checked, but in kernels of ixy's own that are compiled without bounds checks;
one that fails leaves two numbers in the path's words and raises IndexError with the line of the user's
source.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, errors, types
from numba.core.datamodel import models
from numba.core.typing.templates import signature
from numba.extending import (
    intrinsic,
    lower_builtin,
    lower_cast,
    lower_getattr_generic,
    lower_setattr_generic,
    register_model,
)
from numba.np import numpy_support
from numba.np.arrayobj import populate_array

from ixy import functions, verdicts
from ixy.counts import AT, NOW, QUEUE, RANDOM, RECEIVED, TROUBLE, TROUBLE_WORDS
from ixy.headers import ABSENT, HEADERS, Field, fields, size
from ixy.jit import outlined
from ixy.jittypes import (
    BYTES,
    COLUMNS,
    PACKET_METHODS,
    SETTABLE,
    VERDICTS,
    WIDE,
    AddressType,
    BatchType,
    ElementsType,
    FlagsType,
    HeaderType,
    PacketType,
    RecordType,
    WideAddressType,
    column_type,
    field_type,
    kind_of,
    method_key,
    parsed,
    scalar,
)
from ixy.trouble import BYTE, ELEMENT, HEADER_END, LENGTH, NO_HEADER, PACKET, RANDOM_BELOW, SLICE
from ixy.unsafe import now_ns
from ixy.unsafe.fetching import fetch

# Numba's internals have no types.
# pyright: basic

_I8, _I32, _I64 = (ir.IntType(bits) for bits in (8, 32, 64))


def _parts_of_chain(packet: PacketType) -> list[tuple[str, Any]]:
    """What tells where a packet goes on: of itself, and of all buffers, see `Pools`."""
    return [(name, types.CPointer(types.int32)) for name in ("next", "nexts", "sizes") if packet.chain]


@register_model(PacketType)
class _PacketModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        columns = [(name, types.CPointer(element)) for name, element in kind.columns.items()]
        own = [("data", types.CPointer(types.uint8)), ("size", types.CPointer(types.int32))]
        path = [("counts", types.CPointer(types.int64)), ("number", types.int64)]
        super().__init__(manager, kind, [*own, *path, *columns, *_parts_of_chain(kind)])


@register_model(BatchType)
class _BatchModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        columns = [(name, types.CPointer(element)) for name, element in kind.packet.columns.items()]
        own = [("data", types.CPointer(types.uint8)), ("ids", types.CPointer(types.int32))]
        own += [("size", types.CPointer(types.int32)), ("verdicts", types.CPointer(types.int64))]
        path = [("counts", types.CPointer(types.int64)), ("count", types.int64)]
        super().__init__(manager, kind, [*own, *path, *columns, *_parts_of_chain(kind.packet)])


register_model(FlagsType)(models.OpaqueModel)


@register_model(HeaderType)
class _HeaderModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("packet", kind.packet), ("at", types.int64)])


@register_model(RecordType)
@register_model(ElementsType)
class _RecordModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(
            manager, kind, [("data", types.CPointer(types.uint8)), ("counts", types.CPointer(types.int64))]
        )


def _parts(context: Any, builder: Any, kind: Any, value: Any = None) -> Any:
    """The parts of a packet, header or record, by name."""
    return cgutils.create_struct_proxy(kind)(context, builder, value=value)


# ---------------------------------------------------------------------------------------------------------------------
# What lies where. It is one of these, and what is stored in one is not in another: LLVM is told so, else it would look
# anew after each byte that is written to a packet whether that had changed its length (type-based alias analysis)

_BYTES, _COLUMN, _WORDS, _RECORD = "bytes of a packet", "a column of packets", "words of a path", "a record"
_CHAINS = "where packets go on"


def _load(builder: Any, place: Any, what: str, align: int | None = None) -> Any:
    return _told(builder, builder.load(place, align=align), what)


def _store(builder: Any, value: Any, place: Any, what: str, align: int | None = None) -> None:
    _told(builder, builder.store(value, place, align=align), what)


def _told(builder: Any, access: Any, what: str) -> Any:
    """Mark an access with what it is of."""
    module = builder.module
    kind = module.add_metadata([what, module.add_metadata(["ixy"]), _I64(0)])
    access.set_metadata("tbaa", module.add_metadata([kind, kind, _I64(0)]))
    return access


# ---------------------------------------------------------------------------------------------------------------------
# Where they come from


def packet_views(stride: int, room: int, chain: tuple[int, int]) -> tuple[Any, Any]:
    """Two intrinsics that make a packet, number `i` of the batch at hand: `view(memory, buffer, packets, i, counts)`,
    which is number `i` of `packets` too, and `view_at_hand(memory, buffer, length, packets, i, counts)`, whose length
    is nobody else's, and of which `packets` tells the rest as number 0.

    It lies in a buffer of `memory`, rows of `stride` bytes, of which it may take `room`. The caller has checked all.
    The memory of packets that may lie in several buffers is a tuple of arrays over all of them, `Pools`; `chain` is as
    of `PacketType`.
    """

    @intrinsic
    def view(typingctx: Any, memory: Any, buffer: Any, packets: Any, i: Any, counts: Any) -> Any:
        kind = column_type(room, packets, chain)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            packet = _packet(context, builder, kind, stride, sig.args, args)
            packet.size = _packet_column(context, builder, "lengths", sig.args[2], args[2], args[3])
            packet.number = _number(builder, packet.counts, args[3])
            return packet._getvalue()

        return kind(memory, types.int64, packets, types.int64, counts), codegen

    @intrinsic
    def view_at_hand(typingctx: Any, memory: Any, buffer: Any, length: Any, packets: Any, i: Any, counts: Any) -> Any:
        kind = column_type(room, packets, chain)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = memory, types.int64, packets, types.int64, counts
            packet = _packet(context, builder, kind, stride, place, (*args[:2], args[3], _I64(0), args[5]))
            packet.number = _number(builder, packet.counts, args[4])
            packet.size = cgutils.alloca_once_value(builder, builder.trunc(args[2], _I32))
            return packet._getvalue()

        return kind(memory, types.int64, types.int64, packets, types.int64, counts), codegen

    return view, view_at_hand


def _packet(context: Any, builder: Any, kind: PacketType, stride: int, kinds: Any, args: Any) -> Any:
    """A packet that lacks length and number.

    Args:
        kinds, args: of memory, buffer, packets, number and counts.
    """
    packet = _parts(context, builder, kind)
    start = builder.mul(args[1], _I64(stride), flags=("nuw", "nsw"))
    packet.data = builder.gep(_data_of(context, builder, "bytes", kinds[0], args[0]), [start])
    packet.counts = context.make_array(kinds[4])(context, builder, args[4]).data
    if kind.chain:
        packet.next = _packet_column(context, builder, "nexts", kinds[2], args[2], args[3])
        packet.nexts, packet.sizes = (
            _data_of(context, builder, name, kinds[0], args[0]) for name in ("nexts", "sizes")
        )
    for name, short in COLUMNS.items():
        if short in kind.columns:
            setattr(packet, short, _packet_column(context, builder, name, kinds[2], args[2], args[3]))
    return packet


def _data_of(context: Any, builder: Any, name: str, kind: Any, memory: Any) -> Any:
    """Where an array over all buffers begins; memory that is one array has no others."""
    if not isinstance(kind, types.Array):
        place = kind.instance_class._fields.index(name)
        kind, memory = kind.types[place], builder.extract_value(memory, place)
    return context.make_array(kind)(context, builder, memory).data


def _word(builder: Any, counts: Any, place: int) -> Any:
    """The address of one of the path's words."""
    return builder.gep(counts, [_I64(place)])


def _number(builder: Any, counts: Any, i: Any) -> Any:
    """How many packets the path has received before packet `i` of the batch at hand."""
    return builder.add(_load(builder, _word(builder, counts, RECEIVED), _WORDS), i)


def _packet_column(context: Any, builder: Any, name: str, kind: Any, packets: Any, i: Any) -> Any:
    """The address of element `i` of one of the arrays of `Packets`."""
    place = kind.instance_class._fields.index(name)
    column = context.make_array(kind.types[place])(context, builder, builder.extract_value(packets, place))
    return builder.gep(column.data, [i])


def batch_view(stride: int, room: int, chain: tuple[int, int]) -> Any:
    """An intrinsic that makes a batch: `view(memory, packets, verdicts, count, counts)`, the first `count` of
    `packets`, in buffers of `memory`, `Pools`, as `packet_views` has them."""

    @intrinsic
    def view(typingctx: Any, memory: Any, packets: Any, verdicts: Any, count: Any, counts: Any) -> Any:
        kind = BatchType(column_type(room, packets, chain), stride, chain[1])

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            batch = _parts(context, builder, kind)
            batch.data = _data_of(context, builder, "bytes", sig.args[0], args[0])
            batch.verdicts, batch.counts = (
                context.make_array(sig.args[k])(context, builder, args[k]).data for k in (2, 4)
            )
            if kind.packet.chain:
                batch.next = _packet_column(context, builder, "nexts", sig.args[1], args[1], _I64(0))
                batch.nexts, batch.sizes = (
                    _data_of(context, builder, name, sig.args[0], args[0]) for name in ("nexts", "sizes")
                )
            batch.count = args[3]
            for name, short in {"ids": "ids", "lengths": "size", **COLUMNS}.items():
                if short in ("ids", "size") or short in kind.packet.columns:
                    setattr(batch, short, _packet_column(context, builder, name, sig.args[1], args[1], _I64(0)))
            return batch._getvalue()

        return kind(memory, packets, verdicts, types.int64, counts), codegen

    return view


def record_view(dtype: np.dtype) -> Any:
    """An intrinsic `view(memory, counts)`: the record at the beginning of `memory`, an array of its bytes."""
    kind = RecordType(dtype)

    @intrinsic
    def view(typingctx: Any, memory: Any, counts: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            record = _parts(context, builder, kind)
            record.data = context.make_array(memory)(context, builder, args[0]).data
            record.counts = context.make_array(counts)(context, builder, args[1]).data
            return record._getvalue()

        return kind(memory, counts), codegen

    return view


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def _fail(context: Any, builder: Any, counts: Any, numbers: tuple[Any, ...], text: str) -> None:
    """Raise IndexError at the user's line, and leave behind the numbers that its text lacks."""
    for i, number in enumerate((*numbers, *[_I64(0)] * (TROUBLE_WORDS - 1 - len(numbers)), _I64(1))):
        _store(builder, number, _word(builder, counts, TROUBLE + i), _WORDS)
    lowered = getattr(context, "lowered", None)  # none where Numba compiles in its own way
    place, name = (lowered.loc, lowered.func_ir.func_id.func_name) if lowered else (None, None)
    context.call_conv.return_user_exc(builder, IndexError, (text,), loc=place, func_name=name)


def _checks(context: Any) -> bool:
    """Whether the function that is lowered is one to be checked: any but ours, however Numba was told to compile it."""
    return not getattr(getattr(context, "lowered", None), "unchecked", False)


def _size(builder: Any, packet: Any) -> Any:
    return builder.zext(_load(builder, packet.size, _COLUMN), _I64)


def _index(context: Any, builder: Any, counts: Any, index: Any, size: Any, text: str) -> Any:
    """An index as Python takes it: a negative one counts from the end."""
    negative = builder.icmp_signed("<", index, _I64(0))
    place = builder.select(negative, builder.add(index, size), index)
    if _checks(context):
        with builder.if_then(builder.icmp_unsigned(">=", place, size), likely=False):
            _fail(context, builder, counts, (index, size), text)
    return place


# ---------------------------------------------------------------------------------------------------------------------
# A packet's bytes


@lower_builtin(len, PacketType)
def _packet_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _size(builder, _parts(context, builder, sig.args[0], args[0]))


def _byte(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The address of a byte."""
    packet = _parts(context, builder, sig.args[0], args[0])
    place = _index(context, builder, packet.counts, args[1], _size(builder, packet), BYTE)
    return builder.gep(packet.data, [place])


@lower_builtin(operator.getitem, PacketType, types.Integer)
def _get_byte(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.zext(_load(builder, _byte(context, builder, sig, args), _BYTES), _I64)


@lower_builtin(operator.setitem, PacketType, types.Integer, types.Integer)
def _set_byte(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _store(builder, builder.trunc(args[2], _I8), _byte(context, builder, sig, args), _BYTES)
    return context.get_dummy_value()


def _whole(context: Any, builder: Any, kind: Any, packet: Any) -> Any:
    """All of a packet as an array."""
    parts = _parts(context, builder, kind, packet)
    return _array(context, builder, BYTES, parts.data, _size(builder, parts))


def _array(context: Any, builder: Any, kind: Any, data: Any, count: Any) -> Any:
    """An array of `count` integers at an address."""
    array, width = context.make_array(kind)(context, builder), _I64(kind.dtype.bitwidth // 8)
    populate_array(
        array,
        data=data,
        shape=cgutils.pack_array(builder, [count]),
        strides=cgutils.pack_array(builder, [width]),
        itemsize=width,
        meminfo=None,
    )
    return array._getvalue()


def _as_array(name: Any) -> Any:
    """Lower an operation on a packet as the same on the array of its bytes."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array = _whole(context, builder, sig.args[0], args[0])
        kinds = (BYTES, *sig.args[1:])
        implementation = context.get_function(name, signature(sig.return_type, *kinds))
        return implementation(builder, (array, *args[1:]))

    return lower


lower_builtin(operator.getitem, PacketType, types.SliceType)(_as_array(operator.getitem))
lower_builtin(operator.setitem, PacketType, types.SliceType, types.Integer)(_as_array(operator.setitem))
lower_builtin("getiter", PacketType)(_as_array("getiter"))


@lower_builtin(operator.setitem, PacketType, types.SliceType, types.Array)
def _set_bytes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Copy bytes into a packet, also from elsewhere in it."""
    target = context.get_function(operator.getitem, signature(BYTES, *sig.args[:2]))(builder, args[:2])
    target = context.make_array(BYTES)(context, builder, target)
    source = context.make_array(sig.args[2])(context, builder, args[2])
    room, size = (builder.extract_value(array.shape, 0) for array in (target, source))
    with builder.if_then(builder.icmp_unsigned("!=", room, size), likely=False):
        packet = _parts(context, builder, sig.args[0], args[0])
        _fail(context, builder, packet.counts, (size, room), SLICE)
    _move(builder, target.data, source.data, size)
    return context.get_dummy_value()


# ---------------------------------------------------------------------------------------------------------------------
# A packet's attributes: length, columns, headers


@lower_getattr_generic(PacketType)
def _packet_attribute(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    packet = _parts(context, builder, kind, value)
    if name in kind.columns:
        return context.cast(builder, _load(builder, getattr(packet, name), _COLUMN), kind.columns[name], types.int64)
    if name in HEADERS:
        header = _parts(context, builder, HeaderType(kind, name))
        header.packet = value
        header.at = _call(context, builder, HEADERS[name].locate, (kind,), (value,))
        return header._getvalue()
    if name == "total":
        return total_of(context, builder, kind, value)
    if name == "number":
        return packet.number
    if name == "queue":
        return _load(builder, _word(builder, packet.counts, QUEUE), _WORDS)
    return value if name in PACKET_METHODS else _size(builder, packet)


def total_of(context: Any, builder: Any, kind: PacketType, value: Any) -> Any:
    """The bytes of a packet in all of its parts."""
    packet = _parts(context, builder, kind, value)
    if not kind.chain:
        return _size(builder, packet)
    most, numbers = kind.chain
    total = cgutils.alloca_once_value(builder, _size(builder, packet))
    buffer = cgutils.alloca_once_value(builder, _load(builder, packet.next, _CHAINS))
    with cgutils.for_range(builder, _I64(most - 1)) as loop:
        number = builder.load(buffer)
        with builder.if_then(builder.icmp_signed("<", number, _I32(0))):
            loop.do_break()
        place = builder.and_(builder.zext(number, _I64), _I64(numbers))
        size = _load(builder, builder.gep(packet.sizes, [place]), _CHAINS)
        builder.store(builder.add(builder.load(total), builder.zext(size, _I64)), total)
        builder.store(_load(builder, builder.gep(packet.nexts, [place]), _CHAINS), buffer)
    return builder.load(total)


def _call(context: Any, builder: Any, kernel: Any, kinds: Any, args: Any) -> Any:
    """Call a kernel that was compiled for arguments of these types."""
    call = kernel.get_call_template(kinds, {})[0](context.typing_context).apply(kinds, {})
    return context.get_function(kernel.get_overload(call), call)(builder, args)


@lower_setattr_generic(PacketType)
def _set_packet_attribute(context: Any, builder: Any, sig: Any, args: Any, name: str) -> Any:
    kind = sig.args[0]
    packet = _parts(context, builder, kind, args[0])
    value = context.cast(builder, args[1], sig.args[1], types.int64)
    if name in SETTABLE and name in kind.columns:
        width = ir.IntType(kind.columns[name].bitwidth)
        _store(builder, builder.trunc(value, width), getattr(packet, name), _COLUMN)
        return
    if name != "length":
        raise errors.LoweringError(f"packet.{name} cannot be assigned to")
    wrong = builder.icmp_unsigned(">=", builder.sub(value, _I64(1)), _I64(kind.room))
    with builder.if_then(wrong, likely=False):
        _fail(context, builder, packet.counts, (value, _I64(kind.room)), LENGTH)
    _store(builder, builder.trunc(value, _I32), packet.size, _COLUMN)


def _move(builder: Any, target: Any, source: Any, size: Any) -> None:
    """Copy bytes, which may overlap."""
    kind = ir.FunctionType(ir.VoidType(), [target.type, source.type, _I64, ir.IntType(1)])
    move = cgutils.get_or_insert_function(builder.module, kind, "llvm.memmove.p0i8.p0i8.i64")
    builder.call(move, [target, source, size, ir.Constant(ir.IntType(1), 0)])


@lower_builtin(method_key("insert"), PacketType, types.Integer, types.Integer)
def _insert(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    packet, place, size = _stretch(context, builder, sig, args, sign=1)
    behind = builder.gep(place, [args[2]])
    _move(builder, behind, place, builder.sub(size, args[1]))
    cgutils.memset(builder, place, args[2], 0)
    _store(builder, builder.trunc(builder.add(size, args[2]), _I32), packet.size, _COLUMN)
    return context.get_dummy_value()


@lower_builtin(method_key("remove"), PacketType, types.Integer, types.Integer)
def _remove(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    packet, place, size = _stretch(context, builder, sig, args, sign=-1)
    behind = builder.gep(place, [args[2]])
    rest = builder.sub(builder.sub(size, args[1]), args[2])
    _move(builder, place, behind, rest)
    _store(builder, builder.trunc(builder.sub(size, args[2]), _I32), packet.size, _COLUMN)
    return context.get_dummy_value()


def _stretch(context: Any, builder: Any, sig: Any, args: Any, sign: int) -> tuple[Any, Any, Any]:
    """The packet, the address of a byte in it, and its size, where so many bytes can be put in or taken out."""
    kind, (_, at, count) = sig.args[0], args
    packet = _parts(context, builder, kind, args[0])
    size = _size(builder, packet)
    with builder.if_then(builder.icmp_unsigned(">", at, size), likely=False):
        _fail(context, builder, packet.counts, (at, size), BYTE)
    length = builder.add(size, count) if sign > 0 else builder.sub(size, count)
    wrong = builder.icmp_unsigned(">=", builder.sub(length, _I64(1)), _I64(kind.room))
    wrong = builder.or_(wrong, builder.icmp_unsigned(">", count, _I64(kind.room)))
    with builder.if_then(wrong, likely=False):
        _fail(context, builder, packet.counts, (length, _I64(kind.room)), LENGTH)
    if sign < 0:
        end = builder.add(at, count)
        with builder.if_then(builder.icmp_unsigned(">", end, size), likely=False):
            _fail(context, builder, packet.counts, (end, size), BYTE)
    return packet, builder.gep(packet.data, [at]), size


def _lower_method(name: str) -> None:
    """Lower a method of headers: a call of the kernel that it is for this header."""

    @lower_builtin(method_key(name), HeaderType)
    def _call_method(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = sig.args[0]
        header = _parts(context, builder, kind, args[0])
        _check(context, builder, kind, header, name)
        kernel, kinds = HEADERS[kind.header].methods[name], (kind.packet, types.int64)
        _call(context, builder, kernel, kinds, (header.packet, header.at))
        return context.get_dummy_value()


for _name in {name for header in HEADERS.values() for name in header.methods}:
    _lower_method(_name)


@lower_builtin(bool, HeaderType)
def _is_there(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    header = _parts(context, builder, sig.args[0], args[0])
    return builder.icmp_signed("!=", header.at, _I64(ABSENT))


def _check(context: Any, builder: Any, kind: HeaderType, header: Any, name: str) -> None:
    """The header lies within its packet, which it does not if it is not there: `ABSENT` is behind all of them. It is
    the same check for all its fields, so one does for those that are looked at together."""
    if not _checks(context):
        return
    packet = _parts(context, builder, kind.packet, header.packet)
    what = f"packet.{kind.header}.{name}"
    end, length = builder.add(header.at, _I64(size(HEADERS[kind.header]))), _size(builder, packet)
    with builder.if_then(builder.icmp_unsigned(">", end, length), likely=False):
        with builder.if_then(builder.icmp_signed("==", header.at, _I64(ABSENT))):
            _fail(context, builder, packet.counts, (), NO_HEADER.format(what))
        _fail(context, builder, packet.counts, (end, length), what + HEADER_END)


def _field(context: Any, builder: Any, kind: HeaderType, value: Any, name: str) -> tuple[Field[Any], Any]:
    """A field, and the address of its first byte."""
    field = fields(HEADERS[kind.header])[name]
    header = _parts(context, builder, kind, value)
    _check(context, builder, kind, header, name)
    packet = _parts(context, builder, kind.packet, header.packet)
    return field, builder.gep(packet.data, [builder.add(header.at, _I64(field.offset))])


_PARTS = {1: ((0, 1),), 2: ((0, 2),), 4: ((0, 4),), 6: ((0, 2), (2, 4)), 8: ((0, 8),)}  # of a field: offset and size


def _load_big(builder: Any, place: Any, size: int) -> Any:
    """An unsigned integer in network byte order."""
    total = _I64(0)
    for offset, width in _PARTS[size]:
        kind = ir.IntType(8 * width)
        source = builder.bitcast(builder.gep(place, [_I64(offset)]), kind.as_pointer())
        part = _load(builder, source, _BYTES, align=1)
        part = builder.zext(_swapped(builder, part), _I64) if width < 8 else _swapped(builder, part)
        total = builder.or_(builder.shl(total, _I64(8 * width % 64)), part)
    return total


def _store_big(builder: Any, place: Any, size: int, value: Any) -> None:
    for offset, width in _PARTS[size]:
        kind = ir.IntType(8 * width)
        part = builder.lshr(value, _I64(8 * (size - offset - width)))
        part = builder.trunc(part, kind) if width < 8 else part
        target = builder.bitcast(builder.gep(place, [_I64(offset)]), kind.as_pointer())
        _store(builder, _swapped(builder, part), target, _BYTES, align=1)


def _swapped(builder: Any, value: Any) -> Any:
    """The bytes of an integer in the other order."""
    return value if value.type.width == 8 else builder.bswap(value)


@lower_getattr_generic(HeaderType)
def _get_field(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    if name in HEADERS[kind.header].methods:
        return value
    field, place = _field(context, builder, kind, value, name)
    if field.size == WIDE:
        halves = [_load_big(builder, builder.gep(place, [_I64(at)]), 8) for at in (0, 8)]
        return context.make_tuple(builder, field_type(field), halves)
    word = _load_big(builder, place, field.size)
    word = builder.lshr(word, _I64(field.shift)) if field.shift else word
    return builder.and_(word, _I64(field.mask))


@lower_setattr_generic(HeaderType)
def _set_field(context: Any, builder: Any, sig: Any, args: Any, name: str) -> Any:
    field, place = _field(context, builder, sig.args[0], args[0], name)
    if field.size == WIDE:
        halves = context.cast(builder, args[1], sig.args[1], field_type(field))
        for at in (0, 8):
            part = builder.extract_value(halves, at // 8)
            _store_big(builder, builder.gep(place, [_I64(at)]), 8, part)
        return
    value = context.cast(builder, args[1], sig.args[1], types.int64)
    mask = field.mask << field.shift
    if mask != (1 << 8 * field.size) - 1:
        kept = builder.and_(_load_big(builder, place, field.size), _I64(~mask & (1 << 64) - 1))
        value = builder.and_(builder.shl(value, _I64(field.shift)), _I64(mask))
        value = builder.or_(kept, value)
    _store_big(builder, place, field.size, value)


# ---------------------------------------------------------------------------------------------------------------------
# Addresses, which are integers, and constant texts that mean one

register_model(AddressType)(models.IntegerModel)
register_model(WideAddressType)(models.UniTupleModel)


@lower_cast(types.StringLiteral, AddressType)
@lower_cast(types.StringLiteral, WideAddressType)
def _address(context: Any, builder: Any, kind: Any, wanted: Any, value: Any) -> Any:
    return context.get_constant_generic(builder, wanted.plain, parsed(wanted, kind))


def _lower_comparison(name: Any, sign: str) -> None:
    @lower_builtin(name, AddressType, AddressType)
    def compare(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.icmp_signed(sign, *args)


for _name, _sign in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    _lower_comparison(getattr(operator, _name), _sign)


# ---------------------------------------------------------------------------------------------------------------------
# A batch's packets and verdicts


@lower_builtin(len, BatchType)
def _batch_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _parts(context, builder, sig.args[0], args[0]).count


@lower_builtin(operator.getitem, BatchType, types.Integer)
def _get_packet(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = sig.args[0]
    batch, packet = _parts(context, builder, kind, args[0]), _parts(context, builder, kind.packet)
    i = _index(context, builder, batch.counts, args[1], batch.count, PACKET)
    _store(builder, i, _word(builder, batch.counts, AT), _WORDS)
    buffer = builder.and_(builder.zext(_load(builder, builder.gep(batch.ids, [i]), _COLUMN), _I64), _I64(kind.numbers))
    packet.data = builder.gep(batch.data, [builder.mul(buffer, _I64(kind.stride), flags=("nuw", "nsw"))])
    packet.counts = batch.counts
    packet.number = _number(builder, batch.counts, i)
    for name in ("size", *kind.packet.columns):
        setattr(packet, name, builder.gep(getattr(batch, name), [i]))
    if kind.packet.chain:
        packet.next, packet.nexts, packet.sizes = builder.gep(batch.next, [i]), batch.nexts, batch.sizes
    return packet._getvalue()


@lower_getattr_generic(BatchType)
def _batch_attribute(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    batch = _parts(context, builder, kind, value)
    return _array(context, builder, VERDICTS, batch.verdicts, batch.count)


# ---------------------------------------------------------------------------------------------------------------------
# Functions that a kernel may call


def _path_words(context: Any, builder: Any) -> Any:
    """The words of the path that runs the function being lowered: from the first packet or record that it is given."""
    lowered = getattr(context, "lowered", None)
    for kind, value in zip(lowered.fndesc.argtypes, lowered.fnargs, strict=True) if lowered else ():
        if isinstance(kind, HeaderType):
            kind, value = kind.packet, _parts(context, builder, kind, value).packet
        if isinstance(kind, PacketType | BatchType | RecordType | ElementsType):
            return _parts(context, builder, kind, value).counts
    raise errors.LoweringError("this is known where a packet or record is: hand one to the function that asks")


@outlined
def _clock() -> int:
    return now_ns()


@lower_builtin(functions.now)
def _now(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Read the clock once a batch, when it is first asked for."""
    place = _word(builder, _path_words(context, builder), NOW)
    known = _load(builder, place, _WORDS)
    with builder.if_then(builder.icmp_signed("==", known, _I64(0)), likely=False):
        _store(builder, _call(context, builder, _clock, (), ()), place, _WORDS)
    return _load(builder, place, _WORDS)


@lower_builtin(functions.random, types.Integer)
def _random(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    counts, most = _path_words(context, builder), _I64(functions.RANDOM_MOST)
    below = context.cast(builder, args[0], sig.args[0], types.int64)
    with builder.if_then(builder.icmp_unsigned(">=", builder.sub(below, _I64(1)), most), likely=False):
        _fail(context, builder, counts, (below, most), RANDOM_BELOW)
    place = _word(builder, counts, RANDOM)
    state = _load(builder, place, _WORDS)
    state = builder.xor(state, builder.lshr(state, _I64(12)))
    state = builder.xor(state, builder.shl(state, _I64(25)))
    state = builder.xor(state, builder.lshr(state, _I64(27)))
    _store(builder, state, place, _WORDS)
    upper = builder.lshr(builder.mul(state, _I64(functions.RANDOM_FACTOR)), _I64(32))
    return builder.lshr(builder.mul(upper, below), _I64(32))


@lower_builtin(verdicts.copy_to, types.VarArg(types.Integer))
def _copy_to(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    verdict = _I64(0)
    for output in args:
        known = builder.icmp_unsigned("<=", output, _I64(verdicts.UP))
        place = builder.select(known, output, _I64(verdicts.NO_OUTPUT))
        verdict = builder.or_(verdict, builder.shl(_I64(1), place))
    return builder.or_(builder.and_(verdict, _I64(verdicts.OUTPUTS_MASK)), _I64(verdicts.SEVERAL))


# ---------------------------------------------------------------------------------------------------------------------
# Records: every integer is read as int64, and written modulo its width


def _typed(dtype: np.dtype) -> Any:
    """The type of a number in memory."""
    if dtype.kind == "f":
        return ir.DoubleType() if dtype.itemsize == 8 else ir.FloatType()
    return ir.IntType(8 * dtype.itemsize)


def _get(context: Any, builder: Any, dtype: np.dtype, place: Any, counts: Any) -> Any:
    """What is at an address: a number, or a view of what is in the record."""
    kind = kind_of(dtype)
    if isinstance(kind, RecordType | ElementsType):
        view = _parts(context, builder, kind)
        view.data, view.counts = place, counts
        return view._getvalue()
    number = _load(builder, builder.bitcast(place, _typed(dtype).as_pointer()), _RECORD)
    return context.cast(builder, number, numpy_support.from_dtype(dtype), kind)


def _put(context: Any, builder: Any, dtype: np.dtype, place: Any, value: Any, kind: Any) -> None:
    number = context.cast(builder, value, kind, scalar(dtype))
    number = context.cast(builder, number, scalar(dtype), numpy_support.from_dtype(dtype))
    _store(builder, number, builder.bitcast(place, _typed(dtype).as_pointer()), _RECORD)


@lower_getattr_generic(RecordType)
def _get_record_field(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    record = _parts(context, builder, kind, value)
    dtype, offset = kind.dtype.fields[name][:2]
    return _get(context, builder, dtype, builder.gep(record.data, [_I64(offset)]), record.counts)


@lower_setattr_generic(RecordType)
def _set_record_field(context: Any, builder: Any, sig: Any, args: Any, name: str) -> Any:
    record = _parts(context, builder, sig.args[0], args[0])
    dtype, offset = sig.args[0].dtype.fields[name][:2]
    _put(context, builder, dtype, builder.gep(record.data, [_I64(offset)]), args[1], sig.args[1])


@lower_builtin(len, ElementsType)
def _elements_len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _I64(sig.args[0].count)


def _element(context: Any, builder: Any, kind: ElementsType, value: Any, index: Any) -> tuple[Any, Any]:
    """The address of an element, and the path's words."""
    elements = _parts(context, builder, kind, value)
    place = _index(context, builder, elements.counts, index, _I64(kind.count), ELEMENT)
    return builder.gep(elements.data, [builder.mul(place, _I64(kind.dtype.itemsize))]), elements.counts


@lower_builtin(operator.getitem, ElementsType, types.Integer)
def _get_element(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place, counts = _element(context, builder, sig.args[0], *args)
    return _get(context, builder, sig.args[0].dtype, place, counts)


@lower_builtin(operator.setitem, ElementsType, types.Integer, types.Number)
def _set_element(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place, _ = _element(context, builder, sig.args[0], *args[:2])
    _put(context, builder, sig.args[0].dtype, place, args[2], sig.args[2])
    return context.get_dummy_value()


@lower_builtin(functions.prefetch, ElementsType, types.Integer)
def _prefetch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place, _ = _element(context, builder, sig.args[0], *args)
    fetch(builder, place, to_write=True)
    return context.get_dummy_value()
