"""How kernels become machine code: what Numba does with a function, as far as kernels need it, and quicker.

Numba makes stand-alone machine code of every function, and once more of it within each of its callers. Kernels are
inlined into each other, and most of them nobody calls from Python: their own machine code is never used. So a *callee*
is typed, lowered to LLVM's intermediate representation, and left at that. An *entry* is what Python calls: all callees
that it reaches are linked into it, once each, and the whole is optimised and emitted once.

On the way Numba serves any function. Kernels are simple: they count no references, have no `with` and no closures, and
most raise nothing. So passes are left out, and what is known is not found out again.
"""

# Numba's internals have no types.
# pyright: basic

from __future__ import annotations

import copy
import itertools
import operator
import os
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
from llvmlite import binding as llvm
from llvmlite.ir.instructions import Ret
from numba.core import base, cgutils, ir, types
from numba.core.bytecode import FunctionIdentity
from numba.core.callconv import CPUCallConv, PythonErrorModel
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import require_global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.cpu import CPUContext
from numba.core.datamodel.packer import ArgPacker
from numba.core.environment import lookup_environment
from numba.core.errors import (
    ForceLiteralArg,
    NumbaWarning,
    TypingError,
    WarningsFixer,  # pyright: ignore[reportAttributeAccessIssue]
)
from numba.core.extending import _Intrinsic
from numba.core.imputils import lower_builtin, user_function
from numba.core.interpreter import Interpreter, peep_hole_delete_with_exit
from numba.core.ir_utils import build_definitions
from numba.core.lowering import Lower
from numba.core.registry import cpu_target
from numba.core.rewrites.registry import rewrite_registry
from numba.core.ssa import reconstruct_ssa
from numba.core.transforms import canonicalize_cfg
from numba.core.typed_passes import (
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.typeinfer import ConstraintNetwork, TypeInferer, TypeVarMap
from numba.core.typing.templates import signature
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)
from numba.cpython import numbers

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
        raises: it may raise an exception.
        keep: has the cache keep it, once.
    """

    personal = False
    raises = True
    keep: Callable[[], None] | None = None

    def add_llvm_module(self, ll_module: Any) -> None:
        """Take the kernel's module, the only one, as it is."""
        self._optimize_functions(ll_module)
        self._final_module = ll_module

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
# What those of numbers and arrays mean follows from the types alone, and so does what an intrinsic means.
_OPERATORS = {bool, range, *(each for each in vars(operator).values() if callable(each))}
_SIMPLE = types.Number | types.Boolean | types.Array
_meanings: dict[tuple[Any, tuple[Any, ...]], Any] = {}
_functions: Any = types.Function
_find_meaning = _functions.get_call_type


def _meaning(function: Any, context: Any, args: Any, kws: Any) -> Any:
    """The signature of a function for arguments of these types."""
    name, args = function.typing_key, tuple(args)
    if kws or not (isinstance(name, _Intrinsic) or all(isinstance(each, _SIMPLE) for each in args)):
        return _find_meaning(function, context, args, kws)
    if (function, args) not in _meanings:
        meaning = _of_integers(function, context, args) or _find_meaning(function, context, args, kws)
        if not (name in _OPERATORS or name in _INTEGERS or isinstance(name, _Intrinsic)):
            return meaning
        _meanings[function, args] = meaning
    return _meanings[function, args]


def _of_integers(function: Any, context: Any, args: tuple[Any, ...]) -> Any:
    """The signature of `int`, `min` and `max` of integers, for which Numba compiles functions, for each types anew;
    None of others."""
    name = function.typing_key
    if len(args) != _INTEGERS.get(name) or not all(isinstance(each, types.Integer) for each in args):
        return None
    kind = context.unify_types(*(types.unliteral(each) for each in args))
    if not isinstance(kind, types.Integer):
        return None
    meaning = signature(kind, *[kind] * len(args))
    function._impl_keys[meaning.args] = f"ixy.{name.__name__}"
    return meaning


_INTEGERS = {int: 1, min: 2, max: 2}  # of how many


