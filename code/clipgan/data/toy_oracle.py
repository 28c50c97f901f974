"""Reads a drawn scene's attributes back from an image by analysis by synthesis, without any network.

1. For a grid of poses (size, beak, position, each sharp and blurred), the drawing gives the pixels of each part.
2. For each pose, least squares gives the colours of body, wing, head and background. The pose with the smallest
   residual is chosen.
3. The scene is repainted with the nearest colours of the palette. A bird is *found* only if the repainted scene
   explains the image, both as a whole and within the bird. So smears of the right colours are not birds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.data import toy_scene, two_birds
from clipgan.data.toy_scene import (
    BACKGROUND_COLOURS,
    BIRD_COLOURS,
    FIXED_COLOURS,
    POSITION_JITTER,
    SIZE_JITTER,
    SIZES,
    Pose,
    Shape,
    paint,
    scene_shapes,
)
from clipgan.data.two_birds import TwoBirdsPose, two_birds_shapes
from clipgan.files.gate import read_json, reading
from clipgan.files.shapes import anything, mapping_of, one_of, record

SIDE = 32  # pixels; every image is resized to this first
# Shares of the variance that the repainted scene must explain, in the image and within the bird. A bird needs both.
# The limits lie between shares measured on 600 images of each kind (in the image and within the bird).
# Birds, lowest 1 %: drawings 0.94 and 0.82; with 1 px of blur and noise of 0.1, 0.86 and 0.78.
# No birds, highest 1 %: drawings blurred by 5 px 0.35 and −1.2; soft blobs of the same colours −0.03 and 0.47.
MIN_EXPLAINED = 0.5
MIN_EXPLAINED_BIRD = 0.3
SOFTNESS = (0.0, 0.8, 1.3)  # sigmas of Gaussian blurs in pixels: a generator's edges are soft
_CHUNK = 512  # images at once: bounds the memory


@dataclass(frozen=True, eq=False)
class SceneKind:
    """What the oracle knows of a kind of drawn scenes.

    Attributes:
        attributes: their names and values.
        parts: those whose colours are read; attributes where they have the name of one.
        shapes: the polygons of a pose.
        poses: all that are tried.
        of_pose: the attributes that a pose tells.
    """

    attributes: Mapping[str, tuple[str, ...]]
    parts: tuple[str, ...]
    shapes: Callable[[Any], list[Shape]]
    poses: Callable[[], list[Any]]
    of_pose: Callable[[Any], dict[str, str]]


@dataclass(frozen=True)
class _PoseBank:
    poses: list[Any]
    masks: Tensor  # [P, K, X]: how much of each pixel is of each part, times the part's shade there
    basis: Tensor  # [P, K, X]: the same, orthonormal over X
    solve: Tensor  # [P, K, K]: from ⟨image, basis⟩ to the parts' colours
    fixed: Tensor  # [P, 3, X]: beak, legs and eye, painted on black
    bird: Tensor  # [P, X]: 1 within the bird, beak and legs not counted


def resize(images: Tensor) -> Tensor:
    """[N, C, S, S] → [N, C, 32, 32], the size that the oracle reads."""
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def read_attributes(images: Tensor, kind: SceneKind | None = None) -> list[dict[str, str] | None]:
    """What each image shows, by the names of the kind's attributes; None where there is no such scene.

    Args:
        images: [N, 3, S, S] in [−1, 1], S at least 16.
        kind: of the scenes; None: ``ONE_BIRD``.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[2] < 16:
        raise ValueError(f"expected images [N, 3, S, S] with S >= 16, not {list(images.shape)}")
    chunks = images.detach().float().cpu().split(_CHUNK)
    return [reading for chunk in chunks for reading in _read(chunk, kind or ONE_BIRD)]


def right_attributes(images: Tensor, truths: Sequence[dict[str, str]]) -> Tensor:
    """Which attributes of each image match its truth; an image without a bird has none right.

    Args:
        images: [N, 3, S, S] in [−1, 1].
        truths: N descriptions of scenes of one kind, by the names of its attributes.

    Returns:
        float64 [N, 1 + attributes] of 0 and 1: whether there is a bird, then each attribute in the kind's order.
    """
    if len(images) != len(truths) or not truths:
        raise ValueError(f"{len(images)} images with {len(truths)} descriptions")
    rows, kind = [], kind_of(truths[0])
    for read, truth in zip(read_attributes(images, kind), truths, strict=True):
        found = read is not None
        rows.append([found] + [found and read[name] == truth[name] for name in kind.attributes])
    return torch.tensor(rows, dtype=torch.float64)


