"""Objects that belong to the process that made them."""

from __future__ import annotations

import os

from ixy.errors import OwnershipError
from ixy.process import Owner


def test_the_maker_owns_it() -> None:
    owner = Owner()
    assert owner.mine()
    owner.check("a thing")


def test_a_child_does_not() -> None:
    """After a fork, the child's copy names the thing and the process whose it is."""
    owner = Owner()
    inward, outward = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            owner.check("a thing")
        except OwnershipError as error:
            os.write(outward, str(error).encode() if not owner.mine() else b"mine")
        os._exit(0)
    os.close(outward)
    os.waitpid(child, 0)
    with os.fdopen(inward) as pipe:
        assert pipe.read() == f"a thing belongs to process {os.getpid()}, which opened it: open it in this process"
    assert owner.mine()
