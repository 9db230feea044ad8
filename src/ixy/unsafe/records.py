"""What records need besides reading and writing fields: to be cleared, and to be read by other threads meanwhile.

Both are for compiled kernels, the interpreter, and Python: where Numba compiles, Python that calls one gets what the
interpreter would.
"""

from __future__ import annotations

from typing import Any

from ixy.jit import INTERPRETED

# Numba's internals have no types.
# pyright: basic


def _clear(elements: Any, place: int) -> None:
    row = elements[place]._row
    for name in row.dtype.names:
        row[name] = 0


def _publish(elements: Any, place: int, value: int) -> None:
    elements[place] = value


if INTERPRETED:
    clear, publish = _clear, _publish

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    from ixy.jittypes import ElementsType
    from ixy.unsafe import called_interpreted

    def _element(context: Any, builder: Any, kind: ElementsType, elements: Any, place: Any) -> Any:
        """The address of an element; the caller has checked that it is there."""
        data = cgutils.create_struct_proxy(kind)(context, builder, value=elements).data
        return builder.gep(data, [builder.mul(place, ir.Constant(place.type, kind.dtype.itemsize))])

    @called_interpreted(_clear)
    @intrinsic
    def clear(typingctx: Any, elements: Any, place: Any) -> Any:
        """Let all fields of the record `elements[place]` be 0; the caller has checked that it is there."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            size = ir.Constant(ir.IntType(64), elements.dtype.itemsize)
            cgutils.memset(builder, _element(context, builder, elements, *args), size, 0)
            return context.get_dummy_value()

        return types.void(elements, types.int64), codegen

    @called_interpreted(_publish)
    @intrinsic
    def publish(typingctx: Any, elements: Any, place: Any, value: Any) -> Any:
        """Write an element, an int64: what was written before is visible first, what is written after it only then."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            target = builder.bitcast(_element(context, builder, elements, *args[:2]), ir.IntType(64).as_pointer())
            builder.fence("release")
            builder.store_atomic(args[2], target, "monotonic", 8)
            builder.fence("release")
            return context.get_dummy_value()

        return types.void(elements, types.int64, types.int64), codegen
