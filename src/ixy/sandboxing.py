"""Privileges given up: `ixy.sandbox()`, which the commands call before their loop.

    with ixy.open("0000:03:00.0") as device:
        path = ixy.Path(device.rx[0], device.tx[0], touch)
        path.run(polls=0)    # which compiles it
        ixy.sandbox()

A driver needs many rights to open a device, and hardly one to use it: what follows is shared memory. So whoever takes
over a process by a packet finds no capabilities in it, cannot gain any, cannot start a program, and has few system
calls to make.

Three things of Linux do this, and each thread of the process has them: capabilities(7), seccomp(2), landlock(7). What
is not there is told, and the others do their part.

What a card may still do is a matter of its bus. Behind VFIO an IOMMU confines it. Behind sysfs it reads and writes all
of the machine's memory, and the process tells it where, so that to confine the process is a hurdle and no wall.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ixy import jitcache
from ixy.errors import Error, PermissionDenied
from ixy.unsafe import landlock, privileges
from ixy.unsafe.libseccomp import Filter, Rule

# ---------------------------------------------------------------------------------------------------------------------
# System calls

_WORD = 0xFFFF_FFFF
_THREAD = 0x0001_0000  # CLONE_THREAD of clone(2)
_MAKES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC  # flags of open(2) without all of which a file is only read
_UNIX = 1  # AF_UNIX
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_VFIO_IOCTLS, _VFIO_MASK = 0x3B60, 0xFFFF_FFE0  # all of linux/vfio.h
_NAMES = (15, 16, 0x5356_4D41)  # of threads and memory: PR_SET_NAME, PR_GET_NAME, PR_SET_VMA of prctl(2)

_MEMORY = "mmap munmap mremap mprotect madvise brk memfd_create fallocate ftruncate"
"""Pools that come and go, threads' stacks, and machine code of what is rare, which is compiled when it comes."""

_OPEN_FILES = (
    "read write readv writev pread64 pwrite64 preadv2 lseek close close_range fsync fdatasync fadvise64 fcntl flock "
    "dup dup2 dup3 pipe pipe2 eventfd2 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg accept accept4 shutdown "
    "getsockopt setsockopt getsockname getpeername"
)
"""Rings of the kernel, wires, captures, what is printed, and who asks on a socket that listens already."""

_LOOKING = (
    "fstat stat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd getdents64"
)
"""Whether files are there. Python asks so before it loads a module."""

_WAITING = (
    "poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 futex nanosleep "
    "clock_nanosleep clock_gettime clock_getres gettimeofday time getitimer setitimer timerfd_settime timerfd_gettime "
    "restart_syscall pause"
)
"""For packets, other threads, or the next second."""

_THREADS = (
    "exit exit_group set_robust_list get_robust_list rseq sched_yield sched_setaffinity sched_getaffinity membarrier "
    "getcpu gettid getpid set_tid_address"
)
"""Workers, each on its core. That new threads are threads and no processes, a rule says."""

_SIGNALS = "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait sigaltstack"
"""Ctrl-C."""

_ITSELF = (
    "getuid geteuid getgid getegid getgroups getresuid getresgid getppid getpgrp getpgid getsid uname sysinfo "
    "getrusage getrlimit times getrandom capget wait4 waitid"
)
"""What a process asks about itself, and the end of its children, guardians of cards."""

_MAKING = "rename renameat renameat2 mkdir mkdirat truncate"
_MEETING = "connect bind listen"
_REMOVING = "unlink unlinkat rmdir"

_GUARDIAN = (
    "poll ppoll recvmsg sendto sendmsg read write pread64 pwrite64 close fstat nanosleep clock_nanosleep clock_gettime "
    "brk mmap munmap mremap madvise futex rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack getpid exit exit_group "
    "restart_syscall"
)
"""Messages, memory that comes and goes, and at the end the card's configuration space and its reset."""


