"""Where the thread that runs the cards sleeps."""

from __future__ import annotations

import math
import os
import select
import sys
from collections.abc import Callable, Sequence

from ixy.process import forget_in_child


class Bed:
    """A file among others on which a thread sleeps, and by which it is roused.

    Attributes:
        fd: an eventfd that rouses whoever sleeps, or falls asleep next.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        forget_in_child(self)

    def rouse(self) -> None:
        """Wake whoever sleeps, or falls asleep next."""
        os.eventfd_write(self.fd, 1)

    def sleep(self, files: Sequence[int], seconds: float) -> None:
        """Sleep until one of the files is readable, or for so long."""
        files = [self.fd, *files]
        try:
            ready, _, _ = select.select(files, [], [], seconds)
        except ValueError:  # of files with numbers above 1023; poll has no microseconds
            poll = select.poll()
            for fd in files:
                poll.register(fd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(math.ceil(seconds * 1000))]
        if self.fd in ready:
            os.eventfd_read(self.fd)

    def forget(self) -> None:
        """Close the file; see `ixy.process.Inheritance`."""
        fd, self.fd = self.fd, -1  # first: a number that is closed may be another file's
        if fd >= 0:
            os.close(fd)

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if hasattr(self, "fd") and not _ending():
            self.forget()
