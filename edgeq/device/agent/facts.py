"""What the device is and has: machine, versions, runtimes, room, health just now."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeq.benchmark.emulation import emulation
from edgeq.benchmark.machine import Machine
from edgeq.benchmark.telemetry import pi_flag_names
from edgeq.device.agent.models import runtime_named
from edgeq.errors import EdgeqError
from edgeq.machine import machine_facts

__all__ = ["facts"]


def facts(runtimes: Sequence[str], root: Path) -> dict[str, Any]:
    """Everything about the device that the host may want to know.

    Args:
        runtimes: names of those to probe.
        root: edgeq's folder here.
    """
    machine = Machine()
    flags = machine.pi_throttled(ask_firmware=True)
    temperatures = machine.temperatures_c()
    return {
        "machine": machine_facts(),
        "model": _board(),
        "emulated": emulation(),
        "decoder": next((name for name in ("cv2", "PIL") if importlib.util.find_spec(name)), None),
        "free_mb": shutil.disk_usage(root).free / 1e6,
        "health": {
            "temperature_c": max(temperatures.values()) if temperatures else None,
            "frequency_mhz": machine.frequency_mhz(),
            "max_frequency_mhz": machine.max_frequency_mhz(),
            "governors": list(machine.governors()),
            "throttle_flags": None if flags is None else list(pi_flag_names(flags)),
            "power_w": machine.power_w(),
        },
        "runtimes": [_probe(name) for name in runtimes],
    }


def _board(tree: Path = Path("/proc/device-tree/model")) -> str | None:
    """The board's name, where there is a device tree."""
    try:
        return tree.read_bytes().rstrip(b"\0").decode(errors="replace")[:200] or None
    except OSError:
        return None


def _probe(name: str) -> dict[str, Any]:
    try:
        report = asdict(runtime_named(name).probe())
    except (EdgeqError, ImportError) as error:
        return {"runtime": name, "version": None, "features": {}, "problems": [str(error)[:500]]}
    return {**report, "features": dict(report["features"]), "problems": list(report["problems"])}
