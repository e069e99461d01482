"""INT8 as Core ML's W8A8 form has it, for the Neural Engine's INT8 units (A17 Pro, M4 and later).

Sources: Apple's guide "Optimizing Models: Quantization" (pages overview and performance) and coremltools 9,
``optimize/coreml/_config.py`` and ``_quantization_passes.py``: Apple's own quantiser puts symmetric int8
pairs with one scale per tensor on the inputs of convolutions, linear layers and adds, and knows no
activation with a zero point or with a scale per channel. The ``quantize`` operation itself takes both, but
whether the Neural Engine then still multiplies integers is said nowhere and cannot be measured here, so
this scheme keeps to Apple's form.

A layer that stays float reads float values and has INT8 weights (Apple's W8 form), restored at load.
"""

from __future__ import annotations

from dataclasses import replace

from edgeq.quantize.scheme import Scheme
from edgeq.runtimes.symmetric import symmetric_scheme
from edgeq.types import COMPUTE_OPS

__all__ = ["scheme"]


def scheme() -> Scheme:
    """INT8 for mlprograms of iOS 17 and macOS 14 or later."""
    return replace(
        symmetric_scheme("coreml"),
        # A classifier's last layer in INT8 cost nothing (EfficientNet-Lite0: 0.5 points either way, simulated
        # on 186 images).
        few_float_head_ops=frozenset({"Conv"}),
        half_scales=True,
        # A float layer's weights would be the better part of what is not a quarter of float32.
        stored_weight_ops=COMPUTE_OPS,
    )
