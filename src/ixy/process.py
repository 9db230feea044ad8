"""Which process an object belongs to: after a fork, the child has a copy of what only its parent may use."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

from ixy.errors import OwnershipError


class Owner:
    """The process that made this object. `fork` copies it, and the copy still says the parent."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def mine(self) -> bool:
        """Whether this process is the owner."""
        return os.getpid() == self._process

    def check(self, what: str) -> None:
        """Raise `OwnershipError` in any other process than the owner.

        Args:
            what: the thing that is to be used, as the message is to begin: "sim:a", "mempool 3".
        """
        if not self.mine():
            raise OwnershipError(f"{what} belongs to process {self._process}, which opened it: open it in this process")


class Inheritance(Protocol):
    """What a child of a fork inherits and has no use for."""

    def forget(self) -> None:
        """In the child: close the files and mappings that came with the fork. The parent's stay as they are.

        It takes no locks: threads that held some are not in the child.
        """
        ...


_inherited: WeakSet[Inheritance] = WeakSet()


def forget_in_child(thing: Inheritance) -> None:
    """Let `thing` be forgotten in each process that this one forks.

    Else a child that goes on living would keep the parent's cards, locks and sockets open when the parent has ended.
    """
    _inherited.add(thing)


def _forget_all() -> None:
    for thing in list(_inherited):
        with suppress(OSError):
            thing.forget()
    _inherited.clear()


os.register_at_fork(after_in_child=_forget_all)
