"""Operators that a file asks for and TFLite runs wrongly, without a word.

The depthwise convolution with float activations and INT8 weights reads one weight scale per channel
(``EvalHybridPerChannel`` in ``kernels/depthwise_conv.cc``, the only one for these types). Where the file has
one for the whole tensor, it reads whatever lies behind in memory: results change from load to load.
"""

from __future__ import annotations

from collections.abc import Container

from edgeq.runtimes.tflite.modelfile import TfliteFile

__all__ = ["undefined_operators", "undefined_warning"]

_DEPTHWISE_CONV_2D = 4


def undefined_operators(file: TfliteFile, taken: Container[int]) -> tuple[int, ...]:
    """Numbers of the operators whose results are not defined.

    Args:
        file: the model.
        taken: operators that XNNPACK runs, which has its own kernels.
    """
    found = []
    for number, operator in enumerate(file.operators):
        if operator.code != _DEPTHWISE_CONV_2D or number in taken or min(operator.inputs[:2]) < 0:
            continue
        activation, weight = (file.tensors[tensor] for tensor in operator.inputs[:2])
        channels = weight.shape[-1] if weight.shape else 1
        if activation.dtype == "float32" and weight.dtype == "int8" and len(weight.scales) < channels:
            found.append(number)
    return tuple(found)


def undefined_warning(count: int) -> str:
    """What to tell the user; empty where there is nothing to tell."""
    if not count:
        return ""
    return (
        f"{count} depthwise convolution{'s' if count > 1 else ''} with float activations and one INT8 weight "
        "scale for all channels run on a TFLite kernel that reads a scale per channel: the results are not "
        "defined and change from load to load"
    )