def accuracies(readings: Tensor) -> dict[str, float]:
    """Of what :func:`right_attributes` gave for N images: ``mean`` over attributes, each attribute, and ``found``."""
    found, *scores = readings.mean(dim=0).tolist()
    names = _kind_with(len(scores)).attributes
    return {"mean": sum(scores) / len(scores), **dict(zip(names, scores, strict=True)), "found": found}


def chance_accuracy(attributes: int | None = None) -> float:
    """The ``mean`` of :func:`accuracies` for perfect birds whose attributes are guessed evenly.

    Args:
        attributes: how many the scenes have; None: as many as ``ONE_BIRD``'s.
    """
    values = _kind_with(attributes or len(ONE_BIRD.attributes)).attributes.values()
    return sum(1 / len(each) for each in values) / len(values)


def read_truth(data_dir: str | Path) -> dict[str, dict[str, str]] | None:
    """The attributes of each image of a toy data set by its key; None for any other data set.

    Raises:
        UserError: the folder's ``attributes.json`` is not the toy data set's.
    """
    path = Path(data_dir) / "attributes.json"
    if not path.exists():
        return None
    with reading(path, "the attributes of the toy data set, which tools/make_toy_data.py draws"):
        content = read_json(path)
        _ANY_TRUTH(content, "it")
        first = next(iter(content["attributes"].values()), None)
        kind = TWO_BIRDS if isinstance(first, dict) and "first_body" in first else ONE_BIRD
        scene = record({name: one_of(*values) for name, values in kind.attributes.items()})
        record({"attributes": mapping_of(scene, at_most=_MOST_IMAGES)}, others=True)(content, "it")
        return {key: {name: of[name] for name in kind.attributes} for key, of in content["attributes"].items()}


def _read(images: Tensor, kind: SceneKind) -> list[dict[str, str] | None]:
    bank = _pose_bank(kind)
    pixels = resize(images).flatten(2).add(1).mul(0.5)  # [N, 3, X] in [0, 1], where shading is a factor
    best = _best_pose(pixels, bank)  # [N]

    masks, fixed, bird = bank.masks[best], bank.fixed[best], bank.bird[best]  # [N, K, X], [N, 3, X], [N, X]
    coordinates = torch.einsum("ncx,nkx->nkc", pixels - fixed, bank.basis[best])
    colours = torch.einsum("njk,nkc->njc", bank.solve[best], coordinates)  # [N, K, 3]
    nearest, names = [], []
    for k, part in enumerate(kind.parts):
        palette = BACKGROUND_COLOURS if part == "background" else BIRD_COLOURS
        table = torch.tensor(list(palette.values())) / 255.0  # [V, 3]
        choice = torch.cdist(colours[:, k], table).argmin(1)
        nearest.append(table[choice])
        names.append([tuple(palette)[i] for i in choice.tolist()])
    repainted = fixed + torch.einsum("nkc,nkx->ncx", torch.stack(nearest, 1), masks)

    explained = _explained(pixels, repainted, torch.ones_like(bird))
    explained_bird = _explained(pixels, repainted, bird)
    found = (explained >= MIN_EXPLAINED) & (explained_bird >= MIN_EXPLAINED_BIRD)
    readings = []
    for pose_number, bird_found, *colour_names in zip(best.tolist(), found.tolist(), *names, strict=True):
        reading = dict(zip(kind.parts, colour_names, strict=True)) | kind.of_pose(bank.poses[pose_number])
        readings.append({name: reading[name] for name in kind.attributes} if bird_found else None)
    return readings


def _best_pose(pixels: Tensor, bank: _PoseBank) -> Tensor:
    """The pose with the smallest residual when each part has its best colour: int64 [N].

    For the image x, the fixed parts f and the orthonormal masks Q, the residual is ‖x − f‖² − ‖Q(x − f)‖². Its term
    ‖x‖² is the same in each pose and is left out.
    """
    count, _, size = pixels.shape
    poses, parts, _ = bank.basis.shape
    basis, fixed = bank.basis.reshape(-1, size), bank.fixed
    fixed_coordinates = torch.einsum("pcx,pkx->pck", fixed, bank.basis)  # [P, 3, K]
    unexplained = torch.zeros(count, poses)
    for c in range(3):
        along = (pixels[:, c] @ basis.T).view(count, poses, parts) - fixed_coordinates[:, c]  # [N, P, K]
        unexplained += fixed[:, c].square().sum(-1) - 2 * pixels[:, c] @ fixed[:, c].T - along.square().sum(-1)
    return unexplained.argmin(1)


def _explained(pixels: Tensor, repainted: Tensor, weights: Tensor) -> Tensor:
    """1 − weighted squared error / weighted variance around the mean colour: [N]."""
    weights = weights[:, None]  # [N, 1, X]
    total = weights.sum(-1, keepdim=True)
    mean = (weights * pixels).sum(-1, keepdim=True) / total
    variance = (weights * (pixels - mean).square()).sum((1, 2))
    error = (weights * (pixels - repainted).square()).sum((1, 2))
    return 1 - error / variance.clamp_min(1e-4 * pixels.shape[-1])


