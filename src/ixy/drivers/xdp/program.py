"""The XDP program that puts packets into the sockets of their queues, all of them or those that a filter matches.

It is a few instructions of eBPF, made here. A filter is the classic program that libpcap has made, instruction by
instruction, as the kernel itself translates those of sockets: A is r0, X is r7. The kernel's verifier has to see that a
packet is never read beyond its end, so each load is checked against that.

Source: Documentation/bpf/standardization/instruction-set.rst, Documentation/networking/filter.rst, linux/bpf.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ixy import bpf
from ixy.errors import FilterError

if TYPE_CHECKING:
    from ixy.bpf import Instruction, Program

XDP_DROP, XDP_PASS = 1, 2
_DATA, _DATA_END, _QUEUE = 0, 4, 16  # in struct xdp_md
_REDIRECT = 51  # bpf_redirect_map
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD
_LDX, _ST, _STX, _ALU32, _JMP, _JMP32 = 0x61, 0x62, 0x63, 0x04, 0x05, 0x06
_BY_REGISTER = 0x08
_SWAP = 0xDC  # to big endian
_JA, _JGT, _JEQ = 0x00, 0x20, 0x10
_FARTHEST = 0x7FFF  # how far into a packet the verifier follows
_A, _X, _CONTEXT, _START, _END, _STACK = 0, 7, 6, 8, 9, 10
_MOST = 4096  # instructions of a filter

_JUMPS = {bpf.JEQ: 0x10, bpf.JGT: 0x20, bpf.JGE: 0x30, bpf.JSET: 0x40}


def redirecting(sockets: int, program: Program | None = None) -> bytes:
    """Code that redirects packets by this map, and lets the kernel have the others.

    Args:
        sockets: the map's descriptor.
        program: a verified filter; None for all packets.

    Raises:
        FilterError: it is too long.
    """
    code = _Code()
    code.put(0xBF, _CONTEXT, 1)  # r6 = the context
    if program is not None:
        _filter(code, program)
    code.label("match")
    code.put(_LDX, 2, _CONTEXT, _QUEUE)
    code.put(0x18, 1, _MAP_FD, 0, sockets)
    code.put(0x00)
    code.put(0xB7, 3, 0, 0, XDP_PASS)  # where there is no socket
    code.put(0x85, 0, 0, 0, _REDIRECT)
    code.put(0x95)
    if program is not None:
        code.label("reject")
        code.put(0xB7, 0, 0, 0, XDP_PASS)
        code.put(0x95)
    return code.bytes()


def dropping() -> bytes:
    """Code that drops all packets, as a measurement's other end does."""
    code = _Code()
    code.put(0xB7, 0, 0, 0, XDP_DROP)
    code.put(0x95)
    return code.bytes()


