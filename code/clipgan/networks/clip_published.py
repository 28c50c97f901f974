"""Which activation and image statistics a CLIP's weights were trained with.

Weights do not say it themselves, and with the wrong ones every feature is a little off, silently. So they come from
what is known: open_clip's list of published weights, in which a file is found by its hash; the model's own
description; the config. Where none of these says it and it matters, this is an error, not a guess.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import open_clip

from clipgan.errors import UserError
from clipgan.files.gate import reading, require_file, sha256_of, short
from clipgan.files.shapes import Misfit, Shape
from clipgan.networks.clip_config import MEAN, STD
from clipgan.networks.clip_hub import fetch_from_hub, fetch_published
from clipgan.networks.clip_models import WEIGHT_FILES, Model

ACTIVATIONS = {"": None, "gelu": False, "quick_gelu": True}  # values of CLIP_ACTIVATION
_STATISTICS = {"mean": (MEAN, open_clip.OPENAI_DATASET_MEAN), "std": (STD, open_clip.OPENAI_DATASET_STD)}
_TOLERANCE = 2e-3  # statistics are often written with three digits


class Said(NamedTuple):
    """What a section of the config says; empty where it says nothing."""

    activation: str = ""
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    section: str = "TRAIN"  # for messages: TRAIN or EVAL.JUDGE


@dataclass(frozen=True)
class Origin:
    """Where weights come from."""

    path: Path | None = None  # the file; None for a random start
    published: dict | None = None  # what open_clip knows of them
    label: str = ""  # their tag, where they are published
    own: bool = False  # they are those of the model's folder or repository, which describes them
    quick_gelu: bool | None = None  # what the program beside the weights computes, where there is one


class Settings(NamedTuple):
    """Activation and image statistics."""

    quick_gelu: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def check_said(said: Said) -> None:
    """Refuse keys that no CLIP can have.

    Raises:
        UserError: names the key.
    """
    if said.activation not in ACTIVATIONS:
        raise UserError(
            f"{said.section}.CLIP_ACTIVATION must be gelu, quick_gelu or empty, not {short(said.activation)}"
        )
    for part, (shape, _) in _STATISTICS.items():
        value = getattr(said, part)
        if not isinstance(value, list | tuple) or len(value):
            _check(shape, value, f"{said.section}.CLIP_{part.upper()}")


def _check(shape: Shape, value: object, key: str) -> None:
    try:
        shape(value, key)
    except Misfit as error:
        raise UserError(f"{error} (of images in 0 to 1)") from None


def refuse_contradictions(model: Model, pretrained: str, said: Said) -> None:
    """Refuse, before anything is downloaded, what the config says against the weights of a tag; raises as `settle`."""
    if model.kind == "name" and not os.path.isfile(pretrained):
        published = open_clip.get_pretrained_cfg(model.name, pretrained)
        if published:
            settle(model, Origin(published=published, label=f"published as {pretrained}"), said)


def find_weights(model: Model, pretrained: str, key: str) -> Origin:
    """Where the weights of a model are, and what is known of them; weights that are published are fetched.

    Args:
        model: of which they are.
        pretrained: a tag, a file, or empty for none, or for those that a folder or a repository brings along.
        key: the config key that says so, for messages.

    Raises:
        UserError: there are none.
    """
    if pretrained and os.path.isfile(pretrained):
        path = Path(pretrained)
        found = recognise(path)
        return Origin(path, found[0], f"published as {found[1]} (by its hash)") if found else Origin(path)
    published = open_clip.get_pretrained_cfg(model.name, pretrained) if pretrained and model.kind == "name" else {}
    if published:
        path = fetch_published(model.name, pretrained, published, key)
        return Origin(path, published, f"published as {pretrained}")
    if pretrained and os.path.lexists(pretrained):
        return Origin(Path(pretrained))  # a folder or a pipe: reading it says so
    if model.kind in ("folder", "hub"):
        if pretrained:
            raise UserError(
                f"{key}: {short(pretrained)} is no file, and {model.place} brings its own weights: "
                f"leave {key} empty ('')"
            )
        return Origin(_own_weights(model), own=True)
    if pretrained:
        tags = open_clip.list_pretrained_tags_by_model(model.name) if model.kind == "name" else []
        have = f"{model.name} has {', '.join(tags)}" if tags else f"{model.name} has no published weights"
        raise UserError(f"{key}: {short(pretrained)} is neither a file nor published weights; {have}")
    return Origin()


def _own_weights(model: Model) -> Path:
    if model.kind == "hub":
        return Path(fetch_from_hub(model.place, WEIGHT_FILES))
    for name in WEIGHT_FILES:
        if os.path.lexists(path := Path(model.place) / name):
            return path
    raise UserError(
        f"local-dir:{model.place} holds no weights: expected {' or '.join(WEIGHT_FILES)} there; for a random start "
        "name its JSON file in CLIP_MODEL_BASE"
    )


def recognise(path: Path) -> tuple[dict, str] | None:
    """What open_clip knows of a published file, found by its SHA-256, and its model and tag; None for other files.

    OpenAI's addresses hold the whole hash, those of open_clip's releases its first eight digits. Files of the Hugging
    Face hub have none.

    Raises:
        UserError: it cannot be read.
    """
    with reading(path, "weights of a CLIP"):
        require_file(path)
        digest = sha256_of(path)
    for model, tag in open_clip.list_pretrained():
        published = open_clip.get_pretrained_cfg(model, tag)
        known = _hash_in(str(published.get("url") or ""))
        if known and digest.startswith(known):
            return published, f"{model} {tag}"
    return None


def _hash_in(url: str) -> str:
    found = re.search(r"/([0-9a-f]{64})/[^/]+$|-([0-9a-f]{8})\.pth?$", url)
    return next(filter(None, found.groups()), "") if found else ""


def settle(model: Model, origin: Origin, said: Said) -> Settings:
    """Activation and image statistics of a model with these weights.

    What open_clip knows of published weights holds. Else the program of a TorchScript archive, the config's keys and
    the model's own description hold. Else they are those that all published weights of the model have in common, if
    these say anything.

    Raises:
        UserError: two of them contradict each other; or nothing says it, where it matters.
    """
    check_said(said)
    unsaid: list[str] = []
    quick_gelu = _activation(model, origin, said, unsaid)
    mean, std = (_statistics(part, model, origin, said, unsaid) for part in ("mean", "std"))
    if unsaid:
        usual = []
        if "CLIP_ACTIVATION" in unsaid:
            usual.append("quick_gelu for OpenAI's and MetaCLIP's weights, gelu for LAION's")
        if len(unsaid) > len(usual):
            usual.append("OpenAI's mean [0.48145466, 0.4578275, 0.40821073], std [0.26862954, 0.26130258, 0.27577711]")
            usual.append("or [0.5, 0.5, 0.5] for both")
        keys = " and ".join(f"{said.section}.{key}" for key in unsaid)
        raise UserError(
            f"set {keys} ({', '.join(usual)}): {origin.path} is no published file that is known by its hash"
        )
    return Settings(quick_gelu, mean, std)


def _activation(model: Model, origin: Origin, said: Said, unsaid: list[str]) -> bool:
    key, own = ACTIVATIONS[said.activation], model.config.get("quick_gelu")
    name = f"{said.section}.CLIP_ACTIVATION"
    if origin.published is not None:
        known = bool(origin.published.get("quick_gelu", False))
        _agree(name, key, known, origin.label)
        _agree(f"quick_gelu of {model.name}", own, known, origin.label)
        return known
    if origin.quick_gelu is not None:
        program = f"the program in {origin.path}"
        _agree(name, key, origin.quick_gelu, program)
        _agree(f"quick_gelu of {model.name}", own, origin.quick_gelu, program)
        return origin.quick_gelu
    _agree(name, key, own, model.name)
    explicit = own if key is None else key
    if explicit is not None:
        return explicit
    if origin.path is None or origin.own:
        return False  # open_clip's default
    tags = _tags(model)
    used = {bool(published.get("quick_gelu", False)) for published in tags.values()}
    if model.kind != "name" or "openai" in tags or len(used) > 1:
        unsaid.append("CLIP_ACTIVATION")
    return used.pop() if used else False


def _statistics(part: str, model: Model, origin: Origin, said: Said, unsaid: list[str]) -> tuple[float, ...]:
    key, own = (tuple(getattr(source, part)) for source in (said, model))
    name = f"{said.section}.CLIP_{part.upper()}"
    usual = _STATISTICS[part][1]
    if origin.published is not None:
        known = tuple(origin.published.get(part) or usual)
        _agree(name, key, known, origin.label)
        _agree(f"the {part} of {model.name}", own, known, origin.label)
        return known
    _agree(name, key, own, model.name)
    if own or key:
        return own or key
    if origin.path is None or origin.own or origin.quick_gelu:  # OpenAI's archives say nothing of it
        return usual
    used = {tuple(published.get(part) or usual) for published in _tags(model).values()}
    if len(used) > 1:
        unsaid.append(f"CLIP_{part.upper()}")
    return used.pop() if used else usual


def _agree(name: str, value: object, known: object, source: str) -> None:
    """Refuse a value that contradicts what is known; either may be empty."""
    if value in (None, ()) or known in (None, ()):
        return
    if isinstance(value, tuple):
        same = max(abs(a - b) for a, b in zip(value, known, strict=True)) <= _TOLERANCE
    else:
        same = value == known
    if not same:
        said, right = (
            ("quick_gelu" if v else "gelu") if isinstance(v, bool) else short(list(v)) for v in (value, known)
        )
        raise UserError(f"{name} says {said}, but {source} has {right}")


def _tags(model: Model) -> dict[str, dict]:
    """The weights that open_clip publishes for a model of its list."""
    if model.kind != "name":
        return {}
    tags = open_clip.list_pretrained_tags_by_model(model.name)
    return {tag: open_clip.get_pretrained_cfg(model.name, tag) for tag in tags}
