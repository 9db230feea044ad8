"""Kernels as Numba's dispatchers: functions that are compiled for the types of their arguments.

A kernel has two sides (`jitpasses.py`): called from another kernel it is a callee, called from Python an entry. Other
Numba functions may call kernels, and kernels them. What is compiled is kept by content, and told to who watches.
"""

# Numba's internals have no types.
# pyright: basic

from __future__ import annotations

import copy
import gc
import hashlib
import logging
import pickle
import re
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding as llvm
from numba.core import config, types
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.environment import lookup_environment
from numba.core.event import Listener, register, trigger_event
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

from ixy.compiling import watchers
from ixy.jitcache import Store
from ixy.jitcontent import Unknown, fingerprint, reachable, remembering
from ixy.jitpasses import (
    UNTRIED,
    ApartCalleeCompiler,
    CalleeCompiler,
    CalleeLibrary,
    EntryCompiler,
    FullCalleeCompiler,
    FullEntryCompiler,
    calling,
)

log = logging.getLogger("ixy.jit")

# ---------------------------------------------------------------------------------------------------------------------
# Dispatchers: functions by the types of their arguments


class Dispatcher(CPUDispatcher):
    """A dispatcher without timers, which Numba has each piece of work tell of itself."""

    _can_compile: Any
    _cache: Any
    _cache_hits: Any
    _cache_misses: Any
    _compiler: Any

    def compile(self, sig: Any) -> Any:
        args, return_type = normalize_signature(sig)
        if args in self.overloads:
            return self.overloads[args].entry_point
        with global_compiler_lock, self._compiling_counter:
            if not self._can_compile:
                raise RuntimeError("compilation disabled")
            cres = self._cache.load_overload(sig, self.targetctx)
            if cres is not None:
                self._cache_hits[sig] += 1
                self.targetctx.insert_user_function(cres.entry_point, cres.fndesc, [cres.library])
                self.add_overload(cres)
                return cres.entry_point
            self._cache_misses[sig] += 1
            with trigger_event("numba:compile", data={"dispatcher": self, "args": args, "return_type": return_type}):
                cres = self._compiler.compile(args, return_type)
                self.add_overload(cres)
            self._cache.save_overload(sig, cres)
            return cres.entry_point


class Callee(Dispatcher):
    """A kernel as other functions see it. Python cannot call it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._templates: dict[Any, Any] = {}

    def get_call_template(self, args: Any, kws: Any) -> Any:
        key = tuple(args), tuple(kws.items())
        if key not in self._templates:
            self._templates[key] = super().get_call_template(args, kws)
        return self._templates[key]

    def add_overload(self, cres: Any) -> None:
        name = object()  # by which callers find it, as there is no function that Python could call
        implementation = calling(cres)
        self.targetctx._defns[name].append(implementation, implementation.signature)
        self.overloads[tuple(cres.signature.args)] = cres._replace(entry_point=name)


class Kernel(Dispatcher):
    """A kernel as Python sees it, an entry; other functions are given its callee.

    Args:
        function: the Python function.
        options: Numba's.
        full: whether all of Numba is needed to compile it, as for a user's function.
        apart: whether the arrays that it is given have no memory in common.
    """

    def __init__(
        self, function: Callable[..., Any], options: dict[str, Any], *, full: bool, apart: bool = False
    ) -> None:
        self._full = full
        self.apart = apart
        options = {**options, "nopython": True, "no_cfunc_wrapper": True}
        super().__init__(function, {}, options, FullEntryCompiler if full else EntryCompiler)
        self._cache = Cache(self)

    @cached_property
    def callee(self) -> Callee:
        options = {**self.targetoptions, "no_cpython_wrapper": True}
        usual = ApartCalleeCompiler if self.apart else CalleeCompiler
        callee: Any = Callee(self.py_func, {}, options, FullCalleeCompiler if self._full else usual)
        callee.apart = self.apart
        if not self._full and not self.py_func.__module__.startswith(_SIMULATED):
            callee._cache = CalleeCache(callee)
        return callee

    @property
    def is_compiling(self) -> bool:
        """Whether a call of the kernel in what is compiled now is a recursion."""
        return bool(self._compiling_counter) or bool(self.callee.is_compiling)

    def compile(self, sig: Any) -> Any:
        with global_compiler_lock, _uncollected(), _silent(), _loaded(), remembering(), self._cache.turn(sig):
            return super().compile(sig)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """What a caller makes of the types of its arguments.

        A constant or an address is an integer like others to a kernel, or it would be compiled for each. Inlined, it
        gets through.
        """
        if not self._full:
            args = tuple(_plain(argument) for argument in args)
            kws = {name: _plain(argument) for name, argument in kws.items()}
        return self.callee.get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        return self.callee.get_overload(sig)


@contextmanager
def _uncollected() -> Generator[None]:
    """Within the block Python looks for no cycles of garbage. Compiling makes objects by the million that live until it
    is over, so to go through them again and again is in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class LoadedContext(CPUContext):
    """A context that has loaded what there is."""

    def refresh(self) -> None:
        """Take what has come meanwhile: what intrinsics mean of types that they were not called with before."""
        self.install_registry(next(iter(self._registries)))


