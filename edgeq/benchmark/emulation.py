"""Whether this machine is emulated: its results are then right, and its speed says nothing.

Emulated means that another kind of processor runs the instructions in software (QEMU without KVM). A virtual
machine on its own kind of processor is not emulated, only noisy.
"""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["emulation"]

_ARM = ("aarch64", "arm64", "armv7l", "armv6l")


def emulation(root: Path = Path("/"), *, machine: str | None = None) -> str | None:
    """What emulates this machine, in words; None: nothing is known to.

    Args:
        root: of the file system; another one in tests.
        machine: as ``platform.machine()``; another one in tests.
    """
    kind = machine or platform.machine()
    cpuinfo = _text(root / "proc/cpuinfo")
    if kind in _ARM and "vendor_id" in cpuinfo:
        # User-mode emulation passes the host's file through: an ARM kernel never writes this key.
        return "qemu user mode on another kind of processor"
    if _has_kvm(root):
        return None
    compatible = _text(root / "proc/device-tree/compatible")
    if "linux,dummy-virt" in compatible:
        return "qemu system emulation (machine virt)"
    if kind in _ARM and "QEMU" in _text(root / "sys/class/dmi/id/sys_vendor"):
        return "qemu system emulation"
    if "QEMU TCG" in cpuinfo or "QEMU Virtual CPU" in cpuinfo:
        return "qemu system emulation"
    return None


def _has_kvm(root: Path) -> bool:
    """Whether the hypervisor runs instructions on the real processor."""
    clocks = _text(root / "sys/devices/system/clocksource/clocksource0/available_clocksource")
    hypervisor = _text(root / "proc/device-tree/hypervisor/compatible")
    clock_names = [_text(path) for path in (root / "sys/class/ptp").glob("*/clock_name")]
    return "kvm" in clocks or "kvm" in hypervisor or any("KVM" in name for name in clock_names)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b"\n").decode(errors="replace")
    except OSError:
        return ""
