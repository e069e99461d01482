"""Readings of this machine's health, from /proc and /sys; psutil only where there is no /proc.

Each reader returns None (or nothing) where the machine does not tell: a missing sensor is never a zero.
On Linux the files are read directly, so that numbers are the same with and without psutil.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CpuTimes", "Machine", "TripPoint"]

_MAX_CPUS_READ = 8
"""Reading a core's clock can cost an inter-processor interrupt; a few cores tell enough."""
_MAX_POWER_SENSORS = 4
"""Each is read over a slow bus."""


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds since boot of all cores together, and of this process."""

    at_s: float
    """When it was read, on the monotonic clock."""
    busy_s: float
    steal_s: float
    """Taken by other virtual machines on the same host."""
    own_s: float
    """With its children: of those that are not waited for yet, where the kernel lists them."""


@dataclass(frozen=True)
class TripPoint:
    """Temperature at which a thermal zone acts."""

    zone: str
    kind: str
    """The kernel's word: ``passive`` (slows down), ``hot``, ``critical``, ``active`` (fan)."""
    temperature_c: float


class Machine:
    """Readers of one machine; ``root`` lets a test put a made-up /proc and /sys in place."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        cpus = root / "sys/devices/system/cpu"
        self._frequency_files = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))[:_MAX_CPUS_READ]
        self._throttle_files = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
        sensors = sorted((root / "sys/class/hwmon").glob("hwmon*"))
        self._power_sensors = [
            folder
            for folder in sensors
            if any(folder.glob("power*_input")) or any(folder.glob("curr*_input"))
        ][:_MAX_POWER_SENSORS]
        self._ticks_per_s = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        self._psutil = None if (root / "proc/stat").exists() else _optional_psutil()

    def cpu_times(self) -> CpuTimes | None:
        """CPU seconds so far."""
        at_s, own_s = time.monotonic(), time.process_time() + self._children_s()
        fields = _first_line_numbers(self._root / "proc/stat")
        if len(fields) >= 7:
            # user, nice, system, idle, iowait, irq, softirq, steal; guest time is inside user already.
            busy = sum(fields[:3]) + sum(fields[5:7])
            steal = fields[7] if len(fields) > 7 else 0
            return CpuTimes(at_s, busy / self._ticks_per_s, steal / self._ticks_per_s, own_s)
        if self._psutil is not None:
            times = self._psutil.cpu_times()
            idle = times.idle + getattr(times, "iowait", 0.0)
            return CpuTimes(at_s, float(sum(times) - idle), 0.0, own_s)
        return None

    def _children_s(self) -> float:
        """CPU seconds of this process's children, ended and running."""
        spent = os.times()
        seconds = spent.children_user + spent.children_system
        for listed in (self._root / "proc/self/task").glob("*/children"):
            for child in _text(listed).split():
                # The command's name, in brackets, may hold spaces; utime and stime are fields 14 and 15.
                fields = _text(self._root / "proc" / child / "stat").rpartition(")")[2].split()
                seconds += sum(map(int, fields[11:13])) / self._ticks_per_s
        return seconds

    def frequency_mhz(self) -> float | None:
        """Clock of the fastest core just now: the one at work, where others idle at a lower clock."""
        values = [value for file in self._frequency_files if (value := _number(file)) is not None]
        if values:
            return max(values) / 1e3
        clocks = [float(line.split(":")[1]) for line in self._cpuinfo() if line.startswith("cpu MHz")]
        if clocks:
            return max(clocks)
        return None

    def max_frequency_mhz(self) -> float | None:
        """The greatest clock that the cores may take."""
        files = [file.with_name("cpuinfo_max_freq") for file in self._frequency_files]
        values = [value for file in files if (value := _number(file)) is not None]
        return max(values) / 1e3 if values else None

    def governors(self) -> tuple[str, ...]:
        """The clock governors in use, each once."""
        texts = {_text(file.with_name("scaling_governor")) for file in self._frequency_files}
        return tuple(sorted(text for text in texts if text))

    def temperatures_c(self) -> dict[str, float]:
        """Temperature of each thermal zone by its type."""
        out: dict[str, float] = {}
        for zone in self._zones:
            value = _number(zone / "temp")
            # Zones without a sensor report 0 or absurd values; a board at work is not at -40 or 200.
            if value is not None and -40e3 < value < 200e3 and value != 0:
                out[f"{_text(zone / 'type') or 'zone'} ({zone.name})"] = value / 1e3
        return out

    def trip_points(self) -> tuple[TripPoint, ...]:
        """Trip points of the zones, as the kernel names them."""
        points: list[TripPoint] = []
        for zone in self._zones:
            name = f"{_text(zone / 'type') or 'zone'} ({zone.name})"
            for file in sorted(zone.glob("trip_point_*_temp")):
                value, kind = _number(file), _text(file.with_name(file.name[: -len("temp")] + "type"))
                if value is not None and value > 0 and kind:
                    points.append(TripPoint(name, kind, value / 1e3))
        return tuple(points)

    def throttle_count(self) -> int | None:
        """Thermal throttle events since boot, summed over cores (Intel)."""
        values = [value for file in self._throttle_files if (value := _number(file)) is not None]
        return int(sum(values)) if values else None

    def pi_throttled(self, *, ask_firmware: bool = False) -> int | None:
        """The Raspberry Pi's throttle flags (bits as in ``vcgencmd get_throttled``).

        Args:
            ask_firmware: where the kernel has no file for it, run ``vcgencmd`` (some milliseconds: not
                during a measurement).
        """
        text = _text(self._root / "sys/devices/platform/soc/soc:firmware/get_throttled")
        if not text and ask_firmware and self._root == Path("/"):
            text = _vcgencmd_throttled()
        try:
            return int(text, 16) if text else None
        except ValueError:
            return None

    def power_w(self) -> dict[str, float]:
        """Power of each rail that a sensor measures (Jetson's INA3221, INA2xx boards, power supplies)."""
        out: dict[str, float] = {}
        for folder in self._power_sensors:
            chip = _text(folder / "name")
            for file in sorted(folder.glob("power[0-9]*_input")):
                if (value := _number(file)) is not None:
                    out[f"{chip} {file.name[: -len('_input')]}"] = value / 1e6
            for file in sorted(folder.glob("curr[0-9]*_input")):
                number = file.name[len("curr") : -len("_input")]
                volts_file = folder / f"in{number}_input"
                current_ma, voltage_mv = _number(file), _number(volts_file)
                if current_ma is not None and voltage_mv is not None:
                    rail = _text(folder / f"in{number}_label") or f"rail {number}"
                    out[f"{chip} {rail}"] = current_ma * voltage_mv / 1e6
        return out

    def rss_mb(self) -> float | None:
        """Resident memory of this process now."""
        return self._status_mb("VmRSS")

    def peak_rss_mb(self) -> float | None:
        """Greatest resident memory of this process so far.

        VmHWM, not ``getrusage``: the latter's value is inherited from the parent over fork and exec.
        """
        value = self._status_mb("VmHWM")
        return value if value is not None else _rusage_peak_mb()

    def _status_mb(self, key: str) -> float | None:
        for line in _text(self._root / "proc/self/status").splitlines():
            if line.startswith(key + ":"):
                return float(line.split()[1]) * 1024 / 1e6
        if self._psutil is not None:
            info = self._psutil.Process().memory_info()
            value = info.rss if key == "VmRSS" else getattr(info, "peak_wset", None)
            return None if value is None else float(value) / 1e6
        return None

    def _cpuinfo(self) -> list[str]:
        return _text(self._root / "proc/cpuinfo").splitlines()


def _text(path: Path) -> str:
    """Content of a small kernel file; empty when it is not there or refuses (sensors may give EINVAL)."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _first_line_numbers(path: Path) -> list[float]:
    words = _text(path).split("\n", 1)[0].split()[1:]
    return [float(word) for word in words if word.isdigit()]


def _optional_psutil() -> Any:
    try:
        import psutil
    except ImportError:
        return None
    return psutil


def _rusage_peak_mb() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return peak / 1e6 if os.uname().sysname == "Darwin" else peak * 1024 / 1e6


def _vcgencmd_throttled() -> str:
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().rpartition("=")[2]
