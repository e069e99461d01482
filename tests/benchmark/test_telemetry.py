import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeq.benchmark.machine import Machine
from edgeq.benchmark.telemetry import Telemetry

MEMINFO = "Name:\tedgeq\nVmHWM:\t  200000 kB\nVmRSS:\t  100000 kB\n"


class FakeBoard:
    """A made-up /proc and /sys whose readings a test changes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/stat", "cpu  100 0 100 1000 0 0 0 0 0 0\ncpu0 1\n")
        self.write("proc/self/status", MEMINFO)

    def write(self, name: str, text: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def clock(self, mhz: int) -> None:
        for cpu in ("cpu0", "cpu1"):
            folder = f"sys/devices/system/cpu/{cpu}/cpufreq"
            self.write(f"{folder}/scaling_cur_freq", mhz * 1000)
            self.write(f"{folder}/cpuinfo_max_freq", 2_400_000)
            self.write(f"{folder}/scaling_governor", "ondemand")

    def zone(self, celsius: float, *, trip: float = 80, kind: str = "passive", number: int = 0) -> None:
        folder = f"sys/class/thermal/thermal_zone{number}"
        self.write(f"{folder}/type", "cpu-thermal" if number == 0 else "other")
        self.write(f"{folder}/temp", int(celsius * 1000))
        self.write(f"{folder}/trip_point_0_temp", int(trip * 1000))
        self.write(f"{folder}/trip_point_0_type", kind)

    def pi_flags(self, value: int) -> None:
        self.write("sys/devices/platform/soc/soc:firmware/get_throttled", f"{value:x}")


@pytest.fixture
def board(tmp_path):
    return FakeBoard(tmp_path)


def record_while(board, steps, interval_s=0.02):
    with Telemetry(interval_s=interval_s, machine=Machine(board.root)) as telemetry:
        for step in steps:
            step()
            time.sleep(4 * interval_s)
    return telemetry.record


def test_a_machine_without_sensors_says_so(board):
    record = record_while(board, [lambda: None])
    assert record.throttled is None
    assert record.sensors == ()
    assert record.before.temperature_c is None
    assert record.peak_rss_mb == pytest.approx(204.8)
    assert json.loads(json.dumps(record.to_json()))["throttled"] is None


def test_a_steady_board_did_not_throttle(board):
    board.clock(2400)
    board.zone(55)
    board.pi_flags(0)
    record = record_while(board, [lambda: None])
    assert record.throttled is False
    assert set(record.sensors) == {"clock", "temperature", "firmware flags"}
    assert record.governors == ("ondemand",)
    assert record.before.frequency_mhz == record.after.frequency_mhz == 2400
    assert len(record.during) >= 2


def test_a_falling_clock_is_evidence(board):
    board.clock(2400)
    record = record_while(board, [lambda: None, lambda: None, lambda: board.clock(1500), lambda: None])
    assert record.throttled
    assert "from 2400 to 1500 MHz" in record.throttling[0]


def test_a_zone_is_judged_by_its_own_trip_point(board):
    board.zone(70, trip=80)
    board.zone(75, trip=60, number=1, kind="active")
    assert record_while(board, [lambda: None]).throttled is False
    board.zone(81, trip=80)
    record = record_while(board, [lambda: None])
    assert record.throttling == ("cpu-thermal (thermal_zone0) reached 81 C; its passive trip point is 80 C",)


def test_pi_flags_now_and_those_that_came_up(board):
    board.pi_flags(0x50000)  # under-voltage and throttled at some time since boot, before this run
    assert record_while(board, [lambda: None]).throttled is False
    record = record_while(board, [lambda: board.pi_flags(0xD0008)])
    assert record.throttling == ("the firmware reports: soft temperature limit",)
    board.pi_flags(0)
    record = record_while(board, [lambda: board.pi_flags(0x20000)])
    assert record.throttling == ("the firmware reports: clock capped",)


def test_throttle_counter(board):
    name = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    board.write(name, 5)
    assert record_while(board, [lambda: None]).throttled is False
    record = record_while(board, [lambda: board.write(name, 8)])
    assert record.throttling == ("the CPU counted 3 thermal throttle events",)


def test_broken_sensors_are_unknown_not_zero(board):
    board.zone(0)
    board.write("sys/class/thermal/thermal_zone1/temp", "garbage")
    board.write("sys/class/thermal/thermal_zone1/type", "broken")
    assert Machine(board.root).temperatures_c() == {}


BURN = "import time; end = time.monotonic() + 3\nwhile time.monotonic() < end: pass"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_load_of_another_process_is_seen():
    # The shell ends at once, so that the process is not one of ours.
    subprocess.run(["sh", "-c", '"$0" -c "$1" >/dev/null 2>&1 &', sys.executable, BURN], check=True)
    time.sleep(0.7)
    with Telemetry(interval_s=0.2) as busy:
        time.sleep(1.2)
    assert busy.record.others_cores > 0.5
    assert len(busy.record.during) >= 4


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_child_is_not_one_of_the_others():
    machine = Machine()
    if not list(Path("/proc/self/task").glob("*/children")):
        pytest.skip("this kernel does not list children")
    before = machine.cpu_times()
    child = subprocess.Popen([sys.executable, "-c", BURN])
    time.sleep(1.0)
    running = machine.cpu_times()
    child.kill()
    child.wait()
    ended = machine.cpu_times()
    assert running.own_s - before.own_s > 0.2
    assert ended.own_s >= running.own_s - 0.05


def test_own_work_is_not_the_load_of_others(board, monkeypatch):
    machine = Machine(board.root)
    ticks = machine._ticks_per_s
    own = iter([0.0, 0.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr("edgeq.benchmark.machine.time.process_time", lambda: next(own, 1.0))
    with Telemetry(interval_s=60, machine=machine) as telemetry:
        # 1.5 s of CPU pass on the whole machine, 1.0 s of it is ours.
        board.write("proc/stat", f"cpu  {100 + int(1.5 * ticks)} 0 100 1000 0 0 0 {ticks} 0 0")
        time.sleep(0.1)
    span_s = telemetry.record.after.at_s - telemetry.record.before.at_s
    assert telemetry.record.others_cores == pytest.approx(0.5 / span_s, rel=0.1)
    assert telemetry.record.steal_cores == pytest.approx(1.0 / span_s, rel=0.1)


def test_without_proc_psutil_serves(tmp_path):
    pytest.importorskip("psutil")
    machine = Machine(tmp_path)
    first = machine.cpu_times()
    assert first is not None
    assert first.busy_s > 0
    assert machine.rss_mb() > 5


def test_record_is_not_there_before_the_end():
    telemetry = Telemetry()
    with pytest.raises(RuntimeError, match="ended"):
        _ = telemetry.record
