import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from edgeq.report.jsonio import dumps, to_jsonable
from edgeq.types import InputSpec, Task


class Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class Own:
    value: float

    def to_json(self):
        return {"own": self.value}


def test_everything_has_a_plain_form():
    value = {
        "task": Task.DETECT,
        Color.RED: np.float32(0.5),
        3: np.arange(3),
        "nan": float("nan"),
        "inf": np.array([1.0, np.inf]),
        "flag": np.bool_(True),
        "path": Path("a") / "b",
        "own": (Own(1.0), Own(float("nan"))),
        "set": {"b", "a"},
        "spec": InputSpec("x", 2, 3),
    }
    plain = to_jsonable(value)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["red"] == 0.5
    assert plain["3"] == [0, 1, 2]
    assert plain["nan"] is None
    assert plain["inf"] == [1.0, None]
    assert plain["flag"] is True
    assert plain["path"] == "a/b"
    assert plain["own"] == [{"own": 1.0}, {"own": None}]
    assert plain["set"] == ["a", "b"]
    assert plain["spec"]["layout"] == "nchw"


def test_text_is_stable_and_numbers_stay_on_a_line():
    data = {"b": list(range(1000)), "a": ["[\n1,\n2\n]", 1.5, {"x": [1.5e-7, -2]}]}
    text = dumps(data)
    assert json.loads(text) == data
    assert text == dumps(dict(reversed(data.items())))
    assert len(text.splitlines()) < 15
    assert text.endswith("}\n")


def test_what_has_no_form_is_an_error():
    with pytest.raises(TypeError, match="object"):
        to_jsonable({"a": object()})
    with pytest.raises(TypeError, match="bytes"):
        to_jsonable(b"x")
