"""What is seen while statistics are taken is what another run of the float model gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.quantize.glances import Glances
from edgeq.quantize.observe import Observer, session_with_outputs

from .nets import NETS, images, normalised


@pytest.mark.parametrize("name", NETS)
def test_each_image_is_looked_at_by_those_who_asked(name):
    model = normalised(NETS[name]())
    pictures = images(5, size=int(model.graph.inputs[0].shape[2]))
    inner = next(node.outputs[0].name for node in model.graph if node.op_type == "Conv")
    output = model.graph.outputs[0].name
    glances = Glances()
    first = glances.ask([inner], [1, 3], lambda values: values[inner].copy())
    both = glances.ask([output, inner], [3], lambda values: (values[output].copy(), values[inner].copy()))
    observer = Observer(model, watched=glances.names)
    # Pieces, as the pipeline takes them.
    pieces = [range(2), range(2, 5)]
    for piece in pieces:
        statistics = observer.observe(pictures[piece.start : piece.stop], looks=glances.looks(piece))
        assert set(statistics.tensors) == set(Observer(model).observe(pictures[:1]).tensors)
    assert (set(first), set(both)) == ({1, 3}, {3})
    session, _, names = session_with_outputs(model, [output, inner])
    for image in first:
        expected = session.run(names, {"images": pictures[image]})
        np.testing.assert_allclose(first[image], expected[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        both[3][0], session.run(names, {"images": pictures[3]})[0], rtol=1e-3, atol=1e-4
    )
    np.testing.assert_array_equal(both[3][1], first[3])