@contextmanager
def _loaded() -> Generator[None]:
    """Within the block what Numba's modules know is loaded once, and not whenever something is compiled or looked up
    for the first time."""
    context: Any = cpu_target.target_context
    usual = context.__class__
    context.refresh()
    context.__class__ = LoadedContext
    try:
        yield
    finally:
        context.__class__ = usual


@contextmanager
def _silent() -> Generator[None]:
    """Within the block LLVM's binding tells nobody of each call that it is made."""
    lock = llvm.ffi.lib._lock
    with lock._lock:
        told, lock._cblist = lock._cblist, []
    try:
        yield
    finally:
        with lock._lock:
            lock._cblist = told


def _plain(argument: Any) -> Any:
    return getattr(argument, "plain", types.unliteral(argument))


def kernel(function: Callable[..., Any], options: dict[str, Any], *, full: bool, apart: bool = False) -> Any:
    """A kernel, or what Numba makes of the function where this module is not known to fit.

    Args: see `Kernel`.
    """
    if not UNTRIED:
        return Kernel(function, options, full=full, apart=apart)
    dispatcher: Any = numba.njit(**options)(function)
    dispatcher._cache = Cache(dispatcher)
    return dispatcher


# ---------------------------------------------------------------------------------------------------------------------
# What is compiled, for those who watch


class _Watch(Listener):
    """Counts the kernels of the entry that is compiled. Numba compiles one at a time."""

    def __init__(self) -> None:
        self._entry: Any = None
        self._done = self._total = 0

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if self._entry is None and watchers:
            self._entry = dispatcher
            new = [each for each in reachable(dispatcher) if not getattr(each, "callee", each).overloads]
            self._done, self._total = 0, len(new) + 1  # one for making machine code of them all
            self._tell()

    def on_end(self, event: Any) -> None:
        if event.data["dispatcher"] is self._entry:
            self._done = self._total
            self._tell()
            self._entry = None
        elif self._entry is not None:
            self._done = min(self._done + 1, self._total - 1)
            self._tell()

    def _tell(self) -> None:
        for watcher in watchers:
            watcher(self._entry.py_func.__name__, self._done, self._total)


register("numba:compile", _Watch())


# ---------------------------------------------------------------------------------------------------------------------
# The cache


