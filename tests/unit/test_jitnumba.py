"""What kernels need of Numba's internals. If one of these fails with a new version of Numba, it does not fit.

They compile in every mode of the tests, as they make kernels by themselves.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import event

from ixy import jitpasses
from ixy.compiling import watched
from ixy.jitnumba import Kernel, kernel
from ixy.jitpasses import TRIED, UNTRIED, CalleeLibrary, EntryLibrary

# As `ixy.jit` compiles.
OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False, "error_model": "numpy", "boundscheck": False}

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test compiles anew, whatever earlier runs have kept."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))


def inlined(function: Callable[..., Any]) -> Any:
    return kernel(function, {**OPTIONS, "forceinline": True}, full=False)


def outlined(function: Callable[..., Any]) -> Any:
    return kernel(function, {**OPTIONS, "forceinline": False}, full=False)


def users(function: Callable[..., Any]) -> Any:
    return kernel(function, {**OPTIONS, "boundscheck": True, "forceinline": True}, full=True)


@contextmanager
def compilations() -> Iterator[Counter[str]]:
    """How often each function is compiled in the block."""
    counts: Counter[str] = Counter()

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            counts[event.data["dispatcher"].py_func.__name__] += 1

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield counts


def test_this_version_was_tried() -> None:
    """0.68 was, and the version at hand is one of those."""
    assert "0.68" in TRIED
    assert not UNTRIED
    assert numba.__version__.startswith(TRIED)


def test_callee_has_no_machine_code_and_its_entry_has_one() -> None:
    """A kernel that kernels call is left at intermediate representation; the outermost one is emitted, with it."""

    @inlined
    def callee(x: int) -> int:
        return 3 * x

    @inlined
    def entry(x: int) -> int:
        return callee(x) + 1

    assert entry(5) == 16
    assert not callee.overloads
    (inner,) = callee.callee.overloads.values()
    (outer,) = entry.overloads.values()
    assert isinstance(inner.library, CalleeLibrary)
    assert inner.library.get_pointer_to_function(inner.fndesc.mangled_name) == 0
    assert isinstance(outer.library, EntryLibrary)


def test_constants_make_no_kernels_of_their_own() -> None:
    """A callee is compiled once, whatever constants it is called with; inlined, they still fold away."""

    @inlined
    def scale(x: int, factor: int) -> int:
        return x * factor

    @inlined
    def scaled(x: int) -> int:
        return scale(x, 8) + scale(x, 16) + scale(x, 32)

    with compilations() as counts:
        assert scaled(1) == 56
    assert counts == {"scaled": 1, "scale": 1}
    assert "imul" not in instructions(scaled) or instructions(scaled)["imul"] == 1  # by 56, or a shift


def test_collector_rests_while_kernels_are_compiled_and_is_left_as_it_was() -> None:
    """It looks for nothing while kernels are compiled, and does so again then, unless the program does not want it."""

    seen: list[bool] = []

    @inlined
    def negative(x: float) -> float:
        return -x

    assert gc.isenabled()
    with watched(lambda _entry, _done, _total: seen.append(gc.isenabled())):
        assert negative(3) == -3
    assert seen
    assert not any(seen)
    assert gc.isenabled()
    gc.disable()
    try:
        assert negative(0.5) == -0.5
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_operator_is_looked_up_once_and_for_each_types_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator means of some types is not looked up again; of others, it means something else."""
    looked_up: list[Any] = []
    find = jitpasses._find_meaning  # pyright: ignore[reportPrivateUsage]

    def noted(function: Any, context: Any, args: Any, kws: Any) -> Any:
        looked_up.append(tuple(args))
        return find(function, context, args, kws)

    monkeypatch.setattr(jitpasses, "_find_meaning", noted)
    monkeypatch.setattr(jitpasses, "_meanings", {})

    @inlined
    def doubled(x: Any) -> Any:
        return x + x

    @inlined
    def sum_of(x: Any) -> Any:
        return x + x

    assert doubled(3) == 6
    assert looked_up == [(numba.int64, numba.int64)]
    assert sum_of(4) == 8
    assert looked_up == [(numba.int64, numba.int64)]
    assert sum_of(0.25) == 0.5
    assert looked_up[1:] == [(numba.float64, numba.float64)]


