"""The one package that touches raw addresses.

Everything else in ixy works on arrays and on indices that were checked. What is in this module falls in four parts:
memory that another party (a device, another thread) reads and writes too, calls into the C library from compiled code,
windows of reserved address space into which DMA memory is mapped, and counters of the processor. Packets and records as
a user's kernel sees them are in `views`.

Memory shared with a device must be read and written by atomic accesses: the compiler hoists an ordinary load out of a
polling loop, and the program never sees what the device wrote. Each primitive exists twice, as LLVM instructions for
compiled kernels and in Python for interpreted ones.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ixy.clock import WORDS
from ixy.errors import MemoryUnavailable
from ixy.jit import INTERPRETED, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Words = NDArray[Any]

# ---------------------------------------------------------------------------------------------------------------------
# Shared memory, the clock and system calls, as kernels see them


def _bit_length(value: int) -> int:
    """How many bits a number has that is not below 0: 0 of 0, 1 of 1, 2 of 2 and 3."""
    return int(value).bit_length()


def called_interpreted(interpreted: Callable[..., Any]) -> Callable[[Any], Any]:
    """Let Python call an intrinsic too, as what the interpreter would."""

    def call(_: Any, *arguments: Any) -> Any:
        return interpreted(*arguments)

    def make(made: Any) -> Any:
        kind = cast("type[Any]", type(made))
        made.__class__ = type(kind.__name__, (kind,), {"__call__": call})
        return made

    return make


if INTERPRETED or TYPE_CHECKING:
    bit_length = _bit_length

    def load_acquire(array: Words, index: int) -> int:
        """Read `array[index]`; nothing that follows is read earlier."""
        return int(array[index])

    def store_release(array: Words, index: int, value: int) -> None:
        """Write `array[index]`; everything written before is visible first."""
        array[index] = value

    def load_ordered(array: Words, index: int) -> int:
        """Read `array[index]`, not before what `store_ordered` wrote earlier is visible to others."""
        return int(array[index])

    def store_ordered(array: Words, index: int, value: int) -> None:
        """Write `array[index]`; like everything written before, it is visible before a `load_ordered` that follows."""
        array[index] = value

    _atomic = threading.RLock()

    def _free_in_child() -> None:
        """A thread that is not in the forked child may hold the lock."""
        global _atomic
        _atomic = threading.RLock()

    os.register_at_fork(after_in_child=_free_in_child)

    def fetch_add(array: Words, index: int, value: int) -> int:
        """Add to `array[index]`, an int64, in one step; what it was before."""
        with _atomic:
            before = int(array[index])
            array[index] = before + value
        return before

    def swap_if(array: Words, index: int, expected: int, value: int) -> bool:
        """Make `array[index]`, an int64, `value` if it is `expected`, in one step; whether it was."""
        with _atomic:
            found = bool(array[index] == expected)
            if found:
                array[index] = value
        return found

    def this_thread() -> int:
        """A number that no other living thread of the process has; never 0 or negative."""
        return threading.get_ident()

    def half(array: Words, index: int) -> int:
        """Half of a word of 64 bits: of `array[index // 2]` the lower one, or where `index` is odd the upper one."""
        return int(array[index >> 1]) >> 32 * (index & 1) & 0xFFFFFFFF

    def keep(value: int) -> None:
        """Do nothing with a value, but have it computed."""

    def has(what: object) -> bool:
        """Whether an array, or whatever may be left out, is there; known when a kernel is compiled."""
        return what is not None

    def put(array: Words | None, index: int, value: int) -> None:
        """Write `array[index]`, or nothing where the array is left out: `array[index] = value`, free of cost then."""
        if array is not None:
            array[index] = value

    def move(target: Words | None, to: int, source: Words | None, start: int) -> None:
        """Let `target[to]` be `source[start]`, 0 where the source is left out; nothing where the target is."""
        if target is not None:
            target[to] = 0 if source is None else source[start]

    def move_or(target: Words | None, to: int, source: Words | None, start: int, otherwise: int) -> None:
        """The same, but `otherwise` where the source is left out."""
        if target is not None:
            target[to] = otherwise if source is None else source[start]

    def exchange(array: Words | None, one: int, other: int) -> None:
        """Let two elements change places; nothing where the array is left out."""
        if array is not None:
            array[one], array[other] = int(array[other]), int(array[one])

    def peek(array: Words | None, index: int, otherwise: int) -> int:
        """`array[index]`, or `otherwise` where the array is left out."""
        return otherwise if array is None else int(array[index])

    def call_if(array: Words | None, kernel: Callable[..., int], arguments: tuple[Any, ...]) -> int:
        """What `kernel(*arguments)` answers if an array is there; else 0, and the kernel is not even compiled."""
        return 0 if array is None else kernel(*arguments)

    def element_or_step(array: Words | int, index: int, step: int) -> int:
        """`array[index]`, or where there is one number instead of an array, that and `index` steps more."""
        return int(array[index]) if isinstance(array, np.ndarray) else array + int(index) * step

    def fence_acquire() -> None:
        """Nothing that follows is read before what was read so far."""

    def pause() -> None:
        """Do nothing for some tens of cycles, and read nothing ahead meanwhile."""

    def prefetch(array: Bytes, index: int) -> None:
        """Have the line of an element brought into the cache. Where there is none, nothing happens."""

    def copy(target: Bytes, to: int, source: Bytes, start: int, size: int) -> None:
        """Copy `size` bytes from `source[start:]` to `target[to:]`; the caller has checked both ranges."""
        target[to : to + size] = source[start : start + size]

    def equal(one: Bytes, start: int, other: Bytes, begin: int, size: int) -> bool:
        """Whether `one[start:]` and `other[begin:]` agree in `size` bytes; the caller has checked both ranges."""
        return bytes(one[start : start + size]) == bytes(other[begin : begin + size])

    def load_word(array: Bytes, index: int) -> int:
        """The 4 bytes from `array[index]` on as an integer without a sign, the lowest byte first; the caller has
        checked that they are there."""
        return int.from_bytes(array[index : index + 4].tobytes(), "little")

    def store_word(array: Bytes, index: int, value: int) -> None:
        """Write 32 bits likewise."""
        array[index : index + 4] = np.frombuffer((int(value) & 0xFFFF_FFFF).to_bytes(4, "little"), np.uint8)

    def load_big(array: Bytes, index: int) -> int:
        """The 8 bytes from `array[index]` on as an integer with a sign, the highest byte first; the caller has checked
        that they are there."""
        return int.from_bytes(array[index : index + 8].tobytes(), "big", signed=True)

    def store_big(array: Bytes, index: int, value: int) -> None:
        """Write 64 bits likewise."""
        array[index : index + 8] = np.frombuffer((int(value) & (1 << 64) - 1).to_bytes(8, "big"), np.uint8)

    def ticks() -> int:
        """The time-stamp counter after all that was begun before, or nanoseconds where there is none (not x86)."""
        return time.perf_counter_ns()

    def monotonic_ns() -> int:
        """CLOCK_MONOTONIC in nanoseconds."""
        return time.monotonic_ns()

    def realtime_ns() -> int:
        """CLOCK_REALTIME in nanoseconds since 1970."""
        return time.time_ns()

    def now_ns() -> int:
        """The time by which devices work, in nanoseconds: CLOCK_MONOTONIC, or what a virtual clock says."""
        return int(WORDS[0]) or time.monotonic_ns()

    def date_ns() -> int:
        """The same for stamps: CLOCK_REALTIME, or what a virtual clock says."""
        return int(WORDS[0]) or time.time_ns()

    def nap(microseconds: int) -> None:
        """Let other threads run for at least so long; 0 only yields."""
        time.sleep(microseconds / 1e6)

    def read_file(fd: int, target: Bytes, to: int, size: int) -> int:
        """read(2) into `target[to:to + size]`: the number of bytes, or the negative number of an error."""
        try:
            data = os.read(fd, size)
        except OSError as error:
            return -(error.errno or 0)
        target[to : to + len(data)] = np.frombuffer(data, np.uint8)
        return len(data)

    def write_file(fd: int, source: Bytes, start: int, size: int) -> int:
        """write(2) of `size` bytes from `source[start]` on: the number of bytes, or the negative number of an error."""
        try:
            return os.write(fd, source[start : start + size].tobytes()[:size])
        except OSError as error:
            return -(error.errno or 0)

    def send_file(fd: int, source: Bytes, start: int, size: int) -> int:
        """The same to a socket by send(2), without a signal where nobody is at the other end."""
        try:
            with socket.socket(fileno=fd) as sock:
                try:
                    return sock.send(source[start : start + size].tobytes(), socket.MSG_NOSIGNAL)
                finally:
                    sock.detach()
        except OSError as error:
            return -(error.errno or 0)

    _kernels: list[Callable[..., Any]] = []  # an interpreted kernel's address is its place here, counted from 1

    def address_of(kernel: Callable[..., int], record: tuple[Any, ...]) -> int:
        """The address of `kernel(image, a, b, c, d)`, integers, for `call` with records such as this one; never 0.

        Within the kernel `image[0]` is the record.
        """
        if kernel not in _kernels:
            _kernels.append(kernel)
        return _kernels.index(kernel) + 1

    def call(
        addresses: Words, index: int, record: tuple[Any, ...], image: Words, a: int, b: int, c: int, d: int
    ) -> int:
        """Call the kernel whose address is `addresses[index]`, not 0, with four integers and with the record that
        `put_image` wrote to `image`."""
        kernel = _kernels[int(addresses[index]) - 1]
        return int(kernel((record,), a, b, c, d))

    def foreign(library: str, name: str) -> Callable[[int], int]:
        """A C function `int64_t name(int64_t)` of a shared library, for kernels to call."""
        function = getattr(ctypes.CDLL(library), name)
        function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
        return lambda argument: function(argument)  # hashable, as kernels are

    def write_file_at(fd: int, source: Bytes, start: int, size: int, offset: int) -> int:
        """pwrite(2) from `source[start:start + size]` at `offset` of the file: the number of bytes, or -1."""
        try:
            return os.pwrite(fd, source[start : start + size].tobytes(), offset)
        except OSError:
            return -1

else:
    import llvmlite.binding as llvm
    import numba
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    from ixy.unsafe.fetching import fetch

    @called_interpreted(_bit_length)
    @intrinsic
    def bit_length(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bits = args[0].type
            return builder.sub(bits(bits.width), builder.ctlz(args[0], ir.IntType(1)(0)))

        return types.int64(types.int64), codegen

    def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
        """The address of `array[index]`."""
        return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])

    def _load(ordering: str) -> Any:
        """An intrinsic that loads an element atomically."""

        @intrinsic
        def load(typingctx: Any, array: Any, index: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                pointer = _element(context, builder, array, args[0], args[1])
                word = builder.load_atomic(pointer, ordering, array.dtype.bitwidth // 8)
                return context.cast(builder, word, array.dtype, types.int64)

            return types.int64(array, types.int64), codegen

        return load

    def _store(ordering: str) -> Any:
        """An intrinsic that stores an element atomically."""

        @intrinsic
        def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                pointer = _element(context, builder, array, args[0], args[1])
                word = context.cast(builder, args[2], types.int64, array.dtype)
                builder.store_atomic(word, pointer, ordering, array.dtype.bitwidth // 8)
                return context.get_dummy_value()

            return types.void(array, types.int64, types.int64), codegen

        return store

    load_acquire = _load("acquire")
    store_release = _store("release")
    load_ordered = _load("seq_cst")
    store_ordered = _store("seq_cst")

    @intrinsic
    def fetch_add(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.atomic_rmw("add", _element(context, builder, array, args[0], args[1]), args[2], "acq_rel")

        return types.int64(array, types.int64, types.int64), codegen

    @intrinsic
    def swap_if(typingctx: Any, array: Any, index: Any, expected: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _element(context, builder, array, args[0], args[1])
            return builder.extract_value(builder.cmpxchg(pointer, args[2], args[3], "acq_rel", "acquire"), 1)

        return types.boolean(array, types.int64, types.int64, types.int64), codegen

    @intrinsic
    def this_thread(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            # The address of the thread's control block: one load, and no two threads have the same.
            kind = ir.FunctionType(ir.IntType(8).as_pointer(), [])
            pointer = cgutils.get_or_insert_function(builder.module, kind, "llvm.thread.pointer")
            return builder.ptrtoint(builder.call(pointer, []), ir.IntType(64))

        return types.int64(), codegen

    @intrinsic
    def half(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words = context.make_array(array)(context, builder, args[0]).data
            halves = builder.bitcast(words, ir.IntType(32).as_pointer())
            return builder.zext(builder.load(builder.gep(halves, [args[1]])), ir.IntType(64))

        return types.int64(array, types.int64), codegen

    @intrinsic
    def keep(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.asm(ir.FunctionType(ir.VoidType(), [ir.IntType(64)]), "", "r", args, side_effect=True)
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    @intrinsic
    def has(typingctx: Any, array: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return context.get_constant(types.boolean, not isinstance(array, types.NoneType))

        return types.boolean(array), codegen

    @intrinsic
    def put(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if not isinstance(array, types.NoneType):
                word = context.cast(builder, args[2], types.int64, array.dtype)
                builder.store(word, _element(context, builder, array, args[0], args[1]))
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), codegen

    @intrinsic
    def move(typingctx: Any, target: Any, to: Any, source: Any, start: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if isinstance(target, types.NoneType):
                return context.get_dummy_value()
            if isinstance(source, types.NoneType):
                word = context.get_constant(target.dtype, 0)
            else:
                word = builder.load(_element(context, builder, source, args[2], args[3]))
            builder.store(word, _element(context, builder, target, args[0], args[1]))
            return context.get_dummy_value()

        return types.void(target, types.int64, source, types.int64), codegen

    @intrinsic
    def move_or(typingctx: Any, target: Any, to: Any, source: Any, start: Any, otherwise: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if isinstance(target, types.NoneType):
                return context.get_dummy_value()
            if isinstance(source, types.NoneType):
                word = context.cast(builder, args[4], types.int64, target.dtype)
            else:
                word = builder.load(_element(context, builder, source, args[2], args[3]))
            builder.store(word, _element(context, builder, target, args[0], args[1]))
            return context.get_dummy_value()

        return types.void(target, types.int64, source, types.int64, types.int64), codegen

    @intrinsic
    def exchange(typingctx: Any, array: Any, one: Any, other: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if not isinstance(array, types.NoneType):
                places = [_element(context, builder, array, args[0], index) for index in args[1:]]
                values = [builder.load(place) for place in places]
                for place, value in zip(places, reversed(values), strict=True):
                    builder.store(value, place)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), codegen

    @intrinsic
    def peek(typingctx: Any, array: Any, index: Any, otherwise: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if isinstance(array, types.NoneType):
                return args[2]
            word = builder.load(_element(context, builder, array, args[0], args[1]))
            return context.cast(builder, word, array.dtype, types.int64)

        return types.int64(array, types.int64, types.int64), codegen

    @intrinsic
    def call_if(typingctx: Any, array: Any, kernel: Any, arguments: Any) -> Any:
        there, kinds = not isinstance(array, types.NoneType), tuple(arguments)
        if there:
            kernel.dispatcher.get_call_template(kinds, {})  # compiles it

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if not there:
                return context.get_constant(types.int64, 0)
            call = kernel.dispatcher.get_call_template(kinds, {})[0](context.typing_context).apply(kinds, {})
            function = context.get_function(kernel.dispatcher.get_overload(call), call)
            answer = function(builder, cgutils.unpack_tuple(builder, args[2]))
            return context.cast(builder, answer, call.return_type, types.int64)

        return types.int64(array, kernel, arguments), codegen

    @intrinsic
    def element_or_step(typingctx: Any, array: Any, index: Any, step: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if isinstance(array, types.Array):
                return builder.load(_element(context, builder, array, args[0], args[1]))
            return builder.add(args[0], builder.mul(args[1], args[2]))

        return types.int64(array if isinstance(array, types.Array) else types.int64, types.int64, types.int64), codegen

    @intrinsic
    def fence_acquire(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence("acquire")
            return context.get_dummy_value()

        return types.void(), codegen

    _PAUSE = {"x86_64": "llvm.x86.sse2.pause"}.get(platform.machine())

    @intrinsic
    def pause(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if _PAUSE:
                kind = ir.FunctionType(ir.VoidType(), [])
                builder.call(cgutils.get_or_insert_function(builder.module, kind, _PAUSE), [])
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            fetch(builder, _element(context, builder, array, args[0], args[1]), to_write=False)
            return context.get_dummy_value()

        return types.void(array, types.int64), codegen

    @intrinsic
    def copy(typingctx: Any, target: Any, to: Any, source: Any, start: Any, size: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            target_pointer = _element(context, builder, target, args[0], args[1])
            source_pointer = _element(context, builder, source, args[2], args[3])
            cgutils.raw_memcpy(builder, target_pointer, source_pointer, args[4], 1)
            return context.get_dummy_value()

        return types.void(target, types.int64, source, types.int64, types.int64), codegen

    @intrinsic
    def equal(typingctx: Any, one: Any, start: Any, other: Any, begin: Any, size: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            first = _element(context, builder, one, args[0], args[1])
            second = _element(context, builder, other, args[2], args[3])
            kind = ir.FunctionType(ir.IntType(32), [first.type, second.type, ir.IntType(64)])
            call = cgutils.get_or_insert_function(builder.module, kind, "memcmp")
            return builder.icmp_signed(
                "==", builder.call(call, [first, second, args[4]]), ir.Constant(ir.IntType(32), 0)
            )

        return types.boolean(one, types.int64, other, types.int64, types.int64), codegen

    def _swaps(builder: Any, value: Any) -> Any:
        """64 bits in network byte order, or out of it."""
        return value if sys.byteorder == "big" else builder.bswap(value)

    def _turned(builder: Any, value: Any) -> Any:
        """A word in the order of files that are written here, the lowest byte first, or out of it."""
        return value if sys.byteorder == "little" else builder.bswap(value)

    @intrinsic
    def load_word(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _element(context, builder, array, args[0], args[1])
            word = builder.load(builder.bitcast(place, ir.IntType(32).as_pointer()), align=1)
            return builder.zext(_turned(builder, word), ir.IntType(64))

        return types.int64(array, types.int64), codegen

    @intrinsic
    def store_word(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _element(context, builder, array, args[0], args[1])
            word = _turned(builder, builder.trunc(args[2], ir.IntType(32)))
            builder.store(word, builder.bitcast(place, ir.IntType(32).as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), codegen

    @intrinsic
    def load_big(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _element(context, builder, array, args[0], args[1])
            return _swaps(builder, builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1))

        return types.int64(array, types.int64), codegen

    @intrinsic
    def store_big(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _element(context, builder, array, args[0], args[1])
            builder.store(_swaps(builder, args[2]), builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), codegen

    if platform.machine() == "x86_64":

        @intrinsic
        def ticks(typingctx: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                # Fences on both sides: the processor reads the counter out of order, long before earlier work is done.
                insert = cgutils.get_or_insert_function
                fence = insert(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.lfence")
                counter = insert(builder.module, ir.FunctionType(ir.IntType(64), []), "llvm.readcyclecounter")
                builder.call(fence, [])
                count = builder.call(counter, [])
                builder.call(fence, [])
                return count

            return types.int64(), codegen

    else:

        @compiled
        def ticks() -> int:
            return monotonic_ns()

    _Timespec = ir.LiteralStructType([ir.IntType(64), ir.IntType(64)])

    def _read_clock(builder: Any, which: int) -> Any:
        """What clock `which` says, by clock_gettime(2)."""
        moment = cgutils.alloca_once(builder, _Timespec)
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), moment.type])
        call = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(call, [ir.Constant(ir.IntType(32), which), moment])
        seconds = builder.load(cgutils.gep_inbounds(builder, moment, 0, 0))
        nanoseconds = builder.load(cgutils.gep_inbounds(builder, moment, 0, 1))
        return builder.add(builder.mul(seconds, ir.Constant(ir.IntType(64), 10**9)), nanoseconds)

    def _clock(which: int) -> Any:
        """An intrinsic that reads clock `which`."""

        @intrinsic
        def read_clock(typingctx: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return _read_clock(builder, which)

            return types.int64(), codegen

        return read_clock

    monotonic_ns = _clock(time.CLOCK_MONOTONIC)
    realtime_ns = _clock(time.CLOCK_REALTIME)

    # A symbol and not a number stands in machine code that is kept on disk.
    _VIRTUAL = "ixy_virtual_clock"
    llvm.add_symbol(_VIRTUAL, WORDS.ctypes.data)

    def _clock_unless_virtual(which: int) -> Any:
        """An intrinsic that reads clock `which`, or the virtual one."""

        @intrinsic
        def read_clock(typingctx: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                word = builder.module.globals.get(_VIRTUAL) or ir.GlobalVariable(
                    builder.module, ir.IntType(64), _VIRTUAL
                )
                known = builder.load(word)
                said = cgutils.alloca_once_value(builder, known)
                with builder.if_then(builder.icmp_signed("==", known, ir.Constant(ir.IntType(64), 0)), likely=True):
                    builder.store(_read_clock(builder, which), said)
                return builder.load(said)

            return types.int64(), codegen

        return read_clock

    now_ns = _clock_unless_virtual(time.CLOCK_MONOTONIC)
    date_ns = _clock_unless_virtual(time.CLOCK_REALTIME)

    _usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())

    @compiled
    def nap(microseconds: int) -> None:
        if microseconds > 0:
            _usleep(microseconds)
        else:
            _sched_yield()

    def _transfer(name: str, *more: int) -> Any:
        """An intrinsic that calls read(2), write(2) or, with flags, send(2) on a range of an array."""

        @intrinsic
        def transfer(typingctx: Any, fd: Any, array: Any, start: Any, size: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                pointer = _element(context, builder, array, args[1], args[2])
                flags = [ir.Constant(ir.IntType(32), flag) for flag in more]
                taken = [builder.trunc(args[0], ir.IntType(32)), pointer, args[3], *flags]
                kind = ir.FunctionType(ir.IntType(64), [value.type for value in taken])
                done = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), taken)
                place = cgutils.get_or_insert_function(
                    builder.module, ir.FunctionType(ir.IntType(32).as_pointer(), []), "__errno_location"
                )
                error = builder.sext(builder.load(builder.call(place, [])), ir.IntType(64))
                failed = builder.icmp_signed("<", done, ir.Constant(ir.IntType(64), 0))
                return builder.select(failed, builder.neg(error), done)

            return types.int64(types.int64, array, types.int64, types.int64), codegen

        return transfer

    read_file = _transfer("read")
    write_file = _transfer("write")
    send_file = _transfer("send", socket.MSG_NOSIGNAL)

    def address_of(kernel: Any, record: tuple[Any, ...]) -> int:
        signature = types.int64(*_call_types(numba.typeof(record)))
        kernel.compile(signature)
        compiled = kernel.overloads[signature.args]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)

    def _call_types(record: Any) -> list[Any]:
        """What a kernel that is called by address takes."""
        return [types.CPointer(record), *[types.int64] * 4]

    @intrinsic
    def call(
        typingctx: Any, addresses: Any, index: Any, record: Any, image: Any, a: Any, b: Any, c: Any, d: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds, convention = _call_types(record), context.call_conv
            address = builder.load(_element(context, builder, addresses, args[0], args[1]))
            kernel = builder.inttoptr(address, convention.get_function_type(types.int64, kinds).as_pointer())
            place = context.make_array(image)(context, builder, args[3]).data
            place = builder.bitcast(place, context.get_value_type(kinds[0]))
            status, result = convention.call_function(builder, kernel, types.int64, kinds, [place, *args[4:]])
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return result

        integer = types.int64
        return integer(addresses, integer, record, image, integer, integer, integer, integer), codegen

    def foreign(library: str, name: str) -> Any:
        # Called by its name, not by its address: kernels that call it can be cached on disk.
        llvm.load_library_permanently(library)
        return types.ExternalFunction(name, types.int64(types.int64))

    @intrinsic
    def write_file_at(typingctx: Any, fd: Any, array: Any, start: Any, size: Any, offset: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _element(context, builder, array, args[1], args[2])
            kind = ir.FunctionType(ir.IntType(64), [ir.IntType(32), pointer.type, ir.IntType(64), ir.IntType(64)])
            call = cgutils.get_or_insert_function(builder.module, kind, "pwrite")
            return builder.call(call, [builder.trunc(args[0], ir.IntType(32)), pointer, args[3], args[4]])

        return types.int64(types.int64, array, types.int64, types.int64, types.int64), codegen


LINES = 128  # bytes: two cache lines, as processors fetch them in pairs


def own_lines(count: int, dtype: Any = np.int64) -> Words:
    """Zeros that share no pair of cache lines with anything else: for what one thread writes all the time."""
    size = -(-count * np.dtype(dtype).itemsize // LINES) * LINES
    room = np.zeros(size + LINES, np.uint8)
    start = -room.ctypes.data % LINES
    return room[start : start + size].view(dtype)[:count]


def put_image(record: tuple[Any, ...], image: Words) -> None:
    """Write a named tuple of arrays and integers into an array of int64, as compiled code has it in memory.

    An array takes these words (numba/_arraystruct.h): two for its owner, of which there is none, the number of its
    elements and the size of one, the address of the first, shape, and strides.

    Raises:
        ValueError: it needs more room.
    """
    words: list[int] = []
    for part in record:
        if hasattr(part, "ctypes"):
            words += [0, 0, part.size, part.itemsize, part.ctypes.data, *part.shape, *part.strides]
        else:
            words.append(part)
    if len(words) > image.size:
        raise ValueError(f"an image of {len(words)} words does not fit into {image.size}")
    image[: len(words)] = words


# ---------------------------------------------------------------------------------------------------------------------
# Windows: address space into which memory is mapped

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_PROT_NONE = 0
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_MAP_FAILED = ctypes.c_void_p(-1).value


def _map(address: int | None, size: int, protection: int, flags: int, fd: int, offset: int) -> int:
    result = _libc.mmap(address, size, protection, flags, fd, offset)
    if result == _MAP_FAILED:
        number = ctypes.get_errno()
        raise MemoryUnavailable(f"cannot map {size} bytes of memory: {os.strerror(number)}")
    return result


class Window:
    """A range of reserved address space, seen as one array of bytes.

    A page of the window can be touched only after `map` has put memory there; the rest faults, as it should.

    Args:
        size: bytes to reserve, a multiple of `alignment`. Costs address space only.
        alignment: of the first byte, a power of two, such as the size of a huge page.
    """

    def __init__(self, size: int, alignment: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        start = _map(None, size + alignment, _PROT_NONE, flags, -1, 0)
        self.size = size
        self._base = -(-start // alignment) * alignment
        self._reserved = (start, size + alignment)
        memory: Any = (ctypes.c_uint8 * size).from_address(self._base)
        self.bytes: Bytes = np.frombuffer(memory, np.uint8)

    def map(self, offset: int, size: int, fd: int, fd_offset: int = 0) -> None:
        """Map `size` bytes of file `fd` at `offset`, shared and writable.

        Raises:
            MemoryUnavailable: the kernel refuses.
        """
        self._check(offset, size)
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        try:
            _map(self._base + offset, size, protection, mmap.MAP_SHARED | _MAP_FIXED, fd, fd_offset)
        except MemoryUnavailable:
            self.unmap(offset, size)  # a mapping that fails drops what was there all the same
            raise

    def lock(self, offset: int, size: int) -> None:
        """Keep mapped memory resident: it is never swapped out.

        Raises:
            MemoryUnavailable: the process may not lock so much.
        """
        self._check(offset, size)
        if _libc.mlock(self._base + offset, size):
            number = ctypes.get_errno()
            raise MemoryUnavailable(
                f"cannot lock {size} bytes of memory: {os.strerror(number)}; raise the limit (ulimit -l) or run as root"
            )

    def unmap(self, offset: int, size: int) -> None:
        """Take the memory at `offset` away and reserve the range again."""
        self._check(offset, size)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        _map(self._base + offset, size, _PROT_NONE, flags, -1, 0)

    def idle(self, offset: int = 0, size: int | None = None) -> None:
        """Take memory away, all of it or a range. Whoever still has an array of it sees memory where nothing happens,
        zeros at first."""
        size = self.size - offset if size is None else size
        self._check(offset, size)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        _map(self._base + offset, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)

    def address(self, offset: int) -> int:
        """The virtual address of byte `offset`, for the kernel's interfaces that ask for one (pagemap, VFIO)."""
        self._check(offset, 1)
        return self._base + offset

    def close(self) -> None:
        """Give the whole range back. Arrays made from `bytes` must not be touched any more."""
        _libc.munmap(*self._reserved)

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size <= 0 or offset + size > self.size:
            raise ValueError(f"range {offset:#x}+{size:#x} lies outside the window of {self.size:#x} bytes")


# ---------------------------------------------------------------------------------------------------------------------
# Counters of the processor

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # the number of the system call
_PERF_ATTR = struct.Struct("=IIQQQQQIIQ")  # perf_event_attr in its first version (linux/perf_event.h)
_EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 5, 1 << 6
_FD_CLOEXEC = 1 << 3


def open_counter(kind: int, event: int) -> int:
    """A counter of what this thread does in user mode, by perf_event_open(2).

    Args:
        kind, event: PERF_TYPE_… and PERF_COUNT_… of linux/perf_event.h.

    Returns:
        A file. What is read from it are 8 bytes: the count so far.

    Raises:
        OSError: there is no such counter here, or the kernel does not let this process have it.
    """
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    attributes = _PERF_ATTR.pack(kind, _PERF_ATTR.size, event, 0, 0, 0, _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR, 0, 0, 0)
    this_process, any_core, no_group = 0, -1, -1
    fd = _libc.syscall(number, attributes, this_process, any_core, no_group, ctypes.c_ulong(_FD_CLOEXEC))
    if fd < 0:
        failure = ctypes.get_errno()
        raise OSError(failure, os.strerror(failure))
    return fd
