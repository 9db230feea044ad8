"""The one module that touches raw addresses: windows, and the primitives of kernels."""

from __future__ import annotations

import ast
import errno
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ixy
from ixy import unsafe
from ixy.errors import MemoryUnavailable
from ixy.jit import compiled
from ixy.unsafe import Window

PAGE = mmap.PAGESIZE
SIZE = 16 * PAGE


@contextmanager
def memory_file(size: int) -> Iterator[int]:
    fd = os.memfd_create("test")
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def window() -> Iterator[Window]:
    """Sixteen pages, aligned to 2 MiB."""
    window = Window(SIZE, 2 << 20)
    yield window
    window.close()


def test_window_is_address_space_at_its_alignment(window: Window) -> None:
    """The array starts at a multiple of the alignment and has the size; `address` counts from there."""
    assert window.bytes.shape == (SIZE,)
    assert window.bytes.ctypes.data % (2 << 20) == 0
    assert window.address(0) == window.bytes.ctypes.data
    assert window.address(SIZE - 1) == window.bytes.ctypes.data + SIZE - 1


def test_mapped_memory_is_the_file(window: Window) -> None:
    """Pages 1 and 2 of a file at page 5 of the window: what is written there stands in the file, and back."""
    with memory_file(3 * PAGE) as fd:
        window.map(5 * PAGE, 2 * PAGE, fd, PAGE)
        window.bytes[5 * PAGE] = 11
        window.bytes[7 * PAGE - 1] = 22
        assert (os.pread(fd, 1, PAGE), os.pread(fd, 1, 3 * PAGE - 1)) == (b"\x0b", b"\x16")
        os.pwrite(fd, b"\x21", PAGE + 7)
        assert window.bytes[5 * PAGE + 7] == 0x21


def test_memory_can_be_replaced(window: Window) -> None:
    """Taking memory away and mapping another file at its place shows the other file."""
    with memory_file(PAGE) as one, memory_file(PAGE) as two:
        os.pwrite(two, b"\x02", 0)
        window.map(0, PAGE, one)
        window.bytes[0] = 1
        window.unmap(0, PAGE)
        window.map(0, PAGE, two)
        assert window.bytes[0] == 2


@given(st.integers(-SIZE, 2 * SIZE), st.integers(-SIZE, 2 * SIZE))
def test_ranges_outside_the_window_are_refused(offset: int, size: int) -> None:
    """No call reaches the kernel for a range that is not wholly within: mapping there would destroy the process."""
    small = Window(SIZE, PAGE)
    if offset >= 0 and size > 0 and offset + size <= SIZE:
        with pytest.raises(MemoryUnavailable, match=r"Bad file descriptor|Invalid argument"):
            small.map(offset, size, -1)
    else:
        for call in (partial(small.map, fd=-1), small.unmap, small.lock):
            with pytest.raises(ValueError, match="outside the window"):
                call(offset, size)
    small.close()


@pytest.mark.parametrize("offset", [-1, SIZE])
def test_address_outside_the_window_is_refused(window: Window, offset: int) -> None:
    """The byte before the first and the one behind the last have no address here."""
    with pytest.raises(ValueError, match="outside the window"):
        window.address(offset)


def test_memory_that_is_not_there_cannot_be_locked(window: Window) -> None:
    """The kernel locks no page that is only reserved; the message says what might help."""
    with pytest.raises(MemoryUnavailable, match=r"cannot lock 4096 bytes of memory: .*ulimit -l"):
        window.lock(0, PAGE)


def test_locked_memory_is_resident(window: Window) -> None:
    """Locking two pages that nobody has touched: the kernel counts 8 kB more as locked, and gives them back after."""
    before = locked_kilobytes()
    with memory_file(2 * PAGE) as fd:
        window.map(PAGE, 2 * PAGE, fd)
        window.lock(PAGE, 2 * PAGE)
        assert locked_kilobytes() == before + 8
        window.unmap(PAGE, 2 * PAGE)
    assert locked_kilobytes() == before


def locked_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmLck:")).split()[1])


FAULT = """
import os
from ixy.unsafe import Window
window = Window(8 * 4096, 4096)
fd = os.memfd_create("test")
os.ftruncate(fd, 4096)
window.map(4096, 4096, fd)
window.bytes[4096:8192] = 1
{what}
print("alive")
"""


