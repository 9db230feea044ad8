"""Privileges that threads give up: capabilities, the right to gain any, and with Landlock the files of the system.

All three are a thread's own: capset(2), prctl(2) and landlock_restrict_self(2) work on who calls them. So each other
thread is sent a signal whose handler makes the same calls, as the C library does for setuid(2) (nptl(7)). Python runs
its handlers in one thread only, so this one is machine code.

The guardian of a card runs this file by itself: at its top it imports the standard library only.

Sources: capabilities(7), capset(2), prctl(2), signal(7).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Any

# LLVM's interface has no types.
# pyright: basic

SETPCAP = 8  # the capability by which others are taken from the bounding set

# Of linux/prctl.h and linux/capability.h
_SET_SECCOMP, _FILTER, _BOUNDING_HAS, _DROP_BOUNDING, _SET_NO_NEW_PRIVILEGES = 22, 2, 23, 24, 38
_AMBIENT, _CLEAR_ALL = 47, 4
_VERSION_3 = 0x2008_0522
_RESTRICT_SELF = 446  # landlock_restrict_self(2), on all processors

_WORDS = 6  # of a call: the function, and five arguments
_PATIENCE = 2.0  # seconds for a thread to be interrupted

_libc = ctypes.CDLL(None, use_errno=True)
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]


def capabilities() -> int:
    """Those that this thread has in effect, bit by bit."""
    header, data = struct.pack("=Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, data))
    low, _, _, high, _, _ = struct.unpack("=6I", data.raw)
    return high << 32 | low


def give_up(kept: int = 0, ruleset: int = -1) -> None:
    """Let all threads of the process give up what they may, for good.

    Args:
        kept: capabilities that stay in effect, bit by bit.
        ruleset: a ruleset of Landlock, open; below 0 for none.

    Raises:
        OSError: the kernel refuses, or a thread takes no signals.
    """
    calls = _Calls()
    calls.add(_libc.prctl, _SET_NO_NEW_PRIVILEGES, 1)
    if capabilities() >> SETPCAP & 1:
        number = 0
        while _libc.prctl(_BOUNDING_HAS, number, 0, 0, 0) >= 0:  # until there is no such capability
            calls.add(_libc.prctl, _DROP_BOUNDING, number)
            number += 1
    calls.add(_libc.prctl, _AMBIENT, _CLEAR_ALL)
    low, high = kept & 0xFFFF_FFFF, kept >> 32
    header, data = struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", low, low, 0, high, high, 0)
    calls.add(_libc.capset, calls.memory(header), calls.memory(data))
    if ruleset >= 0:
        calls.add(_libc.syscall, _RESTRICT_SELF, ruleset)
    calls.make_everywhere()


def filter_calls(program: bytes) -> None:
    """Filter the system calls of this thread, and of those that it starts, by a program of seccomp(2)."""
    room = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(room))
    _checked(_libc.prctl(_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(described, len(described)), 0, 0))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Calls:
    """Calls of functions of the C library, which threads make one after the other."""

    def __init__(self) -> None:
        self._rows: list[list[int]] = []
        self._memory: list[Any] = []

    def memory(self, data: bytes) -> int:
        """The address of some bytes, which stay there as long as this object."""
        self._memory.append(ctypes.create_string_buffer(data, len(data)))
        return ctypes.addressof(self._memory[-1])

    def add(self, function: Any, *arguments: int) -> None:
        """A function that returns less than 0 if it fails."""
        row = [ctypes.cast(function, ctypes.c_void_p).value or 0, *arguments]
        self._rows.append(row + [0] * (_WORDS - len(row)))

    def make_everywhere(self) -> None:
        """Let all threads make the calls; a thread that one of them starts meanwhile is found, or begins with less."""
        done = {threading.get_native_id()}
        handler = None
        while left := _threads() - done:
            handler = handler or _Handler(self._rows)
            for thread in left:
                handler.interrupt(thread)
            done |= left
        if handler:
            handler.close()
        self._make()

    def _make(self) -> None:
        kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_long] * (_WORDS - 1), use_errno=True)
        for function, *arguments in self._rows:
            _checked(kind(function)(*arguments))


def _threads() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/task").iterdir()}


class _Handler:
    """A signal that makes a thread which gets it make some calls.

    Raises:
        OSError: all signals are in use.
    """

    def __init__(self, rows: list[list[int]]) -> None:
        words = [word for row in rows for word in row] + [0]
        self._table = (ctypes.c_int64 * len(words))(*words)
        self._done, self._failure = ctypes.c_int64(0), ctypes.c_int64(0)
        self._engine = _compiled(*map(ctypes.addressof, (self._table, self._done, self._failure)))
        self._signal = self._install(self._engine.get_function_address("make"))

    @staticmethod
    def _install(address: int) -> int:
        """Take a signal that nobody uses."""
        for number in range(signal.SIGRTMAX, signal.SIGRTMIN, -1):
            before = _libc.signal(number, address)
            if before is None:  # SIG_DFL
                return number
            _libc.signal(number, before)
        raise OSError(0, "no signal is free with which threads could be told")

    def interrupt(self, thread: int) -> None:
        """Let a thread make the calls, unless it has ended."""
        before, deadline = self._done.value, time.monotonic() + _PATIENCE
        _libc.tgkill(os.getpid(), thread, self._signal)
        while self._done.value == before and thread in _threads():
            if time.monotonic() > deadline:
                raise OSError(0, f"thread {thread} takes no signals")
            time.sleep(0.0001)
        if self._failure.value:
            raise OSError(self._failure.value, os.strerror(self._failure.value))

    def close(self) -> None:
        _libc.signal(self._signal, None)


def _compiled(table: int, done: int, failure: int) -> Any:
    """Machine code of a function `make(signal)`, which makes the calls of a table that a zero ends, counts that, and
    leaves the number of the error of a call that failed. It keeps errno, as it interrupts others."""
    import llvmlite.binding as llvm
    from llvmlite import ir

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    word, number = ir.IntType(64), ir.IntType(32)

    def place(address: int, kind: Any = word) -> Any:
        return word(address).inttoptr(kind.as_pointer())

    module = ir.Module("privileges")
    module.triple = llvm.get_process_triple()
    make = ir.Function(module, ir.FunctionType(ir.VoidType(), [number]), "make")
    errno = ir.Function(module, ir.FunctionType(number.as_pointer(), []), "__errno_location")
    start, look, call, failed, following, end = (make.append_basic_block() for _ in range(6))

    builder = ir.IRBuilder(start)
    own = builder.call(errno, [])
    saved = builder.load(own)
    builder.branch(look)

    builder.position_at_end(look)
    at = builder.phi(word)
    at.add_incoming(word(0), start)
    row = [builder.load(builder.gep(place(table), [builder.add(at, word(i))])) for i in range(_WORDS)]
    builder.cbranch(builder.icmp_signed("==", row[0], word(0)), end, call)

    builder.position_at_end(call)
    function = builder.inttoptr(row[0], ir.FunctionType(number, [word] * (_WORDS - 1)).as_pointer())
    builder.cbranch(builder.icmp_signed("<", builder.call(function, row[1:]), number(0)), failed, following)

    builder.position_at_end(failed)
    builder.store(builder.zext(builder.load(own), word), place(failure))
    builder.branch(following)

    builder.position_at_end(following)
    at.add_incoming(builder.add(at, word(_WORDS)), following)
    builder.branch(look)

    builder.position_at_end(end)
    builder.store(saved, own)
    builder.atomic_rmw("add", place(done), word(1), "seq_cst")
    builder.ret_void()

    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    engine = llvm.create_mcjit_compiler(parsed, llvm.Target.from_default_triple().create_target_machine())
    engine.finalize_object()
    return engine