def _allowed(names: str) -> Iterator[Rule]:
    return map(Rule, dict.fromkeys(names.split()))


def _rules(files: bool, sockets: bool, leftovers: bool) -> Iterator[Rule]:
    """The system calls of a process that handles packets."""
    groups = [_MEMORY, _OPEN_FILES, _LOOKING, _WAITING, _THREADS, _SIGNALS, _ITSELF]
    groups += [_MAKING] if files else []
    groups += [_MEETING] if sockets else []
    groups += [_REMOVING] if files or sockets or leftovers else []
    yield from _allowed(" ".join(groups))
    reading = () if files else ((_MAKES, 0),)
    yield Rule("openat", tuple((2, mask, value) for mask, value in reading))
    yield Rule("open", tuple((1, mask, value) for mask, value in reading))
    yield Rule("clone", ((0, _THREAD, _THREAD),))
    yield Rule("prlimit64", ((0, _WORD, 0), (2, (1 << 64) - 1, 0)))  # its own limits, and not to set them
    yield from (Rule("prctl", ((0, _WORD, option),)) for option in _NAMES)
    yield from (Rule("ioctl", ((1, _WORD, request),)) for request in _IOCTLS)
    yield Rule("ioctl", ((1, _VFIO_MASK, _VFIO_IOCTLS),))
    yield Rule("tgkill", ((0, _WORD, os.getpid()),))
    yield from (Rule("kill", ((0, _WORD, process),)) for process in (os.getpid(), *_children()))
    if sockets:
        yield Rule("socket", ((0, _WORD, _UNIX),))


_ABSENT = ("clone3",)  # its flags lie in memory, where no filter looks; the C library takes clone instead


def _children() -> list[int]:
    """Processes that this one has started, and that run."""
    found: list[int] = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found


def guardian_filter() -> bytes | None:
    """The filter of a card's guardian, as the kernel takes it; None without libseccomp."""
    try:
        return Filter(_allowed(_GUARDIAN)).program()
    except Error:
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _code() -> list[Path]:
    """Where Python's modules are, ours, and machine code; and what the C library reads at times."""
    own = Path(__file__).parent
    found = [own.parent, Path(sys.prefix), Path(sys.base_prefix), *map(Path, site.getsitepackages())]
    found += map(Path, filter(None, sys.path[1:]))  # the first is the script's directory, where anything may lie
    found += jitcache.Store(own / "path.py").directories
    system = "/usr /lib /lib64 /etc/ld.so.cache /etc/localtime /dev/null /dev/urandom /proc/cpuinfo /sys/devices"
    return [*found, *map(Path, system.split())]


# ---------------------------------------------------------------------------------------------------------------------
# The whole

_DAC_OVERRIDE = 1  # CAP_DAC_OVERRIDE: root may make files where another user may


class Sandbox(NamedTuple):
    """What a process may still do.

    Attributes:
        capabilities: that it has kept.
        system_calls: how many it may make, some with certain arguments only; None for all.
        files: directories in which it may make, change and remove files.
        sockets: paths where it may listen; it may connect to any UNIX socket then.
        missing: what the system has not, in sentences: so far it is not confined.
    """

    capabilities: tuple[str, ...]
    system_calls: int | None
    files: tuple[str, ...]
    sockets: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        said = [f"{', '.join(self.capabilities)} alone" if self.capabilities else "no capabilities"]
        said += [] if self.system_calls is None else [f"{self.system_calls} system calls"]
        said += [f"makes files in {', '.join(self.files)}"] if self.files else []
        said += ["connects to UNIX sockets"] if self.sockets else []
        return "; ".join([*said, *self.missing])


_active: Sandbox | None = None
_leftovers: set[Path] = set()
_beforehand: list[Callable[[], None]] = []


def beforehand(work: Callable[[], None]) -> Callable[[], None]:
    """A decorator: the function is called before privileges are given up. It has kernels compiled that will be called
    in the end, by calls that change nothing, so that they are kept in the cache."""
    _beforehand.append(work)
    return work


