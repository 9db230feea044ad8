"""The command `ixy` as its users meet it: a process with arguments, output and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from messages import complaints

import ixy.errors

# The package under test, wherever a command runs
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ixy.errors.__file__).parents[1])}
COMMAND = [sys.executable, "-m", "ixy"]
TIMEOUT = 300  # seconds; a hang fails, a cold compile cache does not


class Ended:
    """A command that has ended."""

    def __init__(self, process: subprocess.CompletedProcess[bytes]) -> None:
        self.code = process.returncode
        self.bytes = process.stdout
        self.errors = complaints(process.stderr.decode())

    @property
    def output(self) -> str:
        return self.bytes.decode()

    @property
    def summary(self) -> dict[str, Any]:
        """The last of the JSON objects."""
        return json.loads(self.output.splitlines()[-1])

    def complaint(self) -> str:
        """The one line about bad input."""
        assert self.code == 2, self.errors
        (line,) = self.errors.splitlines()
        assert line.startswith("ixy: ")
        return line


@pytest.fixture(name="ixy")
def ixy_command(tmp_path: Path) -> Callable[..., Ended]:
    """Run `ixy` in the test's directory until it ends, perhaps with more variables in its environment."""

    def run(*arguments: str, variables: Mapping[str, str] = MappingProxyType({}), **options: Any) -> Ended:
        process = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT | dict(variables),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            **options,
        )
        return Ended(process)

    return run


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `ixy` in the test's directory, with pipes for its output, likewise."""

    def popen(
        *arguments: str,
        variables: Mapping[str, str] = MappingProxyType({}),
        stdout: int = subprocess.PIPE,
        stdin: int | None = None,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT | dict(variables),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    return popen