class Cache(NullCache):
    """What a dispatcher keeps on disk, by the content of all that was compiled.

    Numba's own cache is keyed by the file of the outermost function: it serves stale code when a callee in another file
    changes, and never hits for a function that a factory made from other kernels.
    """

    kind = ""  # after the names of functions

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._source = Path(dispatcher.py_func.__code__.co_filename)
        self._keys: dict[Any, str] = {}

    @cached_property
    def _store(self) -> Store | None:
        """None for a function without a file, typed in an interactive session: it is compiled every time."""
        return Store(self._source) if self._source.exists() else None

    @cached_property
    def _name(self) -> str:
        return re.sub(r"[^\w.]", "", f"{self._source.stem}.{self._dispatcher.py_func.__qualname__}")[-100:] + self.kind

    @contextmanager
    def turn(self, sig: Any) -> Generator[None]:
        """Within the block no other process compiles the same, if it is to be compiled."""
        with ExitStack() as stack:
            key = self._key(sig)
            if self._store and key and self._store.load(self._name, key) is None:
                stack.enter_context(self._store.turn(key, self._waiting))
            yield

    def _waiting(self) -> None:
        """Another process compiles it: nothing is known but that."""
        for watcher in watchers:
            watcher(self._dispatcher.py_func.__name__, 0, 1)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept for the types of the arguments; None if there is nothing, or nothing that is of use."""
        key = self._key(sig)
        data = self._store.load(self._name, key) if self._store and key else None
        if data is None:
            return None
        target_context.refresh()
        try:
            return self._restored(data, target_context)
        except Exception as error:
            log.info("%s is compiled again: %s: %s", self._name, type(error).__name__, error)
            return None

    def save_overload(self, sig: Any, cres: Any) -> None:
        """Keep what was compiled, unless it contains addresses of this process."""
        key = self._key(sig)
        parts = self._reduced(cres) if self._store and key else None
        if self._store and parts is not None:
            self._store.save(self._name, key, dumps(parts))

    def _restored(self, data: bytes, target_context: Any) -> Any:
        return CompileResult._rebuild(target_context, *pickle.loads(data))

    def _reduced(self, cres: Any) -> Any:
        """What is to be kept; None where that contains addresses."""
        return None if cres.library.has_dynamic_globals else cres._reduce()

    def is_proven(self, sig: Any) -> bool:
        """Whether some process has found that the function can be compiled for the types of the arguments."""
        key = self._key(sig)
        return self._store is not None and bool(key) and self._store.load(f"{self._name}.proven", key) is not None

    def prove(self, sig: Any) -> None:
        """Keep that it can."""
        key = self._key(sig)
        if self._store and key:
            self._store.save(f"{self._name}.proven", key, b"")

    def _key(self, sig: Any) -> str:
        """A digest of all that the machine code depends on; empty if that cannot be told."""
        args, _ = normalize_signature(sig)
        if args not in self._keys:
            target = self._dispatcher.targetctx.codegen().magic_tuple()
            settings = tuple(getattr(config, name) for name in _SETTINGS)
            try:
                self._keys[args] = fingerprint(_VERSIONS, target, settings, args, self._dispatcher)
            except Unknown as error:
                log.info("%s is not kept: %s", self._name, error)
                self._keys[args] = ""
        return self._keys[args]


_SIMULATED = "ixy.sim."  # kernels that are never part of one with a user's function


class CalleeCache(Cache):
    """The same for what other kernels take in: intermediate representation. A kernel that is new, as one with another
    function of the user's, so finds its devices' kernels typed and lowered, which is half of the work. That function
    itself changes all the time, and is not kept, nor is what it is part of."""

    kind = ".callee"

    def save_overload(self, sig: Any, cres: Any) -> None:
        """To be kept if a function of the user's calls it: what is only called by others is part of these."""
        cres.library.keep = partial(super().save_overload, sig, cres)

    def _restored(self, data: bytes, target_context: Any) -> Any:
        name, bitcode, raises, fndesc, signature, reload_init, environments = pickle.loads(data)
        for each in reload_init:
            each()
        library = CalleeLibrary(target_context.codegen(), name)
        library.load(bitcode)
        library.raises = raises
        parts = dict.fromkeys(CompileResult._fields)
        parts |= {"target_context": target_context, "typing_context": target_context.typing_context}
        parts |= {"library": library, "fndesc": fndesc, "signature": signature, "objectmode": False}
        parts |= {"reload_init": reload_init, "referenced_envs": environments, "entry_point": object()}
        return CompileResult(**parts)

    def _reduced(self, cres: Any) -> Any:
        module = cres.library.with_callees()
        names = [variable.name for variable in module.global_variables]
        if any(name.startswith("numba.dynamic.globals") for name in names):
            return None
        fndesc = copy.copy(cres.fndesc)
        fndesc.typemap = fndesc.calltypes = None
        environments = [each for each in map(lookup_environment, names) if each is not None]
        library = cres.library
        return library.name, module.as_bitcode(), library.raises, fndesc, cres.signature, cres.reload_init, environments


# Numba's settings that change what is compiled, and versions.
_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML")
_UNSEEN = (
    *("jitnumba", "jitpasses", "jittypes", "unsafe/views", "unsafe/filters", "bpf", "headers", "functions", "verdicts"),
    *("counts", "trouble", "unsafe/fetching"),
)
_VERSIONS = (
    sys.implementation.cache_tag,
    sys.version,
    numba.__version__,
    llvmlite.__version__,
    np.__version__,
    UNTRIED,
    # How kernels are compiled, and what packets, records and filters are made of; no function refers to that.
    *(hashlib.sha256((Path(__file__).parent / f"{name}.py").read_bytes()).hexdigest() for name in _UNSEEN),
)