def test_choosing_among_integers_compiles_no_functions() -> None:
    """`min`, `max` and `int` of integers of any width and sign are what they are in Python; Numba has functions."""

    @inlined
    def chosen(a: Any, b: Any) -> Any:
        return min(a, b), max(a, b), int(a)

    for one, other in ((3, -4), (np.int32(-7), 5), (np.uint8(200), np.uint8(100)), (np.uint16(9), np.int64(-1))):
        with compilations() as counts:
            assert chosen(one, other) == (min(one, other), max(one, other), int(one))
        assert counts == {"chosen": 1}
    assert chosen(2, 2) == (2, 2, 2)

    @inlined
    def of_others(a: Any, b: Any) -> Any:
        return min(a, b), max(a, b, 1), int(b)

    assert of_others(3, -0.5) == (-0.5, 3, 0)


def test_types_that_follow_late_from_others() -> None:
    """A variable is an integer at first, and in the loop, a float; another one depends on it before."""

    @inlined
    def late(count: int) -> float:
        total = step = 0
        for _ in range(count):
            total = total + step
            step = step + 0.5
        return total

    assert late(4) == 0.5 + 1.0 + 1.5


def test_variables_that_swap_in_loops() -> None:
    """What a variable is in the next turn is not taken for what it is in this one; nor outside for inside."""

    @inlined
    def swapped(a: int, b: int, count: int) -> tuple[int, int, int]:
        last = -1
        for i in range(count):
            a, b = b, a + b
            if a & 1:
                last = i
        return a, b, last

    @inlined
    def nested(count: int) -> int:
        total = 0
        for i in range(count):
            j = i
            while j > 0:
                before, j = j, j // 2
                total += before
                if total > 100:
                    break
            total += j
        return total

    assert swapped(0, 1, 10) == swapped.py_func(0, 1, 10) == (55, 89, 9)
    assert [nested(n) for n in range(40)] == [nested.py_func(n) for n in range(40)]


def test_who_may_raise() -> None:
    """Neither a kernel that computes, nor who calls it; but a user's function that indexes, and who calls that."""

    @inlined
    def computes(x: int) -> int:
        return x // 3

    @users
    def indexes(array: np.ndarray[Any, Any], x: int) -> int:
        return array[x]

    @inlined
    def calls_one(x: int) -> int:
        return computes(x)

    @inlined
    def calls_both(array: np.ndarray[Any, Any], x: int) -> int:
        return indexes(array, calls_one(x))

    @outlined
    def middle(array: np.ndarray[Any, Any], x: int) -> int:
        return calls_both(array, x)

    @inlined
    def entry(array: np.ndarray[Any, Any], x: int) -> int:
        return middle(array, x)

    array = np.arange(5)
    assert entry(array, 12) == 4
    with pytest.raises(IndexError):
        entry(array, 15)
    raises = {
        each.py_func.__name__: callee.library.raises
        for each in (computes, calls_one, indexes, calls_both, middle)
        for callee in each.callee.overloads.values()
    }
    assert raises == {"computes": False, "calls_one": False, "indexes": True, "calls_both": True, "middle": True}


def test_kernel_is_compiled_once_for_many_callers() -> None:
    """A callee that several kernels of an entry call, and another entry, is compiled once in a process."""

    @inlined
    def leaf(x: int) -> int:
        return x + 1

    @inlined
    def left(x: int) -> int:
        return leaf(x)

    @inlined
    def right(x: int) -> int:
        return leaf(x) * 2

    @inlined
    def both(x: int) -> int:
        return left(x) + right(x)

    @inlined
    def other(x: int) -> int:
        return right(x)

    with compilations() as counts:
        assert both(1) == 6
        assert other(1) == 4
    assert counts == {"leaf": 1, "left": 1, "right": 1, "both": 1, "other": 1}


def test_outlined_kernel_stays_outside() -> None:
    """It is called, although its only caller could take it in; an inlined one leaves no call."""

    def set_zero(array: np.ndarray[Any, Any], index: int) -> None:
        array[index] = 0

    def caller(callee: Any) -> Any:
        @inlined
        def clear(array: np.ndarray[Any, Any], index: int) -> None:
            if array[index] == 77:
                callee(array, index)

        return clear

    for mark, calls in ((inlined, 0), (outlined, 1)):
        clear = caller(mark(set_zero))
        array = np.array([5, 77])
        clear(array, 0)
        clear(array, 1)
        assert array.tolist() == [5, 0]
        (text,) = clear.inspect_asm().values()
        assert len(re.findall(r"^_Z\w*set_zero\w*:", text, re.MULTILINE)) == calls


