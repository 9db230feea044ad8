"""Kernels and the memory that others touch too: what is read and written how, and in which order.

For a process in which kernels are interpreted; `test_shared_memory.py` runs this. The arrays of a ring or a pool tell
of each access. An access by one of the primitives of `unsafe` tells more than an ordinary one: compilers and processors
move the latter about.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from lab import arrive, batch_of, depart, frame, open_card

from ixy import unsafe
from ixy.device import Device
from ixy.drivers.virtio.device import VirtioNet
from ixy.drivers.virtio.transports.inprocess import InProcess
from ixy.jit import INTERPRETED
from ixy.packets import pool as pool_module
from ixy.packets.mempool import Mempool
from ixy.packets.packets import slots
from ixy.registers import virtio as reg
from ixy.sim.machine import Machine
from ixy.sim.virtio import BackEnd, drain, feed

assert INTERPRETED

SIZE = 64


class Access(NamedTuple):
    """What was done, to an element of an array that is told by its name: `fence` alone has none."""

    what: str
    name: str = ""
    index: int = 0


class Shared(np.ndarray):
    """An array that tells which elements are read and written."""

    def __getitem__(self, index: Any) -> Any:
        self._tell("plain load", index)
        return self.view(np.ndarray)[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._tell("plain store", index)
        self.view(np.ndarray)[index] = value

    def _tell(self, what: str, index: Any) -> None:
        places = range(*index.indices(len(self))) if isinstance(index, slice) else [int(index)]
        self.log += [Access(what, self.called, place) for place in places]


def shared(array: np.ndarray[Any, Any], called: str, log: list[Access]) -> Shared:
    view = array.view(Shared)
    view.called, view.log = called, log
    return view


PRIMITIVES = ["load_acquire", "load_ordered", "store_release", "store_ordered", "fetch_add", "swap_if"]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Access]:
    """All accesses to shared arrays, and all by primitives."""
    accesses: list[Access] = []

    def told(name: str) -> Callable[..., int]:
        original = getattr(unsafe, name)

        def primitive(array: np.ndarray[Any, Any], index: int, *values: int) -> int:
            accesses.append(Access(name, getattr(array, "called", ""), int(index)))
            return original(array.view(np.ndarray), index, *values)

        return primitive

    replacements: dict[str, Callable[..., Any]] = {name: told(name) for name in PRIMITIVES}
    replacements["fence_acquire"] = lambda: accesses.append(Access("fence"))
    for module in list(sys.modules.values()):
        if module.__name__.startswith("ixy.") and module is not unsafe:
            for name in replacements.keys() & vars(module).keys():
                monkeypatch.setattr(module, name, replacements[name])
    return accesses


@contextmanager
def watched(ring: Any, names: list[str], log: list[Access]) -> Iterator[None]:
    """The ring's arrays `names` tell of accesses."""
    state = ring.state
    ring.state = state._replace(**{name: shared(getattr(state, name), name, log) for name in names})
    log.clear()
    yield
    ring.state = state


# ---------------------------------------------------------------------------------------------------------------------
# The rules


def check_loads(log: list[Access], foreign: Callable[[Access], bool]) -> None:
    """What the other side writes is read with acquire, or by ordinary loads and a fence before anything is made of it,
    that is, before the next store; or it is looked at again with acquire. What was read so, or the driver has itself
    written since, may be read in any way.
    """
    known: set[tuple[str, int]] = set()
    open_: set[tuple[str, int]] = set()
    for access in log:
        place = access.name, access.index
        if access.what in ("fence", "load_acquire"):
            known |= open_ if access.what == "fence" else {place}
            open_.clear()
        elif "store" in access.what:
            assert not open_
            known.add(place)
        elif access.what == "plain load" and foreign(access) and place not in known:
            open_.add(place)
    assert not open_


def check_publication(log: list[Access], published: Callable[[Access], bool]) -> None:
    """Elements by which something is handed to the other side are stored by a primitive, and the descriptors that they
    hand over are there by then, and not written after that.
    """
    written: set[int] = set()
    handed: set[int] = set()
    for access in log:
        if published(access):
            assert access.what in ("store_release", "store_ordered"), access
            handed |= written
            written.clear()
        elif access.name == "descriptors" and access.what == "plain store":
            assert access.index not in handed, access
            written.add(access.index)
    assert not handed or not written