@lower_builtin("ixy.int", types.Integer)
def _integer(_context: Any, _builder: Any, _signature: Any, args: Any) -> Any:
    return args[0]


def _choice(name: str, sign: str) -> None:
    """Lower the choice of one of two integers: the other one if it compares so to it."""

    @lower_builtin(name, types.Integer, types.Integer)
    def choose(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, other = args
        compare = builder.icmp_signed if signature.return_type.signed else builder.icmp_unsigned
        return builder.select(compare(sign, other, one), other, one)


_choice("ixy.min", "<")
_choice("ixy.max", ">")


if not UNTRIED:
    _functions.get_call_type = _meaning
    base._has_loc = cache(base._has_loc)  # how an operator is lowered: each time its function's signature is looked at


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

    def _find_singly_assigned_variable(self) -> None:
        """Variables that need no memory: those that are assigned at one place only, which dominates all uses (SSA)."""
        assigned = Counter(each.target.name for block in self.blocks.values() for each in block.find_insts(ir.Assign))
        self._singly_assigned_vars = {name for name, places in assigned.items() if places == 1}
        self._blk_local_varmap: dict[str, Any] = {}

    def loadvar(self, name: str) -> Any:
        """The value of a variable."""
        if name in self._blk_local_varmap:
            return self._blk_local_varmap[name]
        self._singly_assigned_vars.discard(name)  # the use comes before the assignment, in a loop
        return self.builder.load(self.getvar(name))

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:  # noqa: ARG002
        """Let a variable have a value. What it had needs no care, as nothing is counted."""
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def delvar(self, name: str) -> None:
        """Nothing is counted."""

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:  # noqa: ARG002
        """Memory of a variable, of which no debugger is told."""
        return cgutils.alloca_once(self.builder, lltype, name=name)

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


def calling(cres: Any) -> Any:
    """What lowers a call of a callee."""
    fndesc = cres.fndesc
    usual = user_function(fndesc, [cres.library])

    def call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context = _inlining() if fndesc.inline else context
        if cres.library.raises:
            return usual(context, builder, signature, args)
        function = context.declare_function(builder.module, fndesc)
        return _call_quietly(context, builder, function, fndesc, args)

    call.signature, call.libs = usual.signature, usual.libs
    return call


def _call_quietly(context: Any, builder: Any, function: Any, fndesc: Any, args: Any) -> Any:
    """Call what raises nothing: its status need not be looked at."""
    result, exception = (each.type for each in function.args[:2])
    slot = cgutils.alloca_once(builder, result.pointee)
    arguments = context.call_conv._get_arg_packer(fndesc.argtypes).as_arguments(builder, args)
    builder.call(function, [slot, exception(None), *arguments])
    return context.get_returned_value(builder, fndesc.restype, builder.load(slot))


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

    def post_lower(self) -> None:
        super().post_lower()
        ends = [each.terminator for each in self.function.blocks if isinstance(each.terminator, Ret)]
        self.library.raises = any(getattr(end.operands[0], "constant", None) != 0 for end in ends)

    def lower_block(self, block: Any) -> None:
        """As Numba does, but for the errors' context, which nobody is told of kernels that are ours."""
        if not self.unchecked:
            super().lower_block(block)
            return
        for inst in block.body:
            self.loc = inst.loc
            self.lower_inst(inst)

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
        state.library.personal = _is_personal(state)
        return True


def _is_personal(state: Any) -> bool:
    """Whether a function of the user's is part of what was lowered. If so, what others may meet again of what it calls
    is kept."""
    called = [each for each in state.library._linking_libraries if isinstance(each, CalleeLibrary)]
    personal = isinstance(state.pipeline, FullCompiler) or any(each.personal for each in called)
    for each in called:
        if personal and each.keep and not each.personal:
            each.keep()
            each.keep = None
    return personal


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
        _is_personal(state)
        state.library.set_environments(state.targetctx.codegen())
        return True


class Variables(TypeVarMap):
    """The types of variables as far as they are known; which were looked at is noted."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self.set_context(context)
        self.noted: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        variable = self.noted[name] = super().__getitem__(name)
        return variable


class Constraints(ConstraintNetwork):
    """What the types of variables follow from. Numba looks at all again until nothing changes; here only those are
    looked at again whose variables have changed since."""

    def __init__(self) -> None:
        super().__init__()
        self._known: list[tuple[Any, ...] | None] = []

    def append(self, constraint: Any) -> None:
        super().append(constraint)
        self._known.append(None)

    def propagate(self, typeinfer: Any) -> list[Exception]:
        errors: list[Exception] = []
        for i, constraint in enumerate(self.constraints):
            known = self._known[i]
            if known is not None and all(variable.type is kind for variable, kind in known):
                continue
            typeinfer.typevars.noted.clear()
            try:
                constraint(typeinfer)
            except (ForceLiteralArg, TypingError) as error:
                errors.append(error)
            else:
                self._known[i] = _types_of(typeinfer.typevars.noted.values())
        return errors


def _types_of(variables: Collection[Any]) -> tuple[tuple[Any, Any], ...] | None:
    """What variables are known to be; None if that does not say all, as it is a recursion."""
    if any(isinstance(each.type, types.RecursiveCall) for each in variables):
        return None
    return tuple((each, each.type) for each in variables)


@register_pass(mutates_CFG=True, analysis_only=False)
class Inference(NopythonTypeInference):
    """The types of variables."""

    _name = "ixy_inference"

    def run_pass(self, state: Any) -> bool:
        warnings = WarningsFixer(NumbaWarning)
        infer = TypeInferer(state.typingctx, state.func_ir, warnings)
        infer.typevars, infer.constraints = Variables(state.typingctx), Constraints()
        with state.typingctx.callstack.register(state.targetctx.target, infer, state.func_id, state.args):
            for index, (name, kind) in enumerate(zip(state.func_ir.arg_names, state.args, strict=True)):
                infer.seed_argument(name, index, kind)
            infer.build_constraint()
            infer.propagate()
            state.typemap, state.return_type, state.calltypes = infer.unify()
        return True


class KernelInterpreter(Interpreter):
    """From byte code to Numba's intermediate representation, without a search for `with`."""

    def post_process(self, peepholes: list[Any], func_ir: Any) -> Any:
        return super().post_process([each for each in peepholes if each is not peep_hole_delete_with_exit], func_ir)


@register_pass(mutates_CFG=True, analysis_only=False)
class Translation(TranslateByteCode):
    """Translation to Numba's intermediate representation, in which each loop goes back from one place."""

    _name = "ixy_translation"

    def run_pass(self, state: Any) -> bool:
        state.func_ir = KernelInterpreter(state.func_id).interpret(state.bc)
        state.func_ir.blocks = canonicalize_cfg(state.func_ir.blocks)
        state.func_ir.generator_info = None
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class Rewrites(GenericRewrites):
    """Rewriting of what has constants."""

    _name = "ixy_rewrites"

    def run_pass(self, state: Any) -> bool:
        blocks = state.func_ir.blocks
        for kind in rewrite_registry.rewrites["before-inference"]:
            rewrite, left = kind(state), list(blocks.items())
            while left:
                key, block = left.pop()
                if rewrite.match(state.func_ir, block, state.typemap, state.calltypes):
                    blocks[key] = rewrite.apply()
                    left.append((key, blocks[key]))
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class SingleAssignment(ReconstructSSA):
    """Each variable is assigned at one place."""

    _name = "ixy_single_assignment"

    def run_pass(self, state: Any) -> bool:
        reconstruct_ssa(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class StripPhis(PreLowerStripPhis):
    """But where ways meet, the last thing that each has done is an assignment."""

    _name = "ixy_strip_phis"

    def run_pass(self, state: Any) -> bool:
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
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
        Translation,
        FixupArgs,
        RewriteSemanticConstants,
        DeadBranchPrune,
        Rewrites,
        SingleAssignment,
        Inference,
        StripPhis,
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
