"""Fixtures for the bus: a fake sysfs tree, and an ordinary user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from fake_sysfs import FakeSysfs

from ixy.bus import interfaces, listing, lock, pci

NOBODY = 65534


@pytest.fixture
def sysfs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSysfs]:
    """A fake tree that every user may look at; no tables of /proc/net, no list of PCI ids, locks of its own."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        fake = FakeSysfs(root)
        (root / "net").mkdir()
        (root / "locks").mkdir()
        (root / "locks").chmod(0o1777)
        monkeypatch.setattr(pci, "SYSFS", root)
        monkeypatch.setattr(pci, "write_attribute", fake.write)
        monkeypatch.setattr(interfaces, "PROC_NET", root / "net")
        monkeypatch.setattr(listing, "PCI_IDS", ())
        monkeypatch.setattr(lock, "LOCKS", root / "locks")
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield fake


@pytest.fixture
def ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """A context in which file permissions apply, even where root runs the test."""

    @contextmanager
    def enter() -> Iterator[None]:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return enter if os.geteuid() == 0 else nullcontext
