"""R-precision of a generator, together with that of the real images and with chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.evaluation.encoding import EncodedCaptions, encode_captions, evaluation_loader
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.metrics.attributes import AttributeScore
from clipgan.evaluation.metrics.r_precision import RPrecision, r_precision, retrieval_hits
from clipgan.evaluation.sampling import PngWriter, Sample, generate_samples, sample_file, sample_order
from clipgan.evaluation.unfinished import sampling_into
from clipgan.machine import distributed
from clipgan.machine.precision import full_precision
from clipgan.networks.clip_encoder import ClipEncoder, build_encoder
from clipgan.networks.generator import Generator
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.snapshots import clip_keys, load_encoder

CANDIDATES, FOLDS = 100, 10


@dataclass(frozen=True)
class Judge:
    """The encoder that decides whether an image matches its caption."""

    encoder: ClipEncoder
    name: str
    trained_generator: bool  # whether the generator was trained on this very encoder


def load_judges(config: Config, encoder: ClipEncoder, device: torch.device) -> list[Judge]:
    """The judges: the fine-tuned encoder itself, as in the literature, then that of ``EVAL.JUDGE`` if it is set."""
    train, judge = config.TRAIN, config.EVAL.JUDGE
    weights = train.CLIP_MODEL_CHECKPOINT or train.CLIP_PRETRAINED or encoder.source
    judges = [Judge(encoder, f"{encoder.spec.name} ({weights})", True)]
    if judge.CLIP_MODEL_CHECKPOINT:
        other = load_encoder(judge.CLIP_MODEL_CHECKPOINT, judge.CLIP_MODEL_BASE, **clip_keys(judge))
        same = fingerprint(other) == fingerprint(encoder)
        judges.append(Judge(other.freeze().to(device), f"{other.spec.name} ({judge.CLIP_MODEL_CHECKPOINT})", same))
    elif judge.CLIP_MODEL_BASE:
        with distributed.main_first():  # one process downloads
            base, published = judge.CLIP_MODEL_BASE, judge.CLIP_PRETRAINED
            other = build_encoder(base, published, config.TEXT.WORDS_NUM, **clip_keys(judge))
        weights = judge.CLIP_PRETRAINED or other.source
        judges.append(Judge(other.freeze().to(device), f"{other.spec.name} ({weights})", False))
    for added in judges[1:]:
        print(f"judge: {added.encoder.describe}")
    return judges


def score_samples(
    features: torch.Tensor,
    captions: EncodedCaptions,
    samples: Sequence[Sample],
    *,
    seed: int,
) -> RPrecision:
    """R-precision of image features [N, E]; image i was generated for ``samples[i]``, or is its real image."""
    examples = torch.tensor([sample.example for sample in samples])
    own = captions.row(examples, torch.tensor([sample.caption for sample in samples]))
    hits, candidates = retrieval_hits(
        features,
        captions.sentences,
        own,
        captions.classes[own],
        captions.classes,
        query_captions=captions.ids[own],
        target_captions=captions.ids,
        candidates=CANDIDATES,
        seed=seed,
    )
    return r_precision(hits, candidates, FOLDS)


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
    oracle = AttributeScore.of(config.DATA_DIR, examples)
    generated: list[list[torch.Tensor]] = []  # for each batch, each judge's features
    with sampling_into(folder), PngWriter(config.WORKERS) as writer:
        for batch, images in generate_samples(generator, encoder, examples, samples, config, device):
            for sample, image in zip(batch, images, strict=True):
                writer.write(sample_file(folder, examples[sample.example], sample.caption), image)
            generated.append([judge.encoder.encode_image(images)[1].cpu() for judge in judges])
            if oracle:
                oracle.add("generated", images, [sample.example for sample in batch])

    real: list[list[torch.Tensor]] = []
    loader = evaluation_loader(examples, encoder, config, config.EVAL.BATCH_SIZE, device)
    for batch in tqdm(loader, desc="real images", unit="batch", leave=False, disable=not distributed.is_main()):
        images = batch.images[-1].to(device)
        real.append([judge.encoder.encode_image(images)[1].cpu() for judge in judges])
        if oracle:
            oracle.add("real", images, batch.indices.tolist())

    generated, real = distributed.join(generated), distributed.join(real)
    if oracle:
        oracle.join()
    of_samples = torch.tensor([sample.example for sample in samples])
    reports, shared = [], None
    for number, judge in enumerate(judges):
        captions = encode_captions(judge.encoder, examples, device)
        shared = captions.shared if shared is None else shared
        ours = score_samples(torch.cat([batch[number] for batch in generated]), captions, samples, seed=config.SEED)
        of_real = torch.cat([batch[number] for batch in real])[of_samples]
        ceiling = score_samples(of_real, captions, samples, seed=config.SEED)
        reports.append(
            {
                "judge": judge.name,
                "judge_fingerprint": fingerprint(judge.encoder),
                "judge_trained_the_generator": judge.trained_generator,
                "generated": asdict(ours),
                "real": asdict(ceiling),
                "chance": ours.chance,
            }
        )
    report = {
        "metric": "R-precision",
        "generator_fingerprint": fingerprint(generator),
        "protocol": f"cosine, own caption against {CANDIDATES - 1} of other classes, equal captions are no mismatch, "
        f"a tie is a miss, {FOLDS} folds",
        "captions_shared": shared,  # with an image of another class, as the first judge reads them
        "image_size": config.image_size,
        "box_crop": config.DATA.BOX_CROP,
        "crop_scale": config.DATA.CROP_SCALE,
        "raw_captions": config.TEXT.RAW_CAPTIONS,
        "words_num": config.TEXT.WORDS_NUM,
        "judges": reports,
        "attributes": oracle.report() if oracle else None,
        "split": "test",
        "test_images": len(examples),
        "seed": config.SEED,
    }
    require_finite(report, "R-precision")
    return report
