"""Which process an object belongs to: after a fork, the child has a copy of what only its parent may use."""

from __future__ import annotations

import os

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
