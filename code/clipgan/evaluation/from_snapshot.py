"""What an evaluation config leaves out because its snapshots know it: sizes, widths, how the data was prepared.

A key that the config does say must agree with the snapshot. What was taken is entered into ``Config.said``, with the
snapshot as its source.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from clipgan.config import (
    BOUNDS,
    Config,
    check,
    config_from_dict,
    get_key,
    require_embedding_dim,
    require_generator_size,
    set_key,
)
from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.files.gate import reading, short
from clipgan.machine import distributed
from clipgan.networks.clip_config import same_shape
from clipgan.networks.clip_encoder import ClipEncoder, build_encoder, model_config
from clipgan.networks.generator import Generator
from clipgan.runs.architecture import GENERATOR_ARGUMENTS, GENERATOR_SIZES, whole_of
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.folder import RunFolder
from clipgan.runs.record import training_data_of
from clipgan.runs.snapshots import MADE_BY, clip_keys, load_encoder, load_generator, read_generator

_EXPECTED = f"a generator's snapshot, which {MADE_BY} writes"
# How images and captions were prepared in training: of the run's config, which its snapshots keep.
_PREPARATION = ("DATA.BOX_CROP", "DATA.CROP_SCALE", "TEXT.RAW_CAPTIONS")
# Of the same config; an evaluation is free to say otherwise.
_FREE = ("TEXT.CAPTIONS_PER_IMAGE", "TEXT.WORDS_NUM")
_DATA = {"BOX_CROP": shapes.flag, "CROP_SCALE": shapes.number(*BOUNDS["DATA.CROP_SCALE"])}
_TEXT = {"RAW_CAPTIONS": shapes.flag} | {key.removeprefix("TEXT."): whole_of(key) for key in _FREE}
_CONFIG = shapes.record(
    {},
    {"DATA": shapes.record({}, _DATA, others=True), "TEXT": shapes.record({}, _TEXT, others=True)},
    others=True,
)


def take_from_generator(config: Config) -> dict[str, int] | None:
    """Complete ``config`` from the snapshot ``TRAIN.NET_G``.

    Sizes and widths (``TREE.*``, ``GAN.*`` without ``DF_DIM``) come from its architecture; ``DATA.BOX_CROP``,
    ``DATA.CROP_SCALE``, ``TEXT.RAW_CAPTIONS`` and ``TEXT.CAPTIONS_PER_IMAGE`` from the config of its run. A state dict
    published for DM-GAN holds neither: then the config stays as it is.

    Returns:
        The architecture, None for a published state dict.

    Raises:
        UserError: no such snapshot or a damaged one; or a key of the config contradicts it. Of the preparation, a
            contradiction said by ``--set`` is taken as meant.
    """
    return _take_from(read_generator(config.TRAIN.NET_G), config)


def _take_from(content: dict[str, Any], config: Config) -> dict[str, int] | None:
    """:func:`take_from_generator` of a snapshot that has been read."""
    path = config.TRAIN.NET_G
    architecture, saved = content.get("architecture"), content.get("config", {})
    if architecture is None:
        return None
    with reading(path, _EXPECTED):
        GENERATOR_ARGUMENTS(architecture, "architecture")
        _CONFIG(saved, "config")
    for key, argument in GENERATOR_SIZES.items():
        _take(config, key, architecture[argument], path)
    with reading(path, "a generator's architecture"):
        check(config, str(path))
        require_generator_size(config)
    said = {f"{part}.{name}": value for part in ("DATA", "TEXT") for name, value in saved.get(part, {}).items()}
    for key in _PREPARATION:
        if key in said and config.said.get(key) != "--set":
            on_purpose = f"say it by --set {key}={get_key(config, key)} to evaluate otherwise on purpose"
            _take(config, key, said[key], path, on_purpose)
    of_encoder = {"TEXT.WORDS_NUM"} if config.TRAIN.CLIP_MODEL_CHECKPOINT else set()  # which says it itself
    for key in _FREE:
        if key in said and key not in of_encoder.union(config.said):
            _take(config, key, said[key], path)
    return architecture


def _take(config: Config, key: str, value: Any, path: str | Path, otherwise: str = "name another snapshot") -> None:
    """Set a key that was not said; refuse one that was said and differs."""
    source = config.said.setdefault(key, str(path))
    if source == str(path):
        set_key(config, key, type(get_key(config, key))(value))
    elif get_key(config, key) != value:
        asked = short(get_key(config, key))
        raise UserError(f"{source}: {key} is {asked}, but {path} has {value}: leave the key out, or {otherwise}")


@dataclass(frozen=True)
class Training:
    """What is known of a generator's training.

    Attributes:
        config: of the run; None where the snapshot does not keep it, as a state dict published for DM-GAN.
        data: the fingerprint of the training split; empty where neither the snapshot nor the run's record says it.
    """

    config: Config | None
    data: str


def training_of(path: str | Path) -> Training:
    """How a generator was trained, by its snapshot; of the data also by ``run.json`` of the run that it lies in.

    Raises:
        UserError: no such snapshot, a damaged one, or the config in it is none.
    """
    content = read_generator(path)
    config = None
    if "config" in content:
        with reading(path, _EXPECTED):
            config = config_from_dict(content["config"], str(path))
    data = content.get("data", "")
    if not data and "encoder" in content:
        data = training_data_of(record_of(path), content["encoder"])
    return Training(config, data)


def record_of(path: str | Path) -> Path:
    """Where the record of a snapshot's run is, if the snapshot lies where the run wrote it."""
    return RunFolder(Path(path).absolute().parent.parent).record


