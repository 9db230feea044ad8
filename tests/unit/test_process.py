"""Objects that belong to the process that made them."""

from __future__ import annotations

import os

import pytest

from ixy.errors import OwnershipError
from ixy.process import Owner, forget_in_child


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


class Inherited:
    """An open file. A broken one cannot be forgotten."""

    def __init__(self, broken: bool) -> None:
        self.fd = os.memfd_create("test")
        self.broken = broken
        forget_in_child(self)

    def forget(self) -> None:
        if self.broken:
            raise OSError
        os.close(self.fd)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forgets_what_it_inherited() -> None:
    """All but what cannot be forgotten. The parent keeps everything, and what it has dropped itself is left alone."""
    kept = [Inherited(broken=False), Inherited(broken=True), Inherited(broken=False)]
    files = [thing.fd for thing in kept]
    dropped = Inherited(broken=False)
    os.close(dropped.fd)
    del dropped
    child = os.fork()
    if child == 0:
        os._exit(sum(os.path.exists(f"/proc/self/fd/{fd}") << place for place, fd in enumerate(files)))  # noqa: PTH110
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0b010
    for fd in files:
        os.close(fd)
