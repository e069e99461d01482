"""A small histogram of latencies as inline SVG, with the median marked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

__all__ = ["latency_histogram"]

_WIDTH_PX = 640
_HEIGHT_PX = 90
_BASE_PX = 72
_BARS = 60


def latency_histogram(name: str, samples_ns: object) -> str:
    """SVG of the samples' distribution; empty text where there are none.

    The axis ends at the 99.5th percentile so that one outlier does not flatten the rest; the last bar
    holds what lies beyond, and the label says how many and the greatest.

    Args:
        name: whose samples.
        samples_ns: a list of nanoseconds; anything else gives an empty text.
    """
    if not isinstance(samples_ns, Sequence) or isinstance(samples_ns, str):
        return ""
    values = np.array([value for value in samples_ns if isinstance(value, (int, float))]) / 1e6
    values = values[np.isfinite(values) & (values >= 0)]
    if values.size < 2:
        return ""
    low, high = float(np.min(values)), float(np.percentile(values, 99.5))
    high = high if high > low else low + max(low * 0.01, 1e-6)
    counts, _ = np.histogram(np.minimum(values, high), bins=_BARS, range=(low, high))
    return _svg(name, values, counts.tolist(), low, high)


def _svg(name: str, values: npt.NDArray[np.float64], counts: list[int], low: float, high: float) -> str:
    step, greatest = _WIDTH_PX / _BARS, max(counts)
    bars = []
    for i, count in enumerate(counts):
        height = count / greatest * (_BASE_PX - 14)
        box = f'x="{i * step:.1f}" y="{_BASE_PX - height:.1f}" width="{step - 1:.1f}"'
        bars.append(f'<rect {box} height="{height:.1f}"/>')
    median = float(np.median(values))
    at = min(_WIDTH_PX, (median - low) / (high - low) * _WIDTH_PX)
    beyond = int((values > high).sum())
    tail = f", {beyond} beyond, greatest {np.max(values):.2f}" if beyond else ""
    label = f"{escape(name)}: {values.size} runs, median {median:.2f} ms{tail}"
    return (
        f'<svg viewBox="0 0 {_WIDTH_PX} {_HEIGHT_PX}" width="{_WIDTH_PX}" role="img" aria-label="{label}">'
        f"{''.join(bars)}"
        f'<line x1="{at:.1f}" y1="14" x2="{at:.1f}" y2="{_BASE_PX}"/>'
        f'<text x="0" y="10">{label}</text>'
        f'<text x="0" y="{_HEIGHT_PX - 4}">{low:.2f} ms</text>'
        f'<text x="{_WIDTH_PX}" y="{_HEIGHT_PX - 4}" text-anchor="end">{high:.2f} ms</text></svg>'
    )