@pytest.mark.parametrize(
    ("what", "faults"),
    [
        ("window.bytes[8191]", False),
        ("window.bytes[4095]", True),
        ("window.bytes[8192] = 1", True),
        ("window.unmap(4096, 4096); window.bytes[4096]", True),
    ],
    ids=["inside", "before", "behind", "unmapped"],
)
def test_touching_what_is_not_mapped_faults(what: str, faults: bool) -> None:
    """One page is mapped; a byte beside it, or in it after it was taken away, ends the process instead of lying."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FAULT.format(what=what)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == (-signal.SIGSEGV if faults else 0), run.stderr
    assert run.stdout == ("" if faults else "alive\n")


# ---------------------------------------------------------------------------------------------------------------------
# Primitives, called from kernels as the data path does


@compiled
def load(array: Any, index: int) -> int:
    return unsafe.load_acquire(array, index)


@compiled
def store(array: Any, index: int, value: int) -> None:
    unsafe.store_release(array, index, value)


@compiled
def copy(target: Any, to: int, source: Any, start: int, size: int) -> None:
    unsafe.copy(target, to, source, start, size)


@compiled
def ticks() -> int:
    return unsafe.ticks()


@compiled
def monotonic_ns() -> int:
    return unsafe.monotonic_ns()


@compiled
def realtime_ns() -> int:
    return unsafe.realtime_ns()


@compiled
def read_file(fd: int, target: Any, to: int, size: int) -> int:
    return unsafe.read_file(fd, target, to, size)


@compiled
def write_file(fd: int, source: Any, start: int, size: int) -> int:
    return unsafe.write_file(fd, source, start, size)


@compiled
def wait_for(words: Any, value: int) -> None:
    """Say in the second word that the first is being polled, until it has a value."""
    while unsafe.load_acquire(words, 0) != value:
        unsafe.store_release(words, 1, 1)
        unsafe.nap(0)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (np.int64, [0, 1, -1, 2**63 - 1, -(2**63)]),
        (np.uint32, [0, 1, 2**31, 2**32 - 1]),
        (np.int32, [0, -1, 2**31 - 1]),
    ],
)
def test_load_and_store(kind: type, values: list[int]) -> None:
    """Every value comes back as it was stored, unsigned ones unsigned, and the neighbours are left alone."""
    array = np.full(3, 7, kind)
    for value in values:
        store(array, 1, value)
        assert array.tolist() == [7, value, 7]
        assert load(array, 1) == value


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 24))
def test_copy(to: int, start: int, size: int) -> None:
    """The bytes of one array at a place in another, nothing else touched."""
    source, target = np.arange(64, dtype=np.uint8), np.full(64, 255, np.uint8)
    copy(target, to, source, start, size)
    expected = [255] * 64
    expected[to : to + size] = range(start, start + size)
    assert target.tolist() == expected


def test_polling_sees_what_another_thread_writes() -> None:
    """A kernel polls one word; the thread that writes it does so only after the kernel has begun."""
    words = np.zeros(2, np.int64)
    thread = threading.Thread(target=wait_for, args=(words, 5))
    thread.start()
    while load(words, 1) == 0:
        assert thread.is_alive()
    store(words, 0, 5)
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("clock", "reference"),
    [(monotonic_ns, time.monotonic_ns), (realtime_ns, time.time_ns)],
    ids=["monotonic", "realtime"],
)
def test_clocks(clock: Callable[[], int], reference: Callable[[], int]) -> None:
    """A reading lies between two readings of the same clock by the standard library."""
    clock()  # compiles
    before = reference()
    reading = clock()
    assert before <= reading <= reference()


def test_ticks_never_run_backwards() -> None:
    """A hundred readings in a row never fall, and the last is later than the first."""
    readings = [ticks() for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[-1] > readings[0]


class Record(NamedTuple):
    """Arrays of several types, shapes and layouts between integers."""

    first: int
    bytes: np.ndarray
    matrix: np.ndarray
    strided: np.ndarray
    cube: np.ndarray
    last: int


@compiled
def look_up(image: Any, which: int, i: int, j: int, k: int) -> int:
    """An element of one of the arrays, or an integer."""
    record = image[0]
    if which == 1:
        return record.bytes[i]
    if which == 2:
        return record.matrix[i, j]
    if which == 3:
        return record.strided[i]
    if which == 4:
        return record.cube[i, j, k]
    if which == 5:
        record.matrix[i, j] = k
        return record.matrix.size
    return record.first if which == 0 else record.last


@compiled
def look_through(addresses: Any, index: int, record: Record, image: Any, which: int, i: int, j: int, k: int) -> int:
    return unsafe.call(addresses, index, record, image, which, i, j, k)


def test_a_kernel_that_is_called_by_address_reads_the_image() -> None:
    """It finds and changes all that the record has, whatever lies beside."""
    cube = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    record = Record(-5, np.arange(7, dtype=np.uint8), np.arange(6).reshape(2, 3), np.arange(20)[::5], cube, 1 << 40)
    image, addresses = np.full(64, -1), np.zeros(3, np.int64)
    unsafe.put_image(record, image)
    addresses[1] = unsafe.address_of(look_up, record)
    found = [
        (0, 0, 0, 0),
        (1, 6, 0, 0),
        (2, 1, 2, 0),
        (3, 3, 0, 0),
        (4, 1, 2, 3),
        (5, 1, 0, 77),
        (2, 1, 0, 0),
        (6, 0, 0, 0),
    ]
    expected = [-5, 6, 5, 15, 23, 6, 77, 1 << 40]
    assert [look_through(addresses, 1, record, image, *which) for which in found] == expected
    assert record.matrix[1, 0] == 77
    assert unsafe.address_of(look_up, record) == addresses[1]


def test_an_image_needs_room() -> None:
    """Two words less than it takes: refused, and nothing is written."""
    image = np.full(6, -1)
    with pytest.raises(ValueError, match="an image of 8 words does not fit into 6"):
        unsafe.put_image((1, np.zeros(3)), image)
    assert (image == -1).all()


def test_files() -> None:
    """Four bytes through a pipe, from the middle of one array to that of another; then the pipe is at its end."""
    reading, writing = os.pipe()
    source, target = np.arange(10, dtype=np.uint8), np.zeros(10, np.uint8)
    assert write_file(writing, source, 3, 4) == 4
    assert read_file(reading, target, 5, 5) == 4
    assert target.tolist() == [0, 0, 0, 0, 0, 3, 4, 5, 6, 0]
    os.close(writing)
    assert read_file(reading, target, 0, 5) == 0
    os.close(reading)


def test_file_errors_are_negative() -> None:
    """A descriptor that is none, and reading from an empty pipe that does not block."""
    array = np.zeros(4, np.uint8)
    assert read_file(-1, array, 0, 4) == -errno.EBADF
    assert write_file(-1, array, 0, 4) == -errno.EBADF
    reading, writing = os.pipe2(os.O_NONBLOCK)
    assert read_file(reading, array, 0, 4) == -errno.EAGAIN
    os.close(reading)
    os.close(writing)


# ---------------------------------------------------------------------------------------------------------------------
# Memory that goes away

SHORTENED = """
import mmap, os
from ixy.unsafe import Window
from ixy.unsafe.faults import Guard