def removes(path: Path) -> None:
    """A file or directory of this process's, such as a socket on which it listens, that it removes in the end: in a
    sandbox too. Root keeps CAP_DAC_OVERRIDE for that where the directory around it is another user's."""
    _leftovers.add(path.absolute())


def _is_among_anothers(path: Path) -> bool:
    """Whether a file is in a directory of another user's."""
    with suppress(OSError):
        return path.parent.stat().st_uid != os.geteuid()
    return False


def active() -> Sandbox | None:
    """What this process may still do, if it has given privileges up."""
    return _active


def privileged() -> bool:
    """Whether there is something to give up: this is root, or has capabilities."""
    return os.geteuid() == 0 or privileges.capabilities() != 0


def sandbox(*, files: Sequence[str | Path] = (), sockets: Sequence[str | Path] = ()) -> Sandbox:
    """Give up what a process does not need once its devices are open and its paths are compiled; for good, and in all
    of its threads. A second call changes nothing.

    What then asks for more gets a `PermissionError`: to open a file, but for reading Python's modules and those of the
    system's libraries; to open a socket, to start a program, to trace another process. What is compiled later is, but
    not kept in the cache.

    A device that was opened can be used and closed; to open another one is too late. A back end that has gone
    (vhost-user), and the other end of a cable of another process, are taken up again where `sockets` names their paths.

    Args:
        files: directories in which files are still made, changed and removed. Root keeps CAP_DAC_OVERRIDE then.
        sockets: paths of UNIX sockets that are still connected to or listened on. That a process connects to no other
            one nobody can see to: also to that of a service which does what it is told. Root keeps it likewise.

    Returns:
        What is possible still, and what the system lacks: without libseccomp, system calls are not filtered, and
        without Landlock, files are confined by their permissions alone.

    Raises:
        PermissionDenied: the kernel refuses, or a thread takes no signals.
    """
    global _active
    if _active is not None:
        return _active
    for work in _beforehand:
        work()
    elsewhere = bool(files or sockets) or any(map(_is_among_anothers, _leftovers))
    keeps = elsewhere and privileges.capabilities() >> _DAC_OVERRIDE & 1
    missing: list[str] = []
    chosen = _filter(missing, _rules(bool(files), bool(sockets), bool(_leftovers)))
    try:
        ruleset = _ruleset(files, sockets, missing)
        try:
            privileges.give_up(keeps << _DAC_OVERRIDE, ruleset)
        finally:
            if ruleset >= 0:
                os.close(ruleset)
        if chosen:
            chosen.load()
    except OSError as error:
        raise PermissionDenied(f"sandbox: {error.strerror}") from error
    jitcache.keep_no_more()
    _active = Sandbox(
        capabilities=("CAP_DAC_OVERRIDE",) if keeps else (),
        system_calls=len(chosen.names) if chosen else None,
        files=tuple(map(str, files)),
        sockets=tuple(map(str, sockets)),
        missing=tuple(missing),
    )
    return _active


def _filter(missing: list[str], rules: Iterator[Rule]) -> Filter | None:
    try:
        return Filter(rules, _ABSENT)
    except Error as error:
        missing.append(f"system calls are not filtered: {error}")
        return None


def _ruleset(files: Sequence[str | Path], sockets: Sequence[str | Path], missing: list[str]) -> int:
    """Of Landlock; below 0 if the kernel has none."""
    if not landlock.version():
        missing.append("files are confined by their permissions alone, as this kernel has no Landlock")
        return -1
    return landlock.new_ruleset(
        {
            landlock.READING: _code(),
            landlock.WRITING: map(Path, files),
            landlock.MEETING: {Path(path).absolute().parent for path in sockets},
            landlock.REMOVING: {path.parent for path in _leftovers},
        }
    )