def check_wish(log: list[Access], wish: tuple[str, int]) -> None:
    """Whether the other side wants to be notified is read after what was handed over is visible: by two primitives
    between which no processor changes the order. Else both may miss each other.
    """
    ordered = False
    looks = 0
    for access in log:
        if access.what == "store_ordered":
            ordered = True
        elif "store" in access.what:
            ordered = False
        elif (access.name, access.index) == wish:
            assert access.what == "load_ordered", access
            assert ordered
            looks += 1
    assert looks


# ---------------------------------------------------------------------------------------------------------------------
# The 82599


def is_status(access: Access) -> bool:
    """Second words of descriptors say whether the card is done with them (7.1.6, 7.2.3.5)."""
    return access.name == "descriptors" and access.index % 2 == 1


def rings_card(access: Access) -> bool:
    return access.name == "tail" and "store" in access.what


@pytest.fixture
def card() -> Iterator[tuple[Machine, Device, Mempool]]:
    machine, pool = Machine(stepped=True), Mempool(256)
    with open_card(machine, ring_size=SIZE, pool_size=3 * SIZE) as device:
        yield machine, device, pool
    pool.release()


def test_received_from_the_card(card: tuple[Machine, Device, Mempool], log: list[Access]) -> None:
    """40 packets, then five, at limits above and below."""
    machine, device, _ = card
    for count, limit in ((40, 64), (5, 32), (33, 33)):
        for number in range(count):
            arrive(machine, frame(number))
        with watched(device.rx[0].ring, ["descriptors", "tail"], log), device.rx[0].receive(limit) as batch:
            assert len(batch) == min(count, limit)
            check_loads(log, is_status)
            check_publication(log, rings_card)
            assert any(rings_card(access) for access in log)


def test_refused_from_the_card(card: tuple[Machine, Device, Mempool], log: list[Access]) -> None:
    """A frame over two buffers, whose descriptors go back one by one."""
    machine, device, _ = card
    arrive(machine, frame(1, 3000))
    arrive(machine, frame(2))
    with watched(device.rx[0].ring, ["descriptors", "tail"], log), device.rx[0].receive(32) as batch:
        assert len(batch) == 1
        check_loads(log, is_status)
        assert {access.what for access in log if rings_card(access)} == {"store_release"}


def test_sent_by_the_card(card: tuple[Machine, Device, Mempool], log: list[Access]) -> None:
    """Twice 40 packets: the second time, the first group of 32 comes back."""
    machine, device, pool = card
    for _ in range(2):
        batch = batch_of(pool, [frame(n) for n in range(40)])
        with watched(device.tx[0].ring, ["descriptors", "tail"], log):
            assert device.tx[0].send(batch) == 40
            check_loads(log, is_status)
            check_publication(log, rings_card)
            assert any(rings_card(access) for access in log)
        depart(machine)


def test_nothing_to_send_rings_no_bell(card: tuple[Machine, Device, Mempool], log: list[Access]) -> None:
    """The ring is full: what is offered stays, and the card hears nothing."""
    _, device, pool = card
    assert device.tx[0].send(batch_of(pool, [frame(n) for n in range(SIZE)])) == SIZE - 1
    with watched(device.tx[0].ring, ["descriptors", "tail"], log), batch_of(pool, [frame(1)]) as batch:
        assert device.tx[0].send(batch) == 0
        assert not [access for access in log if "store" in access.what and access.name]


# ---------------------------------------------------------------------------------------------------------------------
# VirtIO

BASE = 1 << reg.VERSION_1 | 1 << reg.MAC | 1 << reg.MRG_RXBUF
KINDS = {
    "split": BASE,
    "split in order": BASE | 1 << reg.IN_ORDER,
    "split with events": BASE | 1 << reg.EVENT_IDX,
    "packed": BASE | 1 << reg.RING_PACKED,
    "packed in order": BASE | 1 << reg.RING_PACKED | 1 << reg.IN_ORDER,
}


def split_rules(log: list[Access]) -> None:
    """2.7.14: the used ring is read after its index; 2.7.13: descriptors are there before the index."""
    check_loads(log, lambda access: access.name in ("used_flags", "available_event"))
    for access in log:
        if access == Access("load_acquire", "used_flags", 1):
            break
        assert access.name != "used"
    check_publication(log, lambda access: (access.name, access.index) == ("available", 1) and "store" in access.what)


