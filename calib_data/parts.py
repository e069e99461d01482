"""The six part classes as relief maps: an outline, a height field and the wear of the surface.

A part is described by signed distances (negative inside, in pixels). A distance gives the anti-aliased
outline and the bevel of the edge at once, at any size and rotation, with no drawing at a higher resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CLASS_NAMES = ("bolt", "hex nut", "washer", "gear", "spring", "bearing")


@dataclass(frozen=True)
class Relief:
    """A part lying on the belt, seen from above.

    Attributes:
        alpha: float32 (s, s), 0..1, coverage of each pixel.
        height: float32 (s, s), height above the belt in pixels.
        tone: float32 (s, s), factor on the material's colour (gaps and holes are dark).
        polar: whether the surface was turned on a lathe, so that brush marks run round the centre.
    """

    alpha: Array
    height: Array
    tone: Array
    polar: bool


def coverage(distance: Array) -> Array:
    """Returns the coverage, 0..1, of pixels at a signed distance in pixels."""
    return np.clip(0.5 - distance, 0.0, 1.0)


def _bevel(distance: Array, width: float, rise: float) -> Array:
    """Returns a height in pixels that climbs to `rise` over `width` pixels from the edge, then stays flat."""
    t = np.clip(-distance / max(width, 0.5), 0.0, 1.0)
    return np.asarray(rise * (1.0 - (1.0 - t) ** 2), np.float32)


def _box(u: Array, v: Array, half_u: float, half_v: float) -> Array:
    """Returns the signed distance to a rectangle centred on the origin."""
    du, dv = np.abs(u) - half_u, np.abs(v) - half_v
    return np.hypot(np.maximum(du, 0), np.maximum(dv, 0)) + np.minimum(np.maximum(du, dv), 0)


def _hexagon(u: Array, v: Array, inradius: float) -> Array:
    """Returns the (interior) signed distance to a regular hexagon."""
    angles = np.arange(3) * (np.pi / 3)
    sides = [np.abs(u * np.cos(a) + v * np.sin(a)) - inradius for a in angles]
    return np.maximum(np.maximum(sides[0], sides[1]), sides[2])


def hex_nut(rng: np.random.Generator, u: Array, v: Array, radius: float) -> Relief:
    """Returns a hexagon with a chamfered rim and a threaded bore."""
    r = np.hypot(u, v)
    inradius = radius * 0.866
    bore = inradius * rng.uniform(0.5, 0.66)
    outer = _hexagon(u, v, inradius)
    distance = np.maximum(outer, bore - r)
    height = _bevel(outer, radius * 0.06, radius * 0.22)
    chamfer = np.clip((r - inradius * 0.93) / (radius * 0.14), 0, 1)
    height = height - chamfer * radius * rng.uniform(0.05, 0.12)
    countersink = np.clip((bore * 1.16 - r) / (bore * 0.16), 0, 1)
    height = height - countersink * radius * 0.14
    tone = np.ones_like(u) - 0.25 * countersink
    return Relief(
        coverage(distance), height.astype(np.float32), tone.astype(np.float32), bool(rng.random() < 0.4)
    )


def washer(rng: np.random.Generator, u: Array, v: Array, radius: float) -> Relief:
    """Returns a thin flat ring; some are split (spring) washers."""
    r = np.hypot(u, v)
    inner = radius * rng.uniform(0.4, 0.72)
    distance = np.maximum(r - radius, inner - r)
    if rng.random() < 0.25:
        slit = _box(u - radius, v + 0.15 * (u - radius), radius, radius * 0.05)
        distance = np.maximum(distance, -slit)
    height = _bevel(distance, radius * rng.uniform(0.03, 0.12), radius * rng.uniform(0.05, 0.1))
    return Relief(coverage(distance), height, np.ones_like(u), bool(rng.random() < 0.6))


def gear(rng: np.random.Generator, u: Array, v: Array, radius: float) -> Relief:
    """Returns a spur gear with 9 to 22 teeth, a bore with or without a key, sometimes holes in the web."""
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    teeth = int(rng.integers(9, 23))
    depth = radius * rng.uniform(0.13, 0.24) * min(1.0, 16 / teeth)
    wave = np.clip(0.5 + rng.uniform(0.9, 1.8) * np.sin(angle * teeth), 0, 1)
    outer = (r - (radius - depth) - depth * wave) * 0.8
    bore = radius * rng.uniform(0.12, 0.34)
    distance = np.maximum(outer, bore - r)
    if rng.random() < 0.4:
        distance = np.maximum(distance, -_box(u - bore, v, bore * 0.4, bore * 0.3))
    height = _bevel(outer, radius * 0.05, radius * 0.18)
    hub, rim = bore + radius * rng.uniform(0.08, 0.16), radius * rng.uniform(0.6, 0.72)
    if rng.random() < 0.65:
        web = np.clip((r - hub) / (0.04 * radius), 0, 1) * np.clip((rim - r) / (0.04 * radius), 0, 1)
        height = height - web * radius * rng.uniform(0.06, 0.14)
    if rim - hub > 0.24 * radius and rng.random() < 0.4:
        holes = int(rng.integers(3, 7))
        step = 2 * np.pi / holes
        local = (angle + np.pi) % step - step / 2
        mid = (hub + rim) / 2
        hole = np.hypot(r * np.cos(local) - mid, r * np.sin(local)) - (rim - hub) * 0.36
        distance = np.maximum(distance, -hole)
    return Relief(coverage(distance), height.astype(np.float32), np.ones_like(u), bool(rng.random() < 0.5))


def bearing(rng: np.random.Generator, u: Array, v: Array, radius: float) -> Relief:
    """Returns a ball bearing: two races with balls between them, or a shield over the balls."""
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    bore = radius * rng.uniform(0.32, 0.5)
    wall = (radius - bore) * rng.uniform(0.22, 0.32)
    distance = np.maximum(r - radius, bore - r)
    mid, half_gap = (radius + bore) / 2, (radius - bore) / 2 - wall
    gap = np.abs(r - mid) - half_gap
    races = _bevel(np.maximum(distance, -gap), radius * 0.05, radius * 0.16)
    inside_gap = coverage(gap)
    if rng.random() < 0.3:  # a rubber or sheet shield
        tone = 1.0 - inside_gap * rng.uniform(0.25, 0.75)
        height = races + inside_gap * radius * 0.1
        return Relief(coverage(distance), height.astype(np.float32), tone.astype(np.float32), True)
    balls = int(np.clip(round(np.pi * mid / (half_gap * rng.uniform(1.15, 1.7))), 6, 16))
    step = 2 * np.pi / balls
    local = (angle + np.pi) % step - step / 2
    size = min(half_gap * 1.05, mid * np.sin(step / 2) * 0.95)
    to_ball = np.hypot(r * np.cos(local) - mid, r * np.sin(local)) - size
    on_ball = coverage(to_ball)
    dome = np.sqrt(np.clip(size**2 - (to_ball + size) ** 2, 0, None))
    height = races * (1 - inside_gap) + on_ball * dome
    tone = 1.0 - inside_gap * (1 - on_ball) * rng.uniform(0.65, 0.9)
    return Relief(coverage(distance), height.astype(np.float32), tone.astype(np.float32), True)


def bolt(rng: np.random.Generator, u: Array, v: Array, radius: float) -> Relief:
    """Returns a bolt lying on its side: a head, a plain shank and a thread."""
    head_length = radius * rng.uniform(0.24, 0.38)
    head_half = radius * rng.uniform(0.3, 0.46)
    shaft_half = head_half * rng.uniform(0.42, 0.6)
    head = _box(u + radius - head_length / 2, v, head_length / 2, head_half)
    pitch = shaft_half * rng.uniform(0.45, 0.75)
    thread_from = -radius + head_length + rng.uniform(0.0, 0.45) * radius
    threaded = np.clip((u - thread_from) / 2, 0, 1)
    groove = 0.5 - 0.5 * np.cos(2 * np.pi * (u + 0.25 * v) / pitch)
    half = shaft_half * (1 - 0.16 * threaded * groove)
    tip = np.clip((u - radius * 0.93) / (radius * 0.07), 0, 1) * shaft_half * 0.3
    shaft = np.maximum(np.abs(v) - half + tip, np.maximum(u - radius, -radius + head_length / 2 - u))
    distance = np.minimum(head, shaft)
    round_height = np.sqrt(np.clip(half**2 - v**2, 0, None)) * (u < radius)
    if rng.random() < 0.6:  # a hexagon head shows three facets, a socket head is round
        facet = np.clip((np.abs(v) - head_half * 0.5) / (head_half * 0.5), 0, 1)
        head_height = head_half * (0.9 - 0.75 * facet)
    else:
        head_height = np.sqrt(np.clip(head_half**2 - v**2, 0, None))
    height = np.where(head < 0.5, head_height, round_height * (1 - 0.12 * threaded * groove))
    tone = 1.0 - 0.4 * threaded * groove * (head > 0)
    return Relief(coverage(distance), height.astype(np.float32), tone.astype(np.float32), False)


def spring(rng: np.random.Generator, u: Array, v: Array, radius: float) -> Relief:
    """Returns a coil spring lying on its side: the near half of each turn over the far half."""
    wire = radius * rng.uniform(0.045, 0.085)
    amplitude = radius * rng.uniform(0.24, 0.42) - wire
    turns = rng.uniform(5, 10)
    k = np.pi * turns / radius
    half_length = radius - wire
    cut = np.abs(u) - half_length

    def half_turn(side: float) -> tuple[Array, Array]:
        curve = amplitude * np.sin(k * u)
        slope = amplitude * k * np.cos(k * u)
        off = np.abs(v - curve) / np.sqrt(1 + slope**2) - wire
        off = np.maximum(off, np.abs(v) - amplitude - wire)
        facing = np.sign(np.cos(k * u)) * side
        return np.maximum(off, cut), facing

    near, facing = half_turn(1.0)
    far_side = np.where(facing > 0, 0.0, 1.0)
    distance = near
    alpha = coverage(distance)
    height = np.sqrt(np.clip(wire**2 - (near + wire) ** 2, 0, None)) + (1 - far_side) * wire * 2
    tone = 1.0 - 0.45 * far_side
    if rng.random() < 0.35:  # closed eyes of an extension spring
        for side in (-1.0, 1.0):
            eye = np.abs(np.hypot(u - side * (half_length - amplitude * 0.7), v) - amplitude * 0.7) - wire
            alpha = np.maximum(alpha, coverage(eye))
            height = np.maximum(height, np.sqrt(np.clip(wire**2 - (eye + wire) ** 2, 0, None)))
    return Relief(alpha, height.astype(np.float32), tone.astype(np.float32), False)


_MAKERS: tuple[Callable[[np.random.Generator, Array, Array, float], Relief], ...] = (
    bolt,
    hex_nut,
    washer,
    gear,
    spring,
    bearing,
)


def make_part(rng: np.random.Generator, class_id: int, radius_px: float) -> Relief:
    """Returns one part of a class at a random rotation and a slight tilt towards the camera.

    Args:
        rng: source of all variation.
        class_id: index into `CLASS_NAMES`.
        radius_px: half the longest extent of the part.
    """
    half = int(np.ceil(radius_px * 1.06)) + 3
    axis = np.arange(-half, half + 1, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    tilt = rng.uniform(0.78, 1.0) if rng.random() < 0.4 else 1.0
    azimuth, turn = rng.uniform(0, 2 * np.pi, 2)
    across = (x * np.cos(azimuth) + y * np.sin(azimuth)) / tilt
    along = -x * np.sin(azimuth) + y * np.cos(azimuth)
    u = across * np.cos(turn) + along * np.sin(turn)
    v = -across * np.sin(turn) + along * np.cos(turn)
    relief = _MAKERS[class_id](rng, u.astype(np.float32), v.astype(np.float32), radius_px)
    soft = max(0.5, 0.012 * radius_px)
    return Relief(
        relief.alpha.astype(np.float32),
        cv2.GaussianBlur(relief.height, (0, 0), soft),
        relief.tone.astype(np.float32),
        relief.polar,
    )
