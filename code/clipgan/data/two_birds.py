"""Scenes of two birds, each with its own colours, that stand beside or before one another.

Their captions cannot be told by which words they have: when the two birds change places, the same words describe
another image. ``tools/make_toy_data.py --scene two_birds`` draws them; the test split has every scene in both orders,
so that for each caption the other one is there to be taken for it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from clipgan.data.toy_scene import (
    BACKGROUND_COLOURS,
    BIRD_COLOURS,
    FIXED_COLOURS,
    POSITION_JITTER,
    SIZE_JITTER,
    Colour,
    Point,
    Shape,
    bird_shapes,
    ground_and_sky,
    paint,
)

ARRANGEMENTS = ("beside", "before")
ATTRIBUTES = {
    "first_body": tuple(BIRD_COLOURS),
    "first_wing": tuple(BIRD_COLOURS),
    "second_body": tuple(BIRD_COLOURS),
    "second_wing": tuple(BIRD_COLOURS),
    "arrangement": ARRANGEMENTS,
}
TEST_PAIRS = 14  # of 54 pairs of birds, without regard to their order

# Where a bird's foot stands and how large it is: the first bird's and the second's. Beside one another, the first is on
# the left; before the other, it covers a part of the second one.
_PLACES: dict[str, tuple[tuple[Point, float], tuple[Point, float]]] = {
    "beside": (((0.27, 0.80), 0.54), ((0.75, 0.80), 0.54)),
    "before": (((0.36, 0.96), 0.60), ((0.68, 0.66), 0.56)),
}
_FOOT = (0.47, 0.90)  # of a bird that is drawn alone
_CENTRE = (0.5, 0.6)  # the point that stays in place when the scene's size changes

_BIRD = "{body} bird with {wing} wings"
_SENTENCES = (
    "a {one} {where} a {other}",
    "the {one} stands {where} the {other}",
    "there is a {one} {where} a {other}",
    "a picture of a {one} {where} a {other}",
)
_WHERE = {  # as seen from the first bird and from the second
    "beside": (("left of", "to the left of"), ("right of", "to the right of")),
    "before": (("in front of", "before"), ("behind", "in the back of")),
}


@dataclass(frozen=True)
class TwoBirds:
    """What the captions of a scene name. The background's colour is not among it."""

    first_body: str
    first_wing: str
    second_body: str
    second_wing: str
    arrangement: str

    def swapped(self) -> TwoBirds:
        """The same two birds in each other's places."""
        return TwoBirds(self.second_body, self.second_wing, self.first_body, self.first_wing, self.arrangement)


@dataclass(frozen=True)
class TwoBirdsPose:
    """Everything about a scene but its colours."""

    arrangement: str
    scale: float = 1.0
    shift: Point = (0.0, 0.0)  # of both birds, in units of the image's side


def two_birds_shapes(pose: TwoBirdsPose) -> list[Shape]:
    """The polygons of a scene in painting order: ground and sky, the second bird, the first."""
    shapes = ground_and_sky()
    for bird, (foot, size) in reversed(list(zip(("first", "second"), _PLACES[pose.arrangement], strict=True))):
        for shape in bird_shapes("short"):
            # A bird has two colours: its head has the body's.
            part = {"body": "body", "head": "body", "wing": "wing"}.get(shape.part)
            points = tuple(_place(point, foot, size, pose) for point in shape.points)
            shapes.append(replace(shape, part=f"{bird}_{part}" if part else shape.part, points=points))
    return shapes


def _place(point: Point, foot: Point, size: float, pose: TwoBirdsPose) -> Point:
    placed = (foot[axis] + size * (point[axis] - _FOOT[axis]) for axis in (0, 1))
    x, y = (c + pose.scale * (p - c) + s for p, c, s in zip(placed, _CENTRE, pose.shift, strict=True))
    return x, y


def draw_two_birds(attributes: TwoBirds, background: str, pose: TwoBirdsPose, size: int) -> Image.Image:
    """The RGB image of a scene; the arrangement comes from the pose, colours from the attributes."""
    colours = FIXED_COLOURS | {"background": BACKGROUND_COLOURS[background]}
    colours |= {part: BIRD_COLOURS[getattr(attributes, part)] for part in ATTRIBUTES if part != "arrangement"}

    def fill(shape: Shape) -> Colour:
        return tuple(round(shape.shade * channel) for channel in colours[shape.part])  # type: ignore[return-value]

    return paint(two_birds_shapes(pose), fill, "RGB", size)


def random_two_birds_pose(attributes: TwoBirds, rng: np.random.Generator) -> TwoBirdsPose:
    """A pose of the given arrangement, jittered."""
    x, y = rng.uniform(-POSITION_JITTER, POSITION_JITTER, 2)
    return TwoBirdsPose(attributes.arrangement, 1 + rng.uniform(-SIZE_JITTER, SIZE_JITTER), (float(x), float(y)))


def two_birds_captions(attributes: TwoBirds, count: int, rng: np.random.Generator) -> list[str]:
    """``count`` different captions of a scene, up to 16, from the first bird and from the second in turn."""
    birds = [
        {"body": attributes.first_body, "wing": attributes.first_wing},
        {"body": attributes.second_body, "wing": attributes.second_wing},
    ]
    captions: list[str] = []
    while len(captions) < count:
        begin = len(captions) % 2
        one, other = (_BIRD.format(**birds[bird]) for bird in (begin, 1 - begin))
        where = str(rng.choice(_WHERE[attributes.arrangement][begin]))
        caption = str(rng.choice(_SENTENCES)).format(one=one, other=other, where=where)
        if caption not in captions:
            captions.append(caption)
    return captions


def split_two_birds(test: int, rng: np.random.Generator) -> tuple[list[TwoBirds], list[TwoBirds]]:
    """The scenes of training, and those of ``test`` test images, where every scene is followed by its swapped one.

    No pair of birds is in both, in either order. A bird's wing never has its body's colour, and the birds' bodies
    differ.
    """
    birds = [(body, wing) for body, wing in itertools.product(BIRD_COLOURS, repeat=2) if body != wing]
    pairs = [(one, two) for one, two in itertools.combinations(birds, 2) if one[0] != two[0]]
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    count = min(TEST_PAIRS, max(1, test // 4))
    of_split = []
    for chosen in (shuffled[count:], shuffled[:count]):
        scenes = [TwoBirds(*one, *two, arrangement) for arrangement in ARRANGEMENTS for one, two in chosen]
        of_split.append([scene for pair in scenes for scene in (pair, pair.swapped())])
    return of_split[0], of_split[1]
