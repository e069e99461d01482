"""What a surface looks like: metal and plastic parts under one lamp, belts and trays, stains and prints."""

from __future__ import annotations

import string

import cv2
import numpy as np
from numpy.typing import NDArray

from calib_data.parts import Array, Relief

# RGB, 0..1: steel, dark steel, brass, copper, zinc, black oxide.
METALS = np.array(
    [
        [0.62, 0.64, 0.67],
        [0.42, 0.43, 0.46],
        [0.72, 0.58, 0.3],
        [0.7, 0.45, 0.33],
        [0.68, 0.66, 0.56],
        [0.16, 0.16, 0.18],
    ],
    np.float32,
)


def cloud(rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 3) -> Array:
    """Returns smooth noise: float32 (h, w), about -1..1, with features of `cell_px` and finer."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1.0)
        size = (max(2, int(shape[1] / cell) + 2), max(2, int(shape[0] / cell) + 2))
        coarse = rng.standard_normal((size[1], size[0])).astype(np.float32)
        total += cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total * 0.5


def material(rng: np.random.Generator) -> tuple[Array, float, float]:
    """Returns a colour (3,), RGB 0..1, the share of mirror reflection and the share of brush marks."""
    kind = rng.random()
    if kind < 0.78:
        colour = METALS[rng.choice(len(METALS), p=[0.36, 0.2, 0.14, 0.08, 0.12, 0.1])]
        colour = colour * rng.uniform(0.8, 1.2) * (1 + rng.normal(0, 0.03, 3))
        return colour.astype(np.float32), rng.uniform(0.25, 0.75), rng.uniform(0.0, 0.12)
    hue = np.uint8([[[rng.integers(0, 180), rng.integers(60, 220), rng.integers(70, 220)]]])
    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32) / 255
    return colour, rng.uniform(0.02, 0.15), rng.uniform(0.0, 0.04)


def shade(rng: np.random.Generator, relief: Relief, light: Array) -> Array:
    """Returns the colours of a part: float32 (s, s, 3), RGB 0..1, lit from the unit vector `light`.

    Diffuse (Lambert) and specular (Blinn-Phong) terms plus a striped surrounding that metal mirrors.
    """
    colour, mirror, brush = material(rng)
    shape = relief.height.shape
    slope_y, slope_x = np.gradient(relief.height)
    rough = rng.uniform(0.0, 0.1)
    slope_x = slope_x + rough * cloud(rng, shape, 6)
    slope_y = slope_y + rough * cloud(rng, shape, 6)
    norm = 1.0 / np.sqrt(1 + slope_x**2 + slope_y**2)
    nx, ny, nz = -slope_x * norm, -slope_y * norm, norm
    diffuse = np.clip(nx * light[0] + ny * light[1] + nz * light[2], 0, 1)
    halfway = light + np.array([0, 0, 1], np.float32)
    halfway = halfway / np.linalg.norm(halfway)
    facing = np.clip(nx * halfway[0] + ny * halfway[1] + nz * halfway[2], 0, 1)
    specular = facing ** rng.uniform(12, 60)
    size = shape[0]
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    heading, phase = rng.uniform(0, 2 * np.pi, 2)
    flow = (nx + 0.5 * xx) * np.cos(heading) + (ny + 0.5 * yy) * np.sin(heading)
    surrounding = 0.5 + 0.5 * np.sin(rng.uniform(2.0, 5.0) * flow + phase)
    value = (0.35 + 0.75 * diffuse) * (1 - mirror) + mirror * (0.35 + 1.0 * surrounding)
    if brush > 0:
        value = value * (1 + brush * _brush_marks(rng, xx, yy, relief.polar))
    pixels = value[..., None] * colour * relief.tone[..., None]
    pixels = pixels + (specular * (0.15 + 0.6 * mirror))[..., None] * relief.tone[..., None]
    if rng.random() < 0.15:
        rust = np.clip(cloud(rng, shape, size / 3) * 1.6 + rng.uniform(-0.5, 0.3), 0, 1)[..., None] * 0.8
        pixels = pixels * (1 - rust) + rust * value[..., None] * np.array([0.42, 0.24, 0.13], np.float32)
    return np.asarray(np.clip(pixels, 0, 1.3), np.float32)


def _brush_marks(rng: np.random.Generator, x: Array, y: Array, polar: bool) -> Array:
    """Returns fine marks, about -2..2, that run round the centre or along one direction."""
    marks = rng.standard_normal(256).astype(np.float32)
    heading = rng.uniform(0, np.pi)
    where = np.hypot(x, y) * 1.4 if polar else x * np.cos(heading) + y * np.sin(heading) + 0.75
    return marks[np.clip(where * 160, 0, 255).astype(np.int32)]


def background(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Returns a belt, plate, tray, board or mat: float32 (h, w, 3), RGB 0..1."""
    kind = rng.choice(7, p=[0.24, 0.16, 0.16, 0.14, 0.1, 0.1, 0.1])
    makers = (_belt, _plate, _tray, _ribbed, _cardboard, _perforated, _mat)
    image = makers[kind](rng, shape)
    image = image * (1 + rng.uniform(0.02, 0.1) * cloud(rng, shape, rng.uniform(20, 120))[..., None])
    if rng.random() < 0.4:
        _stains(rng, image)
    if rng.random() < 0.3:
        _prints(rng, image)
    if rng.random() < 0.35:
        _scratches(rng, image)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _tint(rng: np.random.Generator, low: float, high: float, saturation: float) -> Array:
    """Returns a colour (3,), RGB, of a value between low and high."""
    tone = rng.uniform(low, high)
    return np.asarray(tone * (1 + saturation * rng.uniform(-1, 1, 3)), np.float32)


