"""What commands say, but for what depends on who runs them, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

COMPILING = "ixy: compiling the data path, which takes some time once\n"


SANDBOXED = "sandboxed: "  # root


def complaints(errors: str) -> str:
    """All of it, but for how long compiling takes, which is the machine's to say."""
    return "".join(line for line in report(errors.splitlines(keepends=True)) if line != COMPILING)


def report(lines: Iterable[str]) -> Iterator[str]:
    """Lines but for those about privileges, which only root has to give up."""
    return (line for line in lines if not line.startswith(SANDBOXED))
