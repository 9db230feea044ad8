"""The initial RAM disk: it mounts the host's files for the guest and starts the agent that runs commands."""

from __future__ import annotations

import stat
from pathlib import Path

from harness.packages import Kernel

# What stands between a bare Debian kernel and the host's files.
_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")

# The guest sees the host's root read-only, with a layer of memory above it that takes what is written.
_INIT = """#!/bin/busybox sh
busybox=/bin/busybox
$busybox mkdir -p /proc /lower /layer /root
$busybox mount -t proc proc /proc
for module in $($busybox cat /modules.order); do $busybox insmod /modules/$module; done
options=trans=virtio,version=9p2000.L,msize=512000
$busybox mount -t 9p -o $options,ro,cache=loose host /lower
$busybox mount -t tmpfs layer /layer
$busybox mkdir /layer/upper /layer/work
$busybox mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /root
$busybox mount -t proc proc /root/proc
$busybox mount -t sysfs sys /root/sys
$busybox mount -t devtmpfs dev /root/dev
$busybox mkdir -p /root/dev/pts /root/dev/shm
$busybox mount -t devpts pts /root/dev/pts
$busybox mount -t tmpfs shm /root/dev/shm
$busybox mount -t tmpfs run /root/run
cd /root/run
$busybox mkdir share kept modules bin
$busybox mount -t 9p -o $options,cache=none share share
$busybox mount -t 9p -o $options,cache=none kept kept
$busybox mount -t 9p -o $options,ro,cache=loose modules modules
$busybox mkdir -p /root/lib/modules
$busybox mount -o bind modules /root/lib/modules
$busybox cp /bin/busybox /agent bin
$busybox chroot /root /run/bin/busybox --install -s /run/bin
exec $busybox switch_root /root /run/bin/agent
"""

# One line in: the number of a command, or what to do with the machine. One line out: the number and the exit code. A
# child's death makes this shell forget the half of a line that it has read, so commands become children of the first
# process, which reads nothing.
_AGENT = """#!/run/bin/busybox sh
[ $$ = 1 ] && { $0 & wait; }
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/bin HOME=/root LANG=C.UTF-8
export NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES= NUMBA_CACHE_DIR=/run/kept
echo /run/bin/modprobe > /proc/sys/kernel/modprobe
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo ready >&3
while read -r number <&3; do
    case "$number" in poweroff | reboot) /run/bin/busybox $number -f ;; esac
    (
        cd /run/share/$number
        { sh ./command >output 2>&1 3>&- </dev/null; echo $number $? >&3; } &
    )
done
"""


def build(kernel: Kernel, busybox: Path) -> bytes:
    """The RAM disk as a cpio archive."""
    order = _module_order(kernel)
    files = {
        "bin/busybox": busybox.read_bytes(),
        "init": _INIT.encode(),
        "agent": _AGENT.encode(),
        "modules.order": "\n".join(path.name for path in order).encode(),
    }
    files |= {f"modules/{path.name}": path.read_bytes() for path in order}
    return _cpio(["bin", "modules"], files)


def _module_order(kernel: Kernel) -> list[Path]:
    """The files of `_MODULES` and of all that they depend on, in the order in which they can be loaded."""
    index = {}
    for line in (kernel.module_directory / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        index[Path(path).stem] = [path, *needs.split()]
    order: dict[str, None] = {}
    for name in _MODULES:
        order |= dict.fromkeys(reversed(index[name]))
    return [kernel.module_directory / path for path in order]


def _cpio(directories: list[str], files: dict[str, bytes]) -> bytes:
    """An archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""
    entries = [_entry(name, stat.S_IFDIR | 0o755, b"") for name in directories]
    entries += [_entry(name, stat.S_IFREG | 0o755, data) for name, data in files.items()]
    return b"".join(entries) + _entry("TRAILER!!!", 0, b"")


def _entry(name: str, mode: int, data: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    inode, owner, group, links, time, major, minor = 0, 0, 0, 1, 0, 0, 0
    fields = (inode, mode, owner, group, links, time, len(data), major, minor, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    """Both parts of an entry end on a multiple of four bytes."""
    return data + bytes(-len(data) % 4)