def take_if_there(config: Config) -> None:
    """:func:`take_from_generator` where there is a file ``TRAIN.NET_G``."""
    if os.path.isfile(config.TRAIN.NET_G):
        take_from_generator(config)


def settle_image_size(config: Config, files: list[Path] | None = None) -> None:
    """Where neither config nor snapshot says the image size: that of the generated images, or else the default.

    Args:
        config: gets the size.
        files: generated images; the first of them tells the size. None: the keys of TREE keep their defaults.

    Raises:
        UserError: that image cannot be read, or cannot be a generator's.
    """
    if "TREE.BASE_SIZE" in config.said or "TREE.BRANCH_NUM" in config.said:
        return
    missing = f"no snapshot of this project at {config.TRAIN.NET_G}" if config.TRAIN.NET_G else "no snapshot"
    if files:
        with reading(files[0], "a generated image"), Image.open(files[0]) as image:
            width, height = image.size
        if width != height:
            raise UserError(
                f"{files[0]} is no generator's image ({width}×{height} px), and {missing}: say the image size by "
                "--set TREE.BASE_SIZE=64 TREE.BRANCH_NUM=3 (here for 256 px)"
            )
        for key, value in (("TREE.BASE_SIZE", width), ("TREE.BRANCH_NUM", 1)):
            set_key(config, key, value)
            config.said[key] = str(files[0])
        check(config, str(files[0]))
    if distributed.is_main():
        size = f"{config.image_size} px, {'that of the generated images' if files else 'the default of TREE'}"
        print(f"{missing}: image size {size}; keys of DATA that the config leaves out have their defaults")


def networks_of(config: Config) -> tuple[Generator, ClipEncoder]:
    """What an evaluation config names, on the CPU and frozen: generator and encoder. ``config`` is completed.

    Raises:
        UserError: one of them is missing or damaged; or they do not fit each other or what the config says.
    """
    content = read_generator(config.TRAIN.NET_G)
    architecture = _take_from(content, config)
    encoder = encoder_of(config)
    require_embedding_dim(config, encoder.word_dim)
    arguments = config.generator_arguments(encoder.word_dim, encoder.sentence_dim)
    if architecture is not None:
        _require_its_encoder(config, architecture, arguments)
    generator = load_generator(config.TRAIN.NET_G, arguments, fingerprint(encoder), content)
    return generator.requires_grad_(False).eval(), encoder


def encoder_of(config: Config) -> ClipEncoder:
    """The encoder that a config of GAN training or of an evaluation names, frozen; a line says which it is.

    In training the config must say its TRAIN.CLIP_MODEL_BASE and TEXT.WORDS_NUM. In an evaluation the encoder does, and
    TEXT.EMBEDDING_DIM.

    Raises:
        UserError: it is missing or damaged, or contradicts the config.
    """
    train = config.TRAIN
    if not train.CLIP_MODEL_CHECKPOINT:
        print("TRAIN.CLIP_MODEL_CHECKPOINT is empty: the encoder was not fine-tuned, its region projection is random")
        base, weights = train.CLIP_MODEL_BASE, train.CLIP_PRETRAINED
        encoder = build_encoder(base, weights, config.TEXT.WORDS_NUM, **clip_keys(train))
    elif train.FLAG:
        path, base = train.CLIP_MODEL_CHECKPOINT, train.CLIP_MODEL_BASE
        encoder = load_encoder(path, base, config.TEXT.WORDS_NUM, **clip_keys(train))
    else:
        encoder = load_encoder(train.CLIP_MODEL_CHECKPOINT, **clip_keys(train))
        _require_base(config, encoder)
        _take(config, "TEXT.WORDS_NUM", encoder.spec.words_num, train.CLIP_MODEL_CHECKPOINT)
    if not train.FLAG:
        _take(config, "TEXT.EMBEDDING_DIM", encoder.word_dim, train.CLIP_MODEL_CHECKPOINT or train.CLIP_MODEL_BASE)
    print(encoder.describe)
    return encoder.freeze()


def _require_base(config: Config, encoder: ClipEncoder) -> None:
    """Refuse a TRAIN.CLIP_MODEL_BASE that was said and is of another shape than the encoder."""
    key, path = "TRAIN.CLIP_MODEL_BASE", config.TRAIN.CLIP_MODEL_CHECKPOINT
    if key not in config.said:
        return
    name, model = model_config(config.TRAIN.CLIP_MODEL_BASE)
    if not same_shape(model, encoder.spec.model):
        own = short(encoder.spec.name)[1:-1]
        raise UserError(
            f"{config.said[key]}: {key} is {config.TRAIN.CLIP_MODEL_BASE}, but {path} has the model "
            f"{own if own != name else f'{own} of another shape'}: leave the key out, or name another snapshot"
        )


def _require_its_encoder(config: Config, own: dict[str, int], arguments: dict[str, int]) -> None:
    """Refuse an encoder with other widths than the generator's ``own``; ``arguments`` have the encoder's."""
    widths = [[of["word_dim"], of["sentence_dim"]] for of in (own, arguments)]
    if widths[0] != widths[1]:
        which = config.TRAIN.CLIP_MODEL_CHECKPOINT or config.TRAIN.CLIP_MODEL_BASE
        raise UserError(
            f"{config.TRAIN.NET_G} was trained on words and sentences of {widths[0][0]} and {widths[0][1]} "
            f"dimensions, but those of {which} have {widths[1][0]} and {widths[1][1]}: name the encoder that it was "
            "trained on by TRAIN.CLIP_MODEL_CHECKPOINT"
        )
