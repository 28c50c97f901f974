"""Snapshots of the networks: encoder, generator and discriminators, ours and those published for DM-GAN."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from clipgan.config import JudgeSection, TrainSection
from clipgan.errors import UserError
from clipgan.files.gate import reading, short
from clipgan.files.shapes import weight_differences
from clipgan.networks.clip_config import same_shape
from clipgan.networks.clip_encoder import ClipEncoder, model_config, read_spec, require_agreement, restore_encoder
from clipgan.networks.clip_published import Said
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs import checkpoint

Network = TypeVar("Network", Generator, Discriminator)
MADE_BY = "python main.py --cfg cfg/clip_bird_DMGAN.yml"
_EXPECTED = "a {} of this project, or one published for DM-GAN"
_NAMES_SHOWN = 4  # of layers that are alike, in a line


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


def read_generator(path: str | Path) -> dict:
    """The content of a generator's snapshot, or the weights alone of a state dict published for DM-GAN.

    Raises:
        UserError: no such file, damaged, or none of the two.
    """
    return checkpoint.load(path, "generator", made_by=MADE_BY, allow_published=True)


def load_generator(
    path: str | Path, architecture: dict, encoder: str | None = None, content: dict | None = None
) -> Generator:
    """Read a generator's snapshot.

    Args:
        path: a snapshot of this project, or a state dict published for DM-GAN.
        architecture: the arguments of :class:`Generator` that the config and its encoder ask for.
        encoder: the fingerprint of the encoder whose text features it will be given; None does not care.
        content: of the file, where :func:`read_generator` has read it already.

    Raises:
        UserError: no such file, another architecture (the differing arguments are named), or a snapshot that says it
            was trained on another encoder.
    """
    if content is None:
        content = read_generator(path)
    return _build(path, content, "generator", Generator, architecture, checkpoint.import_dmgan_generator, encoder)


def save_discriminator(path: Path, network: nn.Module, architecture: dict, **extra) -> None:
    """Write a discriminator with the arguments that build it again."""
    checkpoint.save(path, "discriminator", architecture=architecture, weights=network.state_dict(), **extra)


def load_discriminator(path: str | Path, architecture: dict) -> Discriminator:
    """Read a discriminator's snapshot, ours or published; the counterpart of :func:`load_generator`."""
    content = checkpoint.load(path, "discriminator", made_by=MADE_BY, allow_published=True)
    return _build(path, content, "discriminator", Discriminator, architecture, checkpoint.import_dmgan_discriminator)


def start_generator(network: Generator, path: str | Path, architecture: dict) -> bool:
    """Start the training of a generator from a snapshot, in place; a line says what it takes.

    A snapshot of this project must fit. Of a state dict published for DM-GAN, whose words and sentences are another
    encoder's, each layer that fits is taken. The others stay as they are, and a line each says so.

    Args:
        network: newly built, on the CPU.
        path: of the snapshot.
        architecture: the arguments that built it.

    Returns:
        Whether it is a published one.

    Raises:
        UserError: as :func:`load_generator`; or no layer of a published one fits.
    """
    return _start(network, path, "generator", Generator, architecture, checkpoint.import_dmgan_generator)


def start_discriminators(
    networks: Iterable[Discriminator], generator: str | Path, architectures: Sequence[dict], published: bool
) -> None:
    """Start the training of discriminators from ``netD<i>.pth`` beside a generator; see :func:`start_generator`.

    Args:
        networks: newly built, on the CPU.
        generator: the generator's path.
        architectures: the arguments that built them.
        published: whether the generator is a published one, beside which there may be none: these start afresh.

    Raises:
        UserError: as :func:`start_generator`; or one is missing beside a generator of this project.
    """
    for i, (network, architecture) in enumerate(zip(networks, architectures, strict=True)):
        path = Path(generator).with_name(f"netD{i}.pth")
        if path.exists():
            _start(network, path, "discriminator", Discriminator, architecture, checkpoint.import_dmgan_discriminator)
        elif published:
            print(f"no discriminator at {path}: it starts afresh")
        else:
            raise UserError(
                f"no discriminator checkpoint at {path}: put it there, or set TRAIN.B_NET_D to False for "
                "discriminators that start afresh"
            )


def _start(
    network: Network,
    path: str | Path,
    kind: str,
    build: type[Network],
    architecture: dict,
    translate: Callable[..., dict],
) -> bool:
    content = checkpoint.load(path, kind, made_by=MADE_BY, allow_published=True)
    published = "architecture" not in content
    if published:
        with reading(path, _EXPECTED.format(kind)):
            weights = translate(content["weights"], whole=False)
        count, others = checkpoint.load_fitting(network, weights, path)
        if not count:
            differences = weight_differences(network.state_dict(), weights)
            raise UserError(f"{path} has no layer that fits this config: {differences}{_channels(weights)}")
        if others:
            print(f"{path}, published for DM-GAN: {count} layers of the {kind} start from it, but not these:")
            print(*_lines(others), sep="\n")
            return published
        origin = ", published for DM-GAN"
    else:
        _require_same(path, content["architecture"], architecture)
        saved = checkpoint.load_into(lambda: build(**architecture), content["weights"], path)
        network.load_state_dict(saved.state_dict())
        origin = ""
    print(f"{path}{origin}: all layers of the {kind} start from it")
    return published


def _lines(differences: list[checkpoint.Difference]) -> list[str]:
    """A line for all layers of the same kind and shapes, such as those of several stages."""
    groups: dict[tuple, list[str]] = {}
    for name, found, wanted in differences:
        name = name.replace(".parametrizations.weight.original", ".weight")
        groups.setdefault((re.sub(r"\d+", "#", name), str(found), str(wanted)), []).append(name)
    lines = []
    for (_, found, wanted), names in groups.items():
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        sides = (found, "in the file"), (wanted, "here")
        shapes = [f"not {side}" if shape == "None" else f"{shape} {side}" for shape, side in sides]
        lines.append(f"  {', '.join(names[:_NAMES_SHOWN])}{more}: {', '.join(shapes)}")
    return lines


def _channels(weights: dict[str, Tensor]) -> str:
    """The key of the config on which nearly all shapes depend, as published weights have it; empty if unknown."""
    for name, axis, key in (("heads.0.conv.weight", 1, "GAN.GF_DIM"), ("trunk.0.bias", 0, "GAN.DF_DIM")):
        if name in weights and weights[name].dim() > axis:
            return f"; its {key} is {weights[name].shape[axis]}"
    return ""


def _build(
    path: str | Path,
    content: dict,
    kind: str,
    build: type[Network],
    architecture: dict,
    translate: Callable[[dict], dict],
    encoder: str | None = None,
) -> Network:
    """The network of a file's content: of our format or, its layer names translated, a published state dict."""
    weights = content["weights"]
    if "architecture" in content:
        _require_same(path, content["architecture"], architecture)
    else:
        with reading(path, _EXPECTED.format(kind)):
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
