"""Measurements during GAN training: scores on a fixed set, and an image grid of fixed captions and noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.errors import UserError
from clipgan.evaluation.encoding import encode_captions, evaluation_images
from clipgan.evaluation.features import Split, statistics_of_split
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.inception import load_fid_network
from clipgan.evaluation.measure import score_samples
from clipgan.evaluation.metrics.attributes import AttributeScore
from clipgan.evaluation.metrics.frechet import RunningStatistics, Statistics, frechet_distance
from clipgan.evaluation.sampling import (
    evenly_spaced,
    generate,
    generate_samples,
    require_finite_images,
    sample_order,
)
from clipgan.machine import distributed
from clipgan.machine.precision import full_precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runs.folder import RunFolder
from clipgan.visualize import first_of_each_class, save_grid

GRID_ROWS = 8


class Monitor:
    """Scores the averaged generator on EVAL.MEASURE_IMAGES captions of each split. Captions and noise never change.

    The numbers:

    * ``<split>_r_precision``, by the training encoder;
    * ``<split>_attributes``, by the oracle, on the toy data set only;
    * ``fid`` against the whole test split, if EVAL.INCEPTION_WEIGHTS names a network;
    * ``best_by``, the number that chooses ``netG_best.pth`` (larger is better), from the split ``best_split``.

    Raises:
        UserError: EVAL.BEST_BY asks for a measure that this data set or config does not have. When measuring: a number
            is not finite.
    """

    def __init__(
        self, examples: dict[str, Sequence[Example]], encoder: ClipEncoder, config: Config, device: torch.device
    ):
        self._config, self._encoder, self._device = config, encoder, device
        measured = config.EVAL.MEASURE_IMAGES
        self._examples = {split: evenly_spaced(examples[split], measured) for split in ("train", "test")}
        self._captions = None
        self._inception = None
        self._real: Statistics | None = None
        self._best = (config.EVAL.BEST_BY, config.EVAL.BEST_SPLIT)
        if self._best[0] == "attributes" and AttributeScore.of(config.DATA_DIR, self._examples["test"]) is None:
            raise UserError("EVAL.BEST_BY is attributes, which only the drawn data set has: use r_precision or fid")
        if self._best[0] == "fid" and not config.EVAL.INCEPTION_WEIGHTS:
            raise UserError("EVAL.BEST_BY is fid, but EVAL.INCEPTION_WEIGHTS is empty: published, random or a file")
        if config.EVAL.INCEPTION_WEIGHTS:
            with distributed.main_first():  # one process downloads
                self._inception = load_fid_network(config.EVAL.INCEPTION_WEIGHTS, device=device)
            if len(self._examples["test"]) < 2:
                raise UserError("fid while training needs at least 2 test images: raise EVAL.MEASURE_IMAGES")
            self._real_statistics()  # outdated statistics are refused here, not hours later
            if self._inception.provenance.notice:
                print(f"fid while training: {self._inception.provenance.notice}")

    @torch.no_grad()
    @full_precision()
    def __call__(self, generator: nn.Module, epoch: int) -> dict[str, float | str]:
        if self._captions is None:
            self._captions = {
                split: encode_captions(self._encoder, examples, self._device)
                for split, examples in self._examples.items()
            }
        numbers: dict[str, float | str] = {}
        for split in self._examples:
            numbers.update(self._measure(generator, split))
        name, split = self._best
        require_finite(numbers, "the measurements while training")
        numbers["best_by"] = -numbers["fid"] if name == "fid" else numbers[f"{split}_{name}"]
        numbers["best_split"] = split
        return numbers

    def _measure(self, generator: nn.Module, split: str) -> dict[str, float]:
        examples, config = self._examples[split], self._config
        samples = sample_order(examples, len(examples))
        oracle = AttributeScore.of(config.DATA_DIR, examples)
        with_fid = self._inception is not None and split == "test"
        parts = []
        for batch, images in generate_samples(generator, self._encoder, examples, samples, config, self._device):
            inception = self._inception(images).cpu() if with_fid else None
            parts.append((self._encoder.encode_image(images)[1].cpu(), inception))
            if oracle:
                oracle.add("generated", images, [sample.example for sample in batch])
        features, inception = zip(*distributed.join(parts), strict=True)
        score = score_samples(torch.cat(features), self._captions[split], samples, seed=config.SEED)
        numbers = {f"{split}_r_precision": score.mean}
        if oracle:
            oracle.join()
            numbers[f"{split}_attributes"] = oracle.mean("generated")
        if with_fid:
            statistics = RunningStatistics(self._inception.dims)
            for batch_features in inception:
                statistics.update(batch_features)
            try:
                numbers["fid"] = frechet_distance(statistics.statistics(), self._real_statistics())
            except ValueError as error:
                raise UserError(f"fid while training: {error}") from None
        return numbers

    def _real_statistics(self) -> Statistics:
        if self._real is None:
            config = self._config
            self._real, _ = statistics_of_split(
                Split.of(config), self._inception, config.EVAL.BATCH_SIZE, config.WORKERS
            )
        return self._real


class SnapshotGrid:
    """Draws ``Image/grid_epoch_<N>.png``: fixed captions of the test split with fixed noise, and their real images.

    Raises:
        UserError: one of these images is missing or unreadable.
    """

    def __init__(self, examples: Sequence[Example], encoder: ClipEncoder, config: Config, device: torch.device):
        rows = first_of_each_class([example.class_id for example in examples], GRID_ROWS)
        self._examples = [examples[row] for row in rows]
        self._real = evaluation_images(self._examples, config)
        self._encoder, self._config, self._device = encoder, config, device

    @full_precision()
    def __call__(self, generator: nn.Module, epoch: int, folder: RunFolder) -> None:
        if not distributed.is_main():
            return
        captions = [example.captions[0] for example in self._examples]
        places = range(len(captions))
        out = generate(generator, self._encoder, captions, places, self._config.SEED, self._device)
        require_finite_images(out.images[-1], self._config)
        columns = [("real", self._real)] + [(f"{images.shape[-1]} px", images) for images in out.images]
        save_grid(folder.images / f"grid_epoch_{epoch}.png", columns, captions)
