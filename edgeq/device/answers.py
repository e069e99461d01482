"""What a device may answer, checked before it is believed: a device is as untrusted as a downloaded file."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.benchmark.steady import WarmUpRecord
from edgeq.device.agent.wire import LIST_CHUNK
from edgeq.device.errors import DeviceError

__all__ = [
    "BenchResult",
    "Facts",
    "Hello",
    "ImageDigests",
    "InferResult",
    "LayersPart",
    "Loaded",
    "Missing",
    "Probe",
    "RuntimeFacts",
    "SeriesPart",
    "TimesPart",
    "nonsense",
    "parse",
]

_Model = TypeVar("_Model", bound=BaseModel)
_Text = Annotated[str, Field(max_length=1000)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Texts = Annotated[dict[_Text, _Text], Field(max_length=200)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Answer(BaseModel):
    # Unknown keys are ignored: a newer agent of the same protocol may say more.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Probe(_Answer):
    """First contact: what the shell and the interpreter there say."""

    system: _Text
    machine: _Text
    python: _Text | None
    """Path of the interpreter; None: none was found."""
    version: tuple[int, int, int] | None = None
    bits: int = 64
    libc: tuple[_Text, _Text] = ("", "")
    root: _Text = ""
    """edgeq's folder, absolute."""
    agent: bool = False
    """Whether the right agent is there."""
    setup: dict[str, Any] | None = None
    """What ``device setup`` noted, where the interpreter is that of its environment."""


class Hello(_Answer):
    """The agent's first line."""

    magic: _Text
    protocol: int
    agent: _Text = ""
    python: _Text = ""
    machine: _Text = ""
    pid: int = 0
    failed: _Text | None = None


class RuntimeFacts(_Answer):
    """One runtime on the device."""

    runtime: _Text
    version: _Text | None
    features: _Texts
    problems: Annotated[list[_Text], Field(max_length=50)]


class _Machine(_Answer):
    architecture: _Text
    cpu: _Text
    cores: Annotated[int, Field(ge=1, le=4096)]
    system: _Text
    versions: _Texts


class _Health(_Answer):
    temperature_c: _Finite | None
    frequency_mhz: _Finite | None
    max_frequency_mhz: _Finite | None
    governors: Annotated[list[_Text], Field(max_length=50)]
    throttle_flags: Annotated[list[_Text], Field(max_length=20)] | None
    power_w: Annotated[dict[_Text, _Finite], Field(max_length=100)]


class Facts(_Answer):
    """The device."""

    machine: _Machine
    model: _Text | None
    emulated: _Text | None
    decoder: _Text | None
    free_mb: _Finite
    health: _Health
    runtimes: Annotated[list[RuntimeFacts], Field(max_length=50)]


class Missing(_Answer):
    """Positions of files that have to be sent, with the bytes that are there already."""

    missing: Annotated[
        list[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]], Field(max_length=LIST_CHUNK)
    ]


class Loaded(_Answer):
    """A model's number."""

    model: Annotated[int, Field(ge=1)]


class ImageDigests(_Answer):
    """SHA-256 of what a model took and gave for an image."""

    image: _Digest
    input: _Digest
    outputs: Annotated[dict[_Text, _Digest], Field(max_length=LIST_CHUNK)]


class InferResult(_Answer):
    """What ran."""

    details: _Texts


class SeriesPart(_Answer):
    """Some of a long list."""

    name: _Text
    values: Annotated[list[Annotated[int, Field(ge=-(1 << 62), le=1 << 62)]], Field(max_length=LIST_CHUNK)]


class LayersPart(_Answer):
    """Some layers of an audit."""

    class Layer(_Answer):
        """One layer."""

        name: _Text
        op: _Text
        precision: _Text
        kernel: _Text
        reason: _Text

    layers: Annotated[list[Layer], Field(max_length=LIST_CHUNK)]


class TimesPart(_Answer):
    """Some layers of a profile."""

    class Layer(_Answer):
        """One executed layer."""

        name: _Text
        op: _Text
        precision: _Text
        kernel: _Text
        time_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    layers: Annotated[list[Layer], Field(max_length=LIST_CHUNK)]


class _WarmUp(_Answer):
    discarded: Annotated[int, Field(ge=0)]
    steady: bool
    last_medians_ms: Annotated[list[_Finite], Field(max_length=100)]

    @property
    def record(self) -> WarmUpRecord:
        return WarmUpRecord(self.discarded, self.steady, tuple(self.last_medians_ms))


class _Contestant(_Answer):
    name: _Text
    warm_up: _WarmUp
    details: _Texts
    peak_memory_mb: _Positive | None


class _Stages(_Answer):
    names: Annotated[list[_Text], Field(min_length=1, max_length=20)]
    warm_up: _WarmUp


class _Rate(_Answer):
    rate_hz: _Positive


class BenchResult(_Answer):
    """All of a latency run but its samples."""

    contestants: Annotated[list[_Contestant], Field(min_length=1, max_length=20)]
    stages: _Stages | None
    rate: _Rate | None
    duration_s: _Positive
    order: _Text
    seed: int
    block: Annotated[int, Field(ge=1)] = 1
    remarks: Annotated[list[_Text], Field(max_length=50)]


def parse(kind: type[_Model], data: Any, device: str) -> _Model:
    """The answer as its model.

    Raises:
        DeviceError: it is not what it should be.
    """
    try:
        return kind.model_validate(data, strict=False)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or kind.__name__
        raise nonsense(device, f"{field}: {problem['msg']}") from error


def nonsense(device: str, what: str) -> DeviceError:
    """The error for an answer that cannot be."""
    return DeviceError(
        f"{device}: its answer is not one that an agent gives ({what[:300]})",
        fix="nothing of it is used; try 'edgeq device check', or 'edgeq device clean' and set it up again",
    )
