from edgeq.benchmark.emulation import emulation
from edgeq.benchmark.machine import Machine
from edgeq.benchmark.telemetry import pi_flag_names


def files(root, **contents):
    for name, text in contents.items():
        path = root / name.replace("__", "/").replace("_H_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_a_board_is_not_emulated(tmp_path):
    root = files(tmp_path, proc__cpuinfo="processor: 0\nFeatures: asimd\n")
    files(root, **{"proc__device_H_tree__compatible": b"raspberrypi,5-model-b\0brcm,bcm2712\0"})
    assert emulation(root, machine="aarch64") is None


def test_qemus_machine_is(tmp_path):
    root = files(tmp_path, **{"proc__device_H_tree__compatible": b"linux,dummy-virt\0"})
    assert "qemu" in emulation(root, machine="aarch64")


def test_a_kvm_guest_on_its_own_kind_of_processor_is_not(tmp_path):
    root = files(tmp_path, **{"proc__device_H_tree__compatible": b"linux,dummy-virt\0"})
    files(root, sys__class__ptp__ptp0__clock_name="KVM virtual PTP\n")
    assert emulation(root, machine="aarch64") is None


def test_user_mode_is_seen_by_the_hosts_cpuinfo(tmp_path):
    root = files(tmp_path, proc__cpuinfo="vendor_id\t: GenuineIntel\n")
    assert "user mode" in emulation(root, machine="aarch64")
    assert emulation(root, machine="x86_64") is None


def test_an_emulated_pc(tmp_path):
    root = files(tmp_path, proc__cpuinfo="model name : QEMU Virtual CPU version 2.5+\n")
    assert "qemu" in emulation(root, machine="x86_64")


def test_power_of_a_jetson_and_of_a_power_sensor(tmp_path):
    hwmon = "sys__class__hwmon__hwmon"
    files(
        tmp_path,
        **{
            f"{hwmon}0__name": "ina3221", f"{hwmon}0__in1_label": "VDD_IN", f"{hwmon}0__in1_input": "19000",
            f"{hwmon}0__curr1_input": "400", f"{hwmon}1__name": "ina226",
            f"{hwmon}1__power1_input": "5250000",
            f"{hwmon}2__name": "coretemp", f"{hwmon}2__temp1_input": "40000",
        },
    )  # fmt: skip
    assert Machine(tmp_path).power_w() == {"ina3221 VDD_IN": 7.6, "ina226 power1": 5.25}
    assert Machine(tmp_path / "nothing").power_w() == {}


def test_throttle_flags_in_words():
    assert pi_flag_names(0) == ()
    assert pi_flag_names(0x50005) == (
        "under-voltage", "throttled", "under-voltage since boot", "throttled since boot",
    )  # fmt: skip
