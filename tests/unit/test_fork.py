"""A fork while another thread holds a lock that the child will need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
import ixy
from ixy import jit, unsafe

if jit.INTERPRETED:
    lock = unsafe._atomic
else:
    from numba.core.compiler_lock import global_compiler_lock as lock
held = threading.Event()

def hold():
    lock.acquire()
    held.set()
    time.sleep(0.2)
    lock.release()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(300)  # ends a child that waits for ever
    with ixy.Mempool(4) as pool, pool.allocate(4) as batch:
        os._exit(len(batch))
status = os.waitpid(child, 0)[1]
holder.join()
with ixy.Mempool(4) as pool, pool.allocate(4) as batch:
    print(os.waitstatus_to_exitcode(status), len(batch))
"""


@pytest.mark.parametrize("jit", ["0", "1"])
def test_fork_while_a_lock_is_held(jit: str) -> None:
    """Of atomic steps in the interpreter, of the compiler: child and parent allocate packets as ever."""
    environment = os.environ | {"IXY_JIT": jit, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert (run.stdout, run.stderr) == ("4 4\n", "")