def packed_rules(log: list[Access]) -> None:
    """2.8.21 and 2.8.17: a descriptor's flags are read before the rest of it, and written after."""
    check_loads(log, lambda access: is_status(access) or access.name == "device_event")
    check_publication(log, lambda access: is_status(access) and "store" in access.what)


@pytest.mark.parametrize("kind", KINDS)
def test_virtio(kind: str, log: list[Access]) -> None:
    """40 packets are received and sent on, five times: three rounds of the rings, with all that comes back and is
    offered anew. In the third turn, the tenth frame has no length, and is refused.
    """
    packed = "packed" in kind
    rules = packed_rules if packed else split_rules
    names = ["descriptors", "device_event"]
    wish = ("device_event", 1)
    if not packed:
        names = ["descriptors", "available", "used_flags", "used", "available_event"]
        wish = ("available_event", 0) if "events" in kind else ("used_flags", 0)
    back_end = BackEnd("model", KINDS[kind])
    with Device(VirtioNet(InProcess(back_end), ring_size=SIZE, pool_size=4 * SIZE)) as device:
        for turn in range(5):
            for number in range(40):
                assert feed(back_end.queues[0], np.full(60, number, np.uint8), 60)
            if turn == 2:
                lose_length(device.rx[0].ring.state, (2 * 40 + 9) % SIZE)
            accesses = []
            batches = []
            with watched(device.rx[0].ring, names, log):
                for _ in range(3):  # the second has to do with the odd one
                    log.clear()
                    batches.append(device.rx[0].receive(SIZE))
                    rules(log)
                    accesses += log
            check_wish(accesses, wish)
            assert sum(map(len, batches)) == (39 if turn == 2 else 40)
            with watched(device.tx[0].ring, names, log):
                for batch in batches:
                    log.clear()
                    count = len(batch)
                    assert device.tx[0].send(batch) == count
                    rules(log)
                    if count:
                        check_wish(log, wish)
            while drain(back_end.queues[1], np.zeros(2048, np.uint8)):
                pass


def lose_length(ring: Any, place: int) -> None:
    """Let the device have said that the buffer at `place` holds nothing."""
    if hasattr(ring, "used"):
        ring.used[2 * place + 1] = 0
    else:
        ring.descriptors[2 * place + 1] &= ~0xFFFFFFFF


# ---------------------------------------------------------------------------------------------------------------------
# Pools


def test_pools(log: list[Access]) -> None:
    """This thread owns a pool and another gives 40 buffers back: each goes into the pool's ring by a store with
    release, and is fetched by a load with acquire. Who owns the pool, and that its owner is to look, is never said nor
    asked by an ordinary access, but for an owner's that looks whether it is that.
    """
    with Mempool(64) as pool:
        every = pool_module.pools()
        every = every._replace(
            words=shared(every.words, "words", log), returned=shared(every.returned, "returned", log)
        )
        packets = slots(64)
        base = pool.number * pool_module._WORDS
        private, attention = base + pool_module._FREE, base + pool_module._ATTENTION
        log.clear()
        assert pool_module.claim(every.words, pool.number)
        assert pool_module.take(every, pool.number, packets, 40) == 40
        thread = threading.Thread(target=pool_module.give, args=(every, packets, 0, 40))
        thread.start()
        thread.join()
        assert pool_module.wanted(every, pool.number)
        pool_module.serve(every, pool.number)
        assert pool_module.take(every, pool.number, packets, 64) == 64
        pool_module.give(every, packets, 0, 64)
        pool_module.release(every.words, pool.number)

    ring = [access for access in log if access.name == "returned"]
    assert [access.what for access in ring].count("store_release") == 40
    assert {access.what for access in ring if "load" in access.what} == {"load_acquire"}
    words = [access for access in log if access.name == "words"]
    owners = {access.what for access in words if access.index == base + pool_module._OWNER}
    assert owners == {"swap_if", "store_release", "load_acquire", "plain load"}
    assert {access.what for access in words if access.index == attention} == {
        "swap_if",
        "store_release",
        "load_acquire",
    }
    assert "plain load" in {access.what for access in words if access.index == private}
