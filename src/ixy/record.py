"""Records: what kernels keep from packet to packet, and programs read meanwhile.

    class Flow(ixy.Record):
        addresses: int
        packets: int

    class Counters(ixy.Record):
        packets: int
        by_vlan = ixy.array(4096)
        flows = ixy.array(1 << 17, Flow)

    counters = Counters()
    path = ixy.Path(a.rx[0], b.tx[0], count, counters)
    print(counters.packets)  # from any thread, while it runs

A field is `int`, 64 bits with a sign, or `float`, or narrower: `ixy.uint8`, `int8`, `uint16`, `int16`, `uint32` or
`int32`, which are read as they are and written modulo their width. Arrays, of numbers or of records, have a size that
is part of the type. What a kernel has written is seen by other threads at the end of its batch; a field is never seen
half written, but two fields may be of different packets.
"""

from __future__ import annotations

import inspect
import mmap
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, overload
from weakref import ref

import numpy as np

from ixy.arguments import integer
from ixy.errors import ConfigurationError
from ixy.trouble import ELEMENT

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

# Narrow integers, for annotations; to a type checker they are integers.
uint8 = int8 = uint16 = int16 = uint32 = int32 = int
if not TYPE_CHECKING:
    uint8, int8, uint16, int16, uint32, int32 = (
        type(name, (int,), {}) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")
    )

_KINDS: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")},
    "int": np.dtype(np.int64),
    "float": np.dtype(np.float64),
}

_LINES = 128  # bytes: two cache lines, as processors fetch them in pairs; rows of workers do not share one
_HUGE = 1 << 21  # bytes from which on huge pages are asked for
_MOST = 1 << 30  # bytes that an array may have
MAX_WORKERS = MAX_PATHS = 256

_claiming = threading.Lock()


class Elements(Generic[T]):
    """An array in a record. Also `numpy.asarray(record.field)`, which is a copy."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> T:
        return cast(T, _seen(self._array[self._index(index)]))

    def __setitem__(self, index: int, value: T) -> None:
        self._array[self._index(index)] = _fitting(value, self._array.dtype)

    def __iter__(self) -> Iterator[T]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._array, dtype)

    def __repr__(self) -> str:
        return f"<{len(self)} elements>"

    def _index(self, index: int) -> int:
        size = len(self._array)
        if not -size <= index < size:
            raise IndexError(ELEMENT.format(index, size))
        return index % size


class _Array:
    """A field that is an array, as a record's class says it."""

    def __init__(self, count: int, dtype: np.dtype[Any]) -> None:
        self.count, self.dtype = count, dtype


