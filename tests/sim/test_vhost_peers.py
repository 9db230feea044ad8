"""The driver across vhost-user against back ends that lie, dawdle, leave, or break what they share."""

from __future__ import annotations

import errno
import fcntl
import gc
import itertools
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from vhost_back_end import (
    GET_FEATURES,
    GET_PROTOCOL_FEATURES,
    GET_QUEUE_NUM,
    GET_VRING_BASE,
    SET_MEM_TABLE,
    SET_OWNER,
    SET_VRING_CALL,
    SET_VRING_ENABLE,
    SET_VRING_KICK,
    Answer,
    BackEnd,
    message,
    silence,
    word,
)

import ixy
from ixy.device import Device
from ixy.drivers.virtio.rings import packed
from ixy.drivers.virtio.transports import vhost_messages, vhost_user
from ixy.drivers.virtio.transports.vhost_messages import Connection, Request
from ixy.drivers.virtio.transports.vhost_user import VhostUser

RINGS = 2
LATEST = 60.0  # seconds, for what must come; by then it is a failure


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vhost"


def opened(path: Path, **options: int) -> Device:
    return ixy.open(f"vhost-user:{path}", ring_size=64, pool_size=128, link_timeout=0, **options)


def files() -> dict[str, str]:
    """The open files of this process, by number: what they are."""
    found: dict[str, str] = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found[link.name] = str(link.readlink())
        except FileNotFoundError:  # by which the directory itself was read
            continue
    return found


@pytest.fixture
def no_file_is_left(path: Path) -> Iterator[None]:
    """Once front end and back end are closed, the process has the files that it had before."""
    with BackEnd(path), opened(path):
        pass
    path.unlink()
    before = files()
    yield
    assert files() == before


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence need not be listened to for long."""
    monkeypatch.setattr(vhost_messages, "TIMEOUT", 0.1)
    monkeypatch.setattr(vhost_messages, "CLOSING", 0.1)
    monkeypatch.setattr(vhost_user, "CLOSING", 0.1)


def says(data: bytes) -> Answer:
    return lambda back_end, usual: data  # noqa: ARG005


def slowly(back_end: BackEnd, usual: bytes) -> bytes:
    return back_end.send_slowly(usual)


def in_time(work: Callable[[], object]) -> None:
    """Do it in another thread, and fail if it has no end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LATEST)
    assert not thread.is_alive()


# ---------------------------------------------------------------------------------------------------------------------
# Time


@pytest.mark.usefixtures("no_file_is_left")
def test_an_answer_byte_by_byte_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte takes a second, by a clock that says so: within its 10 seconds not even the head of 12 bytes comes."""
    clock = itertools.count()
    monkeypatch.setattr(vhost_messages, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with (
        BackEnd(path, {GET_FEATURES: slowly}) as back_end,
        pytest.raises(ixy.Error, match=r"no vhost-user back end answers there: it does not answer in time$"),
    ):
        opened(path)
    assert back_end.requests == [SET_OWNER, GET_FEATURES]


@pytest.mark.usefixtures("no_file_is_left")
def test_all_messages_share_one_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening takes more than 20 waits. Of a tenth of a second each, they fit into 10 seconds; of a whole one, they do
    not, although no single message takes longer than 3.
    """
    for tick in (0.1, 1.0):
        clock = itertools.count()
        monkeypatch.setattr(vhost_messages, "time", SimpleNamespace(monotonic=lambda: next(clock) * tick))  # noqa: B023
        with BackEnd(path):
            if tick < 1:
                opened(path).close()
            else:
                with pytest.raises(ixy.Error, match="it does not answer in time"):
                    opened(path)
        path.unlink()


@pytest.mark.usefixtures("no_file_is_left")
@pytest.mark.parametrize("request_", [GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_MEM_TABLE])
def test_a_silent_back_end_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch, request_: int) -> None:
    impatient(monkeypatch)
    with BackEnd(path, {request_: silence}), pytest.raises(ixy.Error, match="it does not answer in time"):
        opened(path)


