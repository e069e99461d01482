"""A model file without a bundle around it: what it says of itself, and what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.cli.console import Console
from edgeq.cli.subject import Specs
from edgeq.errors import DataError, ModelError, SpecError
from edgeq.model.presets import SpecOverrides
from edgeq.runtimes import runtime_for
from edgeq.runtimes.base import Runtime, Session, SessionOptions

__all__ = ["PlainModel"]


@dataclass(frozen=True)
class PlainModel:
    """A model file without a bundle around it, opened."""

    path: Path
    runtime: Runtime
    session: Session
    overrides: SpecOverrides

    @classmethod
    def open(cls, path: Path, overrides: SpecOverrides) -> PlainModel:
        """The model at a path, of which the user says something.

        Raises:
            ModelError: there is none, or it is damaged.
            UnavailableError: its runtime is not here.
        """
        if not path.exists():
            raise ModelError(f"there is no bundle or model at {path}", fix="check the path")
        runtime = runtime_for(path)
        return cls(path, runtime, runtime.open_session(path, options=SessionOptions()), overrides)

    def overrides_for(self, float_source: Path) -> SpecOverrides:
        """What the user says, and for a checkpoint of no fixed size the size of this model.

        What is said of the layout and of the units of boxes is said of this model, not of the float one.
        """
        given = replace(self.overrides, layout=None, normalized_boxes=None)
        if float_source.suffix.lower() != ".pt" or given.size is not None:
            return given
        shape = self.session.inputs[0].shape
        sides = shape[1:3] if len(shape) == 4 and shape[3] == 3 else shape[2:4]
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            return given
        height, width = (int(side) for side in sides if isinstance(side, int))
        return replace(given, size=(height, width))

    def recognised(self, data: Path | None) -> Specs:
        """Specs from what it says of itself, its spec file, the user and, for class names, the data set.

        Raises:
            SpecError: they do not tell enough.
        """
        from edgeq.model.recognise import recognise
        from edgeq.model.specfile import find_spec_file, load_spec_file, merge

        beside = find_spec_file(self.path)
        given = self.overrides if beside is None else merge(self.overrides, load_spec_file(beside))
        session, metadata = self.session, getattr(self.session, "metadata", {})

        def read(overrides: SpecOverrides) -> Specs:
            found = recognise(
                inputs=session.inputs, outputs=session.outputs, metadata=metadata, overrides=overrides
            )
            return Specs(found.input, found.head)

        if given.class_names is not None or "names" in metadata or data is None:
            return read(given)
        try:
            return read(replace(given, class_names=_names_of(data)))
        except (SpecError, DataError):  # not the classes of this model: it is for it alone to say what fits
            return read(given)

    def with_units(self, specs: Specs, console: Console) -> Specs:
        """The specs with boxes in the units that the user says, or that the model is seen to give."""
        from edgeq.model.box_units import measure_normalized_boxes

        said = self.overrides.normalized_boxes
        if said is not None:
            return replace(specs, head=replace(specs.head, normalized_boxes=said))
        measured = measure_normalized_boxes(self.session.infer, spec=specs.input, head=specs.head)
        if measured is None or measured == specs.head.normalized_boxes:
            return specs
        console.note(f"{self.path.name} gives boxes in {'0..1 of its input' if measured else 'pixels'}")
        return replace(specs, head=replace(specs.head, normalized_boxes=measured))


def _names_of(data: Path) -> tuple[str, ...] | None:
    """Class names of a data set; None where it has none."""
    from edgeq.data.dataset import open_dataset

    return open_dataset(data, labels_required=False).class_names or None
