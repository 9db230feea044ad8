"""Standard streams that are closed: nothing of ours takes their place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ixy import streams

# Says on which numbers files are opened, and what is found of the standard streams.
PROGRAM = """
import os, sys
from ixy import streams

found = [fd for fd in (0, 1, 2) if streams.closed(fd)]
streams.occupy()
streams.occupy()
assert found == [fd for fd in (0, 1, 2) if streams.closed(fd)]
lines = [f"opened {os.open(os.devnull, os.O_RDONLY)}"]
lines += [f"closed {fd}" for fd in found]
for fd, use in ((0, lambda: os.read(0, 1)), (1, lambda: os.write(1, b"x")), (2, lambda: os.write(2, b"x"))):
    try:
        use()
    except OSError as error:
        lines.append(f"error {fd} {error.errno}")
open(sys.argv[1], "w").write("\\n".join(lines))
"""


@pytest.mark.parametrize("missing", [(), (0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_numbers_of_closed_streams_are_taken(tmp_path, missing):
    """What is opened afterwards is number 3 or above; using what was closed gives the error EBADF, number 9."""

    def close() -> None:
        for descriptor in missing:
            os.close(descriptor)

    subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "said"],
        env=os.environ | {"PYTHONPATH": str(Path(streams.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=close,
        check=True,
        timeout=60,
    )
    opened, *others = (tmp_path / "said").read_text().splitlines()
    assert int(opened.removeprefix("opened ")) >= 3
    assert others == [f"closed {fd}" for fd in missing] + [f"error {fd} 9" for fd in missing]


def test_open_streams_stay_as_they_are():
    """A process with its three streams finds none closed, and opens nothing."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    streams.occupy()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
