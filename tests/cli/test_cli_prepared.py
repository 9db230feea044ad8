"""What commands run is compiled before they give privileges up: what is compiled in a sandbox is not kept, and would be
compiled at each start anew."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from captures import frames, write_pcap
from conftest import ENVIRONMENT
from test_cli_sandbox import CABLE, COMMANDS

from ixy.jit import INTERPRETED

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up"),
    pytest.mark.skipif(INTERPRETED, reason="nothing is compiled"),
]

# Says which kernels a command looks for, in the cache and else to compile them, in its sandbox.
PROGRAM = """
import sys
from ixy import sandboxing
from ixy.cli import run
from ixy.jitcache import Store
late, load = [], Store.load
def watched(store, name, key):
    if sandboxing.active():
        late.append(name)
    return load(store, name, key)
Store.load = watched
code = run(sys.argv[1:])
print(code, late, bool(sandboxing.active()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [*COMMANDS.values(), ("test", *CABLE, "--seconds", "0.001")],
    ids=[*COMMANDS, "test"],
)
def test_nothing_is_compiled_in_a_sandbox(tmp_path, arguments):
    write_pcap(tmp_path / "in.pcap", frames(20))
    command = [sys.executable, "-c", PROGRAM, *arguments]
    ended = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == "0 [] True", ended.stderr
