"""Snapshots of the generator and the discriminators: ours, and those published for DM-GAN."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from clipgan import checkpoint
from clipgan.errors import UserError
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator

_MADE_BY = "python main.py --cfg cfg/clip_bird_DMGAN.yml"


def save_generator(path: Path, network: nn.Module, architecture: dict, **extra) -> None:
    """Write a generator with the arguments that build it again; ``extra`` travels along."""
    checkpoint.save(path, "generator", architecture=architecture, weights=network.state_dict(), **extra)


def load_generator(path: str | Path, architecture: dict) -> Generator:
    """Read a generator's snapshot.

    Args:
        path: a snapshot of ours, or a state dict published for DM-GAN.
        architecture: the arguments of :class:`Generator` that the config and its encoder ask for.

    Raises:
        UserError: no such file, or another architecture (the differing arguments are named).
    """
    if not str(path):
        raise UserError("TRAIN.NET_G is empty: give the generator's snapshot, by --NET_G or in the config")
    content = checkpoint.load(path, "generator", made_by=_MADE_BY, allow_published=True)
    weights = content["weights"]
    if "architecture" in content:
        _require_same(path, content["architecture"], architecture)
    else:
        weights = checkpoint.import_dmgan_generator(weights)
    generator = Generator(**architecture)
    checkpoint.load_weights(generator, weights, path)
    return generator


def save_discriminator(path: Path, network: nn.Module, architecture: dict, **extra) -> None:
    """Write a discriminator with the arguments that build it again."""
    checkpoint.save(path, "discriminator", architecture=architecture, weights=network.state_dict(), **extra)


def load_discriminator(path: str | Path, architecture: dict) -> Discriminator:
    """Read a discriminator's snapshot, ours or published; the counterpart of :func:`load_generator`."""
    content = checkpoint.load(path, "discriminator", made_by=_MADE_BY, allow_published=True)
    weights = content["weights"]
    if "architecture" in content:
        _require_same(path, content["architecture"], architecture)
    else:
        weights = checkpoint.import_dmgan_discriminator(weights)
    discriminator = Discriminator(**architecture)
    checkpoint.load_weights(discriminator, weights, path)
    return discriminator


def _require_same(path: str | Path, saved: dict, wanted: dict) -> None:
    differences = [f"{key} {saved.get(key)}, not {wanted[key]}" for key in wanted if saved.get(key) != wanted[key]]
    if differences:
        raise UserError(f"{path} is of another architecture than the config asks for: it has {'; '.join(differences)}")
