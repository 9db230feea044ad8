"""How kernels are compiled: all that ixy needs of Numba's internals.

Numba makes stand-alone machine code of every function, and once more of it within each of its callers. Kernels are
inlined into each other, and most of them nobody calls from Python: their own machine code is never used. So a kernel
has two sides. Called from another kernel it is a *callee*: typed, lowered to LLVM's intermediate representation, and
left at that. Called from Python it is an *entry*: all callees that it reaches are linked into it, once each, and the
whole is optimised and emitted once.

Other Numba functions may call kernels, and kernels them.
"""

# Numba's internals have no types.
# pyright: basic

from __future__ import annotations

import copy
import gc
import hashlib
import itertools
import logging
import operator
import os
import pickle
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding as llvm
from numba.core import config, types
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import NullCache
from numba.core.callconv import CPUCallConv, PythonErrorModel
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock, require_global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.cpu import CPUContext
from numba.core.datamodel.packer import ArgPacker
from numba.core.environment import lookup_environment
from numba.core.event import Listener, register
from numba.core.imputils import user_function
from numba.core.lowering import Lower
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)
from numba.cpython import numbers

from ixy.compiling import watchers
from ixy.jitcache import Store
from ixy.jitcontent import Unknown, fingerprint, reachable

log = logging.getLogger("ixy.jit")

TRIED = ("0.68",)  # minor versions of Numba
_TRIED_IT = numba.__version__.startswith(tuple(f"{version}." for version in TRIED))
UNTRIED = "" if _TRIED_IT else f"Numba {numba.__version__} was not tried; {', '.join(TRIED)} was"

# Numba tells functions of one name apart by a number in the names of their symbols, and counts from 1 in each process.
# Products of a factory that were cached by several processes would meet in another one under one symbol, and all but
# the first would run the first one's code: so each process begins elsewhere.
FunctionIdentity._unique_ids = itertools.count(next(FunctionIdentity._unique_ids) + int.from_bytes(os.urandom(6)))


# ---------------------------------------------------------------------------------------------------------------------
# Libraries: where the code of a function is kept


class KernelLibrary(JITCodeLibrary):
    def _optimize_functions(self, ll_module: Any) -> None:
        """Nothing is optimised before the whole is."""
        ll_module.data_layout = self._codegen._data_layout


class CalleeLibrary(KernelLibrary):
    """Intermediate representation of one kernel, which becomes machine code only within others.

    Attributes:
        personal: a function of the user's is part of it.
    """

    personal = False

    def finalize(self) -> None:
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        """The kernel with all that it calls, for a function that is compiled as Numba does it."""
        if self._shared_module is None:
            self._shared_module = self._final_module = self.with_callees()
        return self._shared_module

    def with_callees(self) -> Any:
        """A module of the kernel and of all that it calls."""
        module = self._final_module.clone()
        _link(module, self)
        for function in _defined(module):
            function.linkage = "linkonce_odr"
        return module

    def load(self, bitcode: bytes) -> None:
        """Take the bitcode of such a module."""
        self._shared_module = self._final_module = llvm.parse_bitcode(bitcode)
        self._finalized = True


class EntryLibrary(KernelLibrary):
    """Machine code of one kernel and of all that it calls."""

    def finalize(self) -> None:
        require_global_compiler_lock()
        self._codegen._check_llvm_bugs()
        self._raise_if_finalized()
        own = {function.name for function in _defined(self._final_module)}
        _link(self._final_module, self)
        # What nobody else can call may be dropped where it was inlined.
        for function in _defined(self._final_module):
            if function.name not in own:
                function.linkage = "internal"
        # Twice: the first time takes in what is called, and only then are loops seen as what they are. It saves a tenth
        # of what a packet costs.
        for _ in range(2):
            passes, builder = self._codegen._module_pass_manager()
            passes.run(self._final_module, builder)
        self._final_module.verify()
        self._finalize_final_module()

    def set_environments(self, codegen: Any) -> None:
        """Let the code that was linked in find its Python constants."""
        for variable in self._final_module.global_variables:
            environment = lookup_environment(variable.name)
            if environment is not None:
                codegen.set_env(variable.name, environment)

    def serialize_using_object_code(self) -> tuple[str, str, tuple[bytes, bytes]]:
        """The library as the cache keeps it. Nobody links an entry, so instead of its module there are the names."""
        names = [function.name for function in _defined(self._final_module) if function.linkage.name == "external"]
        text = "\n".join(f'define void @"{name}"() {{ ret void }}' for name in names)
        return self.name, "object", (self._get_compiled_object(), llvm.parse_assembly(text).as_bitcode())


