"""`ixy registers`: what the registers of a card hold, decoded, and what of that changes."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ixy.apps import inside
from ixy.apps.signals import stop_on_signals
from ixy.errors import ConfigurationError
from ixy.registers import Reading, Register, e1000, i82599, i82599_vf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_WORD = 0xFFFFFFFF


def print_registers(
    address: str,
    names: Sequence[str],
    *,
    process: int | None,
    show_all: bool,
    clear: bool,
    diff: float | None,
    since: str | None,
    as_json: bool,
) -> None:
    """Print what registers hold, decoded; or how they differ from what they held.

    Args:
        names: of registers, with `*` for any characters; all if there are none.
        show_all: also those of several alike that are as after a reset.
        clear: also those that reading clears.
        diff: look twice, so many seconds apart.
        since: a file that this has written as JSON before.

    Raises:
        ConfigurationError: no register is called so; or the file is none of that kind.
        Error: they cannot be read.
    """

    def look() -> dict[str, int]:
        return _chosen(inside.registers(address, process, clear=clear), names)

    if since is not None:
        before = _written(since)
        _print_changes(address, before, look(), as_json=as_json)
    elif diff is not None:
        before = look()
        with stop_on_signals() as stop, stop.looked_at():
            if not inside.slept(diff, stop):
                raise SystemExit(128 + (stop.signal or 0))
        _print_changes(address, before, look(), as_json=as_json)
    else:
        _print_all(address, look(), names, show_all=show_all, as_json=as_json)


def _chosen(found: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Those that are called so: RXDCTL is all of them, RXDCTL[3] and rxdctl[3] one."""
    if not names:
        return dict(found)
    patterns = [name.upper().replace("[", "[[]") for name in names]
    for name, pattern in zip(names, patterns, strict=True):
        if not any(_is_called(known, pattern) for known in found):
            raise ConfigurationError(f"no register that can be read is called {name}: ixy registers lists all")
    return {name: value for name, value in found.items() if any(_is_called(name, each) for each in patterns)}


def _is_called(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition("[")[0], pattern)


def _written(path: str) -> dict[str, int]:
    """What registers held, by a file."""
    try:
        values = json.loads(Path(path).read_text())["registers"]
        return {str(name): int(told["value"]) for name, told in values.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path}: was not written by ixy registers --json") from None


def _rows(names: Iterable[str]) -> dict[str, Register]:
    """The registers of a card, by name: other kinds of cards have some of these names, its own kind has all."""
    kinds = (
        {register.name: register for row in rows for register in (row if row.count > 1 else (row,))}
        for rows in (i82599.ROWS, i82599_vf.ROWS, e1000.rows(newer=True), e1000.rows(newer=False))
    )
    return max(kinds, key=lambda rows: len(rows.keys() & set(names)))


def _print_all(address: str, found: Mapping[str, int], names: Sequence[str], *, show_all: bool, as_json: bool) -> None:
    rows = _rows(found)
    readings = [Reading(rows[name], value) for name, value in found.items() if name in rows]
    if as_json:
        told = {
            each.name: {"offset": each.register.offset, "value": each.value, "fields": each.fields} for each in readings
        }
        print(json.dumps({"device": address, "registers": told}), flush=True)
        return
    asked = {name.upper() for name in names}
    shown = [each for each in readings if show_all or each.name in asked or _tells(each, undefined=bool(names))]
    print(address)
    for each in shown:
        register = each.register
        print(f"  {register.offset:#07x} {each.name:15} {each.value:#010x}  {_decoded(each)}  [§{register.section}]")
    if left := len(readings) - len(shown):
        print(f"  {left} of several alike are as after a reset, or were never set: --all shows them")
    sys.stdout.flush()


def _tells(reading: Reading, *, undefined: bool) -> bool:
    """Whether it is the only one of its kind, or not as after a reset; what then may be anything counts if wanted."""
    register = reading.register
    compared = _WORD if undefined else ~register.undefined
    return "[" not in reading.name or bool((reading.value ^ register.reset) & compared)


def _decoded(reading: Reading) -> str:
    """The fields' values, unless one field is the whole register."""
    fields = reading.register.fields
    if len(fields) == 1 and next(iter(fields.values())).mask == _WORD:
        return ""
    return " ".join(f"{name}={value:#x}" if value > 9 else f"{name}={value}" for name, value in reading.fields.items())


def _print_changes(address: str, before: Mapping[str, int], after: Mapping[str, int], *, as_json: bool) -> None:
    changed, rows = inside.changes(before, after), _rows(after)
    if as_json:
        told = {name: {"before": old, "after": new} for name, (old, new) in changed.items()}
        print(json.dumps({"device": address, "changes": told}), flush=True)
        return
    print(address)
    for name, (old, new) in changed.items():
        print(f"  {name:15} {old:#010x} → {new:#010x}  {_difference(rows.get(name), old, new)}")
    print(f"  {len(changed)} of {len(after)} registers have changed", flush=True)


def _difference(register: Register | None, old: int, new: int) -> str:
    """The fields that have changed."""
    if register is None:
        return ""
    before, after = register.decode(old), register.decode(new)
    return ", ".join(f"{name} {before[name]:#x} → {after[name]:#x}" for name in after if before[name] != after[name])