@overload
def array(count: int) -> Elements[int]: ...
@overload
def array(count: int, of: type[T]) -> Elements[T]: ...
def array(count: int, of: Any = int) -> Any:
    """A field that is an array of `count` numbers or records.

    Raises:
        ConfigurationError: `count` is below 1, or too large.
        TypeError: there can be no array of that.
    """
    kind = of.dtype if isinstance(of, type) and issubclass(of, Record) else _kind("an element of an array", of)
    if kind.itemsize == 0:
        raise TypeError(f"{of.__name__} has no fields")
    return _Array(integer("count", count, 1, _MOST // kind.itemsize), kind)


_NOTHING = object()


def _check_field(record: type, name: str, value: object) -> None:
    """
    Raises:
        TypeError: a record has something else by this name, or the field begins with a value.
    """
    if hasattr(Record, name):
        raise TypeError(f"{record.__name__}.{name}: a record has that already; choose another name")
    if value is not _NOTHING and not isinstance(value, _Array):
        raise TypeError(f"{record.__name__}.{name} is 0 at first: assign {value!r} to it once the record is made")


def _check_names(record: type, names: list[str]) -> None:
    """
    Raises:
        TypeError: a field is there twice, as a base has one of the same name and another type.
    """
    for place, name in enumerate(names):
        if name in names[:place]:
            raise TypeError(f"{record.__name__}.{name} is of two types, one of them a base's: choose another name")


def _kind(what: str, annotation: Any) -> np.dtype[Any]:
    """The dtype of a number."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    kind = _KINDS.get(name.rpartition(".")[2])
    if kind is None:
        known = ", ".join(_KINDS)
        raise TypeError(f"{what} is {name or annotation!r}: it can be {known}; an array is written = ixy.array(…)")
    return kind


class Row:
    """One record in memory, or a record in it: fields by name."""

    __slots__ = ("_row",)
    _row: np.void

    def __init__(self, row: np.void) -> None:
        object.__setattr__(self, "_row", row)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            row = object.__getattribute__(self, "_row")
            _check_name(row, name)
            return _seen(row[name])

        def __setattr__(self, name: str, value: Any) -> None:
            row = object.__getattribute__(self, "_row")
            _check_name(row, name)
            if row.dtype[name].shape or row.dtype[name].names:
                raise TypeError(f"{name} is an array: assign to its elements")
            row[name] = _fitting(value, row.dtype[name])

    def __repr__(self) -> str:
        names = self._row.dtype.names or ()
        return f"<{', '.join(f'{name}={getattr(self, name)!r}' for name in names)}>"


def _check_name(row: np.void, name: str) -> None:
    names = row.dtype.names or ()
    if name not in names:
        raise AttributeError(f"the record has no {name!r}; it has {', '.join(names)}")


def _seen(value: Any) -> Any:
    """What is in memory, as plain numbers or as something to look into."""
    if isinstance(value, np.void):
        return Row(value)
    if isinstance(value, np.ndarray):
        return Elements[Any](cast("np.ndarray[Any, Any]", value))
    return value.item()


def _fitting(value: Any, dtype: np.dtype[Any]) -> Any:
    """A number as memory takes it: an integer modulo the field's width."""
    if dtype.kind == "f" or dtype.names:
        return value
    bits = 8 * dtype.itemsize
    number = int(value) & ((1 << bits) - 1)
    return number - (1 << bits) if dtype.kind == "i" and number >> (bits - 1) else number


class Record:
    """What a kernel keeps. Subclasses say which fields it has.

    Args:
        workers: how many there are, each with a record of its own: `record[0]`, `record[1]` …, and `total()`.
        paths: how many paths each worker gives its record to, such as both directions of a NAT. One thread is to run
            them, as two would overwrite each other's work.

    Raises:
        ConfigurationError: `workers` or `paths` is not within 1 and 256.
    """

    dtype: ClassVar[np.dtype[Any]] = np.dtype([])

    _fields: ClassVar[tuple[Any, ...]] = ()

    def __init_subclass__(cls) -> None:
        own, annotations = vars(cls), inspect.get_annotations(cls)
        arrays = {name: value for name, value in own.items() if isinstance(value, _Array)}
        for name in (*annotations, *arrays):
            _check_field(cls, name, own.get(name, _NOTHING))
        numbers = [
            (name, _kind(f"{cls.__name__}.{name}", kind)) for name, kind in annotations.items() if name not in arrays
        ]
        inherited = (field for base in cls.__bases__ if issubclass(base, Record) for field in base._fields)
        own_arrays = ((name, each.dtype, (each.count,)) for name, each in arrays.items())
        cls._fields = tuple(dict.fromkeys((*inherited, *numbers, *own_arrays)))  # two bases may have one of their own
        _check_names(cls, [name for name, *_ in cls._fields])
        cls.dtype = np.dtype(list(cls._fields), align=True)
        for name in arrays:
            delattr(cls, name)

    def __init__(self, workers: int = 1, *, paths: int = 1) -> None:
        workers = integer("workers", workers, 1, MAX_WORKERS)
        paths = integer("paths", paths, 1, MAX_PATHS)
        if self.dtype.itemsize == 0:
            raise TypeError(f"{type(self).__name__} has no fields: annotate them, such as packets: int")
        stride = -(-self.dtype.itemsize // _LINES) * _LINES
        memory = _memory(workers * stride).reshape(workers, stride)
        object.__setattr__(self, "_rows", memory)
        object.__setattr__(self, "_users", [None] * workers * paths)

    def __len__(self) -> int:
        """How many workers it is for."""
        return len(self._memory)

    def __getitem__(self, worker: int) -> Self:
        """The record of one worker."""
        if not 0 <= worker < len(self):
            raise IndexError(f"worker {worker} of {len(self)}")
        return cast(Any, Row(self._memory[worker, : self.dtype.itemsize].view(self.dtype)[0]))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self._only(name), name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self._only(name), name, value)

    def total(self) -> Self:
        """All workers' records as one; see `merge`."""
        result = type(self)()
        for worker in range(len(self)):
            self.merge(result[0], self[worker])
        return result

    def merge(self, into: Self, other: Self) -> None:
        """Add one worker's record to the total: here, every number. Override it where that makes no sense."""
        add(cast(Any, into)._row, cast(Any, other)._row)

    def claim(self, user: object) -> np.ndarray[Any, Any]:
        """The bytes of the first record that lacks a user, for `user`, while that lives and is not closed.

        Raises:
            ConfigurationError: each record has as many as it may.
        """
        users: list[ref[Any] | None] = object.__getattribute__(self, "_users")
        workers, name = len(self), type(self).__name__
        with _claiming:
            for place, known in enumerate(users):
                holder = known() if known is not None else None
                if holder is None or holder.closed:
                    users[place] = ref(user)
                    return self._memory[place * workers // len(users)]
        raise ConfigurationError(
            f"this {name} has {'a path' if len(users) == workers else f'{len(users) // workers} paths'} for each of "
            f"its {workers} records: make it for more, {name}(workers={workers + 1}), or for several paths that one "
            f"thread runs, {name}(paths={len(users) // workers + 1}), or drop the path that has it"
        )

    def _only(self, name: str) -> Self:
        """The only worker's record."""
        if name.startswith("__"):
            raise AttributeError(name)
        if len(self) != 1:
            raise AttributeError(f"{name} of which of {len(self)} workers? record[0].{name}, or record.total().{name}")
        return self[0]

    @property
    def _memory(self) -> np.ndarray[Any, Any]:
        memory = vars(self).get("_rows")
        if memory is None:
            raise TypeError(f"{type(self).__name__}.__init__ must call super().__init__() before it uses fields")
        return memory

    def __repr__(self) -> str:
        name, size = type(self).__name__, len(self)
        return f"<{name} {repr(self[0])[1:-1]}>" if size == 1 else f"<{name} of {size} workers>"


def add(into: Any, other: Any) -> None:
    """Add every number of a record to another."""
    for name in into.dtype.names:
        kind = into.dtype[name].base
        if kind.names:
            add(into[name], other[name])
        else:
            with np.errstate(over="ignore"):
                into[name] += other[name]


def _memory(size: int) -> np.ndarray[Any, Any]:
    """Zeros that begin on a page, on huge pages where there are many."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # the kernel has none: it works without
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)
