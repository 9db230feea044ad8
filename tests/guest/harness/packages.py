"""What a guest is made of: QEMU, installed by Debian's package manager; a Debian kernel and a static busybox, unpacked.

Nothing but QEMU is installed. Packages are downloaded once, unpacked under `.cache/guest` of the checkout, and kept.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "guest"


class HarnessError(Exception):
    """The guest cannot be made or does not do what it must; the message says why and shows its logs."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked Debian kernel.

    Attributes:
        image: the uncompressed ELF image, which boots by PVH without a decompressor.
        modules: the root under which `lib/modules/VERSION` lies.
        version: as `uname -r` prints it.
    """

    image: Path
    modules: Path
    version: str

    @property
    def module_directory(self) -> Path:
        return self.modules / "lib" / "modules" / self.version


def qemu() -> str:
    """QEMU's program; installed if it is missing and this process may."""
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        if os.geteuid() != 0:
            raise HarnessError("QEMU is missing; run: sudo apt-get install --no-install-recommends qemu-system-x86")
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", "qemu-system-x86")
        program = shutil.which("qemu-system-x86_64")
    if program is None:
        raise HarnessError("qemu-system-x86 is installed but gives no qemu-system-x86_64")
    return program


def busybox() -> Path:
    """A statically linked busybox."""
    return _unpacked("busybox-static", lambda _: None) / "bin" / "busybox"


def ipxe() -> Path:
    """iPXE in the form of a Linux kernel, which QEMU's `-kernel` starts."""
    return _unpacked("ipxe", lambda _: None) / "boot" / "ipxe.lkrn"


def kernel() -> Kernel:
    """Debian's kernel, ready to boot, with an index of its modules."""
    kept = sorted(CACHE.glob("linux-image-*"))
    tool = busybox()
    root = kept[-1] if kept else _unpacked(_kernel_package(), lambda root: _prepare_kernel(root, tool))
    return Kernel(root / "vmlinux", root, root.name.removeprefix("linux-image-"))


def _kernel_package() -> str:
    """The package that Debian's `linux-image-amd64` stands for, such as `linux-image-6.1.0-37-amd64`."""
    for line in _apt_cache("depends", "linux-image-amd64").splitlines():
        if (words := line.split())[:1] == ["Depends:"]:
            return words[1]
    raise HarnessError("linux-image-amd64 names no kernel package")


def _prepare_kernel(root: Path, tool: Path) -> None:
    """Extract the ELF image and index the modules, which installing the package would have done."""
    (packed,) = (root / "boot").glob("vmlinuz-*")
    (root / "vmlinux").write_bytes(_extract_image(packed.read_bytes()))
    version = packed.name.removeprefix("vmlinuz-")
    subprocess.run([tool, "depmod", "-b", root, version], check=True)


def _extract_image(packed: bytes) -> bytes:
    """The ELF file inside a bzImage (Linux Documentation/x86/boot.rst: setup_sects, payload_offset)."""
    setup_size = (packed[0x1F1] + 1) * 512
    payload = setup_size + int.from_bytes(packed[0x248:0x24C], "little")
    return lzma.LZMADecompressor().decompress(packed[payload:])


def _unpacked(package: str, prepare: Callable[[Path], None]) -> Path:
    """The directory with the package's files, after `prepare` has worked on it once."""
    target = CACHE / package
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=CACHE, prefix=".unpack-") as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        root = Path(scratch) / "root"
        _ensure_lists(package)
        _apt("download", package, directory=Path(scratch))
        (archive,) = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
        prepare(root)
        root.rename(target)
    return target


def _ensure_lists(package: str) -> None:
    """Let apt know of `package`: a fresh machine has no package lists."""
    if _knows(package):
        return
    if os.geteuid() != 0:
        raise HarnessError(f"apt knows no {package}; run: sudo apt-get update")
    _apt("update")


def _knows(package: str) -> bool:
    return subprocess.run(["apt-cache", "show", package], capture_output=True).returncode == 0


def _apt_cache(*arguments: str) -> str:
    _ensure_lists(arguments[-1])
    return subprocess.run(["apt-cache", *arguments], capture_output=True, text=True, check=True).stdout


def _apt(*arguments: str, directory: Path | None = None) -> None:
    """Run apt-get, which Debian and its kin have."""
    command = ["apt-get", "--quiet", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise HarnessError("the guest tests are made from Debian packages and need apt-get") from None
    if done.returncode:
        raise HarnessError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
