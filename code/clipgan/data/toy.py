"""Writes the toy data set: small drawn scenes with one bird. The captions name its colours, beak and size.

A class is a combination of all six attributes. The test split's combinations of colours are never seen in training,
though each single colour is. Nothing is downloaded. Because the scenes are drawn, the truth is known, and
:mod:`clipgan.data.toy_oracle` reads it back from an image.

Train on it without box crop (it would undo the size) and without flips.
"""

from __future__ import annotations

import itertools
import json
import math
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipgan.data import two_birds
from clipgan.data.toy_scene import (
    ATTRIBUTES,
    BACKGROUND_COLOURS,
    BEAKS,
    BIRD_COLOURS,
    SIZES,
    Attributes,
    bird_box,
    draw_scene,
    random_pose,
    shapes_box,
)
from clipgan.data.two_birds import (
    TwoBirds,
    draw_two_birds,
    random_two_birds_pose,
    split_two_birds,
    two_birds_captions,
    two_birds_shapes,
)
from clipgan.errors import UserError

CAPTIONS = {"birds": 10, "coco": 5, "manifest": 10}  # captions per image, by layout
TEST_COMBINATIONS = 40  # at most; 144 combinations of colours exist
EXAMPLE_CAPTIONS = 6

OF_CLASS = tuple(ATTRIBUTES)

# Each template names all six attributes within 18 words, so that none is lost when long captions are cut. All of them
# name the parts in one order: a small encoder takes many epochs to learn which word belongs to which part otherwise.
_TEMPLATES = (
    "a {size} {body} bird with {wing} {wings}, a {head} {crown} and a {beak} {bill} on {background}",
    "this {size} {body} bird has {wing} {wings}, a {head} {crown} and a {beak} {bill}, {background} background",
    "a {size} bird with a {body} {belly}, {wing} {wings}, a {head} {crown} and a {beak} {bill} on {background}",
    "this {size} bird has a {body} {belly}, {wing} {wings}, {head} {crown}, {beak} {bill}, {background} background",
    "{size} bird, {body} {belly}, {wing} {wings}, {head} {crown}, {beak} {bill}, {background} behind it",
    "{size} {body} bird, {wing} {wings}, {head} {crown} and {beak} {bill} in front of {background}",
)
_SYNONYMS = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "belly": ("body", "belly"),
    "wings": ("wings", "feathers"),
    "crown": ("head", "crown"),
    "bill": ("beak", "bill"),
}


def scene_captions(attributes: Attributes, count: int, rng: np.random.Generator) -> list[str]:
    """``count`` captions of a scene, up to 100, all different; no template is used again before all are used."""
    order = [int(i) for i in rng.permutation(len(_TEMPLATES))]
    captions: list[str] = []
    while len(captions) < count:
        words = asdict(attributes) | {noun: noun for noun in ("belly", "wings", "crown", "bill")}
        words = {name: str(rng.choice(_SYNONYMS.get(word, (word,)))) for name, word in words.items()}
        caption = _TEMPLATES[order[len(captions) % len(order)]].format(**words)
        if caption not in captions:
            captions.append(caption)
    return captions


def split_combinations(test: int, rng: np.random.Generator) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Colour combinations (body, wing, head, background) for training, and those for ``test`` test images.

    About two or more test images share a combination. Wing and head never have the body's colour, so that each part
    can be seen.
    """
    colours = tuple(BIRD_COLOURS)
    combinations = [
        (body, wing, head, background)
        for body, wing, head, background in itertools.product(colours, colours, colours, BACKGROUND_COLOURS)
        if body not in (wing, head)
    ]
    shuffled = [combinations[i] for i in rng.permutation(len(combinations))]
    count = min(TEST_COMBINATIONS, max(1, math.ceil(test / 2)))
    return shuffled[count:], shuffled[:count]


@dataclass(frozen=True)
class _Scene:
    """One bird of a data set that is being written."""

    attributes: Any
    pose: Any
    captions: list[str]
    class_id: int
    key: str

    def caption(self, rng: np.random.Generator) -> str:
        return scene_captions(self.attributes, 1, rng)[0]

    def draw(self, size: int) -> Image.Image:
        return draw_scene(self.attributes, self.pose, size)

    def box(self, size: int) -> tuple[float, float, float, float]:
        return bird_box(self.pose, size)


@dataclass(frozen=True)
class _TwoBirdsScene(_Scene):
    """Two of them."""

    background: str

    def caption(self, rng: np.random.Generator) -> str:
        return two_birds_captions(self.attributes, 1, rng)[0]

    def draw(self, size: int) -> Image.Image:
        return draw_two_birds(self.attributes, self.background, self.pose, size)

    def box(self, size: int) -> tuple[float, float, float, float]:
        return shapes_box(two_birds_shapes(self.pose), size)


def draw_toy_dataset(
    root: str | Path,
    layout: str = "birds",
    train: int = 3000,
    test: int = 400,
    size: int = 64,
    seed: int = 0,
    scene: str = "one_bird",
) -> None:
    """Draw and write the data set. The same arguments give the same files.

    In addition to the layout's files, ``attributes.json`` holds the truth (key → attributes, and the palettes) and
    ``example_filenames.txt`` lists captions of combinations that are not in the training split.

    Args:
        root: the folder to make; it appears only when it is complete.
        layout: ``birds``, ``coco`` or ``manifest``, see :mod:`clipgan.data.examples`.
        train: images of the training split.
        test: images of the test split.
        size: side of the images in pixels.
        seed: not negative.
        scene: ``one_bird``, or ``two_birds`` (:mod:`clipgan.data.two_birds`).

    Raises:
        UserError: the folder exists and is not empty, the layout is unknown, or a split would be empty.
    """
    root = Path(root)
    if layout not in CAPTIONS:
        raise UserError(f"unknown layout {layout!r}: expected one of {', '.join(CAPTIONS)}")
    if min(train, test) < 1 or size < 16:
        raise UserError(f"expected at least 1 image a split and 16 pixels, not {train}, {test} images of {size} pixels")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: exists already; remove it or name another folder")

    rng = np.random.default_rng(seed)
    split, make = _SCENES[scene]
    splits = {}
    for (name, count), kinds in zip((("train", train), ("test", test)), split(test, rng), strict=True):
        splits[name] = [make(kinds[i % len(kinds)], layout, name, i, rng) for i in range(count)]
    examples = [splits["test"][i % test].caption(rng) for i in range(0, 2 * EXAMPLE_CAPTIONS, 2)]  # every other

    # Written under another name and renamed at the end, so that an interrupted run leaves nothing that looks complete.
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write = {"birds": _write_birds, "coco": _write_coco, "manifest": _write_manifest}[layout]
    write(partial, splits, size)
    (partial / "example_captions.txt").write_text("\n".join(examples) + "\n", encoding="utf-8")
    (partial / "example_filenames.txt").write_text("example_captions\n", encoding="utf-8")
    truth = {
        "attributes": {scene.key: asdict(scene.attributes) for scenes in splits.values() for scene in scenes},
        "palette": {"bird": BIRD_COLOURS, "background": BACKGROUND_COLOURS},
        "class": list(asdict(splits["train"][0].attributes)),
    }
    (partial / "attributes.json").write_text(json.dumps(truth), encoding="utf-8")
    partial.replace(root)


def class_number(attributes: Attributes | TwoBirds) -> int:
    """The scene's class, 1, 2, …: one number for each combination of its attributes."""
    values = asdict(attributes)
    names = ATTRIBUTES if isinstance(attributes, Attributes) else two_birds.ATTRIBUTES
    places = [names[name].index(value) for name, value in values.items()]
    return 1 + int(np.ravel_multi_index(places, [len(names[name]) for name in values]))


