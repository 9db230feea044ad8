"""Where the sockets of processes lie, as DPDK's clients look for them: DIRECTORY/dpdk/PREFIX/dpdk_telemetry.v2.

The prefix of a process is `ixy.` and its number, so there is one for each. Importing this module costs nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ixy.errors import Error

NAME = "dpdk_telemetry.v2"
UNFINISHED = "." + NAME  # until somebody listens at it
_OURS = re.compile(r"ixy\.([1-9][0-9]{0,9})")
_OTHERS = ("run/user/*/dpdk", "tmp/dpdk")  # of ordinary users, where root looks too


def directory() -> Path:
    """Where the processes of this user have their directories."""
    usual = "/var/run" if os.getuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp")
    return Path(os.environ.get("RUNTIME_DIRECTORY") or usual) / "dpdk"


def prefix(process: int) -> str:
    """What DPDK calls the file prefix."""
    return f"ixy.{process}"


def make_place() -> Path:
    """The directory of this process, which nobody else may look into.

    Raises:
        Error: it cannot be made, or another user could change it.
    """
    place = directory() / prefix(os.getpid())
    try:
        for path in (place.parent, place):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
                raise Error(f"no telemetry: {path} is not a directory of this user's alone: remove it")
    except OSError as error:
        raise Error(f"no telemetry: {place}: {error.strerror}") from error
    return place


def remove(place: Path) -> None:
    """Remove the directory of a process that serves no more, as far as it can be removed."""
    with suppress(OSError):
        for name in (NAME, UNFINISHED):
            (place / name).unlink(missing_ok=True)
        place.rmdir()


def sockets() -> Iterator[tuple[int, Path]]:
    """Process and socket of all that serve, or have died and not said so; for root also those of other users."""
    places = [directory()]
    if os.getuid() == 0:
        places += [path for pattern in _OTHERS for path in Path("/").glob(pattern)]
    for place in dict.fromkeys(places):
        with suppress(OSError):
            for path in place.iterdir():
                if match := _OURS.fullmatch(path.name):
                    yield int(match[1]), path / NAME
