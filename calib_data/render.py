"""Renders labelled images of an inspection line: six classes of parts on varied backgrounds.

Everything follows from (split, seed, index), so an image can be rendered again alone:

    python -m calib_data.render --out /tmp/preview --count 24
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calib_data.parts import CLASS_NAMES, Array, make_part
from calib_data.surfaces import background, cloud, shade

# First word of every seed sequence: no split can share a random stream with another.
SPLIT_SEEDS = {"train": 1001, "calib": 2002, "eval": 3003, "preview": 4004}
SIZES_WH = ((400, 300), (384, 384), (360, 480), (320, 240), (416, 312), (300, 400), (448, 252))
MIN_BOX_PX = 9


@dataclass(frozen=True)
class Conditions:
    """How hard the scenes are.

    Attributes:
        min_visible: share, 0..1, of a part that must stay visible under other things.
        min_radius_px: half the extent of the smallest parts.
        typical_radius_px: range of the typical half extent of the parts in one scene.
        pile_share: share of scenes whose parts lie in one heap.
        exposure_spread: deviation of the log of the exposure.
        max_defocus_px: largest deviation of the defocus blur.
        max_motion_px: longest motion blur.
    """

    min_visible: float
    min_radius_px: float
    typical_radius_px: tuple[float, float]
    pile_share: float
    exposure_spread: float
    max_defocus_px: float
    max_motion_px: int


# Training sees more than a line would show (domain randomisation). Calibration and evaluation are the line.
RANDOMISED = Conditions(0.5, 8, (15, 60), 0.25, 0.28, 2.0, 9)
LINE = Conditions(0.65, 11, (19, 60), 0.2, 0.22, 1.6, 7)
CONDITIONS = {"train": RANDOMISED, "calib": LINE, "eval": LINE, "preview": LINE}


@dataclass(frozen=True)
class Scene:
    """A rendered image and its labels.

    Attributes:
        image: uint8 (h, w, 3), RGB.
        boxes: float32 (k, 4), x1 y1 x2 y2 in pixels: the whole part, also where another one covers it, cut
            off at the border of the image.
        classes: int64 (k,), index into `CLASS_NAMES`.
        jpeg_quality: the quality, 1..100, at which the image is to be stored.
    """

    image: NDArray[np.uint8]
    boxes: Array
    classes: NDArray[np.int64]
    jpeg_quality: int


@dataclass
class _Placed:
    """A part on the canvas: which pixels it covers, how many it had, and its box."""

    mask: NDArray[np.bool_]
    area_px: int
    box: tuple[float, float, float, float]
    class_id: int


class _Canvas:
    """The image under construction, with the parts already on it."""

    def __init__(self, rng: np.random.Generator, conditions: Conditions, width: int, height: int) -> None:
        self.rng, self.conditions = rng, conditions
        self.image = background(rng, (height, width))
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.25)
        self.light = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)],
            np.float32,
        )
        self.shadow_strength = rng.uniform(0.2, 0.7)
        self.placed: list[_Placed] = []

    def fits(self, mask: NDArray[np.bool_]) -> bool:
        """Says whether every part so far stays visible enough under a new thing."""
        share = self.conditions.min_visible
        return all((p.mask & ~mask).sum() >= share * p.area_px for p in self.placed)

    def cover(self, mask: NDArray[np.bool_]) -> None:
        """Takes the pixels of a new thing away from the parts under it."""
        for part in self.placed:
            part.mask &= ~mask

    def paste(self, colours: Array, alpha: Array, left: int, top: int, lift_px: float) -> None:
        """Puts a sprite on the image, with its shadow."""
        height, width = self.image.shape[:2]
        pad = 14
        tall, wide = alpha.shape
        shadow = np.zeros((tall + 2 * pad, wide + 2 * pad), np.float32)
        shift = -self.light[:2] / max(float(self.light[2]), 0.4) * lift_px
        dx, dy = np.clip(shift, -pad, pad).round().astype(int)
        shadow[pad + dy : pad + dy + tall, pad + dx : pad + dx + wide] = alpha
        shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.8, lift_px * 0.6))
        window, part = _clip_window(left - pad, top - pad, shadow.shape, (height, width))
        self.image[window] *= 1 - self.shadow_strength * shadow[part][..., None]
        window, part = _clip_window(left, top, alpha.shape, (height, width))
        a = alpha[part][..., None]
        self.image[window] = self.image[window] * (1 - a) + colours[part] * a

    def add_part(self, class_id: int, radius_px: float, near: tuple[float, float] | None) -> bool:
        """Draws one part, and says whether there was room for it."""
        rng = self.rng
        height, width = self.image.shape[:2]
        relief = make_part(rng, class_id, radius_px)
        size = relief.alpha.shape[0]
        margin = radius_px * rng.uniform(-0.25, 1.0)
        x = rng.uniform(margin, width - margin) if near is None else near[0]
        y = rng.uniform(margin, height - margin) if near is None else near[1]
        left, top = round(x - size / 2), round(y - size / 2)
        window, part = _clip_window(left, top, relief.alpha.shape, (height, width))
        solid = relief.alpha > 0.5
        mask = np.zeros((height, width), np.bool_)
        mask[window] = solid[part]
        area = int(mask.sum())
        if area < 0.5 * solid.sum() or not self.fits(mask) or area == 0:
            return False
        box = _tight_box(mask)
        if min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_PX:
            return False
        self.paste(shade(rng, relief, self.light), relief.alpha, left, top, 1.0 + 0.07 * radius_px)
        self.cover(mask)
        self.placed.append(_Placed(mask, area, box, class_id))
        return True


def _clip_window(
    left: int, top: int, shape: tuple[int, ...], canvas: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Returns the slices of the canvas and of the sprite where the two meet."""
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = max(min(left + shape[1], canvas[1]), x1), max(min(top + shape[0], canvas[0]), y1)
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))