def test_a_back_end_that_does_not_read_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens and never takes the connection: what is sent fills the socket, which no wait for an answer shows."""
    impatient(monkeypatch)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        closing = os.eventfd(0)
        connection = Connection(str(path), closing)
        with pytest.raises(TimeoutError):
            connection.send(Request.SET_OWNER, bytes(1 << 22))
        connection.close()
        os.close(closing)


def test_a_back_end_that_takes_no_connection_is_refused(path: Path) -> None:
    """As many wait as it has room for: the next one is not kept waiting."""
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(2):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(str(path))
        with pytest.raises(ixy.Error, match="the back end does not take the connection"):
            opened(path)
    for one in waiting:
        one.close()


# ---------------------------------------------------------------------------------------------------------------------
# What it says


@pytest.mark.usefixtures("no_file_is_left")
@pytest.mark.parametrize("count", [0, 0x8001, 65536, (1 << 64) - 1])
def test_a_number_of_queues_that_makes_no_sense_is_refused(path: Path, count: int) -> None:
    with (
        BackEnd(path, {GET_QUEUE_NUM: says(word(GET_QUEUE_NUM, count))}),
        pytest.raises(ixy.Error, match=f"the back end's number of queues {count}: 1 to 32768 are possible$"),
    ):
        opened(path)


def test_more_queues_than_messages_can_name_are_not_used(path: Path) -> None:
    """A ring's number has 8 bits in SET_VRING_KICK: of 32,768 pairs, 128 can be used."""
    with BackEnd(path, {GET_QUEUE_NUM: says(word(GET_QUEUE_NUM, 0x8000))}):
        transport = VhostUser(f"vhost-user:{path}")
        assert [transport.ring_limit(index) for index in (255, 256)] == [32768, 0]
        transport.close()
        with opened(path) as device:
            assert device.link.up


@pytest.mark.usefixtures("no_file_is_left")
@pytest.mark.parametrize("request_", [GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_MEM_TABLE])
@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (message(GET_VRING_BASE, bytes(8)), "is message 11 with flags 0x5"),
        (message(0, bytes(8), flags=5), "is message 0 with flags 0x5"),
        (message(99, bytes(8), flags=0xFFFFFFFF), "is message 99 with flags 0xffffffff"),
    ],
)
def test_an_answer_to_another_question_is_refused(path: Path, request_: int, answer: bytes, complaint: str) -> None:
    with BackEnd(path, {request_: says(answer)}), pytest.raises(ixy.Error, match=complaint):
        opened(path)


@pytest.mark.usefixtures("no_file_is_left")
@pytest.mark.parametrize("request_", [GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_MEM_TABLE])
@pytest.mark.parametrize("size", [0, 7, 9, 4096, 0xFFFFFFFF])
def test_an_answer_of_another_size_is_refused(path: Path, request_: int, size: int) -> None:
    """Its head says so: the rest, which may never come, is not waited for."""
    answer = says(message(request_, b"", size=size))
    with BackEnd(path, {request_: answer}), pytest.raises(ixy.Error, match=f"is {size} bytes long, and not 8"):
        opened(path)


@pytest.mark.usefixtures("no_file_is_left")
@pytest.mark.parametrize("flags", [0, 1, 4, 6, 7])
def test_what_is_no_answer_is_refused(path: Path, flags: int) -> None:
    """Without the flag of an answer, or of another version than 1."""
    answer = says(message(GET_FEATURES, bytes(8), flags))
    with BackEnd(path, {GET_FEATURES: answer}), pytest.raises(ixy.Error, match=f"message 1 with flags {flags:#x}"):
        opened(path)


@pytest.mark.usefixtures("no_file_is_left")
def test_refused_memory_is_told(path: Path) -> None:
    with (
        BackEnd(path, {SET_MEM_TABLE: says(word(SET_MEM_TABLE, 1))}),
        pytest.raises(ixy.Error, match="refuses the mem"),
    ):
        opened(path)