def test_kernels_and_functions_of_numba_call_each_other() -> None:
    """Kernels between ordinary functions: called by one, and by a C callback, and calling one."""

    @numba.njit
    def bottom(x: int) -> int:
        return x + 1

    @inlined
    def lower(x: int) -> int:
        return bottom(x) * 2

    @outlined
    def upper(x: int) -> int:
        return lower(x) + lower(x + 1)

    @numba.njit
    def top(x: int) -> int:
        return upper(x) + lower(x)

    assert top(1) == 4 + 6 + 4
    assert upper(1) == 10
    assert numba.cfunc("int64(int64)")(lambda x: upper(x) + 1).ctypes(1) == 11


def test_recursion() -> None:
    """A function may call itself, called from Python or from another kernel."""

    @users
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    @inlined
    def twice(n: int) -> int:
        return 2 * factorial(n)

    assert factorial(5) == 120
    assert twice(5) == 240


def test_users_function_has_all_of_numba() -> None:
    """Closures and whole arrays, which kernels do without, and constants that choose the type of a result."""

    @users
    def mixed(x: int) -> float:
        def inner(y: int) -> int:
            return y + 1

        pair = (inner(x), 0.5)
        return pair[0] + pair[1]

    @inlined
    def calls(x: int) -> float:
        return mixed(x)

    assert mixed(1) == calls(1) == 2.5


def test_exceptions_come_out_of_entries() -> None:
    """What a user's function raises deep within kernels, with its arguments."""

    @users
    def read(array: np.ndarray[Any, Any], index: int) -> int:
        if index > 100:
            raise ValueError("far outside", 100)
        return array[index]

    @inlined
    def middle(array: np.ndarray[Any, Any], index: int) -> int:
        return read(array, index)

    @inlined
    def entry(array: np.ndarray[Any, Any], index: int) -> int:
        return middle(array, index)

    array = np.arange(4)
    assert entry(array, 3) == 3
    with pytest.raises(IndexError):
        entry(array, 4)
    with pytest.raises(ValueError, match="far outside") as caught:
        entry(array, 101)
    assert caught.value.args == ("far outside", 100)


def test_threads_that_compile_at_once() -> None:
    """Entries that share callees, compiled by several threads, all work, and nothing is compiled twice."""

    @inlined
    def shared(x: int) -> int:
        return x * 3

    def make(number: int) -> Any:
        @inlined
        def entry(x: int) -> int:
            return shared(x) + number

        return entry

    entries = [make(number) for number in range(4)]
    results: dict[int, int] = {}

    def call(number: int) -> None:
        results[number] = entries[number](10)

    threads = [threading.Thread(target=call, args=[number]) for number in range(4)]
    with compilations() as counts:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {0: 30, 1: 31, 2: 32, 3: 33}
    assert counts == {"shared": 1, "entry": 4}


def test_raising_at_a_division_by_zero_costs_nothing_without_one() -> None:
    """A user's function in which nothing is divided, or by a constant, is the same machine code either way."""

    def count(packet: np.ndarray[Any, Any]) -> int:
        packet[48] += 1
        total = 0
        for byte in packet:
            total += byte // 3
        return total % 7 > packet[12] >> 2

    counts = []
    for model in ("numpy", "python"):
        marked = kernel(count, {**OPTIONS, "boundscheck": True, "forceinline": True, "error_model": model}, full=True)
        assert marked(np.full(60, 30, np.uint8)) == ((59 * 10 + 10) % 7 > 30 >> 2)
        counts.append(instructions(marked))
    assert counts[0] == counts[1]


def instructions(entry: Kernel) -> Counter[str]:
    """The machine instructions of an entry, by name."""
    (text,) = entry.inspect_asm().values()
    return Counter(line.split()[0] for line in text.splitlines() if line.startswith("\t") and line[1] != ".")


