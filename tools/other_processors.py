"""What LLVM makes of a path's loop for processors that are not at hand: whether it finds vector instructions there too.

    python tools/other_processors.py [--batch 32] [--assembly DIRECTORY]

For each processor a line: how many instructions the loop has with all that is inlined into it, and how many of them
work on vectors. With `--assembly` they are written down, to be read.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from llvmlite import binding as llvm

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
PROCESSORS = {  # by LLVM's name: what it is an example of
    "x86-64": (X86, "SSE2"),
    "haswell": (X86, "AVX2"),
    "skylake-avx512": (X86, "AVX-512"),
    "znver4": (X86, "AVX-512"),
    "neoverse-n1": (ARM, "NEON"),
}
VECTORS = {X86: re.compile(r"%[xyz]mm\d"), ARM: re.compile(r"\bv\d+\.\d+[bhsd]\b|\bq\d+\b")}


def linked_loop(batch: int) -> str:
    """The intermediate representation of a path between two 82599s, with all that it calls, before it is optimised."""
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # what is cached is machine code already
    from ixy import jitpasses
    from ixy.device import open_device
    from ixy.path import Path as PacketPath
    from ixy.path import touch
    from ixy.sim.machine import Machine

    link, texts = jitpasses._link, []

    def note(module: Any, library: Any) -> None:
        link(module, library)
        if isinstance(library, jitpasses.EntryLibrary) and library.name.endswith("loop_one"):
            texts.append(str(module))

    jitpasses._link = note
    machine = Machine(stepped=True)
    with (
        open_device("sim:a", sim=machine, link_timeout=0) as a,
        open_device("sim:b", sim=machine, link_timeout=0) as b,
    ):
        PacketPath(a.rx[0], b.tx[0], touch, batch=batch).run(0)
    return texts[0]


def assembly(loop: str, triple: str, processor: str) -> str:
    """What becomes of the loop for a processor, by the passes that `ixy.jitpasses` runs."""
    target: Any = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3, jit=True)
    loop = re.sub(r'^target triple = ".*"', f'target triple = "{triple}"', loop, flags=re.MULTILINE)
    if triple == ARM:
        loop = re.sub(r"^.*@llvm\.x86\.sse2\.pause.*$", "", loop, flags=re.MULTILINE)  # there it is another instruction
    loop = re.sub(r'^target datalayout = ".*"', f'target datalayout = "{target.target_data}"', loop, flags=re.MULTILINE)
    module: Any = llvm.parse_assembly(loop)
    for function in module.functions:
        if not function.is_declaration and "loop_one" not in function.name:
            function.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    builder: Any = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return target.emit_assembly(module)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--assembly", type=Path)
    options = parser.parse_args()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    loop = linked_loop(options.batch)
    for processor, (triple, vectors) in PROCESSORS.items():
        text = assembly(loop, triple, processor)
        instructions = [line for line in text.splitlines() if re.match(r"\t[a-z]", line)]
        moves = sum(bool(VECTORS[triple].search(line)) for line in instructions)
        print(f"{processor:15} {vectors:8} {len(instructions)} instructions, {moves} of them on vectors")
        if options.assembly:
            options.assembly.mkdir(parents=True, exist_ok=True)
            (options.assembly / f"{processor}.s").write_text(text)


if __name__ == "__main__":
    main()
