"""How far long work is, on a terminal, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

Told = Callable[[float, str], None]


@contextmanager
def progress(expected: Mapping[str, float], *, quiet: bool = False) -> Generator[Callable[[str], Told]]:
    """A bar on the terminal, with the time left.

    It is drawn when a section tells something, and at no other time: a thread that redraws it would be in the figures.
    What is printed meanwhile comes above it, if it comes to the terminal.

    Args:
        expected: seconds that each section takes about, in their order.
        quiet: there is no bar.

    Yields:
        Given a section that begins, what it tells its progress to.
    """
    total, start = sum(expected.values()), time.monotonic()
    columns = BarColumn(), TextColumn("{task.percentage:3.0f} %  {task.fields[left]}  {task.description}")
    terminal = Console(stderr=True)
    with Progress(
        *columns,
        console=terminal,
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=quiet or not terminal.is_terminal,
    ) as bar:
        task = bar.add_task("", total=total, left="")

        def begin(name: str) -> Told:
            names = list(expected)
            before = sum(expected[other] for other in names[: names.index(name)])

            def told(share: float, what: str) -> None:
                done = before + share * expected[name]
                pace = max((time.monotonic() - start) / done, 1.0) if done else 1.0  # below 1, something was missing
                bar.update(task, completed=done, left=_left(pace * (total - done)), description=f"{name}: {what}")
                bar.refresh()

            return told

        yield begin


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} left"
