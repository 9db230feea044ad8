"""System calls on packet sockets: those that kernels make, and those whose structures hold addresses.

Sources: packet(7), sendmmsg(2), bpf(2), linux/if_xdp.h, linux/bpf.h, and the kernel's documentation of AF_XDP.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ixy.jit import INTERPRETED, compiled
from ixy.unsafe import own_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Words = NDArray[np.int64]

AF_XDP = 44

# ---------------------------------------------------------------------------------------------------------------------
# From kernels

# Words of a struct mmsghdr, and of the struct iovec that each has (64 bits)
_HEADER, _VECTOR, _VECTORS = 8, 2, 3
_PART, _START, _LENGTH = 2, 0, 1


def new_messages(count: int) -> Words:
    """Room for so many messages of one part each, for `send_many`: the headers, and behind them the parts."""
    messages = own_lines(count * (_HEADER + _PART))
    parts = messages.ctypes.data + messages.itemsize * count * _HEADER
    messages[_VECTOR : count * _HEADER : _HEADER] = parts + messages.itemsize * _PART * np.arange(count)
    messages[_VECTORS : count * _HEADER : _HEADER] = 1
    return messages


def new_message(parts: int) -> Words:
    """Room for one message of up to so many parts, for `set_part` and `send_message`."""
    message = own_lines(_HEADER + _PART * parts)
    message[_VECTOR] = message.ctypes.data + message.itemsize * _HEADER
    return message


if INTERPRETED or TYPE_CHECKING:

    @contextmanager
    def _lent(fd: int, family: int) -> Generator[socket.socket]:
        """A socket by its number."""
        sock = socket.socket(family, socket.SOCK_RAW, 0, fileno=fd)
        try:
            yield sock
        finally:
            sock.detach()

    def start_sending(fd: int) -> None:
        """Let the kernel send what lies in an AF_XDP socket's ring: sendto(2) of nothing. The ring tells how far it
        came."""
        with suppress(OSError), _lent(fd, AF_XDP) as sock:
            sock.send(b"", socket.MSG_DONTWAIT)

    def start_receiving(fd: int) -> None:
        """Let the kernel look into an AF_XDP socket's fill ring: recvfrom(2) of nothing."""
        with suppress(OSError), _lent(fd, AF_XDP) as sock:
            sock.recv(0, socket.MSG_DONTWAIT)

    def send_many(
        fd: int, messages: Words, data: Bytes, starts: Any, scale: int, lengths: Any, first: int, count: int
    ) -> int:
        """Send packets from `first` on by sendmmsg(2), without waiting.

        Args:
            fd: an AF_PACKET socket.
            messages: of `new_messages`, with room for `count`.
            data: packet i is `data[starts[i] * scale:][:lengths[i]]`; the caller has checked that it lies within.

        Returns:
            How many were sent, or the negative number of the error that the first one met.
        """
        sent = 0
        try:
            with _lent(fd, socket.AF_PACKET) as sock:
                for i in range(first, first + count):
                    start = int(starts[i]) * scale
                    sock.send(data[start : start + int(lengths[i])].tobytes(), socket.MSG_DONTWAIT)
                    sent += 1
        except OSError as error:
            return sent or -(error.errno or 0)
        return sent

    def set_part(message: Words, part: int, data: Bytes, start: int, length: int) -> None:
        """Let a part of a message be `data[start:][:length]`, of which the caller has checked that it lies within."""
        place = _HEADER + _PART * part
        message[place + _START], message[place + _LENGTH] = start, length

    def send_message(fd: int, message: Words, data: Bytes, count: int) -> int:
        """Send a message of `count` parts as one packet, without waiting; 1, or the negative number of an error.

        Args:
            fd: an AF_PACKET socket.
            data: as all parts were set.
        """
        parts = message[_HEADER:].reshape(-1, _PART)[:count].tolist()
        try:
            with _lent(fd, socket.AF_PACKET) as sock:
                sock.send(
                    b"".join(data[start : start + length].tobytes() for start, length in parts), socket.MSG_DONTWAIT
                )
        except OSError as error:
            return -(error.errno or 0)
        return 1

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    _DONT_WAIT = np.int32(socket.MSG_DONTWAIT)
    _sendto = types.ExternalFunction(
        "sendto", types.int64(types.int32, types.intp, types.uint64, types.int32, types.intp, types.uint32)
    )
    _recvfrom = types.ExternalFunction(
        "recvfrom", types.int64(types.int32, types.intp, types.uint64, types.int32, types.intp, types.intp)
    )
    _sendmmsg = types.ExternalFunction("sendmmsg", types.int32(types.int32, types.intp, types.uint32, types.int32))

    @compiled
    def start_sending(fd: int) -> None:
        _sendto(fd, 0, 0, _DONT_WAIT, 0, 0)

    @compiled
    def start_receiving(fd: int) -> None:
        _recvfrom(fd, 0, 0, _DONT_WAIT, 0, 0)

    @intrinsic
    def _address(typingctx: Any, array: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ptrtoint(context.make_array(array)(context, builder, args[0]).data, ir.IntType(64))

        return types.int64(array), codegen

    @intrinsic
    def _errno(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(ir.IntType(32).as_pointer(), [])
            place = builder.call(cgutils.get_or_insert_function(builder.module, kind, "__errno_location"), [])
            return builder.sext(builder.load(place), ir.IntType(64))

        return types.int64(), codegen

    @compiled
    def send_many(
        fd: int, messages: Words, data: Bytes, starts: Any, scale: int, lengths: Any, first: int, count: int
    ) -> int:
        base, parts = _address(data), messages.size // (_HEADER + _PART) * _HEADER
        for i in range(count):
            messages[parts + _PART * i + _START] = base + np.int64(starts[first + i]) * scale
            messages[parts + _PART * i + _LENGTH] = np.int64(lengths[first + i])
        sent = np.int64(_sendmmsg(fd, _address(messages), count, _DONT_WAIT))
        return sent if sent >= 0 else -_errno()

    @compiled
    def set_part(message: Words, part: int, data: Bytes, start: int, length: int) -> None:
        place = _HEADER + _PART * part
        message[place + _START] = _address(data) + start
        message[place + _LENGTH] = length

    @compiled
    def send_message(fd: int, message: Words, data: Bytes, count: int) -> int:
        message[_VECTORS] = count
        sent = np.int64(_sendmmsg(fd, _address(message), 1, _DONT_WAIT))
        return sent if sent >= 0 else -_errno()


# ---------------------------------------------------------------------------------------------------------------------
# AF_XDP and BPF

_libc = ctypes.CDLL(None, use_errno=True)
_BPF = {"x86_64": 321, "aarch64": 280}  # the number of the system call
_ATTR_BYTES = 144
_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO, _LINK_CREATE = 0, 2, 5, 13, 15, 28
_MAP_TYPE_XSKMAP, _PROG_TYPE_XDP, _ATTACH_XDP = 17, 6, 37
_HAS_FRAGMENTS = 1 << 5  # BPF_F_XDP_HAS_FRAGS
_LOG_BYTES = 1 << 20
_INFO_BYTES, _INFO_NAME = 256, 64  # of struct bpf_prog_info, and where its name stands
_NAME_BYTES = 16


def _checked(result: int, what: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, what or os.strerror(number))
    return result


def bind_xdp(fd: int, flags: int, interface: int, queue: int) -> None:
    """bind(2) of an AF_XDP socket: struct sockaddr_xdp."""
    _checked(_libc.bind(fd, struct.pack("=HHIII", AF_XDP, flags, interface, queue, 0), 16))


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2); its descriptors are closed by exec(2)."""
    number = _BPF.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    room = ctypes.create_string_buffer(attributes.ljust(_ATTR_BYTES, b"\0"), _ATTR_BYTES)
    return _checked(_libc.syscall(number, command, room, _ATTR_BYTES))


def new_socket_map(entries: int) -> int:
    """A map from numbers of queues to AF_XDP sockets (XSKMAP): its descriptor."""
    return _bpf(_MAP_CREATE, struct.pack("=IIII", _MAP_TYPE_XSKMAP, 4, 4, entries))


def put_socket(sockets: int, queue: int, fd: int) -> None:
    """Let packets of a queue go to this socket."""
    key, value = ctypes.c_uint32(queue), ctypes.c_uint32(fd)
    _bpf(_MAP_UPDATE_ELEM, struct.pack("=IIQQQ", sockets, 0, ctypes.addressof(key), ctypes.addressof(value), 0))


def load_program(code: bytes, name: str, *, fragments: bool = False) -> int:
    """An XDP program for this kernel: its descriptor.

    Args:
        code: instructions, 8 bytes each.
        name: by which `bpftool` shows it, 15 characters.
        fragments: it may be given frames that lie in several pieces of memory, of which it sees the first.

    Raises:
        OSError: the kernel does not take it; what its verifier says last is the error's text.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"MIT")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    places = (ctypes.addressof(instructions), ctypes.addressof(licence))
    head = struct.pack("=IIQQ", _PROG_TYPE_XDP, len(code) // 8, *places)

    def load(level: int, size: int, place: int) -> int:
        flags = _HAS_FRAGMENTS if fragments else 0
        rest = struct.pack("=IIQII16s", level, size, place, 0, flags, name.encode()[: _NAME_BYTES - 1])
        return _bpf(_PROG_LOAD, head + rest)

    try:
        return load(0, 0, 0)
    except PermissionError:
        raise
    except OSError as error:
        with suppress(OSError):
            os.close(load(1, _LOG_BYTES, ctypes.addressof(log)))  # once more, for the reason
        lines = [line for line in log.value.decode(errors="replace").splitlines() if not line.startswith("processed")]
        raise OSError(error.errno, lines[-1] if lines else error.strerror) from error


def attach_program(program: int, interface: int, flags: int) -> int:
    """Attach an XDP program to an interface; the descriptor that keeps it there."""
    return _bpf(_LINK_CREATE, struct.pack("=IIII", program, interface, _ATTACH_XDP, flags))


def program_name(number: int) -> str:
    """The name of a loaded BPF program, by its id; empty if it has none."""
    fd = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=II", number, 0))
    try:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        _bpf(_OBJ_GET_INFO, struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info)))
        return info.raw[_INFO_NAME : _INFO_NAME + _NAME_BYTES].split(b"\0")[0].decode(errors="replace")
    finally:
        os.close(fd)
