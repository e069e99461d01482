"""Boards' CPUs: what qemu calls them, and what Linux shows of them.

XNNPACK chooses its kernels with the cpuinfo library, which reads ``/proc/cpuinfo`` and
``/sys/devices/system/cpu``. In user mode both are the host's: with them it does not start, or takes kernels
that the emulated CPU has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import InputError

_CORES = 4
"""Of every Raspberry Pi with one of these CPUs."""


@dataclass(frozen=True)
class Cpu:
    """One CPU model.

    Args:
        name: qemu's.
        part: Arm's part number of the core ("Main ID Register", bits 15 to 4).
        variant: major revision.
        revision: minor revision.
        features: as Linux lists them for the board.
        board: where it is found.
    """

    name: str
    part: int
    variant: int
    revision: int
    features: str
    board: str

    def cpuinfo(self) -> str:
        """Text of ``/proc/cpuinfo``."""
        return "\n".join(
            f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {self.features}\n"
            f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: {self.variant:#x}\n"
            f"CPU part\t: {self.part:#05x}\nCPU revision\t: {self.revision}\n"
            for core in range(_CORES)
        )


_PLAIN = "fp asimd evtstrm crc32 cpuid"
CPUS = {
    cpu.name: cpu
    for cpu in (
        Cpu(
            name="cortex-a76",
            part=0xD0B,
            variant=4,
            revision=1,
            features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
            "dcpop asimddp",
            board="Raspberry Pi 5",
        ),
        Cpu(name="cortex-a72", part=0xD08, variant=0, revision=3, features=_PLAIN, board="Raspberry Pi 4"),
        Cpu(
            name="cortex-a53",
            part=0xD03,
            variant=0,
            revision=4,
            features=_PLAIN,
            board="Raspberry Pi 3, Zero 2 W",
        ),
    )
}


def cpu_named(name: str) -> Cpu:
    """The CPU of that name.

    Raises:
        InputError: there is none.
    """
    if name not in CPUS:
        raise InputError(f"no CPU profile {name}", fix=f"one of {', '.join(CPUS)}")
    return CPUS[name]


def write_system(folder: Path) -> None:
    """Write what ``/sys`` must hold for the cpuinfo library: how many cores there are."""
    system = folder / "devices/system/cpu"
    system.mkdir(parents=True)
    (system / "kernel_max").write_text(f"{_CORES - 1}\n", encoding="ascii")
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{_CORES - 1}\n", encoding="ascii")