def _defined(module: Any) -> Iterator[Any]:
    return (function for function in module.functions if not function.is_declaration)


def _link(module: Any, library: Any) -> None:
    """Link all that `library` calls into its `module`, each library once.

    Callers come before what they call: a function that may be dropped (linkonce_odr) is dropped if nothing in the
    module refers to it yet.
    """
    for other in _callers_first(library):
        library._reload_init.update(other._reload_init)
        single = isinstance(other, CalleeLibrary) and other._shared_module is None
        module.link_in(other._final_module if single else other._get_module_for_linking(), preserve=True)


def _callers_first(library: Any) -> list[Any]:
    """The libraries that `library` calls, directly or through callees."""
    seen: set[Any] = set()
    finished: list[Any] = []

    def visit(caller: Any) -> None:
        for other in caller._linking_libraries:
            if other not in seen:
                seen.add(other)
                if isinstance(other, CalleeLibrary):
                    visit(other)
                finished.append(other)

    visit(library)
    return finished[::-1]


# ---------------------------------------------------------------------------------------------------------------------
# Operators

# For each place where an operator stands, and once more to lower it, Numba tries one by one what the operator may mean.
# What those of numbers and arrays mean follows from the types alone.
_OPERATORS = {each for each in vars(operator).values() if callable(each)}
_SIMPLE = types.Number | types.Boolean | types.Array
_meanings: dict[tuple[Any, tuple[Any, ...]], Any] = {}
_functions: Any = types.Function
_find_meaning = _functions.get_call_type


def _meaning(function: Any, context: Any, args: Any, kws: Any) -> Any:
    """The signature of a function for arguments of these types."""
    if function.typing_key not in _OPERATORS or kws or not all(isinstance(each, _SIMPLE) for each in args):
        return _find_meaning(function, context, args, kws)
    key = function, tuple(args)
    if key not in _meanings:
        _meanings[key] = _find_meaning(function, context, args, kws)
    return _meanings[key]


if not UNTRIED:
    _functions.get_call_type = _meaning


# ---------------------------------------------------------------------------------------------------------------------
# Passes


class DivisionByZero(PythonErrorModel):
    """Raises `ZeroDivisionError`, with a traceback to the line that is lowered."""

    def __init__(self, lower: Lower) -> None:
        super().__init__(lower.call_conv)
        self._lower = lower

    def fp_zero_division(self, builder: Any, exc_args: Any = None, loc: Any = None) -> bool:
        return super().fp_zero_division(builder, exc_args, loc or self._lower.loc)


class KernelLower(Lower):
    """Lowering of what may divide by zero, if the function is one that is to raise then. Kernels that are called have
    no addresses: those of this process would keep what calls them out of the cache."""

    def init(self) -> None:
        super().init()
        if self.context.error_model.raise_on_fp_zero_division:
            self.context.error_model = DivisionByZero(self)

    def lower_assign(self, ty: Any, inst: Any) -> Any:
        if isinstance(ty, types.Dispatcher):
            return self.context.get_dummy_value()
        return super().lower_assign(ty, inst)


class WholeTuples:
    """Models of data, by which a tuple is one argument.

    Numba hands over each word of a tuple by itself. To take one apart and to put it together again is work for who
    lowers, prints, parses, and for LLVM, which finds out that it was in vain once the kernel is inlined.
    """

    def __init__(self, models: Any) -> None:
        self._models = models

    def lookup(self, kind: Any) -> Any:
        model = self._models.lookup(kind)
        return WholeTuple(model) if isinstance(kind, types.BaseTuple) else model


class WholeTuple:
    def __init__(self, model: Any) -> None:
        self.get_argument_type = model.get_value_type

    def as_argument(self, _builder: Any, value: Any) -> Any:
        return value

    def from_argument(self, _builder: Any, value: Any) -> Any:
        return value


