"""Snapshots of the networks: encoder, generator and discriminators, ours and those published for DM-GAN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from torch import nn

from clipgan.errors import UserError
from clipgan.files.gate import reading, short
from clipgan.networks.clip_encoder import ClipEncoder, EncoderSpec, model_config
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs import checkpoint

Network = TypeVar("Network", Generator, Discriminator)
_MADE_BY = "python main.py --cfg cfg/clip_bird_DMGAN.yml"


def save_encoder(path: str | Path, encoder: ClipEncoder, **extra) -> None:
    """Write an encoder's weights and architecture; ``extra`` (numbers, texts) travels along."""
    checkpoint.save(path, "encoder", architecture=asdict(encoder.spec), weights=encoder.state_dict(), **extra)


def load_encoder(path: str | Path, base: str = "", words_num: int | None = None) -> ClipEncoder:
    """The fine-tuned encoder of a checkpoint that ``pretrain_DAMSM.py`` wrote.

    Args:
        path: the checkpoint.
        base: the model that the config names; empty takes what the checkpoint says.
        words_num: the config's TEXT.WORDS_NUM; None takes what the checkpoint says.

    Raises:
        UserError: no such file, not an encoder, or an architecture other than ``base`` and ``words_num``.
    """
    content = checkpoint.load(path, "encoder", made_by="pretrain_DAMSM.py")
    spec = EncoderSpec(**content["architecture"])
    if base:
        name, model = model_config(base)
        same = {**model, "quick_gelu": None} == {**spec.model, "quick_gelu": None}  # the weights decide on QuickGELU
        if not same:
            raise UserError(f"{path} holds a {spec.name}, but TRAIN.CLIP_MODEL_BASE asks for {name} of another shape")
    if words_num is not None and words_num != spec.words_num:
        raise UserError(f"{path} was trained with TEXT.WORDS_NUM {spec.words_num}, but the config says {words_num}")
    encoder = ClipEncoder(spec)
    checkpoint.load_weights(encoder, content["weights"], path)
    return encoder


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