def test_arrays_that_lie_apart_are_not_compared() -> None:
    """An inlined loop over arrays that have no memory in common does the same without looking whether they have."""

    def move(target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
        for i in range(source.size):
            target[i] = source[i] + 1

    counts = []
    for apart in (False, True):
        callee = kernel(move, {**OPTIONS, "forceinline": True}, full=False, apart=apart)

        def entry(
            target: np.ndarray[Any, Any], source: np.ndarray[Any, Any], callee: Callable[..., None] = callee
        ) -> None:
            callee(target, source)

        marked = inlined(entry)
        target = np.zeros(100, np.int32)
        marked(target, np.arange(100, dtype=np.int32))
        assert target.tolist() == list(range(1, 101))
        counts.append(sum(instructions(marked).values()))
    assert counts[1] < counts[0]


def test_watchers_are_told_how_far_an_entry_is() -> None:
    """From none of its kernels to all; machine code comes last. What is compiled already does not count."""

    @inlined
    def first(x: int) -> int:
        return x + 1

    @inlined
    def second(x: int) -> int:
        return first(x) + 1

    @inlined
    def entry(x: int) -> int:
        return second(x)

    told: list[tuple[str, int, int]] = []
    with watched(lambda *values: told.append(values)):
        first(1)
        entry(1)
    assert told[:2] == [("first", 0, 2), ("first", 2, 2)]
    assert told[2:] == [("entry", 0, 4), ("entry", 1, 4), ("entry", 2, 4), ("entry", 4, 4)]


# ---------------------------------------------------------------------------------------------------------------------
# In processes of their own

PROGRAM = """
import json, logging, sys
import numba
logging.basicConfig(level=logging.WARNING, format="%(message)s")
{before}
from ixy.jit import checked, compiled, outlined

@outlined
def rare(x):
    return x + 1000

@compiled
def common(x, y):
    return rare(x) if x > 5 else x + y

@checked
def entry(x):
    return common(x, 1) + common(x, 2)

print(json.dumps([entry(1), entry(6), sum(entry.stats.cache_hits.values())]))
"""


def start(directory: Path, before: str) -> subprocess.Popen[str]:
    """The program in a process of its own."""
    (directory / "program.py").write_text(PROGRAM.format(before=before))
    environment = os.environ | {
        "IXY_JIT": "1",
        "PYTHONPATH": os.pathsep.join([str(directory), *sys.path]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("NUMBA_CACHE_DIR", None)
    command, pipe = [sys.executable, "-c", "import program"], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=directory)


def run(directory: Path, before: str = "") -> tuple[list[int], str]:
    """What the program prints, and what it logs."""
    process = start(directory, before)
    printed, logged = process.communicate()
    assert process.returncode == 0, logged
    return json.loads(printed), logged


def test_what_was_cached_runs_in_another_process(tmp_path: Path) -> None:
    """Outlined kernels included, which are not part of their caller."""
    assert run(tmp_path) == ([5, 2012, 0], "")
    assert run(tmp_path) == ([5, 2012, 1], "")


def test_kept_is_what_a_users_function_calls(tmp_path: Path) -> None:
    """And not what that calls in turn, of which it is made."""
    run(tmp_path)
    kept = {path.name.rpartition("-")[0] for path in (tmp_path / "__pycache__").glob("*.ixy")}
    assert kept == {"program.entry", "program.common.callee"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_program(path: Path) -> None:
    path.write_bytes(pickle.dumps(["something", "else"]))


@pytest.mark.parametrize("damage", [cut, empty, of_another_program])
def test_damaged_cache_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Power loss, a full disk, somebody else's file: compiled again without a word, and kept again."""
    assert run(tmp_path)[0] == [5, 2012, 0]
    kept = list((tmp_path / "__pycache__").glob("*.ixy"))
    assert len(kept) > 1  # the kernel, and for others to take in what it calls
    for path in kept:
        damage(path)
    assert run(tmp_path) == ([5, 2012, 0], "")
    assert run(tmp_path) == ([5, 2012, 1], "")


def test_processes_that_start_at_once_compile_once(tmp_path: Path) -> None:
    """Three processes need the same kernel at the same moment: one compiles, and the others wait for it."""
    before = "import sys; sys.stdin.readline()"
    processes = [start(tmp_path, before) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    printed = [json.loads(process.communicate()[0]) for process in processes]
    assert sorted(printed) == [[5, 2012, 0], [5, 2012, 1], [5, 2012, 1]]


def test_unknown_numba_compiles_in_its_own_way(tmp_path: Path) -> None:
    """A version that was not tried is not relied on. That is said; results and cache are as ever."""
    for hits in (0, 1):
        printed, logged = run(tmp_path, 'numba.__version__ = "0.99.1"')
        assert printed == [5, 2012, hits]
        assert "as Numba does by itself" in logged
        assert "0.99.1 was not tried" in logged


@pytest.mark.parametrize(
    "gone",
    [
        "import numba.core.typed_passes; del numba.core.typed_passes.NativeLowering",
        "import numba.core.environment; del numba.core.environment.lookup_environment",
        "import sys; sys.modules['numba.core.codegen'] = None",
    ],
)
def test_numba_without_what_is_needed_compiles_in_its_own_way(tmp_path: Path, gone: str) -> None:
    """Something is not where it was. There is no cache then; all else works, and it is said."""
    before = "import numba.core.registry\n" + gone
    printed, logged = run(tmp_path, before)
    assert printed == [5, 2012, 0]
    assert "as Numba does by itself" in logged