def _make_scene(
    combination: tuple[str, ...], layout: str, split: str, number: int, rng: np.random.Generator
) -> _Scene:
    body, wing, head, background = combination
    beak, size = str(rng.choice(BEAKS)), str(rng.choice(tuple(SIZES)))
    attributes = Attributes(body, wing, head, beak, size, background)
    pose = random_pose(attributes, rng)
    captions = scene_captions(attributes, CAPTIONS[layout], rng)
    return _Scene(attributes, pose, captions, *_class_and_key(attributes, layout, split, number))


def _make_two_birds(
    attributes: TwoBirds, layout: str, split: str, number: int, rng: np.random.Generator
) -> _TwoBirdsScene:
    pose = random_two_birds_pose(attributes, rng)
    captions = two_birds_captions(attributes, CAPTIONS[layout], rng)
    background = str(rng.choice(tuple(BACKGROUND_COLOURS)))
    return _TwoBirdsScene(attributes, pose, captions, *_class_and_key(attributes, layout, split, number), background)


# For each kind of scenes: what divides its combinations between the splits, and what makes a scene of one of them.
_SCENES = {"one_bird": (split_combinations, _make_scene), "two_birds": (split_two_birds, _make_two_birds)}
SCENES = tuple(_SCENES)


def _class_and_key(attributes: Attributes | TwoBirds, layout: str, split: str, number: int) -> tuple[int, str]:
    class_id = class_number(attributes)
    class_name = "_".join(asdict(attributes).values())
    key = {
        "birds": f"{class_id:03d}.{class_name}/Toy_Bird_{split}_{number:05d}",
        "coco": f"toy_{split}_{number:06d}",
        "manifest": f"images/{split}_{number:05d}",
    }[layout]
    return class_id, key


def _write_image(path: Path, scene: _Scene, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene.draw(size).save(path, quality=95, subsampling=0)


def _write_pickle(path: Path, content: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def _write_texts_and_names(root: Path, splits: dict[str, list[_Scene]]) -> None:
    for split, scenes in splits.items():
        for scene in scenes:
            path = root / "text" / f"{scene.key}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(scene.captions) + "\n", encoding="utf-8")
        _write_pickle(root / split / "filenames.pickle", [scene.key for scene in scenes])


def _write_birds(root: Path, splits: dict[str, list[_Scene]], size: int) -> None:
    cub = root / "CUB_200_2011"
    _write_texts_and_names(root, splits)
    for split, scenes in splits.items():
        _write_pickle(root / split / "class_info.pickle", [scene.class_id for scene in scenes])
    names, boxes = [], []
    for number, scene in enumerate(itertools.chain(*splits.values()), start=1):
        _write_image(cub / "images" / f"{scene.key}.jpg", scene, size)
        names.append(f"{number} {scene.key}.jpg\n")
        boxes.append(f"{number} {' '.join(map(str, scene.box(size)))}\n")
    (cub / "images.txt").write_text("".join(names), encoding="utf-8")
    (cub / "bounding_boxes.txt").write_text("".join(boxes), encoding="utf-8")


def _write_coco(root: Path, splits: dict[str, list[_Scene]], size: int) -> None:
    _write_texts_and_names(root, splits)
    for scene in itertools.chain(*splits.values()):
        _write_image(root / "images" / f"{scene.key}.jpg", scene, size)


def _write_manifest(root: Path, splits: dict[str, list[_Scene]], size: int) -> None:
    for split, scenes in splits.items():
        lines = []
        for scene in scenes:
            _write_image(root / f"{scene.key}.jpg", scene, size)
            entry = {"image": f"{scene.key}.jpg", "captions": scene.captions, "class": scene.class_id}
            lines.append(json.dumps(entry | {"box": scene.box(size)}) + "\n")
        (root / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
