"""``edgeq device``: set a board up, look at it, clean it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.flags import OutputFlags, command

if TYPE_CHECKING:
    from edgeq.cli.console import Console
    from edgeq.cli.remote import DeviceSide
    from edgeq.device.fleet import DeviceEntry
    from edgeq.device.provision import SetUp

__all__ = ["device", "examine"]

device = typer.Typer(
    name="device",
    help="Set a board up over SSH, look at it, clean it.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
_Devices = Annotated[
    list[str], typer.Argument(metavar="DEVICE...", help="local, an ssh alias, user@host, or a .toml list.")
]


@device.command("setup")
@command
def setup(
    *,
    on: _Devices,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime", metavar="NAME", help="onnxruntime, tflite, openvino, tensorrt; repeatable."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME|FILE", help="The runtime of this target.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="The board has no network: get the wheels here and send them.")
    ] = False,
    wheels: Annotated[
        Path | None, typer.Option("--wheels", metavar="FOLDER", help="Wheels to send, already downloaded.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make the environment anew.")] = False,
    output: OutputFlags,
) -> int:
    """A virtual environment with the runtime under the user's home on the board; nothing needs root."""
    from edgeq.cli.console import Console
    from edgeq.cli.onflags import each_device
    from edgeq.device.fleet import link_to
    from edgeq.device.provision import set_up

    console = Console(output)
    names = _runtimes(runtime, target)

    def job(entry: DeviceEntry) -> SetUp:
        console.note(f"{entry.name}: setting up {', '.join(names)}")
        with console.progress() as progress:
            return set_up(
                link_to(entry), names, offline=offline or wheels is not None, wheels=wheels, force=force,
                note=console.note, progress=progress,
            )  # fmt: skip

    def show(entry: DeviceEntry, result: SetUp) -> None:
        listed = ", ".join(f"{name} {version}" for name, version in sorted(result.packages.items()))
        state = f"set up, {result.sent_mb:.1f} MB sent" if result.changed else "was set up already"
        console.show(f"{entry.name}: {state}: {listed}")

    return each_device(on, job, console, show=show, document=lambda entry, result: _document(entry, result))


@device.command("check")
@command
def check(*, on: _Devices, output: OutputFlags) -> int:
    """What the board is, what is there, what is missing; like 'edgeq doctor --on'."""
    from edgeq.cli.console import Console

    return examine(on, Console(output))


@device.command("clean")
@command
def clean(*, on: _Devices, output: OutputFlags) -> int:
    """Remove everything that edgeq keeps on the board."""
    from edgeq.cli.console import Console
    from edgeq.cli.onflags import each_device
    from edgeq.device.fleet import link_to
    from edgeq.device.provision import clean as clean_link

    console = Console(output)

    def job(entry: DeviceEntry) -> str:
        link = link_to(entry)
        clean_link(link)
        return link.folder

    return each_device(
        on,
        job,
        console,
        show=lambda entry, folder: console.show(f"{entry.name}: {folder} is gone"),
        document=lambda entry, folder: {"device": entry.name, "removed": folder},
    )


def examine(on: list[str], console: Console) -> int:
    """Machine, versions, runtimes and health of devices; exit code 4 where one has no runtime."""
    from edgeq.cli.onflags import each_device
    from edgeq.cli.remote import at_work
    from edgeq.errors import UnavailableError
    from edgeq.runtimes import runtime_names

    lacking: list[str] = []

    def job(entry: DeviceEntry) -> dict[str, Any]:
        with at_work(entry, runtime_names(), console) as side:
            return _facts(side)

    def show(entry: DeviceEntry, facts: dict[str, Any]) -> None:
        if not any(probe["version"] for probe in facts["runtimes"]):
            lacking.append(entry.name)
        console.show(*_lines(entry, facts))

    code = each_device(on, job, console, show=show, document=lambda entry, facts: facts)
    return UnavailableError.exit_code if lacking else code


def _facts(side: DeviceSide) -> dict[str, Any]:
    facts = side.facts.model_dump()
    probe = side.worker.device.probe
    folder = None if probe is None else probe.root
    return {**facts, "device": side.to_json(), "folder": folder}


def _lines(entry: DeviceEntry, facts: dict[str, Any]) -> list[str]:
    from edgeq.device.wheels import installs

    machine, health = facts["machine"], facts["health"]
    label = facts["device"]["emulated"]
    lines = [
        f"{entry.name}: {facts['model'] or machine['cpu']}, {machine['cores']} cores, "
        f"{machine['architecture']}, {machine['system']}" + (f"; {label}" if label else ""),
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        f"edgeq's folder {facts['folder']}, {facts['free_mb']:.0f} MB free; "
        f"images are decoded by {facts['decoder'] or 'nothing: neither OpenCV nor Pillow is there'}",
    ]
    words = [f"{health['temperature_c']:.0f} C"] if health["temperature_c"] is not None else []
    words += [f"{health['frequency_mhz']:.0f} MHz"] if health["frequency_mhz"] is not None else []
    words += [f"governor {name}" for name in health["governors"]]
    words += [f"{rail} {power:.2f} W" for rail, power in health["power_w"].items()]
    if health["throttle_flags"] is not None:
        words.append(", ".join(health["throttle_flags"]) or "no throttle flags")
    lines.append(f"health: {', '.join(words) or 'no sensors'}")
    for probe in facts["runtimes"]:
        if probe["version"] is None and installs(probe["runtime"]):
            hint = f"edgeq device setup {entry.on} --runtime {probe['runtime']}"
            lines.append(f"runtime {probe['runtime']}: not installed; {hint}")
            continue
        features = ", ".join(f"{key}: {value}" for key, value in probe["features"].items())
        lines += [f"runtime {probe['runtime']}: {probe['version'] or 'not installed'}", f"  {features}"]
        lines += [f"  problem: {text}" for text in probe["problems"]]
    return lines


def _document(entry: DeviceEntry, result: SetUp) -> dict[str, Any]:
    return {
        "device": entry.name,
        "changed": result.changed,
        "packages": result.packages,
        "sent_mb": result.sent_mb,
    }


def _runtimes(names: list[str] | None, target: str | None) -> list[str]:
    """What to install.

    Raises:
        InputError: both given.
    """
    from edgeq.errors import InputError
    from edgeq.targets import load_target

    if names and target is not None:
        raise InputError("--runtime and --target both say what to install", fix="give one of them")
    if target is not None:
        return [load_target(target).runtime]
    return list(dict.fromkeys(names or ["onnxruntime"]))