@pytest.mark.usefixtures("no_file_is_left")
def test_all_features_at_once(path: Path) -> None:
    """Reserved bits too: those that have a meaning are negotiated as ever."""
    with BackEnd(path, {GET_FEATURES: says(word(GET_FEATURES, (1 << 64) - 1))}), opened(path) as device:
        assert device.link.up


@pytest.mark.usefixtures("no_file_is_left")
def test_descriptors_beside_an_answer_are_dropped(path: Path) -> None:
    """The back end sends two of its files with each answer: the front end has none more than without."""

    def generous(back_end: BackEnd, usual: bytes) -> bytes:
        socket.send_fds(back_end.connection, [usual], [0, 1])
        return b""

    requests = (GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_MEM_TABLE)
    with BackEnd(path, dict.fromkeys(requests, generous)), opened(path) as device:
        assert device.link.up


@pytest.mark.usefixtures("no_file_is_left")
@pytest.mark.parametrize("patience", range(25))
def test_a_back_end_that_hangs_up(path: Path, patience: int) -> None:
    """After so many messages, of which it takes 20 until the device runs: no file, thread or memory is left."""
    with BackEnd(path, patience=patience) as back_end:
        try:
            opened(path).close()
        except ixy.Error as error:
            assert str(error).startswith(f"vhost-user:{path}: ")  # noqa: PT017
            assert len(back_end.requests) == patience
        else:
            assert patience >= 20


