"""What the ARM environment is made of, as data. A change here makes a new one beside the old."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

VERSION = 1
"""Raise it when code that makes the environment changes what comes out."""

PACKAGES = (
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "kmod",
    "libc-bin",
    # Wheels need it; every Debian with apt has it.
    "libstdc++6",
    "login",
    "mawk",
    "mount",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-venv",
    "sed",
    "tar",
    # Without it the resolver takes the package that merges /bin and /usr/bin by a Perl script.
    "usr-is-merged",
    "util-linux",
)
"""Debian packages of the root file system; what they depend on comes by itself."""

KERNEL = "linux-image-cloud-arm64"
"""Its drivers fit the emulated machine, and it is a fifth of the general kernel's size."""

KERNEL_MODULES = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_mmio.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
)
"""In the order of loading."""

LEFT_OUT = ("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*", "./usr/share/info/*")
"""Of every package: the board's file system lies in its memory."""

WHEELS = (
    "ai-edge-litert>=2.0",
    "numpy>=1.24",
    "onnxruntime>=1.19",
    "opencv-python-headless>=4.8",
    "psutil>=5.9",
    "pydantic>=2.6",
    "pyyaml>=6.0",
    "rich>=13.7",
    "typer>=0.15",
)
"""What edgeq installs on a device: the packages of its pyproject.toml, which a test compares by name."""

WHEEL_PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_26_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux2014_aarch64",
    "linux_aarch64",
)
"""What a Debian of 2023 (glibc 2.36) takes; the oldest Raspberry Pi OS with Python 3.11 is one."""


def identity() -> dict[str, Any]:
    """Everything that decides what comes out, the machine's own Debian release included."""
    return {
        "version": VERSION,
        "release": release(),
        "packages": PACKAGES,
        "kernel": [KERNEL, *KERNEL_MODULES],
        "left_out": LEFT_OUT,
        "wheels": WHEELS,
        "platforms": WHEEL_PLATFORMS,
        "host": platform.machine(),
    }


def release() -> str:
    """Code name of the machine's distribution, whose package sources are used; ``unknown`` if it has none."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("VERSION_CODENAME", "unknown").strip('"')
