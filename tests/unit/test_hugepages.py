"""Setting huge pages up: on a pool of regular files, and the mount on the real thing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ixy.errors import Error, MemoryUnavailable, PermissionDenied
from ixy.packets import hugepages
from ixy.packets.hugepages import free_huge_pages, setup

MOUNTED = "none /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n"
OTHER_MOUNTS = "proc /proc proc rw 0 0\nnone /mnt/huge1G hugetlbfs rw,relatime,pagesize=1024M 0 0\n"

# Runs `setup` in a mount namespace of its own, where nothing is mounted as hugetlbfs, twice; then looks.
IN_A_NAMESPACE = """
import sys
from pathlib import Path
from ixy.packets import hugepages
hugepages.MOUNT_POINT = Path(sys.argv[1])
print(*hugepages.setup(0), *hugepages.setup(0), sep="\\n")
print(Path("/proc/self/mounts").read_text())
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that has two huge pages, both free, a mount, and gives what it is asked for."""
    path = tmp_path / "pool"
    path.mkdir()
    (path / "nr_hugepages").write_text("2\n")
    (path / "free_hugepages").write_text("2\n")
    (tmp_path / "mounts").write_text(OTHER_MOUNTS + MOUNTED)
    monkeypatch.setattr(hugepages, "POOL", path)
    monkeypatch.setattr(hugepages, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(hugepages, "MOUNT_POINT", tmp_path / "huge")
    return path


def give(monkeypatch: pytest.MonkeyPatch, pages: str) -> None:
    """Let the kernel have only so many pages in the end, whatever is written."""
    monkeypatch.setattr(Path, "write_text", lambda path, _text: path.write_bytes(pages.encode()))


def test_enough_pages_are_left_alone(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as asked for, and a mount: nothing is written, so an ordinary user may ask, and it is said."""
    monkeypatch.delattr(Path, "write_text")
    found = "found 2 huge pages of 2 MiB, 2 free: enough"
    assert setup(2) == [found, "found hugetlbfs mounted at /dev/hugepages"]
    assert (pool / "nr_hugepages").read_text() == "2\n"


def test_missing_pages_are_reserved(pool: Path) -> None:
    """The whole number is written, not the difference; the line says before and after."""
    assert setup(64)[0] == "reserved huge pages of 2 MiB: there were 2, now there are 64, 2 free"
    assert (pool / "nr_hugepages").read_text() == "64\n"


def test_kernel_gives_fewer_pages(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is in pieces: 40 of the 64. What there really is, is said."""
    give(monkeypatch, "40")
    line = setup(64)[0]
    assert line.startswith("reserved huge pages of 2 MiB: there were 2, now there are 40, ")
    assert line.endswith("fewer than the 64 asked for: memory is short or in pieces")
    assert (pool / "nr_hugepages").read_text() == "40"


@pytest.mark.usefixtures("pool")
def test_kernel_gives_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one: an error."""
    give(monkeypatch, "0")
    with pytest.raises(MemoryUnavailable, match="the kernel gave no huge page"):
        setup(64)


def test_kernel_without_huge_pages(pool: Path) -> None:
    """A kernel that was built without them, or for other sizes."""
    shutil.rmtree(pool)
    assert free_huge_pages() == 0
    with pytest.raises(MemoryUnavailable, match="this kernel has no 2 MiB huge pages"):
        setup(1)


@pytest.mark.usefixtures("pool")
def test_free_huge_pages() -> None:
    assert free_huge_pages() == 2


@pytest.mark.usefixtures("pool")
def test_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reserving takes root; the message is the command to run."""

    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path), text)

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(PermissionDenied, match="no permission to set huge pages up; run: sudo ixy setup"):
        setup(64)


@pytest.mark.usefixtures("pool")
def test_ordinary_user_without_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are enough pages, but mounting takes root too."""
    (tmp_path / "mounts").write_text(OTHER_MOUNTS)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PermissionDenied, match="run: sudo ixy setup"):
        setup(2)
    assert not (tmp_path / "huge").exists()


def test_mount_that_fails(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount program's own words, in one line."""
    (tmp_path / "mounts").write_text(OTHER_MOUNTS)
    (tmp_path / "mount").write_text("#!/bin/sh\nprintf 'mount: bad\\n  luck\\n' >&2; exit 32\n")
    (tmp_path / "mount").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(Error, match=f"^cannot mount hugetlbfs at {tmp_path}/huge: mount: bad luck$"):
        setup(2)
    assert (pool / "nr_hugepages").read_text() == "2\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_mount(tmp_path: Path) -> None:
    """In a mount namespace of its own: the first `setup` mounts, the second finds, and the kernel's table shows it."""
    where = tmp_path / "huge"
    unmount = "for m in $(awk '$3 == \"hugetlbfs\" { print $2 }' /proc/self/mounts); do umount $m; done"
    command = ["unshare", "--mount", "sh", "-c", f'{unmount}; exec "$0" "$@"', sys.executable, "-c", IN_A_NAMESPACE]
    result = subprocess.run([*command, str(where)], capture_output=True, text=True, check=False)
    if "unshare failed" in result.stderr:
        pytest.skip(f"no mount namespace to be had: {result.stderr}")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1] == f"mounted hugetlbfs at {where}"
    assert lines[3] == f"found hugetlbfs mounted at {where}"
    assert any(line.startswith(f"ixy {where} hugetlbfs ") and "pagesize=2M" in line for line in lines)
