"""What is asked for as offloads, and refused by name."""

from __future__ import annotations

from typing import Any

import pytest

import ixy

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"offloads": "checksum"}, TypeError, "offloads must be names"),
        ({"offloads": ("colour",)}, ixy.Error, "sim:a: offload 'colour': possible are checksum, vlan"),
        ({"mtu": 67}, ixy.Error, "mtu 67"),
        ({"mtu": "9000"}, TypeError, "mtu"),
    ],
)
def test_nonsense_is_refused_by_name(asked: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ixy.open("sim:a", **asked)
