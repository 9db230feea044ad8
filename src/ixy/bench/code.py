"""How much of the driver's code touches raw addresses, counted as the thesis's table 6.2 does.

Counted is what the thesis counted: driver, memory, bus and the interface to applications, without the tables of
registers. Unsafe are the lines of `ixy.unsafe`, the one package that may touch raw addresses. Beside them stand those
of kernels that are compiled without bounds checks: they only index arrays, but nothing stops an index that is wrong.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path(__file__).parents[1]
# Applications and what only they use; captures and telemetry; the model of the hardware; the datasheet's tables
_APART = {
    *("__main__.py", "apps", "bench", "cli", "dissect", "evaluate", "formats", "reporting"),
    *("captures", "telemetry", "sim", "registers"),
}
_UNSAFE = "unsafe"  # the package that may touch raw addresses
_COMPILES = "jit"  # so begin the names of modules that have no part in the driver but compile it
_UNCHECKED = {"compiled", "outlined", "shared(compiled)", "shared(outlined)"}  # decorators of `ixy.jit`
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


class Lines(NamedTuple):
    """Lines of code.

    Attributes:
        total: in the thesis's scope.
        unsafe: of them, in `ixy.unsafe`.
        kernels: of them, in kernels without bounds checks.
    """

    total: int
    unsafe: int
    kernels: int


def count() -> Lines:
    """The lines of this package."""
    modules = [path for path in _SOURCE.rglob("*.py") if _counts(path.relative_to(_SOURCE).parts[0])]
    total = sum(len(code_lines(path)) for path in modules)
    kernels = sum(len(code_lines(path) & _kernel_lines(path)) for path in modules)
    unsafe = sum(len(code_lines(path)) for path in modules if path.parent.name == _UNSAFE)
    return Lines(total, unsafe, kernels)


def _counts(part: str) -> bool:
    """Whether a part of the package is in the thesis's scope."""
    return part not in _APART and not part.startswith(_COMPILES)


def code_lines(path: Path) -> set[int]:
    """Lines that hold something else than white space, comments and docstrings."""
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return lines - _docstring_lines(path)


def _docstring_lines(path: Path) -> set[int]:
    """The lines of strings that are statements."""
    statements = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Expr)]
    strings = [
        node for node in statements if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return _lines_of(strings)


def _kernel_lines(path: Path) -> set[int]:
    """The lines of functions that are compiled without bounds checks."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return _lines_of(node for node in functions if _UNCHECKED & {ast.unparse(mark) for mark in node.decorator_list})


def _lines_of(nodes: Iterable[ast.stmt]) -> set[int]:
    return {line for node in nodes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
