"""``edgeq doctor``: what is there, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
from typing import Any

from edgeq.cli.extras import HOST_MODULES
from edgeq.cli.flags import OutputFlags, command
from edgeq.cli.onflags import On
from edgeq.errors import UnavailableError

__all__ = ["doctor"]

_EXTRAS = {
    "host": (HOST_MODULES, 'pip install "edgeq[host]"', "quantise and score models"),
    "yolo": (("ultralytics",), 'pip install "edgeq[yolo]"  (AGPL-3.0)', "read Ultralytics .pt checkpoints"),
}


@command
def doctor(
    *,
    on: On = None,
    output: OutputFlags,
) -> int:
    """What is there, what is missing, and how to get it."""
    from edgeq.cli.console import Console
    from edgeq.machine import machine_facts
    from edgeq.report.jsonio import to_jsonable

    console = Console(output)
    if on:
        from edgeq.cli.device import examine

        return examine(on, console)
    facts = machine_facts()
    runtimes = _runtimes()
    extras = {name: _extra(*entry) for name, entry in _EXTRAS.items()}
    fits = _targets()
    console.show(*_machine_lines(facts))
    for probe in runtimes:
        features = ", ".join(f"{key}: {value}" for key, value in probe["features"].items())
        console.show(f"runtime {probe['runtime']}: {probe['version'] or 'not installed'}", f"  {features}")
        console.show(*(f"  problem: {text}" for text in probe["problems"]))
    for name, extra in extras.items():
        state = (
            "there" if not extra["missing"] else f"missing {', '.join(extra['missing'])}: {extra['install']}"
        )
        console.show(f"extra {name} ({extra['use']}): {state}")
    for fit in fits:
        console.show(f"target {fit['name']}: {fit['verdict']}")
    document = {
        "machine": facts,
        "runtimes": to_jsonable(runtimes),
        "extras": extras,
        "targets": fits,
        "cache": _cache(),
    }
    console.show(f"cache: {document['cache']['folder']} ({document['cache']['size_mb']:.1f} MB)")
    console.emit(document)
    return 0 if any(probe["version"] for probe in runtimes) else UnavailableError.exit_code


def _machine_lines(facts: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [f"{facts['cpu']}, {facts['cores']} cores, {facts['architecture']}, {facts['system']}", versions]


def _runtimes() -> list[dict[str, Any]]:
    """Probe of each known runtime; one that cannot even be loaded is a problem, not an error."""
    from edgeq.errors import EdgeqError
    from edgeq.report.jsonio import to_jsonable
    from edgeq.runtimes import load_runtime, runtime_names

    found: list[dict[str, Any]] = []
    for name in runtime_names():
        try:
            found.append(to_jsonable(load_runtime(name, installed=False).probe()))
        except EdgeqError as error:
            problem = f"{error.message}: {error.fix}"
            found.append({"runtime": name, "version": None, "features": {}, "problems": [problem]})
    return found


def _extra(modules: tuple[str, ...], install: str, use: str) -> dict[str, Any]:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return {"missing": missing, "install": install, "use": use}


def _targets() -> list[dict[str, Any]]:
    """Whether this machine is what each target describes."""
    import platform

    from edgeq.machine import cpu_flags
    from edgeq.runtimes import load_runtime, runs_here
    from edgeq.targets import list_targets

    flags = cpu_flags()
    out: list[dict[str, Any]] = []
    for target in list_targets():
        if target.architecture != platform.machine():
            out.append(
                {
                    "name": target.name,
                    "here": False,
                    "verdict": f"another architecture ({target.architecture})",
                }
            )
            continue
        if not runs_here(load_runtime(target.runtime, installed=False)):
            verdict = f"{target.runtime} does not run here: quantise for it here, run it there"
            out.append({"name": target.name, "here": False, "verdict": verdict})
            continue
        lacking = [entry for entry in target.cpu_features if flags and not flags & set(entry.any_of)]
        why = "; ".join(f"no {' or '.join(entry.any_of)}: {entry.why}" for entry in lacking)
        out.append({"name": target.name, "here": True, "verdict": why or "this machine"})
    return out


def _cache() -> dict[str, Any]:
    """Where statistics are kept and how much there is; not known without the host extra."""
    from edgeq.files import size_mb

    try:
        from edgeq.quantize.cache import default_cache_folder
    except ImportError:
        return {"folder": "not in use without the host extra", "size_mb": 0.0}
    folder = default_cache_folder()
    return {"folder": str(folder), "size_mb": size_mb(folder)}
