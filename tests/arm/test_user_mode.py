"""aarch64 programs on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tools.arm.cache import Environment
from tools.arm.cpu import CPUS
from tools.arm.guest import MARK
from tools.arm.instructions import count_instructions
from tools.arm.user_mode import PYTHON, ArmProgramError, run_on_arm

HWCAP_BITS = {
    "asimd": 1,
    "crc32": 7,
    "atomics": 8,
    "fphp": 9,
    "asimdhp": 10,
    "asimdrdm": 12,
    "lrcpc": 15,
    "dcpop": 16,
    "asimddp": 20,
}
"""Linux, arch/arm64/include/uapi/asm/hwcap.h."""
_FACTS = """
import ctypes, json, os, platform
getauxval = ctypes.CDLL(None).getauxval
getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
cores, cpuinfo = open("/sys/devices/system/cpu/present").read(), open("/proc/cpuinfo").read()
print(json.dumps({"machine": platform.machine(), "hwcap": getauxval(16), "cpuinfo": cpuinfo, "cores": cores,
                  "folder": os.listdir(".")}))
open("written", "w").write("by the guest")
"""


@pytest.mark.parametrize("name", sorted(CPUS))
def test_a_program_sees_the_chosen_cpu(arm: Environment, tmp_path: Path, name: str) -> None:
    (tmp_path / "facts.py").write_text(_FACTS)
    facts = json.loads(run_on_arm([PYTHON, "facts.py"], cpu=name, folder=tmp_path).stdout)
    assert facts["machine"] == "aarch64"
    assert facts["folder"] == ["facts.py"]
    assert facts["cpuinfo"] == CPUS[name].cpuinfo()
    assert facts["cores"] == "0-3\n"
    # A feature that the profile claims and the emulated CPU has not is an illegal instruction later.
    has = {feature for feature, bit in HWCAP_BITS.items() if facts["hwcap"] >> bit & 1}
    assert has == set(CPUS[name].features.split()) & set(HWCAP_BITS)
    assert (tmp_path / "written").read_text() == "by the guest"


def test_a_program_that_fails_says_why(arm: Environment) -> None:
    with pytest.raises(ArmProgramError, match=r"exit code 3(?s:.*)went wrong"):
        run_on_arm([PYTHON, "-c", "import sys; print('went wrong', file=sys.stderr); sys.exit(3)"])


def test_a_program_cannot_change_the_root_file_system(arm: Environment) -> None:
    with pytest.raises(ArmProgramError, match="Read-only file system"):
        run_on_arm([PYTHON, "-c", "open('/etc/hosts', 'w')"])


def test_nothing_is_left_of_a_program_that_is_killed(arm: Environment, tmp_path: Path) -> None:
    before = Path("/proc/self/mounts").read_text()
    marker = tmp_path.name + "-endless"
    with pytest.raises(subprocess.TimeoutExpired):
        run_on_arm([PYTHON, "-c", f"while True: '{marker}'"], timeout_s=2)
    assert Path("/proc/self/mounts").read_text() == before
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert marker not in commands


def test_instructions_are_counted_between_marks(arm: Environment, tmp_path: Path) -> None:
    program = f"""
import os
def work(n):
    os.umask({MARK} | 7)
    for _ in range(n): pass
    os.umask({MARK} | 8)
work(1000); work(100_000); work(200_000)
os.umask(0o22)
"""
    (tmp_path / "work.py").write_text(program)
    counts = [count_instructions([PYTHON, "work.py"], cpu="cortex-a72", folder=tmp_path) for _ in range(2)]
    # Only what was marked, in its order.
    assert [label for label, _ in counts[0]] == [7, 8] * 3
    (_, once, twice), (_, again, _) = (
        [run[2 * i + 1][1] - run[2 * i][1] for i in range(3)] for run in counts
    )
    assert again == pytest.approx(once, rel=1e-3)
    # A loop of the interpreter is tens of instructions per round, the same each.
    assert twice == pytest.approx(2 * once, rel=0.02)
    assert 10 < once / 100_000 < 300