@pytest.mark.usefixtures("no_file_is_left")
def test_whatever_cannot_be_had_nothing_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may have no file more, then one, and so on, and at last no thread: all is given back each time."""
    gc.collect()  # another test's device, closed by the collector, would miss a thread
    left = 0

    def limited(make: Callable[..., object], error: Exception) -> Callable[..., object]:
        def attempt(*arguments: object, **more: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise error
            return make(*arguments, **more)

        return attempt

    with BackEnd(path) as back_end, monkeypatch.context() as patch:
        for name in ("eventfd", "pipe2", "memfd_create"):
            patch.setattr(os, name, limited(getattr(os, name), OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
        no_thread = RuntimeError("can't start new thread")
        patch.setattr(threading.Thread, "start", limited(threading.Thread.start, no_thread))
        for spare in itertools.count():
            left = spare
            try:
                opened(path).close()
            except (ixy.Error, OSError) as error:
                assert "Too many open files" in str(error) or "new thread" in str(error)  # noqa: PT017
            else:
                break
        assert spare >= 1 + 2 * RINGS + 2 + 1  # a file to close by, for both rings, of memory, and a thread
        assert back_end.requests.count(SET_VRING_ENABLE) >= 2 * RINGS


# ---------------------------------------------------------------------------------------------------------------------
# What it shares


def test_memory_cannot_be_shortened(path: Path) -> None:
    with BackEnd(path) as back_end, opened(path) as device:
        memory = [fd for request, fd in back_end.files if request == SET_MEM_TABLE]
        assert memory
        for fd in memory:
            with pytest.raises(PermissionError):
                os.ftruncate(fd, 0)
        batch = device.rx[0].pool.allocate(8)
        batch.bytes[:, 0] = 1
        assert device.tx[0].send(batch) == 8


def test_a_back_end_cannot_keep_a_sender_waiting(path: Path) -> None:
    """It makes all descriptors that it got block, and fills those that can be written to, by a way of its own too."""

    def fill(fd: int) -> None:
        for chunk in (((1 << 64) - 2).to_bytes(8, "little"), (1).to_bytes(8, "little")):
            try:
                while os.write(fd, chunk):
                    pass
            except OSError:
                continue

    with BackEnd(path) as back_end, opened(path) as device:
        for request, fd in list(back_end.files):
            if request == SET_MEM_TABLE:
                continue
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
            fill(fd)
            if request == SET_VRING_KICK:
                again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
                fill(again)
                os.close(again)
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        in_time(lambda: device.tx[0].send(device.rx[0].pool.allocate(8)))
        in_time(device.close)


def test_the_back_end_is_woken(path: Path) -> None:
    """When the device starts, and again when packets are sent: each time 8 bytes can be read, as from an eventfd."""
    with BackEnd(path) as back_end, opened(path) as device:
        kicks = [fd for request, fd in back_end.files if request == SET_VRING_KICK]
        for kick in kicks:
            while int.from_bytes(os.read(kick, 8), "little") == 1:
                if not can_be_read(kick):
                    break
        assert device.tx[0].send(device.rx[0].pool.allocate(8)) == 8
        assert [can_be_read(kick) for kick in kicks] == [False, True]
        assert os.read(kicks[1], 8) == (1).to_bytes(8, "little")


def test_the_back_end_wakes_who_waits(path: Path) -> None:
    """By the eventfd of the receive ring, and of no other; a call for nothing is forgotten with the next look."""
    with BackEnd(path) as back_end, opened(path) as device:
        queue = device.rx[0]
        receive_call, transmit_call = (fd for request, fd in back_end.files if request == SET_VRING_CALL)
        os.eventfd_write(transmit_call, 1)
        assert not can_be_read(queue.fileno())
        os.eventfd_write(receive_call, 1)
        assert can_be_read(queue.fileno())
        assert len(queue.receive()) == 0
        assert not can_be_read(queue.fileno())
        threading.Timer(0.01, os.eventfd_write, [receive_call, 1]).start()
        assert not queue.wait(0.1)


@pytest.mark.usefixtures("no_file_is_left")
@pytest.mark.parametrize("full", [False, True])
def test_a_back_end_cannot_hold_who_waits(path: Path, full: bool) -> None:
    """The eventfd is made a blocking one, for both sides, and is empty, or full: nobody reads or writes it for ever."""
    with BackEnd(path) as back_end, opened(path) as device:
        call = next(fd for request, fd in back_end.files if request == SET_VRING_CALL)
        fcntl.fcntl(call, fcntl.F_SETFL, 0)
        if full:
            os.eventfd_write(call, 2**64 - 2)
        in_time(lambda: device.rx[0].wait(0.01))
        in_time(lambda: device.rx[0].wait(0.01))
        if full:
            os.eventfd_write(call, 2**64 - 2)
        in_time(device.close)


def can_be_read(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


# ---------------------------------------------------------------------------------------------------------------------
# Coming back


def until(done: Callable[[], bool]) -> None:
    for _ in range(int(LATEST * 100)):
        if done():
            return
        threading.Event().wait(0.01)
    pytest.fail("nothing moves any more")


BAD = {
    "it lacks VERSION_1": {GET_FEATURES: says(word(GET_FEATURES, 1 << 30))},
    "number of queues 18446744073709551615": {GET_QUEUE_NUM: says(word(GET_QUEUE_NUM, (1 << 64) - 1))},
    "is message 99 with": {GET_FEATURES: says(message(99, bytes(8)))},
    "4096 bytes long": {GET_FEATURES: says(message(GET_FEATURES, bytes(4096)))},
    "refuses the memory": {SET_MEM_TABLE: says(word(SET_MEM_TABLE, 1))},
    "it does not answer in time": {GET_QUEUE_NUM: silence},
}


@pytest.mark.parametrize("complaint", BAD)
def test_a_bad_back_end_is_followed_by_a_good_one(
    path: Path, complaint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that comes back does not do: the reason is logged once, however often it is tried. The next one does."""
    with BackEnd(path) as back_end, opened(path) as device:
        if "in time" in complaint:
            impatient(monkeypatch)
        back_end.answers.update(BAD[complaint])
        back_end.hang_up()
        back_end.wait_for(SET_OWNER, 4)
        assert not device.link.up
        monkeypatch.undo()
        back_end.answers.clear()
        assert device.wait_for_link(LATEST).up
        assert back_end.requests.count(SET_VRING_ENABLE) == 2 * RINGS
    assert caplog.text.count("the back end that came does not do") == 1
    assert complaint in caplog.text
    assert "the back end is back" in caplog.text


