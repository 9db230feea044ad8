"""Filters as machine code: one function that writes a program of `ixy.bpf` down as LLVM's intermediate representation.

It is used in two ways. As a module of its own it is compiled by LLVM alone, in some milliseconds, and called through
its address: loops that take a filter as data are compiled once for all filters. Within a user's kernel it is part of
that, and inlined.

A program was verified (`bpf.verify`), and each load is checked: nothing outside the packet is read. With `IXY_JIT=0`
programs are interpreted, and an address is a number by which a program is known.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from ixy import bpf
from ixy.bpf import Instruction, Program
from ixy.jit import INTERPRETED

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

# Numba's and LLVM's internals have no types.
# pyright: basic

if INTERPRETED or TYPE_CHECKING:
    _programs: list[Program] = []

    def matcher(program: Program) -> Callable[[bytes, int, int], int]:
        """A function `match(packet, size, length)`: 0 if the `size` bytes of a packet of `length` do not match."""
        return lambda packet, size, length: bpf.run(program, packet[:size], length)

    def filter_address(program: Program) -> int:
        """Where a program's machine code lies, for `accepts`; it stays there as long as the process lives."""
        if program not in _programs:
            _programs.append(program)
        return _programs.index(program) + 1

    def accepts(address: int, data: Bytes, start: int, size: int, length: int) -> bool:
        """Whether the packet `data[start:start + size]`, of which the caller has checked the range, passes a filter.

        Args:
            address: by `filter_address`; every packet passes 0.
            length: the bytes that the packet had; more than `size` where it was cut.
        """
        if address == 0:
            return True
        return bpf.run(_programs[int(address) - 1], data[start : start + size].tobytes(), int(length)) != 0

    def accepts_packet(address: int, packet: Any) -> bool:
        """The same of a packet, in a kernel that is given one."""
        return address == 0 or bpf.run(_programs[int(address) - 1], bytes(packet[:]), packet.total) != 0

    def intrinsic_of(program: Program) -> Callable[[Any], bool]:
        """What a filter is in a kernel: a function of a packet, to be inlined."""
        return lambda packet: bpf.run(program, bytes(packet[:]), packet.total) != 0

