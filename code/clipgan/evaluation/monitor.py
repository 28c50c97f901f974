"""What GAN training looks at while it runs: scores of a fixed set, and a grid of fixed captions and noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.distributed import is_main
from clipgan.errors import UserError
from clipgan.evaluation.attributes import AttributeScore
from clipgan.evaluation.encoding import encode_captions, evaluation_images
from clipgan.evaluation.features import Split, statistics_of_split
from clipgan.evaluation.frechet import RunningStatistics, frechet_distance
from clipgan.evaluation.inception import load_fid_network
from clipgan.evaluation.measure import score_samples
from clipgan.evaluation.sampling import generate, generate_samples, sample_order, spread
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runtime import RunFolder
from clipgan.visualize import first_of_each_class, save_grid

GRID_ROWS = 8


class Monitor:
    """Scores the averaged generator on EVAL.MEASURE_IMAGES captions of each split, always the same with the same noise.

    The numbers: ``<split>_r_precision`` by the training encoder; ``<split>_attributes`` where the data set is drawn and
    an oracle can read it; ``fid`` against the whole test split where EVAL.INCEPTION_WEIGHTS names a network; and
    ``best_by``, the number that chooses ``netG_best.pth`` (larger is better), from the split ``best_split``.

    Raises:
        UserError: EVAL.BEST_BY asks for a measure that this data set or config does not have.
    """

    def __init__(
        self, examples: dict[str, Sequence[Example]], encoder: ClipEncoder, config: Config, device: torch.device
    ):
        self._config, self._encoder, self._device = config, encoder, device
        self._examples = {split: spread(examples[split], config.EVAL.MEASURE_IMAGES) for split in ("train", "test")}
        self._captions = None
        self._inception = None
        self._best = (config.EVAL.BEST_BY, config.EVAL.BEST_SPLIT)
        if self._best[0] == "attributes" and AttributeScore.of(config.DATA_DIR, self._examples["test"]) is None:
            raise UserError("EVAL.BEST_BY is attributes, which only the drawn data set has: use r_precision or fid")
        if self._best[0] == "fid" and not config.EVAL.INCEPTION_WEIGHTS:
            raise UserError("EVAL.BEST_BY is fid, but EVAL.INCEPTION_WEIGHTS is empty: published, random or a file")
        if config.EVAL.INCEPTION_WEIGHTS:
            self._inception = load_fid_network(config.EVAL.INCEPTION_WEIGHTS, device=device)

    @torch.no_grad()
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
        numbers["best_by"] = -numbers["fid"] if name == "fid" else numbers[f"{split}_{name}"]
        numbers["best_split"] = split
        return numbers

    def _measure(self, generator: nn.Module, split: str) -> dict[str, float]:
        examples, config = self._examples[split], self._config
        samples = sample_order(examples, len(examples))
        oracle = AttributeScore.of(config.DATA_DIR, examples)
        with_fid = self._inception is not None and split == "test"
        statistics = RunningStatistics(self._inception.dims, self._device) if with_fid else None
        parts = []
        for batch, images in generate_samples(generator, self._encoder, examples, samples, config, self._device):
            parts.append(self._encoder.encode_image(images)[1].cpu())
            if oracle:
                oracle.add("generated", images, [sample.example for sample in batch])
            if statistics:
                statistics.update(self._inception(images))
        score = score_samples(torch.cat(parts), self._captions[split], samples, seed=config.SEED)
        numbers = {f"{split}_r_precision": score.mean}
        if oracle:
            numbers[f"{split}_attributes"] = oracle.mean("generated")
        if statistics:
            real, _ = statistics_of_split(
                Split.of(config), self._inception, config.EVAL.BATCH_SIZE, config.WORKERS
            )
            numbers["fid"] = frechet_distance(statistics.statistics(), real)
        return numbers


class SnapshotGrid:
    """Draws ``Image/grid_epoch_<N>.png``: fixed captions of the test split, fixed noise, the real images beside."""

    def __init__(
        self,
        examples: Sequence[Example],
        encoder: ClipEncoder,
        config: Config,
        device: torch.device,
        folder: RunFolder,
    ):
        rows = first_of_each_class([example.class_id for example in examples], GRID_ROWS)
        self._examples = [examples[row] for row in rows]
        self._real = evaluation_images(self._examples, config)
        self._encoder, self._config, self._device, self._folder = encoder, config, device, folder

    def __call__(self, generator: nn.Module, epoch: int) -> None:
        if not is_main():
            return
        captions = [example.captions[0] for example in self._examples]
        places = range(len(captions))
        out = generate(generator, self._encoder, captions, places, self._config, self._device)
        columns = [("real", self._real)] + [(f"{images.shape[-1]} px", images) for images in out.images]
        save_grid(self._folder.images / f"grid_epoch_{epoch}.png", columns, captions)