def _coords(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Returns pixel coordinates turned by a random angle, mostly near an axis."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    a = (
        rng.normal(0, 0.08)
        + rng.integers(0, 2) * np.pi / 2
        + (rng.uniform(0, np.pi) if rng.random() < 0.3 else 0)
    )
    return np.float32(np.cos(a)) * x + np.float32(np.sin(a)) * y, np.float32(np.cos(a)) * y - np.float32(
        np.sin(a)
    ) * x


def _belt(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    x, y = _coords(rng, shape)
    pitch = rng.uniform(4, 14)
    weave = np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * y / (pitch * rng.uniform(0.7, 1.5)))
    grain = rng.standard_normal(shape).astype(np.float32)
    texture = 1 + rng.uniform(0.03, 0.2) * weave + rng.uniform(0.02, 0.1) * grain
    return texture[..., None] * _tint(rng, 0.08, 0.38, 0.2)


def _plate(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    across = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 9, sigmaY=0.6) * 3
    if rng.random() < 0.5:
        across = np.ascontiguousarray(across[:, ::-1])
    sheen = cloud(rng, shape, max(shape) / 1.5, 1)
    return (1 + 0.09 * across + 0.25 * sheen)[..., None] * _tint(rng, 0.35, 0.68, 0.05)


def _tray(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    image = np.ones((*shape, 1), np.float32) * _tint(rng, 0.55, 0.9, 0.12)
    x, y = _coords(rng, shape)
    if rng.random() < 0.5:
        pitch = rng.uniform(50, 130)
        edge = np.minimum(np.abs((x + 17) % pitch - pitch / 2), np.abs((y + 31) % pitch - pitch / 2))
        image = image * (1 - 0.35 * np.exp(-((edge / rng.uniform(1.5, 4)) ** 2)))[..., None]
    return image * (1 + 0.015 * rng.standard_normal(shape).astype(np.float32))[..., None]


def _ribbed(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    x, y = _coords(rng, shape)
    pitch = rng.uniform(14, 60)
    if rng.random() < 0.5:  # chevrons
        x = x + np.abs((y % (4 * pitch)) - 2 * pitch)
    phase = (x % pitch) / pitch
    ribs = np.exp(-(((phase - 0.5) / 0.1) ** 2)) - 0.6 * np.exp(-(((phase - 0.66) / 0.08) ** 2))
    grain = rng.standard_normal(shape).astype(np.float32)
    return (1 + rng.uniform(0.15, 0.4) * ribs + 0.04 * grain)[..., None] * _tint(rng, 0.15, 0.55, 0.45)


def _cardboard(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    fibre = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 6, sigmaY=1.2) * 4
    x, _ = _coords(rng, shape)
    flutes = np.sin(2 * np.pi * x / rng.uniform(7, 15))
    colour = np.array([0.62, 0.47, 0.31], np.float32) * np.float32(rng.uniform(0.7, 1.25))
    return (1 + 0.07 * fibre + rng.uniform(0, 0.06) * flutes)[..., None] * colour


def _perforated(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    x, y = _coords(rng, shape)
    pitch = rng.uniform(18, 46)
    row = np.floor(y / pitch)
    shifted = x + (row % 2) * pitch / 2 * float(rng.integers(0, 2))
    to_hole = np.hypot(shifted % pitch - pitch / 2, y % pitch - pitch / 2) - pitch * rng.uniform(0.18, 0.34)
    hole = np.clip(0.5 - to_hole, 0, 1)
    rim = np.exp(-(((to_hole - 1.5) / 1.5) ** 2))
    value = (1 + 0.25 * rim) * (1 - hole * rng.uniform(0.5, 0.9))
    return value[..., None] * _tint(rng, 0.25, 0.7, 0.12)


def _mat(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Returns a cutting mat or printed sheet with a grid."""
    x, y = _coords(rng, shape)
    pitch = rng.uniform(16, 50)
    lines = (x % pitch < 1.3) | (y % pitch < 1.3)
    ground, ink = _tint(rng, 0.15, 0.8, 0.5), _tint(rng, 0.2, 0.95, 0.3)
    share = lines[..., None] * np.float32(rng.uniform(0.3, 0.9))
    return ground * (1 - share) + ink * share


def _stains(rng: np.random.Generator, image: Array) -> None:
    """Darkens patches of oil in place."""
    patch = np.clip(cloud(rng, image.shape[:2], rng.uniform(40, 140)) * 3 - rng.uniform(1.2, 2.5), 0, 1)
    image *= 1 - rng.uniform(0.2, 0.5) * patch[..., None]


def _scratches(rng: np.random.Generator, image: Array) -> None:
    """Draws thin light or dark lines in place."""
    layer = np.zeros(image.shape[:2], np.float32)
    for _ in range(int(rng.integers(2, 14))):
        start = rng.uniform(0, 1, 2) * image.shape[1::-1]
        end = start + rng.normal(0, 90, 2)
        cv2.line(layer, _xy(start), _xy(end), 1.0, 1, cv2.LINE_AA)
    image += rng.uniform(-0.15, 0.2) * layer[..., None]


def _prints(rng: np.random.Generator, image: Array) -> None:
    """Prints text, a bar code or a hazard band in place."""
    ink = _tint(rng, 0.05, 0.95, 0.5)
    kind = rng.integers(0, 3)
    if kind == 0:
        _print_text(rng, image, ink)
    elif kind == 1:
        _print_bar_code(rng, image)
    else:
        _print_hazard_band(rng, image)


def _print_text(rng: np.random.Generator, image: Array, ink: Array) -> None:
    height, width = image.shape[:2]
    fonts = [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX]
    letters = list(string.ascii_uppercase + string.digits + " -/")
    layer = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 5))):
        text = "".join(rng.choice(letters, int(rng.integers(3, 12))))
        at = _xy(rng.uniform(-0.1, 0.9, 2) * (width, height))
        font = int(rng.choice(fonts))
        cv2.putText(layer, text, at, font, rng.uniform(0.4, 1.8), 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    share = layer[..., None].astype(np.float32) / 255
    image[:] = image * (1 - share) + ink * share


def _print_bar_code(rng: np.random.Generator, image: Array) -> None:
    height, width = image.shape[:2]
    left, top = (int(value) for value in rng.uniform(0, 0.8, 2) * (width, height))
    tall = int(rng.uniform(20, 70))
    cv2.rectangle(image, (left, top), (left + 130, top + tall + 8), (0.9, 0.9, 0.88), -1)
    x = left + 6
    while x < left + 122:
        bar = int(rng.integers(1, 4))
        cv2.rectangle(image, (x, top + 4), (x + bar - 1, top + tall), (0.05, 0.05, 0.05), -1)
        x += bar + int(rng.integers(1, 5))


def _print_hazard_band(rng: np.random.Generator, image: Array) -> None:
    height, width = image.shape[:2]
    x, y = _coords(rng, (height, width))
    centre, half, pitch = rng.uniform(0, height), rng.uniform(8, 22), rng.uniform(20, 44)
    band = np.abs(y - centre) < half
    stripes = ((x + y) % pitch) < pitch / 2
    image[band & stripes] = (0.85, 0.7, 0.1)
    image[band & ~stripes] = (0.08, 0.08, 0.08)


def _xy(point: NDArray[np.float64]) -> tuple[int, int]:
    return int(point[0]), int(point[1])