fd, other = os.memfd_create("guarded"), os.memfd_create("other")
for file in (fd, other):
    os.ftruncate(file, 8192)
window = Window(1 << 20, 4096)
guard = Guard(window, 4096, 8192)
window.map(4096, 8192, fd)
window.bytes[4096:12288] = 7
os.ftruncate(fd, 0)
print(guard.lost, window.bytes[4096 + 5000], guard.lost, window.bytes[4096], flush=True)
strange = mmap.mmap(other, 8192)
os.ftruncate(other, 0)
strange[0]
"""


@pytest.mark.once
def test_only_guarded_memory_may_go_away() -> None:
    """A process reads what was shortened: zeros, and that it is lost. Elsewhere it ends by the signal, as ever."""
    done = subprocess.run([sys.executable, "-c", SHORTENED], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout == "False 0 True 0\n"
    assert done.returncode == -signal.SIGBUS


# ---------------------------------------------------------------------------------------------------------------------
# Nobody else does so

# Names of the standard library, NumPy and Numba with which a module makes memory of an address, or gets at one.
WAYS = {
    *("ctypes", "cffi", "from_address", "ctypeslib", "as_strided", "__array_interface__"),
    *("llvmlite", "intrinsic", "carray", "farray", "ExternalFunction", "address_as_void_pointer"),
}
# The C references are called from Python with arrays; what they do with their addresses is C's. How kernels are
# compiled has to do with LLVM's modules, not with the memory that kernels work on.
EXCEPTIONS = {"bench/reference.py": {"ctypes", "ctypeslib"}, "jitnumba.py": {"llvmlite"}, "jitpasses.py": {"llvmlite"}}


def names(source: str) -> set[str]:
    """All names in a module: what it imports, and the variables and attributes that it uses."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.Import(names=imported):
                found |= {part for alias in imported for part in alias.name.split(".")}
            case ast.ImportFrom(module=module, names=imported):
                found |= {*(module or "").split("."), *(alias.name for alias in imported)}
            case _:
                pass
    return found


def test_no_other_module_touches_addresses() -> None:
    """Of the modules of the package, only `unsafe` names what would let it, but for what is excepted."""
    package = Path(ixy.__file__).parent
    users = {str(path.relative_to(package)): names(path.read_text()) & WAYS for path in package.rglob("*.py")}
    ours = [module for module in users if module.startswith("unsafe/")]
    assert len(set[str]().union(*map(users.pop, ours))) > 3  # the search finds what is there
    assert {module: ways for module, ways in users.items() if ways} == EXCEPTIONS