@dataclass
class _Code:
    """Instructions, with jumps to places that are named."""

    _instructions: list[tuple[int, int, int, int, int]] = field(default_factory=list[tuple[int, int, int, int, int]])
    _jumps: dict[int, object] = field(default_factory=dict[int, object])
    _labels: dict[object, int] = field(default_factory=dict[object, int])

    def put(self, code: int, target: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> None:
        self._instructions.append((code, target, source, offset, number))

    def jump(self, code: int, label: object, target: int = 0, source: int = 0, number: int = 0) -> None:
        self._jumps[len(self._instructions)] = label
        self.put(code, target, source, 0, number)

    def label(self, name: object) -> None:
        self._labels[name] = len(self._instructions)

    def bytes(self) -> bytes:
        made = bytearray()
        for place, (code, target, source, offset, number) in enumerate(self._instructions):
            if place in self._jumps:
                offset = self._labels[self._jumps[place]] - place - 1
                if not -0x8000 <= offset <= 0x7FFF:
                    raise FilterError("filter: too long for an XDP program")
            made += struct.pack("<BBhI", code, source << 4 | target, offset, number & 0xFFFF_FFFF)
        return bytes(made)


def _filter(code: _Code, program: Program) -> None:
    """What goes on where a packet matches, and else to "reject"."""
    if len(program) > _MOST:
        raise FilterError(f"filter: {len(program)} instructions: {_MOST} are possible")
    code.put(_LDX, _START, _CONTEXT, _DATA)
    code.put(_LDX, _END, _CONTEXT, _DATA_END)
    code.put(0xB4, _A)
    code.put(0xB4, _X)
    for word in sorted({each.k for each in program if each.uses_memory}):
        code.put(_ST, _STACK, 0, -4 * (word + 1))  # the verifier wants to see it written before it is read
    for place, each in enumerate(program):
        code.label(place)
        _translate(code, each, place)


def _translate(code: _Code, each: Instruction, place: int) -> None:
    kind = each.kind
    if kind == bpf.LD:
        _load(code, each, _A)
    elif kind == bpf.LDX:
        _load(code, each, _X)
    elif kind in (bpf.ST, bpf.STX):
        code.put(_STX, _STACK, _A if kind == bpf.ST else _X, -4 * (each.k + 1))
    elif kind == bpf.ALU:
        _compute(code, each)
    elif kind == bpf.JMP:
        _jump(code, each, place)
    elif kind == bpf.RET:
        _return(code, each)
    elif each.code & bpf.TXA:
        code.put(0xBC, _A, _X)
    else:
        code.put(0xBC, _X, _A)


def _load(code: _Code, each: Instruction, target: int) -> None:
    mode = each.code & bpf.MODE
    if mode == bpf.IMM:
        code.put(0xB4, target, 0, 0, each.k)
    elif mode == bpf.MEM:
        code.put(_LDX, target, _STACK, -4 * (each.k + 1))
    elif mode == bpf.LEN:
        code.put(0xBF, target, _END)
        code.put(0x1F, target, _START)
    elif mode == bpf.MSH:
        _read(code, each.k, 1, target, by_x=False)
        code.put(0x54, target, 0, 0, 15)
        code.put(0x64, target, 0, 0, 2)
    else:
        _read(code, each.k, bpf.BYTES[each.code & bpf.SIZE], target, by_x=mode == bpf.IND)


def _read(code: _Code, offset: int, size: int, target: int, *, by_x: bool) -> None:
    """Read a number of the packet; one that is beyond its end rejects it."""
    if offset > _FARTHEST:
        code.jump(_JMP | _JA, "reject")
        return
    code.put(0xBF, 1, _START)
    if by_x:
        code.put(0xBC, 2, _X)
        code.jump(_JMP | _JGT, "reject", 2, 0, _FARTHEST)
        code.put(0x0F, 1, 2)
    code.put(0xBF, 3, 1)
    code.put(0x07, 3, 0, 0, offset + size)
    code.jump(_JMP | _JGT | _BY_REGISTER, "reject", 3, _END)
    code.put({4: 0x61, 2: 0x69, 1: 0x71}[size], target, 1, offset)
    if size > 1:
        code.put(_SWAP, target, 0, 0, 8 * size)


def _compute(code: _Code, each: Instruction) -> None:
    operation, k = each.operation, each.k
    if operation == bpf.NEG:
        code.put(0x84, _A)
    elif operation in (bpf.LSH, bpf.RSH):
        _shift(code, each)
    elif operation in (bpf.DIV, bpf.MOD) and (each.by_x or k == 0):
        if not each.by_x:
            code.jump(_JMP | _JA, "reject")
            return
        code.jump(_JMP32 | _JEQ, "reject", _X, 0, 0)
        code.put(_ALU32 | operation | _BY_REGISTER, _A, _X)
    elif each.by_x:
        code.put(_ALU32 | operation | _BY_REGISTER, _A, _X)
    else:
        code.put(_ALU32 | operation, _A, 0, 0, k)


def _shift(code: _Code, each: Instruction) -> None:
    """By 32 and more, nothing is left; eBPF would shift by the rest."""
    if each.by_x:
        code.put(_JMP32 | 0xA0, _X, 0, 2, 32)  # if X is less
        code.put(0xB4, _A)
        code.put(_JMP | _JA, 0, 0, 1)
        code.put(_ALU32 | each.operation | _BY_REGISTER, _A, _X)
    elif each.k >= 32:
        code.put(0xB4, _A)
    else:
        code.put(_ALU32 | each.operation, _A, 0, 0, each.k)


def _jump(code: _Code, each: Instruction, place: int) -> None:
    if each.operation == bpf.JA:
        code.jump(_JMP | _JA, place + 1 + each.jump)
        return
    how = _JMP32 | _JUMPS[each.operation] | (_BY_REGISTER if each.by_x else 0)
    code.jump(how, place + 1 + each.jt, _A, _X if each.by_x else 0, 0 if each.by_x else each.k)
    if each.jf:
        code.jump(_JMP | _JA, place + 1 + each.jf)


def _return(code: _Code, each: Instruction) -> None:
    if each.code & bpf.RETURN_A:
        code.jump(_JMP32 | _JEQ, "reject", _A, 0, 0)
        code.jump(_JMP | _JA, "match")
    else:
        code.jump(_JMP | _JA, "match" if each.k else "reject")
