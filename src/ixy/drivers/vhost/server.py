"""The socket at which front ends arrive, one after the other, and the thread that speaks with them."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ixy.bus.pci import explained
from ixy.drivers.vhost.front_end import Broken, FrontEnd
from ixy.drivers.virtio.features import Features
from ixy.errors import AddressError, DeviceBusy, Error, PermissionDenied
from ixy.process import forget_in_child
from ixy.sandboxing import removes

if TYPE_CHECKING:
    from ixy.drivers.vhost.front_end import Offer, Port

log = logging.getLogger("ixy.vhost")

_MODE = 0o600  # of the socket: only its owner's processes connect
_LOOK = 0.2  # seconds between two looks after a front end
_BACKLOG = 16


class Server:
    """Listens at a path until `close`.

    A second front end that comes while the first is there is turned away.

    Args:
        address: of the device, for messages.
        path: of the socket.
        port: what the rings of front ends are connected to.
        offer: what they are offered.

    Raises:
        AddressError: no socket can be made there.
        DeviceBusy: another process listens there.
        PermissionDenied: this user may make none there.
    """

    def __init__(self, address: str, path: str, port: Port, offer: Offer) -> None:
        self._address = address
        self._path = Path(path)
        self._port = port
        self._offer = offer
        self._front_end: FrontEnd | None = None
        self._thread: threading.Thread | None = None
        with explained(address, "open a file"):
            self._closing = os.eventfd(0, os.EFD_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        forget_in_child(self)
        try:
            self._listen()
            self._inode = self._path.stat().st_ino
            removes(self._path)
            self._thread = threading.Thread(target=self._serve, name="ixy-vhost-server", daemon=True)
            self._thread.start()
        except BaseException:
            self._thread = None
            self.close()
            raise

    @property
    def connected(self) -> bool:
        """Whether a front end is there."""
        return self._front_end is not None

    @property
    def features(self) -> Features:
        """What the front end that is there has accepted of what the device is offered with; none while none is
        there."""
        front_end = self._front_end
        return Features(front_end.features & self._offer.features if front_end is not None else 0)

    @property
    def offered(self) -> Features:
        """What front ends are offered."""
        return Features(self._offer.features)

    @property
    def failed(self) -> bool:
        """Whether nobody listens any more."""
        return self._thread is not None and not self._thread.is_alive()

    def close(self) -> None:
        """Let the front end go, and listen no more. Interrupted, it can be called again."""
        if self._thread is not None:
            os.eventfd_write(self._closing, 1)
            self._thread.join()
        self._leave()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self.forget()

    _inode = -1

    def forget(self) -> None:
        """Close the files; see `ixy.process.Inheritance`."""
        if self._front_end is not None:
            self._front_end.forget()
        self._listener.close()
        closing, self._closing = self._closing, -1
        if closing >= 0:
            os.close(closing)

    def _listen(self) -> None:
        """Make the socket, for this user alone. One at which nobody listens is left over, and replaced."""
        os.fchmod(self._listener.fileno(), _MODE)  # before it is bound: at no time others can connect
        try:
            try:
                self._listener.bind(str(self._path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self._remove_left_over()
                self._listener.bind(str(self._path))
            self._listener.listen(_BACKLOG)
        except PermissionError as error:
            raise PermissionDenied(f"{self._address}: no permission to make a socket there") from error
        except OSError as error:
            raise AddressError(f"{self._address}: no socket can be made there: {error.strerror or error}") from error

    def _remove_left_over(self) -> None:
        if not self._path.is_socket():
            raise AddressError(f"{self._address}: there is something else than a socket; name another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as visitor:
            try:
                visitor.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
            except BlockingIOError:
                pass
        raise DeviceBusy(f"{self._address}: another process listens there; end it, or name another path")

    # -----------------------------------------------------------------------------------------------------------------
    # The thread

    def _serve(self) -> None:
        log.info("%s: waiting for a front end", self._address)
        try:
            while self._turn():
                pass
        except BaseException:
            log.exception("%s: nobody listens any more", self._address)
        self._leave()

    def _turn(self) -> bool:
        """Wait for something to happen, and see to it; False if the device is to be closed."""
        poll = select.poll()
        poll.register(self._closing, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        if self._front_end is not None:
            poll.register(self._front_end.socket, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(_LOOK * 1000 if self._front_end else None)]
        if self._closing in ready:
            return False
        if self._front_end is not None:
            self._attend(self._front_end, self._front_end.socket.fileno() in ready)
        if self._listener.fileno() in ready:
            self._receive()
        return True

    def _attend(self, front_end: FrontEnd, speaks: bool) -> None:
        try:
            if speaks:
                front_end.hear()
            front_end.look()
        except Broken as error:
            self._lose(f"the front end {error}; it was let go")
        except ConnectionError:
            how = logging.INFO if front_end.at_rest else logging.WARNING
            self._lose("the front end has gone", how)
        except (OSError, Error) as error:
            self._lose(f"the front end was let go: {error}")

    def _receive(self) -> None:
        """Take up who has connected, if nobody is there."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again, or there are no more files
            time.sleep(_LOOK)
            return
        if self._front_end is not None:
            log.warning("%s: a second front end was turned away", self._address)
            connection.close()
            return
        self._front_end = FrontEnd(connection, self._port, self._offer, self._closing)
        log.info("%s: a front end has connected", self._address)

    def _lose(self, reason: str, how: int = logging.WARNING) -> None:
        self._leave()
        log.log(how, "%s: %s; waiting for the next", self._address, reason)

    def _leave(self) -> None:
        if self._front_end is not None:
            self._front_end.close()
            self._front_end = None