@functools.lru_cache(maxsize=2)
def _pose_bank(kind: SceneKind) -> _PoseBank:
    poses, read = kind.poses(), kind.parts
    shapes = [kind.shapes(pose) for pose in poses]
    parts = {part: torch.stack([_mask(scene, (part,)) for scene in shapes]) for part in (*read, *FIXED_COLOURS)}
    parts = {part: torch.cat([mask @ _blur(sigma) for sigma in SOFTNESS]) for part, mask in parts.items()}
    of_bird = (*(part for part in read if part != "background"), "eye", "pupil")
    bird = torch.stack([_mask(scene, of_bird, shaded=False) for scene in shapes])
    poses, bird = poses * len(SOFTNESS), bird.repeat(len(SOFTNESS), 1)
    masks = torch.stack([parts[part] for part in read], 1)
    fixed = sum(parts[part][:, None] * torch.tensor(rgb)[:, None] / 255.0 for part, rgb in FIXED_COLOURS.items())

    triangle = torch.linalg.cholesky(masks @ masks.mT)  # L, with L Lᵀ the masks' inner products
    basis = torch.linalg.solve_triangular(triangle, masks, upper=False)
    return _PoseBank(poses, masks, basis, torch.linalg.inv(triangle).mT.contiguous(), fixed, bird)


def _mask(shapes: list[Shape], parts: tuple[str, ...], shaded: bool = True) -> Tensor:
    """Where the scene shows these parts, times their shade: [X] in [0, 1]."""

    def fill(shape: Shape) -> int:
        return round(255 * (shape.shade if shaded else 1)) if shape.part in parts else 0

    return torch.from_numpy(np.array(paint(shapes, fill, "L", SIDE))).flatten() / 255.0


def _blur(sigma: float) -> Tensor:
    """Gaussian blur of a flattened image, borders replicated, as a matrix [X, X] to multiply from the right."""
    if sigma == 0:
        return torch.eye(SIDE * SIDE)
    place = torch.arange(SIDE)
    reach = torch.arange(-3 * SIDE, 4 * SIDE)
    kernel = torch.exp(-(place[:, None] - reach).square() / (2 * sigma**2))  # [SIDE, 7 SIDE]
    line = torch.zeros(SIDE, SIDE).index_add_(1, reach.clamp(0, SIDE - 1), kernel / kernel.sum(1, keepdim=True))
    return torch.kron(line, line).T.contiguous()


def _jitters() -> Iterator[tuple[float, tuple[float, float]]]:
    """The scales and shifts that are tried, around 1 and (0, 0)."""
    shifts = np.linspace(-2, 2, 5) * POSITION_JITTER
    for scale, x, y in itertools.product((1 - SIZE_JITTER, 1, 1 + SIZE_JITTER), shifts, shifts):
        yield scale, (float(x), float(y))


def _poses_of_one() -> list[Pose]:
    kinds = itertools.product(SIZES, toy_scene.BEAKS)
    return [Pose(SIZES[size] * scale, beak, shift) for size, beak in kinds for scale, shift in _jitters()]


def _poses_of_two() -> list[TwoBirdsPose]:
    return [TwoBirdsPose(name, scale, shift) for name in two_birds.ARRANGEMENTS for scale, shift in _jitters()]


def _of_pose(pose: Pose) -> dict[str, str]:
    return {"beak": pose.beak, "size": min(SIZES, key=lambda name: abs(SIZES[name] - pose.scale))}


ONE_BIRD = SceneKind(
    toy_scene.ATTRIBUTES, ("body", "wing", "head", "background"), scene_shapes, _poses_of_one, _of_pose
)
TWO_BIRDS = SceneKind(
    two_birds.ATTRIBUTES,
    ("first_body", "first_wing", "second_body", "second_wing", "background"),
    two_birds_shapes,
    _poses_of_two,
    lambda pose: {"arrangement": pose.arrangement},
)


def kind_of(truth: Mapping[str, str]) -> SceneKind:
    """The kind of the scene that has these attributes."""
    return _kind_with(len(truth))


def _kind_with(attributes: int) -> SceneKind:
    """The two kinds differ in how many attributes they have: readings are numbers only."""
    return TWO_BIRDS if attributes == len(TWO_BIRDS.attributes) else ONE_BIRD


_MOST_IMAGES = 10**6
_ANY_TRUTH = record({"attributes": mapping_of(anything, at_most=_MOST_IMAGES)}, others=True)
