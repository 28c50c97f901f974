"""The scenes of the toy data set: their palette, shapes and poses, and how they are painted.

Every bird stands in profile and faces right. The writer (:mod:`clipgan.data.toy`) and the oracle
(:mod:`clipgan.data.toy_oracle`) share this one drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

BIRD_COLOURS = {
    "red": (222, 38, 42),
    "yellow": (250, 200, 20),
    "blue": (36, 88, 222),
    "black": (34, 34, 42),
}
BACKGROUND_COLOURS = {
    "pink": (252, 202, 216),
    "cream": (250, 236, 178),
    "mint": (188, 240, 204),
    "azure": (184, 218, 252),
}
BEAKS = ("short", "long")
SIZES = {"small": 0.77, "large": 1.0}
ATTRIBUTES = {
    "body": tuple(BIRD_COLOURS),
    "wing": tuple(BIRD_COLOURS),
    "head": tuple(BIRD_COLOURS),
    "beak": BEAKS,
    "size": tuple(SIZES),
    "background": tuple(BACKGROUND_COLOURS),
}

# Parts whose colour no caption names.
FIXED_COLOURS = {"beak": (236, 116, 14), "leg": (96, 76, 62), "eye": (255, 255, 255), "pupil": (20, 20, 24)}

POSITION_JITTER = 0.02  # largest shift in each direction, in units of the image's side
SIZE_JITTER = 0.03
SUPERSAMPLING = 4
_FOOT = (0.47, 0.90)  # the point that stays in place when the bird's size changes

Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Attributes:
    """What the captions of a scene name."""

    body: str
    wing: str
    head: str
    beak: str
    size: str
    background: str


@dataclass(frozen=True)
class Pose:
    """Where and how the bird stands: everything about a scene but its colours."""

    scale: float  # 1 = large
    beak: str
    shift: Point = (0.0, 0.0)  # in units of the image's side


@dataclass(frozen=True)
class Shape:
    """A polygon of one part, in units of the image's side; its colour is the part's, darkened by ``shade``."""

    part: str
    points: tuple[Point, ...]
    shade: float = 1.0


def scene_shapes(pose: Pose) -> list[Shape]:
    """The polygons of a scene, in painting order: ground and sky, bird."""
    bird = [
        Shape(shape.part, tuple(_place(point, pose) for point in shape.points), shape.shade)
        for shape in bird_shapes(pose.beak)
    ]
    return [*ground_and_sky(), *bird]


def ground_and_sky() -> list[Shape]:
    """What covers the whole image."""
    sky = Shape("background", ((0, 0), (1, 0), (1, 1), (0, 1)))
    ground = Shape("background", ((0, 0.82), (1, 0.82), (1, 1), (0, 1)), shade=0.86)
    return [sky, ground]


def _place(point: Point, pose: Pose) -> Point:
    (x, y), (foot_x, foot_y), (shift_x, shift_y) = point, _FOOT, pose.shift
    return foot_x + pose.scale * (x - foot_x) + shift_x, foot_y + pose.scale * (y - foot_y) + shift_y


def bird_shapes(beak: str) -> list[Shape]:
    """The shapes of a large bird that is not shifted."""
    beak_points = {
        "short": ((0.715, 0.235), (0.835, 0.305), (0.715, 0.365)),
        "long": ((0.680, 0.170), (0.970, 0.320), (0.955, 0.470), (0.710, 0.440)),  # a pelican's
    }[beak]
    return [
        Shape("leg", ((0.405, 0.70), (0.435, 0.70), (0.435, 0.88), (0.480, 0.91), (0.400, 0.91))),
        Shape("leg", ((0.515, 0.70), (0.545, 0.70), (0.545, 0.88), (0.590, 0.91), (0.510, 0.91)), shade=0.85),
        Shape("wing", ((0.30, 0.50), (0.030, 0.620), (0.065, 0.730), (0.33, 0.66)), shade=0.84),  # the tail
        Shape("body", _ellipse((0.460, 0.560), (0.265, 0.190), -18)),
        Shape("beak", beak_points),
        Shape("head", _ellipse((0.620, 0.300), (0.148, 0.148), 0)),
        Shape("wing", _ellipse((0.385, 0.555), (0.205, 0.118), -24)),
        Shape("wing", _ellipse((0.300, 0.592), (0.120, 0.062), -24), shade=0.84),  # folded feathers
        Shape("eye", _ellipse((0.655, 0.270), (0.046, 0.046), 0)),
        Shape("pupil", _ellipse((0.665, 0.270), (0.026, 0.026), 0)),
    ]


def _ellipse(centre: Point, radii: Point, degrees: float, corners: int = 36) -> tuple[Point, ...]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = []
    for i in range(corners):
        x = radii[0] * math.cos(2 * math.pi * i / corners)
        y = radii[1] * math.sin(2 * math.pi * i / corners)
        points.append((centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos))
    return tuple(points)


def paint(shapes: list[Shape], fill: Callable[[Shape], int | Colour], mode: str, size: int) -> Image.Image:
    """Paint polygons over each other, antialiased by supersampling.

    Args:
        shapes: in painting order; the first covers everything.
        fill: the colour of a shape, in the mode's form.
        mode: Pillow's ``RGB`` or ``L``.
        size: side of the image in pixels.
    """
    side = size * SUPERSAMPLING
    canvas = Image.new(mode, (side, side))
    draw = ImageDraw.Draw(canvas)
    for shape in shapes:
        draw.polygon([(x * side - 0.5, y * side - 0.5) for x, y in shape.points], fill=fill(shape))
    return canvas.reduce(SUPERSAMPLING)


def draw_scene(attributes: Attributes, pose: Pose, size: int) -> Image.Image:
    """The RGB image of a scene; size and beak come from the pose, colours from the attributes."""
    colours = FIXED_COLOURS | {part: BIRD_COLOURS[getattr(attributes, part)] for part in ("body", "wing", "head")}
    colours["background"] = BACKGROUND_COLOURS[attributes.background]

    def fill(shape: Shape) -> Colour:
        return tuple(round(shape.shade * channel) for channel in colours[shape.part])  # type: ignore[return-value]

    return paint(scene_shapes(pose), fill, "RGB", size)


def bird_box(pose: Pose, size: int) -> tuple[float, float, float, float]:
    """The tight box of the bird, beak, tail and feet included: x, y, width, height in pixels."""
    return shapes_box(scene_shapes(pose), size)


def shapes_box(shapes: list[Shape], size: int) -> tuple[float, float, float, float]:
    """The tight box of what is not background, as :func:`bird_box`."""
    points = np.array([point for shape in shapes if shape.part != "background" for point in shape.points])
    low, high = points.min(0).clip(0, 1) * size, points.max(0).clip(0, 1) * size
    return tuple(round(float(value), 1) for value in (*low, *(high - low)))  # type: ignore[return-value]


def random_pose(attributes: Attributes, rng: np.random.Generator) -> Pose:
    """A pose of the given size and beak, jittered."""
    scale = SIZES[attributes.size] * (1 + rng.uniform(-SIZE_JITTER, SIZE_JITTER))
    shift_x, shift_y = rng.uniform(-POSITION_JITTER, POSITION_JITTER, 2)
    return Pose(scale, attributes.beak, (float(shift_x), float(shift_y)))
