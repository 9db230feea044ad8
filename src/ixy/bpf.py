"""The classic BSD packet filter: its instructions, what makes a program safe to run, and an interpreter of it.

libpcap compiles tcpdump's filter language into such programs (`unsafe.libpcap`), and `unsafe.filters` makes machine
code of them. What they mean stands here, readably: McCanne and Jacobson, "The BSD Packet Filter" (1993), table 1, and
for the details libpcap's bpf_filter.c. A program has two registers, A and X, of 32 bits, and 16 words of memory M. It
reads the packet, in network byte order, and returns 0 if the packet does not match. A load from beyond the packet's
end, and a division by zero, end it with 0.
"""

from __future__ import annotations

from typing import NamedTuple

from ixy.errors import FilterError

# The class of an instruction, its lowest three bits
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
CLASS = 0x07

# What LD and LDX load, and of which size
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
MODE = 0xE0
WORD, HALF, BYTE = 0x00, 0x08, 0x10
SIZE = 0x18
BYTES = {WORD: 4, HALF: 2, BYTE: 1}

# What ALU and JMP do
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0x00, 0xB0, 0x10)
JA, JEQ, JGT, JGE, JSET = range(0x00, 0x50, 0x10)
OPERATION = 0xF0

SOURCE_X = 0x08  # with X, instead of K
RETURN_A = 0x10  # A, instead of K
TXA = 0x80  # A becomes X, instead of X A

MEMORY = 16  # words
MASK = 0xFFFF_FFFF

_LOADS = {
    **{(LD, mode, size): True for mode in (ABS, IND) for size in BYTES},
    **{(kind, mode, WORD): True for kind in (LD, LDX) for mode in (IMM, MEM, LEN)},
    (LDX, MSH, BYTE): True,
}


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        code: what it does.
        jt, jf: where a conditional jump goes, counted from the next instruction: where it is true, and where not.
        k: a number of 32 bits.
    """

    code: int
    jt: int
    jf: int
    k: int

    @property
    def kind(self) -> int:
        return self.code & CLASS

    @property
    def operation(self) -> int:
        return self.code & OPERATION

    @property
    def by_x(self) -> bool:
        return bool(self.code & SOURCE_X)

    @property
    def uses_memory(self) -> bool:
        return self.kind in (ST, STX) or (self.kind in (LD, LDX) and self.code & MODE == MEM)

    @property
    def jump(self) -> int:
        """How far JA goes, which has a sign: `protochain` jumps back."""
        return self.k - (1 << 32) if self.k >> 31 else self.k


Program = tuple[Instruction, ...]


def verify(program: Program) -> Program:
    """The program, if nothing it does leaves it, its memory or its packet, whoever has made it.

    Only JA goes back, as libpcap's programs do for `protochain`, and each round takes them further into the packet.

    Raises:
        FilterError: it is not safe to run.
    """
    for place, each in enumerate(program):
        if not _is_known(each):
            raise FilterError(f"filter: instruction {place} has the code {each.code:#x}, which there is not")
        if each.uses_memory and each.k >= MEMORY:
            raise FilterError(f"filter: instruction {place} uses word {each.k} of a memory of {MEMORY}")
        if not all(0 <= place + 1 + step < len(program) for step in _steps(each)):
            raise FilterError(f"filter: instruction {place} leads out of the program")
    if not program:
        raise FilterError("filter: a program without an instruction")
    return program


def _is_known(each: Instruction) -> bool:
    code, kind = each.code, each.kind
    if code > 0xFF:
        return False
    if kind in (LD, LDX):
        return (kind, code & MODE, code & SIZE) in _LOADS
    if kind in (ST, STX):
        return code == kind
    if kind == ALU:
        return each.operation <= XOR
    if kind == JMP:
        return each.operation <= JSET and not (each.operation == JA and each.by_x)
    return code in ((RET, RET | RETURN_A) if kind == RET else (MISC, MISC | TXA))


def _steps(each: Instruction) -> tuple[int, ...]:
    """Where it may go on, counted from the next instruction."""
    if each.kind == RET:
        return ()
    if each.kind == JMP:
        return (each.jump,) if each.operation == JA else (each.jt, each.jf)
    return (0,)


class _Reject(Exception):
    """The packet does not match."""


def run(program: Program, packet: bytes, length: int) -> int:
    """What a verified program returns: 0 if the packet does not match.

    Args:
        packet: what there is of it.
        length: the bytes that it had, of which some may have been cut off.
    """
    try:
        return _run(program, packet, length)
    except _Reject:
        return 0


def _run(program: Program, packet: bytes, length: int) -> int:
    a = x = place = 0
    memory = [0] * MEMORY
    while True:
        each = program[place]
        place += 1
        kind, operand = each.kind, x if each.by_x else each.k
        if kind == LD:
            a = _loaded(each, packet, length, x, memory)
        elif kind == LDX:
            x = _loaded(each, packet, length, x, memory)
        elif kind == ST:
            memory[each.k] = a
        elif kind == STX:
            memory[each.k] = x
        elif kind == ALU:
            a = _computed(each.operation, a, operand)
        elif kind == JMP:
            place += each.jump if each.operation == JA else each.jt if _holds(each.operation, a, operand) else each.jf
        elif kind == RET:
            return a if each.code & RETURN_A else each.k
        elif each.code & TXA:
            a = x
        else:
            x = a


def _loaded(each: Instruction, packet: bytes, length: int, x: int, memory: list[int]) -> int:
    mode = each.code & MODE
    if mode == ABS:
        return _field(packet, each.k, BYTES[each.code & SIZE])
    if mode == IND:
        return _field(packet, x + each.k, BYTES[each.code & SIZE])  # does not wrap around: beyond is beyond
    if mode == MSH:
        return 4 * (_field(packet, each.k, 1) & 15)  # the bytes of an IPv4 header
    return {IMM: each.k, MEM: memory[each.k % MEMORY], LEN: length & MASK}[mode]


def _field(packet: bytes, offset: int, size: int) -> int:
    if offset + size > len(packet):
        raise _Reject
    return int.from_bytes(packet[offset : offset + size], "big")


def _computed(operation: int, a: int, operand: int) -> int:
    """What an arithmetic instruction makes of A."""
    if operation in (DIV, MOD):
        if operand == 0:
            raise _Reject
        return a // operand if operation == DIV else a % operand
    if operation in (LSH, RSH):
        shifted = a << operand if operation == LSH and operand < 32 else a >> operand
        return shifted & MASK if operand < 32 else 0
    values = {ADD: a + operand, SUB: a - operand, MUL: a * operand, NEG: -a}
    values |= {OR: a | operand, AND: a & operand, XOR: a ^ operand}
    return values[operation] & MASK


def _holds(operation: int, a: int, operand: int) -> bool:
    if operation == JSET:
        return a & operand != 0
    return {JEQ: a == operand, JGT: a > operand, JGE: a >= operand}[operation]
