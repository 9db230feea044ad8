"""What sysfs says of an interface of the kernel, and whether it is that interface of which it says so."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ixy.drivers.linux import interface

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("index", "address", "queues", "model"),
    [
        (0, "00:00:00:00:00:00", 4, "driver_of_it"),
        (0, "02:00:00:00:00:01", 1, "virtual"),
        (1, "00:00:00:00:00:00", 1, "virtual"),
    ],
)
def test_an_interface_of_the_same_name_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int, address: str, queues: int, model: str
) -> None:
    """Where /sys is another network namespace's, what it has of that name tells nothing of the loopback here.

    Number and address tell them apart; one with four queues and a driver has what no loopback has.
    """
    other = tmp_path / "lo"
    for name in ("queues/rx-0", "queues/rx-1", "queues/rx-2", "queues/rx-3", "device"):
        (other / name).mkdir(parents=True)
    (other / "ifindex").write_text(f"{socket.if_nametoindex('lo') + index}\n")
    (other / "address").write_text(f"{address}\n")
    (tmp_path / "driver_of_it").mkdir()
    (other / "device/driver").symlink_to(tmp_path / "driver_of_it")
    monkeypatch.setattr(interface, "_CLASS", tmp_path)
    found = interface.Interface("packet:lo", "lo")
    assert (found.rx_queues(), found.model()) == (queues, model)
    assert found.slot("") == ("", None, None)
