"""Gathers what a model's file holds: from a config of an evaluation, its snapshots, its data and its scores."""

from __future__ import annotations

import argparse
import copy
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clipgan.config import Config, get_key, key_paths, set_key
from clipgan.data.captions import clean_caption
from clipgan.data.from_config import data_fingerprint, read_split
from clipgan.errors import UserError
from clipgan.evaluation.sampling import sample_folder
from clipgan.files.gate import read_json
from clipgan.flags import config_from_flags
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.generator import Generator
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.model_file import ModelFile
from clipgan.runs.report import versions


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


def gather(
    config: Config, generator: Generator, encoder: ClipEncoder, name: str, *, with_judge: bool = True
) -> tuple[ModelFile, list[str]]:
    """What a file of this generator holds.

    Args:
        config: of the evaluation; its data and scores are looked for, and left out where they are not there.
        generator: the averaged one of ``TRAIN.NET_G``.
        encoder: the one that it was trained on; it loses its image side unless ``with_judge``.
        name: for people.

    Returns:
        The model, and a line for whatever could not be found.
    """
    said = []
    fingerprints = {"generator": fingerprint(generator), "encoder": fingerprint(encoder)}
    if not with_judge:
        encoder.drop_image_side()
    vocabulary, data_set = (), {"name": config.DATASET_NAME}
    try:
        examples = read_split(config, "train")
        captions = [caption for example in examples for caption in example.captions]
        vocabulary = vocabulary_of(captions)
        data_set |= {"images": len(examples), "captions": len(captions), "words": len(vocabulary)}
        data_set["fingerprint"] = data_fingerprint(examples)
    except UserError as error:
        said.append(f"the words of training are not known, so that nobody can be told of others: {error}")
    scores, missing = scores_of(config.TRAIN.NET_G, fingerprints["generator"])
    said += missing
    model = ModelFile(
        generator=generator,
        encoder=encoder,
        config=without_paths(config),
        name=name,
        vocabulary=vocabulary,
        data_set=data_set,
        scores=scores,
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        fingerprints=fingerprints,
    )
    model.card = card_of(model)
    return model, said


def vocabulary_of(captions: Iterable[str]) -> tuple[str, ...]:
    """All words of captions, cleaned, in alphabetical order."""
    return tuple(sorted({word for caption in captions for word in clean_caption(caption).split()}))


def without_paths(config: Config) -> Config:
    """A copy in which whole paths are their last names: a file for others does not tell where things lie here."""
    config = copy.deepcopy(config)
    for key in key_paths():
        value = get_key(config, key)
        if isinstance(value, str) and Path(value).is_absolute():
            set_key(config, key, Path(value).name)
    return config


def scores_of(net_g: str, generator: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The scores beside a generator's samples, if they are of these very weights; and a line for what is missing."""
    folder = sample_folder(net_g).parent
    try:
        report = read_json(folder / "r_precision.json")
        of_these = report["generator_fingerprint"] == generator
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return [], [f"no scores: {folder} has no r_precision.json, which python main.py --cfg writes"]
    if not of_these:
        return [], [f"no scores: those in {folder} are of other weights: python main.py --cfg measures these"]
    scores = []
    for judge in report["judges"]:
        flattered = ", which trained the generator" if judge["judge_trained_the_generator"] else ""
        scores.append(
            {
                "name": "R-precision" if flattered else "R-precision by an independent judge",
                "value": judge["generated"]["mean"],
                "spread": judge["generated"]["std"],
                "of_real_images": judge["real"]["mean"],
                "protocol": f"{report['protocol']}; {judge['generated']['images']} images; judge "
                f"{Path(judge['judge']).name.rstrip(')')}{flattered}",
            }
        )
    for file, value in (("fid.json", "value"), ("inception_score.json", "mean")):
        if (folder / file).is_file():
            found = read_json(folder / file)
            score = {"name": found["metric"], "value": found[value], "protocol": found["protocol"]}
            scores.append(score | ({"notice": found["notice"]} if found.get("notice") else {}))
    return scores, []


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
