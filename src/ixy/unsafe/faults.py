"""Memory in another process's file, which that process may shorten at any time.

Who touches a page behind the end of a file gets SIGBUS, and ends. A file can be sealed against that (memfd_create(2)),
but not one that somebody else made without allowing it. So for ranges that are guarded there is a handler: it puts
memory of this process's own in the place of the range, zeros, and notes that it was lost. The access is made once
more and goes well; whoever looks later hears of it. The handler is machine code: it comes in the middle of a kernel,
where neither Python nor its collector may run.

Source: sigaction(2), mmap(2), the System V ABI's `siginfo_t` for 64 bits.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from ixy.errors import MemoryUnavailable
from ixy.unsafe import own_lines

if TYPE_CHECKING:
    from ixy.unsafe import Window

# LLVM's internals have no types.
# pyright: basic

_ROOM = 1024  # ranges that can be guarded at once
_START, _END, _LOST, _WIDTH = 0, 1, 2, 4  # words of a range

_libc = ctypes.CDLL(None, use_errno=True)
_SIGACTION = struct.Struct("=Q128siiQ")  # of glibc: handler, mask, flags, restorer
_SA_SIGINFO, _SA_ONSTACK = 4, 0x0800_0000

# An address that is in none of the ranges is not our business: what was there before us gets the signal, as the access
# is made again.
_HANDLER = """
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @sigaction(i32, ptr, ptr)

define void @ixy_fault(i32 %signal, ptr %information, ptr %context) {{
entry:
  %at = getelementptr i8, ptr %information, i64 16
  %address = load i64, ptr %at
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %following, %other ]
  %word = mul i64 %i, {width}
  %row = getelementptr i64, ptr inttoptr (i64 {table} to ptr), i64 %word
  %start = load i64, ptr %row
  %end_at = getelementptr i64, ptr %row, i64 {end}
  %end = load i64, ptr %end_at
  %behind = icmp uge i64 %address, %start
  %before = icmp ult i64 %address, %end
  %within = and i1 %behind, %before
  br i1 %within, label %replace, label %other
other:
  %following = add i64 %i, 1
  %over = icmp eq i64 %following, {room}
  br i1 %over, label %strange, label %look
replace:
  %size = sub i64 %end, %start
  %place = inttoptr i64 %start to ptr
  %done = call ptr @mmap(ptr %place, i64 %size, i32 {protection}, i32 {flags}, i32 -1, i64 0)
  %failed = icmp ne ptr %done, %place
  br i1 %failed, label %strange, label %note
note:
  %lost_at = getelementptr i64, ptr %row, i64 {lost}
  store i64 1, ptr %lost_at
  ret void
strange:
  %restored = call i32 @sigaction(i32 %signal, ptr inttoptr (i64 {before} to ptr), ptr null)
  ret void
}}
"""


class _Handler:
    """The handler of this process, and the ranges that it knows.

    Raises:
        MemoryUnavailable: it cannot be set up.
    """

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        self.lock = threading.RLock()
        self.ranges = own_lines(_ROOM * _WIDTH)
        self._before = ctypes.create_string_buffer(_SIGACTION.size)
        fixed = 0x10 | 0x4000  # MAP_FIXED, MAP_NORESERVE
        source = _HANDLER.format(
            table=self.ranges.ctypes.data,
            before=ctypes.addressof(self._before),
            room=_ROOM,
            width=_WIDTH,
            end=_END,
            lost=_LOST,
            protection=mmap.PROT_READ | mmap.PROT_WRITE,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed,
        )
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = llvm.parse_assembly(source)
        module.verify()
        self._engine: Any = llvm.create_mcjit_compiler(
            module, llvm.Target.from_default_triple().create_target_machine()
        )
        self._engine.finalize_object()
        address = self._engine.get_function_address("ixy_fault")
        action = _SIGACTION.pack(address, bytes(128), _SA_SIGINFO | _SA_ONSTACK, 0, 0)
        if _libc.sigaction(int(signal.SIGBUS), action, self._before):
            raise MemoryUnavailable(f"no handler of SIGBUS: {os.strerror(ctypes.get_errno())}")


@cache
def _handler() -> _Handler:
    return _Handler()


class Guard:
    """Keeps the process alive when memory that is mapped in a range of a window is taken away.

    Args:
        window: its arrays are what the range is reached by.
        offset, size: of the range, whole pages.

    Raises:
        MemoryUnavailable: too many ranges are guarded.
    """

    def __init__(self, window: Window, offset: int, size: int) -> None:
        start = window.address(offset)
        with _handler().lock:
            ranges = _handler().ranges.reshape(_ROOM, _WIDTH)
            free = [row for row in range(_ROOM) if ranges[row, _END] == 0]
            if not free:
                raise MemoryUnavailable(f"more than {_ROOM} pieces of other processes' memory are mapped")
            self._range = ranges[free[0]]
            self._range[:] = start, start + size, 0, 0

    @property
    def lost(self) -> bool:
        """Whether somebody has touched memory that was no longer there."""
        return bool(self._range[_LOST])

    def close(self) -> None:
        """Guard the range no longer. Once, when nothing is mapped there."""
        self._range[:] = 0
