"""What a user may ask of one runtime: ``NAME=VALUE``, from the names that the runtime itself declares.

Device side: a device gets them as plain data and checks them again.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from edgeq.errors import InputError
from edgeq.runtimes.base import Runtime, RuntimeOption, SessionOptions

__all__ = ["chosen_options", "options_from_json", "options_json", "runtime_options"]

_SWITCH = ("on", "off")
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,), "bool": (bool,), "bool | None": (bool, type(None)), "str | None": (str, type(None)),
    "int | None": (int, type(None)),
}  # fmt: skip


def runtime_options(runtime: Runtime) -> tuple[RuntimeOption, ...]:
    """What a runtime declares; one that declares nothing has none."""
    found: tuple[RuntimeOption, ...] = getattr(runtime, "options", ())
    return found


def chosen_options(runtime: Runtime, texts: Sequence[str]) -> SessionOptions:
    """Session options with what the user asks for; all else is the default.

    Args:
        runtime: whose options they are.
        texts: ``NAME=VALUE`` each.

    Raises:
        InputError: the runtime has no such option, or not with this value; or one is given twice.
    """
    known = {option.name: option for option in runtime_options(runtime)}
    chosen: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"{text!r} is no runtime option", fix="write NAME=VALUE")
        if name not in known:
            raise InputError(f"{runtime.name} has no option {name!r}", fix=_names(runtime, name))
        if known[name].field in chosen:
            raise InputError(f"the runtime option {name} is given twice", fix="give it once")
        chosen[known[name].field] = _parsed(known[name], value)
    return replace(SessionOptions(), **chosen)


def _names(runtime: Runtime, wrong: str) -> str:
    names = [option.name for option in runtime_options(runtime)]
    near = difflib.get_close_matches(wrong, names, n=1)
    if not names:
        return "leave it out: this runtime has no options"
    return f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"


def _parsed(option: RuntimeOption, text: str) -> str | int | bool:
    if option.values == _SWITCH and text in _SWITCH:
        return text == "on"
    if text in option.values:
        return text
    if not option.values and text.isascii() and text.isdigit() and len(text) < 4:
        return int(text)
    wanted = ", ".join(option.values) or "a whole number"
    raise InputError(f"{option.name} cannot be {text!r}", fix=f"{option.name}={wanted}")


def options_json(options: SessionOptions) -> dict[str, Any]:
    """What differs from the default, as plain data."""
    default = asdict(SessionOptions())
    return {name: value for name, value in asdict(options).items() if value != default[name]}


def options_from_json(data: object) -> SessionOptions:
    """Session options of plain data from elsewhere; what is missing is the default.

    Raises:
        InputError: another name or type than this edgeq has.
    """
    kinds = {entry.name: _KINDS[str(entry.type)] for entry in fields(SessionOptions)}
    if not isinstance(data, Mapping) or any(
        name not in kinds or type(value) not in kinds[name] for name, value in data.items()
    ):
        raise InputError("these are no session options of this edgeq", fix="update edgeq on both machines")
    return SessionOptions(**data)
