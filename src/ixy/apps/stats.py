"""`ixy stats`: all counters of a device, once or again and again."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ixy.apps import inside
from ixy.apps.signals import Stop, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CLEAR_SCREEN = "\x1b[H\x1b[2J"


def print_stats(
    address: str, *, process: int | None, interval: float | None, show_all: bool, clear: bool, as_json: bool
) -> None:
    """Print counters, once, or every `interval` seconds until a signal, with their rates.

    Args:
        show_all: also those that are 0.
        clear: let them begin anew.

    Raises:
        Error: they cannot be had.
    """

    def counters(*, clear: bool = False) -> dict[str, int]:
        return inside.xstats(address, process, clear=clear)

    if interval is None:
        found = counters(clear=clear)
        _print_counters(address, found, None, show_all=show_all, as_json=as_json)
        return
    with stop_on_signals() as stop:
        _watch(address, counters, interval, stop, show_all=show_all, clear=clear, as_json=as_json)


def _watch(
    address: str,
    counters: Callable[..., dict[str, int]],
    interval: float,
    stop: Stop,
    *,
    show_all: bool,
    clear: bool,
    as_json: bool,
) -> None:
    before, since = counters(clear=clear), time.monotonic()
    with stop.looked_at():
        while inside.slept(interval, stop):
            found, now = counters(), time.monotonic()
            rates = {name: (count - before.get(name, 0)) / (now - since) for name, count in found.items()}
            before, since = found, now
            if not as_json and sys.stdout.isatty():
                print(_CLEAR_SCREEN, end="")
            _print_counters(address, found, rates, show_all=show_all, as_json=as_json)


def _print_counters(
    address: str, found: Mapping[str, int], rates: Mapping[str, float] | None, *, show_all: bool, as_json: bool
) -> None:
    if as_json:
        told: dict[str, Any] = {"device": address, "counters": found}
        print(json.dumps(told if rates is None else told | {"rates": rates}), flush=True)
        return
    shown = {name: count for name, count in found.items() if count or show_all}
    width = max(map(len, shown), default=0)
    print(address)
    for name, count in shown.items():
        rate = f" {rates[name]:16,.1f} /s" if rates is not None else ""
        print(f"  {name:{width}} {count:16}{rate}")
    if left := len(found) - len(shown):
        print(f"  {left} counters are 0: --all shows them")
    sys.stdout.flush()
