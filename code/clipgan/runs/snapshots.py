"""Snapshots of the networks: encoder, generator and discriminators, ours and those published for DM-GAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from torch import nn

from clipgan.config import JudgeSection, TrainSection
from clipgan.errors import UserError
from clipgan.files.gate import reading, short
from clipgan.networks.clip_config import same_shape
from clipgan.networks.clip_encoder import ClipEncoder, model_config, read_spec, require_agreement, restore_encoder
from clipgan.networks.clip_published import Said
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs import checkpoint

Network = TypeVar("Network", Generator, Discriminator)
_MADE_BY = "python main.py --cfg cfg/clip_bird_DMGAN.yml"


def save_encoder(path: str | Path, encoder: ClipEncoder, **extra) -> None:
    """Write an encoder's weights and architecture; ``extra`` (numbers, texts) travels along."""
    checkpoint.save(path, "encoder", architecture=asdict(encoder.spec), weights=encoder.state_dict(), **extra)


def load_encoder(
    path: str | Path,
    base: str = "",
    words_num: int | None = None,
    *,
    activation: str = "",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    section: str = "TRAIN",
) -> ClipEncoder:
    """The fine-tuned encoder of a checkpoint that ``pretrain_DAMSM.py`` wrote.

    Args:
        path: the checkpoint.
        base: the model that the config names; empty takes what the checkpoint says.
        words_num: the config's TEXT.WORDS_NUM; None takes what the checkpoint says.
        activation: the config's CLIP_ACTIVATION, which must be the checkpoint's; empty = not said.
        mean: CLIP_MEAN, the same.
        std: CLIP_STD, the same.
        section: of the config in which these keys stand, for messages: TRAIN or EVAL.JUDGE.

    Raises:
        UserError: no such file, not an encoder, or an architecture other than the config asks for.
    """
    content = checkpoint.load(path, "encoder", made_by="pretrain_DAMSM.py")
    spec = read_spec(content["architecture"], path)
    if base:
        name, model = model_config(base)
        if not same_shape(model, spec.model):  # the weights decide on QuickGELU
            asked = f"{section}.CLIP_MODEL_BASE asks for {name}"
            raise UserError(f"{path} holds a {spec.name}, but {asked} of another shape")
    if words_num is not None and words_num != spec.words_num:
        raise UserError(f"{path} was trained with TEXT.WORDS_NUM {spec.words_num}, but the config says {words_num}")
    require_agreement(spec, Said(activation, mean, std, section), path)
    return restore_encoder(spec, content["weights"], path)


def clip_keys(section: TrainSection | JudgeSection) -> dict:
    """What a section of the config says of its CLIP's weights: arguments of `load_encoder` and `build_encoder`."""
    return {
        "activation": section.CLIP_ACTIVATION,
        "mean": section.CLIP_MEAN,
        "std": section.CLIP_STD,
        "section": "TRAIN" if isinstance(section, TrainSection) else "EVAL.JUDGE",
    }


def save_generator(path: Path, network: nn.Module, architecture: dict, **extra) -> None:
    """Write a generator with the arguments that build it again; ``extra`` travels along."""
    checkpoint.save(path, "generator", architecture=architecture, weights=network.state_dict(), **extra)


def load_generator(path: str | Path, architecture: dict, encoder: str | None = None) -> Generator:
    """Read a generator's snapshot.

    Args:
        path: a snapshot of this project, or a state dict published for DM-GAN.
        architecture: the arguments of :class:`Generator` that the config and its encoder ask for.
        encoder: the fingerprint of the encoder whose text features it will be given; None does not care.

    Raises:
        UserError: no such file, another architecture (the differing arguments are named), or a snapshot that says it
            was trained on another encoder.
    """
    return _load(path, "generator", Generator, architecture, checkpoint.import_dmgan_generator, encoder)


def save_discriminator(path: Path, network: nn.Module, architecture: dict, **extra) -> None:
    """Write a discriminator with the arguments that build it again."""
    checkpoint.save(path, "discriminator", architecture=architecture, weights=network.state_dict(), **extra)


def load_discriminator(path: str | Path, architecture: dict) -> Discriminator:
    """Read a discriminator's snapshot, ours or published; the counterpart of :func:`load_generator`."""
    return _load(path, "discriminator", Discriminator, architecture, checkpoint.import_dmgan_discriminator)


def _load(
    path: str | Path,
    kind: str,
    build: type[Network],
    architecture: dict,
    translate: Callable[[dict], dict],
    encoder: str | None = None,
) -> Network:
    """Read ``kind`` from our format or, its layer names translated, from a published state dict."""
    content = checkpoint.load(path, kind, made_by=_MADE_BY, allow_published=True)
    weights = content["weights"]
    if "architecture" in content:
        _require_same(path, content["architecture"], architecture)
    else:
        with reading(path, f"a {kind} of this project, or one published for DM-GAN"):
            weights = translate(weights)
    trained_on = content.get("encoder", encoder)
    if encoder is not None and trained_on != encoder:
        raise UserError(
            f"{path} was trained on another encoder ({trained_on}) than TRAIN.CLIP_MODEL_CHECKPOINT holds ({encoder}): "
            "name the one that it was trained on"
        )
    return checkpoint.load_into(lambda: build(**architecture), weights, path)


def _require_same(path: str | Path, saved: dict, wanted: dict) -> None:
    same = {key: type(saved.get(key)) is int and saved[key] == value for key, value in wanted.items()}
    differences = [f"{key} {short(saved.get(key))}, not {wanted[key]}" for key in wanted if not same[key]]
    if differences:
        raise UserError(f"{path} is of another architecture than the config asks for: it has {'; '.join(differences)}")
