"""LLVM's instruction that has a line of memory brought into the cache before it is needed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

# pyright: basic

_I32 = ir.IntType(32)
_FIRST_CACHE, _DATA = 3, 1


def fetch(builder: Any, place: Any, *, to_write: bool) -> None:
    """Have the line at a place brought into the first cache; where there is no memory, nothing happens."""
    place = builder.bitcast(place, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [place, _I32(int(to_write)), _I32(_FIRST_CACHE), _I32(_DATA)])