else:
    import llvmlite.binding as llvm
    from llvmlite import ir
    from numba.core import cgutils, errors, types
    from numba.core.compiler_lock import global_compiler_lock
    from numba.extending import intrinsic

    from ixy.jittypes import PacketType
    from ixy.unsafe.views import total_of

    _BIT, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
    _FUNCTION = ir.FunctionType(_I32, [_I8.as_pointer(), _I64, _I32])
    _CALLABLE = ctypes.PYFUNCTYPE(ctypes.c_uint32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_uint32)
    _SPEED = 2  # of the code, as in -O2

    class _Writer:
        """Writes the body of a program's function: a block for each instruction, and one in which packets are refused.

        A, X and the words of M are variables on the stack, of which LLVM makes registers.
        """

        def __init__(self, function: Any, program: Program) -> None:
            self._function = function
            self._data, self._size, self._length = function.args
            entry = function.append_basic_block("entry")
            self._blocks = [function.append_basic_block(f"i{place}") for place in range(len(program))]
            self._refuse = function.append_basic_block("refuse")
            ir.IRBuilder(self._refuse).ret(_I32(0))
            self._builder = builder = ir.IRBuilder(entry)
            self._a, self._x = self._variable(), self._variable()
            self._memory = {each.k: self._variable() for each in program if each.uses_memory}
            builder.branch(self._blocks[0])
            for place, each in enumerate(program):
                builder.position_at_end(self._blocks[place])
                self._instruction(place, each)

        def _variable(self) -> Any:
            variable = self._builder.alloca(_I32)
            self._builder.store(_I32(0), variable)
            return variable

        def _instruction(self, place: int, each: Instruction) -> None:
            builder = self._builder
            if each.kind == bpf.JMP:
                self._jump(place, each)
                return
            if each.kind == bpf.RET:
                builder.ret(builder.load(self._a) if each.code & bpf.RETURN_A else _I32(each.k))
                return
            if each.kind in (bpf.LD, bpf.LDX):
                builder.store(self._loaded(each), self._a if each.kind == bpf.LD else self._x)
            elif each.kind in (bpf.ST, bpf.STX):
                builder.store(builder.load(self._a if each.kind == bpf.ST else self._x), self._memory[each.k])
            elif each.kind == bpf.ALU:
                builder.store(self._computed(each), self._a)
            elif each.code & bpf.TXA:
                builder.store(builder.load(self._x), self._a)
            else:
                builder.store(builder.load(self._a), self._x)
            builder.branch(self._blocks[place + 1])

        def _operand(self, each: Instruction) -> Any:
            return self._builder.load(self._x) if each.by_x else _I32(each.k)

        def _unless(self, wrong: Any) -> None:
            """Go on in a new block, unless the packet is to be refused."""
            good = self._function.append_basic_block()
            self._builder.cbranch(wrong, self._refuse, good)
            self._builder.position_at_end(good)

        def _loaded(self, each: Instruction) -> Any:
            builder, mode, size = self._builder, each.code & bpf.MODE, each.code & bpf.SIZE
            if mode == bpf.ABS:
                return self._field(_I64(each.k), bpf.BYTES[size])
            if mode == bpf.IND:  # in 64 bits: X + K does not wrap around
                offset = builder.add(builder.zext(builder.load(self._x), _I64), _I64(each.k))
                return self._field(offset, bpf.BYTES[size])
            if mode == bpf.MSH:
                return builder.shl(builder.and_(self._field(_I64(each.k), 1), _I32(15)), _I32(2))
            if mode == bpf.MEM:
                return builder.load(self._memory[each.k])
            return self._length if mode == bpf.LEN else _I32(each.k)

        def _field(self, offset: Any, size: int) -> Any:
            """An integer of the packet, in network byte order, if all of it is there."""
            builder, kind = self._builder, ir.IntType(8 * size)
            self._unless(builder.icmp_unsigned(">", builder.add(offset, _I64(size)), self._size))
            place = builder.bitcast(builder.gep(self._data, [offset]), kind.as_pointer())
            word = builder.load(place, align=1)
            word = builder.bswap(word) if size > 1 else word
            return word if size == 4 else builder.zext(word, _I32)

        def _computed(self, each: Instruction) -> Any:
            builder, operation = self._builder, each.operation
            a, operand = builder.load(self._a), self._operand(each)
            if operation == bpf.NEG:
                return builder.neg(a)
            if operation in (bpf.DIV, bpf.MOD):
                self._unless(builder.icmp_unsigned("==", operand, _I32(0)))
                return (builder.udiv if operation == bpf.DIV else builder.urem)(a, operand)
            if operation in (bpf.LSH, bpf.RSH):
                shift = builder.shl if operation == bpf.LSH else builder.lshr
                shifted = shift(a, builder.and_(operand, _I32(31)))
                return builder.select(builder.icmp_unsigned("<", operand, _I32(32)), shifted, _I32(0))
            write = {bpf.ADD: builder.add, bpf.SUB: builder.sub, bpf.MUL: builder.mul}
            write |= {bpf.OR: builder.or_, bpf.AND: builder.and_, bpf.XOR: builder.xor}
            return write[operation](a, operand)

        def _jump(self, place: int, each: Instruction) -> None:
            builder, following = self._builder, place + 1
            if each.operation == bpf.JA:
                builder.branch(self._blocks[following + each.jump])
                return
            a, operand = builder.load(self._a), self._operand(each)
            if each.operation == bpf.JSET:
                holds = builder.icmp_unsigned("!=", builder.and_(a, operand), _I32(0))
            else:
                sign = {bpf.JEQ: "==", bpf.JGT: ">", bpf.JGE: ">="}[each.operation]
                holds = builder.icmp_unsigned(sign, a, operand)
            builder.cbranch(holds, self._blocks[following + each.jt], self._blocks[following + each.jf])

    def _written(module: Any, program: Program) -> Any:
        """The function `i32 filter(data, size, length)` of a program in a module, once."""
        name = f"ixy_filter_{hashlib.sha256(repr(program).encode()).hexdigest()[:32]}"
        found = module.globals.get(name)
        if found is None:
            found = ir.Function(module, _FUNCTION, name)
            _Writer(found, program)
        return found

    _engines: list[Any] = []  # what machine code lives in

    @cache
    def filter_address(program: Program) -> int:
        with global_compiler_lock:
            module = ir.Module("filter")
            module.triple = llvm.get_process_triple()
            name = _written(module, program).name
            parsed = llvm.parse_assembly(str(module))
            parsed.verify()
            machine = _target_machine()
            options = llvm.create_pipeline_tuning_options(speed_level=_SPEED)
            passes = llvm.create_pass_builder(machine, options)
            passes.getModulePassManager().run(parsed, passes)
            engine = llvm.create_mcjit_compiler(parsed, machine)
            engine.finalize_object()
            _engines.append(engine)
            return engine.get_function_address(name)

    def _target_machine() -> Any:
        """One for this processor, which an engine will own."""
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=_SPEED)

    @cache
    def matcher(program: Program) -> Any:
        return _CALLABLE(filter_address(program))

    def _asked(builder: Any, address: Any, args: Any) -> Any:
        """Whether the filter at an address accepts what it is given, if there is one."""
        passes = cgutils.alloca_once_value(builder, _BIT(1))
        with builder.if_then(builder.icmp_signed("!=", address, _I64(0))):
            function = builder.inttoptr(address, _FUNCTION.as_pointer())
            builder.store(builder.icmp_unsigned("!=", builder.call(function, args), _I32(0)), passes)
        return builder.load(passes)

    @intrinsic
    def accepts(typingctx: Any, address: Any, data: Any, start: Any, size: Any, length: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.gep(context.make_array(data)(context, builder, args[1]).data, [args[2]])
            return _asked(builder, args[0], [place, args[3], builder.trunc(args[4], _I32)])

        return types.boolean(types.int64, data, types.int64, types.int64, types.int64), codegen

    @intrinsic
    def accepts_packet(typingctx: Any, address: Any, packet: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _asked(builder, args[0], _of_packet(context, builder, packet, args[1]))

        return types.boolean(types.int64, packet), codegen

    def _of_packet(context: Any, builder: Any, kind: PacketType, value: Any) -> list[Any]:
        """What a filter is given of a packet: its first part, and the length of all."""
        packet = cgutils.create_struct_proxy(kind)(context, builder, value=value)
        size, total = builder.load(packet.size), total_of(context, builder, kind, value)
        return [packet.data, builder.zext(size, _I64), builder.trunc(total, _I32)]

    @cache
    def intrinsic_of(program: Program) -> Any:
        @intrinsic
        def matches(typingctx: Any, packet: Any) -> Any:
            if not isinstance(packet, PacketType):
                raise errors.TypingError("a filter takes a packet in a kernel, and nothing else")

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                function = _written(builder.module, program)
                function.linkage = "internal"
                found = builder.call(function, _of_packet(context, builder, packet, args[0]))
                return builder.icmp_unsigned("!=", found, _I32(0))

            return types.boolean(packet), codegen

        return matches