class InlineConvention(CPUCallConv):
    """How kernels are called that are inlined."""

    def _get_arg_packer(self, argtypes: Any) -> ArgPacker:
        return ArgPacker(WholeTuples(self.context.data_model_manager), argtypes)


class InliningContext(CPUContext):
    """Where functions are declared and called by that convention."""

    @property
    def call_conv(self) -> InlineConvention:
        return InlineConvention(self)


@cache
def _inlining() -> Any:
    context: Any = copy.copy(cpu_target.target_context)
    context.__class__ = InliningContext
    return context


def _calling(cres: Any) -> Any:
    """What lowers a call of a callee."""
    usual = user_function(cres.fndesc, [cres.library])

    def call(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return usual(_inlining(), builder, signature, args)

    call.signature, call.libs = usual.signature, usual.libs
    return call if cres.fndesc.inline else usual


class CalleeLower(KernelLower):
    """Lowering that keeps LLVM from inlining what is not to be inlined, even where it has one caller, and lets what is
    lowered know the line of the source, for exceptions, and what the function is given. Integers of a checked
    function, such as a user's, wrap around."""

    def setup_function(self, fndesc: Any) -> None:
        context = self.context
        if fndesc.inline:
            self.context = _inlining()
        super().setup_function(fndesc)
        self.context = context
        if not fndesc.inline:
            self.function.attributes.add("noinline")
            self.function.attributes.add("cold")

    def extract_function_arguments(self) -> Any:
        convention = _inlining().call_conv if self.fndesc.inline else self.call_conv
        self.fnargs = convention.decode_arguments(self.builder, self.fndesc.argtypes, self.function)
        return self.fnargs

    def lower(self) -> None:
        self._ours = self.func_ir.func_id.modname.partition(".")[0] == "ixy"
        with _arithmetic(_no_overflow if self.unchecked else _wraps):
            super().lower()

    def lower_inst(self, inst: Any) -> None:
        self.context.lowered = self  # each time: another function may have been compiled meanwhile
        super().lower_inst(inst)

    @property
    def unchecked(self) -> bool:
        """Whether it is one of ours that needs no checks."""
        return self._ours and not self.context.enable_boundscheck


# Numba promises LLVM that integers do not overflow, and LLVM leaves out a mask that would change nothing then.
# Those of checked functions are added, subtracted and multiplied modulo 2**64: where the result is masked, as in the
# interpreter.
_no_overflow: Callable[[Any], list[str]] = numbers._int_arith_flags


def _wraps(_kind: Any) -> list[str]:
    return []


@contextmanager
def _arithmetic(flags: Callable[[Any], list[str]]) -> Generator[None]:
    """Within the block arithmetic is lowered with these flags."""
    before = numbers._int_arith_flags
    numbers._int_arith_flags = flags
    try:
        yield
    finally:
        numbers._int_arith_flags = before


@register_pass(mutates_CFG=True, analysis_only=False)
class CalleeLowering(NativeLowering):
    _name = "ixy_callee_lowering"

    @property
    def lowering_class(self) -> Any:
        return CalleeLower

    def run_pass(self, state: Any) -> bool:
        state.library = CalleeLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        called = (each for each in state.library._linking_libraries if isinstance(each, CalleeLibrary))
        state.library.personal = isinstance(state.pipeline, FullCompiler) or any(each.personal for each in called)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class EntryLowering(NativeLowering):
    _name = "ixy_entry_lowering"

    @property
    def lowering_class(self) -> Any:
        return KernelLower

    def run_pass(self, state: Any) -> bool:
        state.library = EntryLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        super().run_pass(state)
        state.library.set_environments(state.targetctx.codegen())
        return True


class Passes(PassManager):
    """Passes that are run and no more. Numba tells of each who listens, with all options in words, whoever listens."""

    def _runPass(self, _index: int, pss: Any, state: Any) -> None:  # noqa: N802
        pss.analysis = self._analysis
        pss.run_pass(state)


class Compiler(CompilerBase):
    """The passes of a kernel: those that one needs which creates no closures and computes with no whole arrays."""

    lowering: Any
    manager = Passes
    front = (
        TranslateByteCode,
        FixupArgs,
        IRProcessing,
        RewriteSemanticConstants,
        DeadBranchPrune,
        GenericRewrites,
        ReconstructSSA,
        NopythonTypeInference,
        PreLowerStripPhis,
        IRLegalization,
    )

    def define_pipelines(self) -> list[PassManager]:
        manager = self.manager("kernel")
        for compiler_pass in self.passes():
            manager.add_pass(compiler_pass, compiler_pass.__name__)
        manager.finalize()
        return [manager]

    def passes(self) -> Iterable[Any]:
        return (*self.front, self.lowering, NoPythonBackend)


class FullCompiler(Compiler):
    """All passes of Numba, for a user's function."""

    manager = PassManager

    def passes(self) -> Iterable[Any]:
        usual = DefaultPassBuilder.define_nopython_pipeline(self.state).passes
        return (self.lowering if each is NativeLowering else each for each, _ in usual)


class CalleeCompiler(Compiler):
    lowering = CalleeLowering


class ApartCalleeCompiler(CalleeCompiler):
    """That of a function whose arrays have no memory in common."""

    def define_pipelines(self) -> list[PassManager]:
        self.state.flags.noalias = True
        return super().define_pipelines()


class EntryCompiler(Compiler):
    lowering = EntryLowering


class FullCalleeCompiler(FullCompiler):
    lowering = CalleeLowering


class FullEntryCompiler(FullCompiler):
    lowering = EntryLowering


# ---------------------------------------------------------------------------------------------------------------------
# Dispatchers: functions by the types of their arguments


class Callee(CPUDispatcher):
    """A kernel as other functions see it. Python cannot call it."""

    def add_overload(self, cres: Any) -> None:
        name = object()  # by which callers find it, as there is no function that Python could call
        implementation = _calling(cres)
        self.targetctx._defns[name].append(implementation, implementation.signature)
        self.overloads[tuple(cres.signature.args)] = cres._replace(entry_point=name)


class Kernel(CPUDispatcher):
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
        if not self._full and not self.py_func.__module__.startswith(_APART):
            callee._cache = CalleeCache(callee)
        return callee

    @property
    def is_compiling(self) -> bool:
        """Whether a call of the kernel in what is compiled now is a recursion."""
        return bool(self._compiling_counter) or bool(self.callee.is_compiling)

    def compile(self, sig: Any) -> Any:
        with global_compiler_lock, _uncollected(), self._cache.turn(sig):
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

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        function = dispatcher.py_func
        source = Path(function.__code__.co_filename)
        # A function without a file, typed in an interactive session, is compiled every time.
        self._store = Store(source) if source.exists() else None
        self._name = re.sub(r"[^\w.]", "", f"{source.stem}.{function.__qualname__}")[-100:]
        self._keys: dict[Any, str] = {}

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


_APART = "ixy.sim."  # kernels that are never part of one with a user's function


class CalleeCache(Cache):
    """The same for what other kernels take in: intermediate representation. A kernel that is new, as one with another
    function of the user's, so finds its devices' kernels typed and lowered, which is half of the work. That function
    itself changes all the time, and is not kept, nor is what it is part of."""

    def __init__(self, dispatcher: Any) -> None:
        super().__init__(dispatcher)
        self._name += ".callee"

    def save_overload(self, sig: Any, cres: Any) -> None:
        if not cres.library.personal:
            super().save_overload(sig, cres)

    def _restored(self, data: bytes, target_context: Any) -> Any:
        name, bitcode, fndesc, signature, reload_init, environments = pickle.loads(data)
        for each in reload_init:
            each()
        library = CalleeLibrary(target_context.codegen(), name)
        library.load(bitcode)
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
        return cres.library.name, module.as_bitcode(), fndesc, cres.signature, cres.reload_init, environments


# Numba's settings that change what is compiled, and versions.
_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML")
_UNSEEN = (
    *("jitnumba", "jittypes", "unsafe/views", "unsafe/filters", "bpf", "headers", "functions", "verdicts", "counts"),
    *("trouble", "unsafe/fetching"),
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
