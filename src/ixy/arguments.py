"""Bounds of what callers hand in: each argument, option and field of an address is checked here, where it enters.

An error names the argument, its value and its bounds. A value of a wrong type is a `TypeError`, as anywhere in Python;
NumPy's integers are integers; fractions are refused and never cut.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import SupportsFloat, SupportsIndex, cast

from ixy.errors import ConfigurationError, Error

MAC_BYTES = 6
_QUANTITY = re.compile(r"(-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)([a-zA-Z%]*)", re.ASCII)


def integer(name: str, value: object, low: int, high: int, *, error: type[Error] = ConfigurationError) -> int:
    """`value` as a Python integer within `low` and `high`.

    Args:
        name: of the argument, as the message is to begin: "batch", "sim:a: count".
        error: what to raise where the value is out of bounds.

    Raises:
        TypeError: no integer: text, a fraction, None.
        Error: out of bounds, of the class `error`.
    """
    number = value if type(value) is int else _index(name, value)
    if not low <= number <= high:
        raise error(f"{name} {number}: {low} to {high} are possible")
    return number


def _index(name: str, value: object) -> int:
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {_shown(value)}") from None


def number(name: str, value: object, low: float, high: float, *, error: type[Error] = ConfigurationError) -> float:
    """`value` as a finite number within `low` and `high`; raises as `integer`, and refuses NaN and infinity."""
    if not isinstance(value, (float, int, SupportsFloat, SupportsIndex)):  # the usual first: protocols take 20 µs
        raise TypeError(f"{name} must be a number, not {_shown(value)}")
    try:
        result = float(value)
    except OverflowError:  # an integer beyond all floating-point numbers
        result = math.nan
    if not low <= result <= high:
        raise error(f"{name} {value}: {low:g} to {high:g} are possible")
    return result


def boolean(name: str, value: object) -> bool:
    """`value` as True or False; NumPy's are known by the name of their type, so that NumPy need not be there.

    Raises:
        TypeError: neither, nor 0 or 1.
    """
    if (isinstance(value, int) and value in (0, 1)) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {_shown(value)}")


def whole_number(name: str, text: str, low: int, high: int, *, error: type[Error] = ConfigurationError) -> int:
    """The integer that a user wrote, exactly: `1000`, `1e6`; `3.7`, `nan` and `1e400` are refused.

    Raises:
        Error: no whole number, or out of bounds, of the class `error`.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise error(f"{name} {text!r} is no number") from None
    if (
        not value.is_finite() or not low <= value <= high
    ):  # before an integer is made of it, for which 1e999999 leaves no room
        raise error(f"{name} {text}: {low} to {high} are possible")
    if value != value.to_integral_value():
        raise error(f"{name} {text} is no whole number")
    return integer(name, int(value), low, high, error=error)


def quantity(
    name: str, text: str, units: Mapping[str, int], low: str, high: str, *, error: type[Error] = ConfigurationError
) -> int:
    """What a user wrote as a number with a unit, such as `50us` or `1.5ms`: how many of the smallest, to the nearest.

    Args:
        units: how many of the smallest each is; "" for a number that stands by itself.
        low, high: the bounds, as a user would write them.

    Raises:
        Error: no number with a unit, or out of bounds, of the class `error`.
    """
    value = _amount(text, units)
    if value is None:
        known = [unit for unit in units if unit]
        what = f"a number and one of {', '.join(known)}, such as {high}" if known else "a number"
        raise error(f"{name} {text!r}: write {what}")
    least, most = _amount(low, units), _amount(high, units)
    assert least is not None
    assert most is not None
    if not least <= value <= most:
        raise error(f"{name} {text}: {low} to {high} are possible")
    return round(value)


def _amount(text: str, units: Mapping[str, int]) -> Decimal | None:
    """A number and its unit, in the smallest one; None if it is not that."""
    found = _QUANTITY.fullmatch(text)
    return Decimal(found[1]) * units[found[2]] if found and found[2] in units else None


def mac_address(name: str, value: object) -> bytes:
    """`value` as the 6 bytes of a MAC address.

    Raises:
        TypeError: not bytes.
        ConfigurationError: not 6 of them.
    """
    return octets(name, value, MAC_BYTES, "a MAC address")


def octets(name: str, value: object, count: int, what: str) -> bytes:
    """`value` as the `count` bytes that `what` has.

    Args:
        what: "a MAC address", for the message.

    Raises:
        TypeError: not bytes.
        ConfigurationError: not so many of them.
    """
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name} must be {count} bytes, not {_shown(value)}")
    found = bytes(cast("bytes", value))
    if len(found) != count:
        raise ConfigurationError(f"{name} of {len(found)} bytes: {what} has {count}")
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