def test_a_back_end_with_fewer_queues_is_refused(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two pairs are in use, and one is offered."""
    with (
        BackEnd(path, {GET_QUEUE_NUM: says(word(GET_QUEUE_NUM, 2))}) as back_end,
        opened(path, rx_queues=2, tx_queues=2) as device,
    ):
        back_end.answers.clear()
        back_end.hang_up()
        back_end.wait_for(SET_OWNER, 3)
        assert not device.link.up
    assert "it has 1 pairs of queues, and 2 are in use" in caplog.text


@pytest.mark.parametrize("error", [OverflowError("too large"), UnicodeError("no text"), KeyError(3)])
def test_whatever_goes_wrong_the_retry_goes_on(
    path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken_up = VhostUser._take_up
    tries: list[int] = []

    def take_up(self: VhostUser, connection: Connection) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise error
        taken_up(self, connection)

    monkeypatch.setattr(VhostUser, "_take_up", take_up)
    with BackEnd(path) as back_end, opened(path) as device:
        back_end.hang_up()
        until(lambda: len(tries) == 3)
        assert device.wait_for_link(LATEST).up
    assert caplog.text.count(f"does not do: {error}") == 1


def test_a_thread_that_dies_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs out of memory where nothing can be tried again: the link is down, and closing still stops the rings."""
    with BackEnd(path) as back_end, opened(path) as device:
        monkeypatch.setattr(VhostUser, "_lose", lambda self: (_ for _ in ()).throw(MemoryError))  # noqa: ARG005
        back_end.hang_up()
        until(lambda: not device.link.up)
        until(lambda: device.stats().rx_errors == 1)
    assert "nobody watches the back end any more" in caplog.text


# ---------------------------------------------------------------------------------------------------------------------
# Leaving


def test_all_rings_are_stopped_before_memory_is_returned(path: Path) -> None:
    """The back end withholds its answers: both rings have been asked, and the device has its memory."""

    def when_released(back_end: BackEnd, usual: bytes) -> bytes:
        assert back_end.released.wait(LATEST)
        return usual

    with BackEnd(path, {GET_VRING_BASE: when_released}) as back_end:
        device = opened(path)
        pool = device.rx[0].pool
        thread = threading.Thread(target=device.close)
        thread.start()
        back_end.wait_for(GET_VRING_BASE, 1)
        assert not pool.closed
        back_end.released.set()
        thread.join(LATEST)
        assert pool.closed
        assert back_end.requests.count(GET_VRING_BASE) == RINGS


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, even where the tests run in the background, with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_close_can_be_repeated(path: Path) -> None:
    """Ctrl-C, twice, while the back end has not answered: no memory is returned. The third time it is, in the end."""

    def interrupt(back_end: BackEnd, usual: bytes) -> bytes:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert back_end.released.wait(LATEST)
        return usual

    with BackEnd(path, {GET_VRING_BASE: interrupt}) as back_end:
        device = opened(path)
        pool = device.rx[0].pool
        with pytest.raises(KeyboardInterrupt):
            device.close()
        assert not pool.closed
        back_end.answers.clear()
        back_end.released.set()
        device.close()
        assert pool.closed
        assert back_end.requests.count(GET_VRING_BASE) == RINGS


@pytest.mark.parametrize(
    "answer",
    [
        silence,
        says(message(GET_VRING_BASE, bytes(4))),
        says(message(GET_VRING_BASE, b"\xff" * 8)),
        says(message(GET_VRING_BASE, bytes(8))),
        says(word(GET_FEATURES, 0)),
    ],
)
def test_nonsense_does_not_keep_the_device_open(
    path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer, half of one, of rings that do not exist, of ring 0 twice, to another question: it is left."""
    with BackEnd(path, {GET_VRING_BASE: answer}):
        device = opened(path)
        pool = device.rx[0].pool
        impatient(monkeypatch)
        device.close()
        assert pool.closed
    assert "the back end has not said that it has stopped" in caplog.text


@pytest.mark.parametrize("request_", [GET_FEATURES, GET_QUEUE_NUM, SET_MEM_TABLE])
def test_closing_does_not_wait_for_one_that_comes_back(
    path: Path, request_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is being taken up, and says nothing: its 10 seconds, here a day, are cut short."""
    with BackEnd(path) as back_end:
        device = opened(path)
        monkeypatch.setattr(vhost_messages, "TIMEOUT", 86400.0)
        monkeypatch.setattr(vhost_messages, "CLOSING", 0.1)
        back_end.answers[request_] = silence
        back_end.hang_up()
        back_end.wait_for(request_, 2)
        in_time(device.close)


def test_memory_that_comes_while_the_back_end_is_silent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool is attached, and nobody acknowledges it: that back end is given up, and the next one is told."""
    with BackEnd(path) as back_end, opened(path) as device:
        monkeypatch.setattr(vhost_user, "TIMEOUT", 0.1)
        back_end.answers[SET_MEM_TABLE] = silence
        pool = ixy.Mempool(64)
        device.attach(pool)
        pool.release()
        back_end.answers.clear()
        back_end.wait_for(SET_OWNER, 2)
        assert device.wait_for_link(LATEST).up
        assert back_end.requests.count(SET_MEM_TABLE) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Other processes


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_nothing_of_the_device(path: Path) -> None:
    """A forked child closes the device: nothing is said to the back end, none of its files are left in the child, and
    the parent goes on.
    """
    with BackEnd(path) as back_end, opened(path) as device:
        asked = len(back_end.requests)
        transport = device._driver._transport
        ours = [transport._connection.fileno(), transport._closing]
        ours += [fd for bells in transport._bells.values() for fd in bells]
        child = os.fork()
        if child == 0:
            try:
                device._driver.close()
                os._exit(sum(Path(f"/proc/self/fd/{fd}").exists() for fd in ours))
            except BaseException:
                os._exit(99)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert device.link.up
        assert device.tx[0].send(device.rx[0].pool.allocate(8)) == 8
        assert len(back_end.requests) == asked
    assert back_end.requests[asked:] == [GET_VRING_BASE] * RINGS


# ---------------------------------------------------------------------------------------------------------------------
# Rings that a back end has left


def test_a_packed_ring_that_was_scribbled_on_is_not_handed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A descriptor with flags of neither side: where the next back end should go on cannot be told, and it is said."""
    monkeypatch.setattr(packed, "_RESUME_TIMEOUT", 0)
    features = says(word(GET_FEATURES, 1 << 34 | 1 << 32 | 1 << 30))
    with BackEnd(path, {GET_FEATURES: features}) as back_end, opened(path) as device:
        device.rx[0].ring.state.descriptors[1] = 0
        back_end.hang_up()
        back_end.wait_for(SET_OWNER, 3)
        assert not device.link.up
    assert "descriptor 0 of a packed ring is neither available nor used" in caplog.text


def test_log_is_quiet(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary life: nothing to warn of."""
    with caplog.at_level(logging.WARNING), BackEnd(path), opened(path):
        pass
    assert caplog.messages == []


@pytest.mark.once
@pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox for root")
def test_a_sandbox_lets_a_back_end_come_back(path: Path) -> None:
    """Only if it names the socket; else the link stays down, which is said once."""
    script = """
        import ixy, logging, sys, time
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        with ixy.open(sys.argv[1], ring_size=64, pool_size=128) as device:
            ixy.sandbox(sockets=sys.argv[2:])
            print("ready", flush=True)
            sys.stdin.readline()
            print(device.wait_for_link(10 if sys.argv[2:] else 1).up, flush=True)
    """
    for sockets, up in (([str(path)], "True"), ([], "False")):
        command = [sys.executable, "-c", textwrap.dedent(script), f"vhost-user:{path}", *sockets]
        pipe = subprocess.PIPE
        with BackEnd(path) as first, subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            first.hang_up()
            assert process.stdout.readline().endswith("waiting for it to come back\n")
            process.stdin.close()
            output = process.stdout.read()
        path.unlink()
        assert output.splitlines()[-1] == up
        refused = "the back end that came does not do: [Errno 1] Operation not permitted"
        assert output.count("the back end is back" if sockets else refused) == 1