def _tight_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Returns x1 y1 x2 y2 in pixels around the set pixels."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _add_parts(canvas: _Canvas) -> None:
    """Fills the canvas with parts; some scenes are piles, a few are empty."""
    rng, conditions = canvas.rng, canvas.conditions
    if rng.random() < 0.04:
        return
    height, width = canvas.image.shape[:2]
    wanted = int(rng.integers(1, 9)) if rng.random() < 0.8 else int(rng.integers(8, 15))
    typical = np.exp(rng.uniform(*np.log(conditions.typical_radius_px)))
    pile = rng.random() < conditions.pile_share
    centre = rng.uniform(0.3, 0.7, 2) * (width, height)
    for _ in range(wanted):
        radius = float(np.clip(typical * np.exp(rng.normal(0, 0.35)), conditions.min_radius_px, 85))
        class_id = int(rng.integers(0, len(CLASS_NAMES)))
        if class_id in (0, 4):  # long thin parts: the same area as a round part of this radius
            radius = min(radius * 1.3, 95)
        for _ in range(4):
            spot = centre + rng.normal(0, typical * 2.2, 2)
            if canvas.add_part(class_id, radius, (float(spot[0]), float(spot[1])) if pile else None):
                break


def _add_clutter(canvas: _Canvas, count: int) -> None:
    """Draws things that are no part: O-rings, discs, pins, blocks, swarf, cables."""
    rng = canvas.rng
    height, width = canvas.image.shape[:2]
    for _ in range(count):
        layer = np.zeros((height, width), np.uint8)
        at = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        size = int(rng.uniform(5, 34))
        kind = rng.integers(0, 6)
        if kind == 0:
            cv2.circle(layer, at, size, 255, max(1, size // 9), cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(layer, at, size, 255, -1, cv2.LINE_AA)
        elif kind in (2, 3):
            aspect = 0.16 if kind == 2 else rng.uniform(0.4, 1.0)
            corners = cv2.boxPoints((at, (2 * size, 2 * size * aspect), rng.uniform(0, 180)))
            cv2.fillConvexPoly(layer, corners.astype(np.int32), 255, cv2.LINE_AA)
        elif kind == 4:
            arc, start = rng.uniform(60, 240), rng.uniform(0, 360)
            cv2.ellipse(
                layer,
                at,
                (size, max(2, size // 2)),
                rng.uniform(0, 180),
                start,
                start + arc,
                255,
                2,
                cv2.LINE_AA,
            )
        else:
            points = np.cumsum(rng.normal(0, 55, (7, 2)), 0) + at
            cv2.polylines(layer, [_smooth(points)], False, 255, int(rng.integers(2, 8)), cv2.LINE_AA)
        mask = layer > 127
        if not canvas.fits(mask):
            continue
        canvas.cover(mask)
        dome = cv2.GaussianBlur(layer, (0, 0), 1.5).astype(np.float32) / 255
        light = (
            0.75
            + 0.5 * cloud(rng, (height, width), 60, 1)
            + 0.4 * np.gradient(dome, axis=int(rng.integers(0, 2)))
        )
        colour = rng.uniform(0.05, 0.8) * (1 + 0.3 * rng.uniform(-1, 1, 3))
        canvas.paste(
            (light[..., None] * colour).astype(np.float32), layer.astype(np.float32) / 255, 0, 0, 2.0
        )


def _smooth(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Returns a curve through control points (k, 2): int32 (60, 2)."""
    steps = np.linspace(0, len(points) - 1, 60)
    known = np.arange(len(points))
    curve = np.stack([np.interp(steps, known, points[:, i]) for i in range(2)], 1).astype(np.float32)
    return cv2.GaussianBlur(curve, (1, 15), 3).astype(np.int32)


def _light_scene(rng: np.random.Generator, conditions: Conditions, image: Array) -> Array:
    """Returns the image under uneven lamps: falloff, a glare spot, a shadow edge, colour cast, exposure."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width - 0.5, y / height - 0.5
    heading = rng.uniform(0, 2 * np.pi)
    slope = np.cos(heading) * x + np.sin(heading) * y
    gain = 1 + rng.uniform(0, 0.8) * slope - rng.uniform(0, 0.7) * (x**2 + y**2)
    if rng.random() < 0.25:
        edge = np.cos(heading + 1) * x + np.sin(heading + 1) * y + rng.uniform(-0.3, 0.3)
        gain = gain * (1 - rng.uniform(0.2, 0.5) / (1 + np.exp(-edge * rng.uniform(15, 150))))
    image = image * gain[..., None].astype(np.float32)
    if rng.random() < 0.25:
        spot = np.exp(
            -((x - rng.uniform(-0.5, 0.5)) ** 2 + (y - rng.uniform(-0.5, 0.5)) ** 2)
            / rng.uniform(0.005, 0.06)
        )
        image = image + rng.uniform(0.15, 0.6) * spot[..., None].astype(np.float32)
    cast = 1 + rng.normal(0, 0.05, 3)
    exposure = np.exp(rng.normal(0, conditions.exposure_spread))
    image = np.clip(image * (cast * exposure).astype(np.float32), 0, 1)
    return np.asarray(image ** np.float32(rng.uniform(0.75, 1.3)), np.float32)


def _camera(rng: np.random.Generator, conditions: Conditions, image: Array) -> NDArray[np.uint8]:
    """Returns what the sensor records: motion or defocus blur, shot and read noise: uint8 (h, w, 3)."""
    kind = rng.random()
    if kind < 0.2:
        length = int(rng.integers(3, conditions.max_motion_px + 1))
        kernel = np.zeros((length, length), np.float32)
        bend = np.array([np.cos(a := rng.uniform(0, np.pi)), np.sin(a)]) * length / 2
        middle = np.array([length / 2 - 0.5] * 2)
        ends = [tuple(round(c) for c in middle + s * bend) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    else:
        sigma = rng.uniform(0.3, 0.8) if kind < 0.8 else rng.uniform(0.8, conditions.max_defocus_px)
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = rng.standard_normal(image.shape, np.float32)
    image = image + noise * (rng.uniform(0.002, 0.022) + rng.uniform(0, 0.03) * np.sqrt(np.clip(image, 0, 1)))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def render(split: str, index: int) -> Scene:
    """Returns image `index` of a split; the same arguments always give the same image."""
    rng = np.random.default_rng([SPLIT_SEEDS[split], index])
    width, height = SIZES_WH[int(rng.integers(0, len(SIZES_WH)))]
    conditions = CONDITIONS[split]
    canvas = _Canvas(rng, conditions, width, height)
    _add_clutter(canvas, int(rng.integers(0, 6)))
    _add_parts(canvas)
    if rng.random() < 0.4:
        _add_clutter(canvas, int(rng.integers(1, 4)))
    image = _camera(rng, conditions, _light_scene(rng, conditions, canvas.image))
    boxes = np.array([p.box for p in canvas.placed], np.float32).reshape(-1, 4)
    classes = np.array([p.class_id for p in canvas.placed], np.int64)
    return Scene(image, boxes, classes, int(rng.integers(55, 91)))


def encode_jpeg(scene: Scene) -> bytes:
    """Returns the image as the bytes of a JPEG file."""
    ok, data = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode the image as JPEG")
    return bytes(data)


def draw_boxes(scene: Scene) -> NDArray[np.uint8]:
    """Returns a copy of the image, uint8 RGB, with its labels drawn."""
    image = np.ascontiguousarray(scene.image)
    for box, class_id in zip(scene.boxes.astype(int).tolist(), scene.classes.tolist(), strict=True):
        cv2.rectangle(image, (box[0], box[1]), (box[2], box[3]), (255, 40, 40), 1)
        cv2.putText(
            image, CLASS_NAMES[class_id], (box[0], box[1] + 9), 0, 0.35, (255, 255, 0), 1, cv2.LINE_AA
        )
    return image


def main() -> None:
    """Writes a few images with their boxes drawn, to look at."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--plain", action="store_true", help="do not draw the boxes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for index in range(args.count):
        scene = render("preview", index)
        image = scene.image if args.plain else draw_boxes(scene)
        cv2.imwrite(str(args.out / f"{index:03d}.png"), image[..., ::-1])


if __name__ == "__main__":
    main()
