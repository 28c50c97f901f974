"""Gathers what a model's file holds: from a config of an evaluation, its snapshots, its data and its scores."""

from __future__ import annotations

import argparse
import copy
import datetime
from pathlib import Path
from typing import Any

from clipgan.config import Config, get_key, key_paths, set_key
from clipgan.data.from_config import data_fingerprint, read_split
from clipgan.drawing.vocabulary import vocabulary_of
from clipgan.errors import UserError
from clipgan.evaluation.from_snapshot import Training, record_of, training_of
from clipgan.evaluation.score_reports import scores_beside
from clipgan.flags import config_from_flags
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.generator import Generator
from clipgan.runs.architecture import GENERATOR_SIZES
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.model_file import ModelFile
from clipgan.runs.report import versions

_LOCAL = "local-dir:"  # before the path of a CLIP in a folder


def drawing_config(args: argparse.Namespace) -> Config:
    """The config of ``args.cfg`` and the common flags, for its generator; that of a training run serves, too.

    Raises:
        UserError: it cannot be read, or names no generator.
    """
    config = config_from_flags(args)
    if not config.TRAIN.NET_G:
        raise UserError("TRAIN.NET_G is empty: name the generator's snapshot, by --NET_G or in the config")
    config.TRAIN.FLAG = False
    return config


def model_of_config(
    config: Config, generator: Generator, encoder: ClipEncoder, name: str
) -> tuple[ModelFile, list[str]]:
    """The model that a config names, to draw with: without what only a file for others needs.

    The scores are not read, and the weights' fingerprints not computed.

    Args:
        config: of an evaluation, completed by :func:`clipgan.evaluation.from_snapshot.networks_of`. Its data are looked
            for, and left out where they are not there or not those of the training.
        generator: the averaged one of ``TRAIN.NET_G``.
        encoder: the one that it was trained on.
        name: for people.

    Returns:
        The model, and a line for whatever is not known of it.

    Raises:
        UserError: the snapshot keeps a config that cannot be read.
    """
    training = training_of(config.TRAIN.NET_G)
    own, of_config = _config_of(config, training, encoder)
    vocabulary, data_set, of_data = _data_of(config, training, encoder)
    model = ModelFile(generator, encoder, own, name, vocabulary=vocabulary, data_set=data_set)
    return model, of_data + of_config


def gather(
    config: Config, generator: Generator, encoder: ClipEncoder, name: str, *, with_judge: bool = True
) -> tuple[ModelFile, list[str]]:
    """What a file of this generator holds: :func:`model_of_config`, its scores, and where it comes from.

    Args:
        config: see :func:`model_of_config`; its scores are left out where they are not there.
        generator: see there.
        encoder: see there; it loses its image side unless ``with_judge``.
        name: for people.
        with_judge: keep the image side.

    Returns:
        The model, and a line for whatever could not be found.

    Raises:
        UserError: see :func:`model_of_config`.
    """
    fingerprints = {"generator": fingerprint(generator), "encoder": fingerprint(encoder)}
    model, said = model_of_config(config, generator, encoder, name)
    if not with_judge:
        encoder.drop_image_side()
    model.config, model.fingerprints, model.versions = without_paths(model.config), fingerprints, versions()
    model.scores, missing = scores_beside(config.TRAIN.NET_G, fingerprints["generator"])
    model.date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    model.card = card_of(model)
    return model, said + missing


def _config_of(config: Config, training: Training, encoder: ClipEncoder) -> tuple[Config, list[str]]:
    """The config of the training run, as its snapshot keeps it, and a line where it is not quite that.

    Sizes and widths are those of the weights. An evaluation may read captions otherwise on purpose (``--set
    TEXT.RAW_CAPTIONS=…``): then drawing does, too. No other key of an evaluation says how a sentence is drawn.
    """
    path = config.TRAIN.NET_G
    if training.config is None:
        return config, [f"{path} does not say how it was trained: the config is that of the evaluation"]
    own, said = copy.deepcopy(training.config), []
    for key in GENERATOR_SIZES:
        set_key(own, key, get_key(config, key))
    own.TEXT.WORDS_NUM, own.TEXT.EMBEDDING_DIM = encoder.spec.words_num, encoder.word_dim
    key = "TEXT.RAW_CAPTIONS"
    asked, trained = get_key(config, key), get_key(own, key)
    if config.said.get(key) == "--set" and asked != trained:
        set_key(own, key, asked)
        said.append(f"sentences are read with {key} {asked}, as --set says; the training had {trained}")
    return own, said


