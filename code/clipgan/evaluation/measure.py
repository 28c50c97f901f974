"""R-precision of a generator, together with that of the real images and with chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.evaluation.encoding import encode_captions
from clipgan.evaluation.extractors import Networks
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.image_pass import collect
from clipgan.evaluation.metrics import attributes, r_precision
from clipgan.evaluation.metrics.attributes import read_truths
from clipgan.evaluation.metrics.card import ATTRIBUTES, CAPTIONS, Rules
from clipgan.evaluation.outputs import Outputs, join_batches, measure_one
from clipgan.evaluation.real_images import Split
from clipgan.evaluation.sampling import PngWriter, generate_samples, sample_file, sample_order
from clipgan.evaluation.unfinished import sampling_into
from clipgan.machine import distributed
from clipgan.machine.precision import full_precision
from clipgan.networks.clip_encoder import ClipEncoder, build_encoder
from clipgan.networks.generator import Generator
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.snapshots import clip_keys, load_encoder

RULES = Rules()


@dataclass(frozen=True)
class Judge:
    """The encoder that decides whether an image matches its caption."""

    encoder: ClipEncoder
    name: str
    trained_generator: bool  # whether the generator was trained on this very encoder


def load_judges(config: Config, encoder: ClipEncoder, device: torch.device) -> list[Judge]:
    """The judges: the fine-tuned encoder itself, as in the literature, then that of ``EVAL.JUDGE`` if it is set."""
    weights = config.TRAIN.CLIP_MODEL_CHECKPOINT or config.TRAIN.CLIP_PRETRAINED or encoder.source
    judges = [Judge(encoder, f"{encoder.spec.name} ({weights})", True), *independent_judge(config, device)]
    return [judge if judge.encoder is encoder else _flattered(judge, encoder) for judge in judges]


def independent_judge(config: Config, device: torch.device) -> list[Judge]:
    """The judge of ``EVAL.JUDGE``, on ``device`` and frozen; none if that is empty. A line says which it is."""
    judge = config.EVAL.JUDGE
    if judge.CLIP_MODEL_CHECKPOINT:
        other = load_encoder(judge.CLIP_MODEL_CHECKPOINT, judge.CLIP_MODEL_BASE, **clip_keys(judge))
        weights = judge.CLIP_MODEL_CHECKPOINT
    elif judge.CLIP_MODEL_BASE:
        with distributed.main_first():  # one process downloads
            base, published = judge.CLIP_MODEL_BASE, judge.CLIP_PRETRAINED
            other = build_encoder(base, published, config.TEXT.WORDS_NUM, **clip_keys(judge))
        weights = judge.CLIP_PRETRAINED or other.source
    else:
        return []
    print(f"judge: {other.describe}")
    return [Judge(other.freeze().to(device), f"{other.spec.name} ({weights})", False)]


def _flattered(judge: Judge, encoder: ClipEncoder) -> Judge:
    """The judge, marked where it has the weights of the encoder that trained the generator."""
    return replace(judge, trained_generator=fingerprint(judge.encoder) == fingerprint(encoder))


@torch.no_grad()
@full_precision()
def evaluate_generator(
    generator: Generator,
    encoder: ClipEncoder,
    judges: Sequence[Judge],
    examples: Sequence[Example],
    config: Config,
    device: torch.device,
    folder: Path,
) -> dict:
    """Generate up to EVAL.NUM_IMAGES images for the examples into ``folder``, and score them with every judge.

    Returns:
        The report. For each judge: R-precision of the generated images, of the real ones (the ceiling), and chance.
        On the toy data set also the accuracy of the attributes that the oracle reads from both.

    Raises:
        UserError: images, features or scores are not finite; another sampling into the folder goes on; or an image
            cannot be written.
    """
    samples = sample_order(examples, config.EVAL.NUM_IMAGES)
    networks = Networks(device, judges=[judge.encoder for judge in judges])
    extractors = networks.extractors((CAPTIONS, ATTRIBUTES), read_truths(config.DATA_DIR, examples))
    parts: dict[str, list[Tensor]] = {extractor.name: [] for extractor in extractors}
    with sampling_into(folder), PngWriter(config.WORKERS) as writer:
        for batch, images in generate_samples(generator, encoder, examples, samples, config, device):
            for sample, image in zip(batch, images, strict=True):
                writer.write(sample_file(folder, examples[sample.example], sample.caption), image)
            for extractor in extractors:
                parts[extractor.name].append(extractor(images, [sample.example for sample in batch]).cpu())

    split = Split(config, "test", examples)
    of_examples = collect(examples, split.loader(), extractors, config.EVAL.BATCH_SIZE, config.WORKERS, "real images")
    captions = [encode_captions(judge.encoder, examples, device) for judge in judges]
    generated = Outputs(join_batches(parts), samples, captions)
    real = Outputs(of_examples, samples, captions, torch.tensor([sample.example for sample in samples]))
    report = {
        "metric": "R-precision",
        "generator_fingerprint": fingerprint(generator),
        "protocol": f"cosine, own caption against {RULES.candidates - 1} of other classes, equal captions are no "
        f"mismatch, a tie is a miss, {RULES.folds} folds",
        "captions_shared": captions[0].shared,  # with an image of another class, as the first judge reads them
        "image_size": config.image_size,
        "box_crop": config.DATA.BOX_CROP,
        "crop_scale": config.DATA.CROP_SCALE,
        "raw_captions": config.TEXT.RAW_CAPTIONS,
        "words_num": config.TEXT.WORDS_NUM,
        "judges": [_judged(judge, number, generated, real, config.SEED) for number, judge in enumerate(judges)],
        "attributes": _attributes(generated, real),
        "split": "test",
        "test_images": len(examples),
        "seed": config.SEED,
    }
    require_finite(report, "R-precision")
    return report


def _judged(judge: Judge, number: int, generated: Outputs, real: Outputs, seed: int) -> dict[str, Any]:
    rules = replace(RULES, seed=seed)
    (ours,), (ceiling,) = (measure_one(r_precision.METRIC, images, {}, number, rules) for images in (generated, real))
    return {
        "judge": judge.name,
        "judge_fingerprint": fingerprint(judge.encoder),
        "judge_trained_the_generator": judge.trained_generator,
        "generated": {"mean": ours.value, **ours.details},
        "real": {"mean": ceiling.value, **ceiling.details},
        "chance": ours.chance,
    }


def _attributes(generated: Outputs, real: Outputs) -> dict[str, Any] | None:
    """What the oracle of the drawn data reads; None for other data."""
    measured = [measure_one(attributes.METRIC, images, {}, 0, RULES) for images in (generated, real)]
    if measured[0] is None or measured[1] is None:
        return None
    (ours, _), (ceiling, _) = measured
    return {"generated": ours.details, "real": ceiling.details, "chance": ours.chance}