def _data_of(
    config: Config, training: Training, encoder: ClipEncoder
) -> tuple[tuple[str, ...], dict[str, Any], list[str]]:
    """The vocabulary, what is known of the data set, and a line where the data are not known to be those of training.

    They are read from the evaluation's ``DATA_DIR`` in the way of the training.
    """
    trained = training.config or config
    data_set: dict[str, Any] = {"name": trained.DATASET_NAME}
    as_trained = copy.deepcopy(config)
    for key in ("TEXT.RAW_CAPTIONS", "TEXT.CAPTIONS_PER_IMAGE"):
        set_key(as_trained, key, get_key(trained, key))
    unknown = "the words of training are not known, so that nobody can be told of others"
    try:
        examples = read_split(as_trained, "train")
    except UserError as error:
        return (), data_set, [f"{unknown}: {error}"]
    here, said = data_fingerprint(examples), []
    place = f"the data {config.DATASET_NAME} in {config.DATA_DIR}"
    if training.data and training.data != here:
        was = f"{trained.DATASET_NAME}, fingerprint {training.data}"
        return (), data_set, [f"{unknown}: {place} (fingerprint {here}) are not those of the training ({was})"]
    if not training.data and config.DATASET_NAME != trained.DATASET_NAME:
        return (), data_set, [f"{unknown}: it was trained on {trained.DATASET_NAME}, not on {place}"]
    if not training.data:
        net_g = config.TRAIN.NET_G
        said = [f"{place} are taken for those of the training: neither {net_g} nor {record_of(net_g)} says it"]
    vocabulary = vocabulary_of((caption for example in examples for caption in example.captions), encoder.tokenize)
    data_set |= {
        "images": len(examples),
        "captions": sum(len(example.captions) for example in examples),
        "words": len(vocabulary),
        "fingerprint": here,
    }
    return vocabulary, data_set, said


def without_paths(config: Config) -> Config:
    """A copy in which whole paths, and those that lead out of this folder, are their last names.

    A file for others does not tell where things lie here.
    """
    config = copy.deepcopy(config)
    for key in key_paths():
        value = get_key(config, key)
        if isinstance(value, str):
            scheme = _LOCAL if value.startswith(_LOCAL) else ""
            path = Path(value.removeprefix(scheme))
            if path.is_absolute() or ".." in path.parts or path.parts[:1] == ("~",):
                set_key(config, key, f"{scheme}{path.name}")
    return config


def card_of(model: ModelFile) -> str:
    """A text in Markdown: what the model is, how it was made, what it scores, and what to keep in mind."""
    config, data = model.config, model.data_set
    sizes = ", ".join(map(str, config.image_sizes))
    count = f" ({data['images']} images, {data['captions']} captions)" if "images" in data else ""
    lines = [
        f"# {model.name}",
        "",
        f"A DM-GAN that draws sentences at {sizes} px, on the text features of {model.encoder.spec.name}.",
        f"Trained on {data['name']}{count}. It draws what its captions were about, and nothing else.",
        "",
        "    import clipgan",
        '    clipgan.load("model.safetensors")("a sentence", count=4, seed=1)',
        "",
    ]
    for score in model.scores:
        lines.append(f"- {score['name']}: {score['value']:.4f} ({score['protocol']}{_notice(score)})")
    if not model.scores:
        lines.append("Its scores were not measured.")
    return "\n".join(lines) + "\n"


def _notice(score: dict[str, Any]) -> str:
    return f"; {score['notice']}" if score.get("notice") else ""
