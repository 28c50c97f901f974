"""Measurements during GAN training: scores on a fixed set, and an image grid of fixed captions and noise."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.errors import UserError
from clipgan.evaluation.chosen import Chosen
from clipgan.evaluation.encoding import EncodedCaptions, encode_captions, evaluation_images
from clipgan.evaluation.extractors import Networks
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.inception import FEATURE_DIMS
from clipgan.evaluation.metrics.attributes import read_truths
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.outputs import Outputs, join_batches, measurements
from clipgan.evaluation.real_features import outputs_of_split
from clipgan.evaluation.real_images import Split
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

    * ``<split>_<score>`` for each chosen score (:class:`Chosen`); captions are judged by the training encoder;
    * ``<score>`` for those that compare with real images: those of the test split's captions, with a whole split;
    * ``best_by``, the number that chooses ``netG_best.pth`` (larger is better), from the split ``best_split``.

    Raises:
        UserError: a score that this data set or config does not have, or too few images for one. When measuring: a
            number is not finite.
    """

    def __init__(
        self, examples: dict[str, Sequence[Example]], encoder: ClipEncoder, config: Config, device: torch.device
    ):
        self._config, self._encoder, self._device = config, encoder, device
        self._chosen = Chosen.of(config)
        self._rules = Rules(seed=config.SEED)
        measured = config.EVAL.MEASURE_IMAGES
        self._examples = {split: evenly_spaced(examples[split], measured) for split in ("train", "test")}
        self._truths = {split: read_truths(config.DATA_DIR, own) for split, own in self._examples.items()}
        self._chosen.require_oracle(config.DATA_DIR, self._truths["test"] is not None)
        counts = [{split: len(own) for split, own in of.items()} for of in (self._examples, examples)]
        self._chosen.require_enough(*counts, self._rules)
        self._networks = _networks(self._chosen.needs, encoder, config, device)
        self._captions: dict[str, EncodedCaptions] = {}
        self._real = self._outputs_of_real_images(examples)  # unreadable ones are refused here, not hours later

    def _outputs_of_real_images(self, examples: dict[str, Sequence[Example]]) -> dict[str, Outputs]:
        config, real = self._config, {}
        with full_precision():
            for split, needs in self._chosen.against.items():
                images = Split(config, split, examples[split])
                extractors = self._networks.extractors(needs)
                real[split] = Outputs(outputs_of_split(images, extractors, config.EVAL.BATCH_SIZE, config.WORKERS))
        return real

    @torch.no_grad()
    @full_precision()
    def __call__(self, generator: nn.Module, epoch: int) -> dict[str, float | str]:
        numbers: dict[str, float | str] = {}
        for split in self._examples:
            numbers.update(self._measure(generator, split))
        require_finite(numbers, "the measurements while training")
        return numbers | {"best_by": self._chosen.best(numbers), "best_split": self._chosen.best_split}

    def _measure(self, generator: nn.Module, split: str) -> dict[str, float]:
        examples, config = self._examples[split], self._config
        if split not in self._captions:
            self._captions[split] = encode_captions(self._encoder, examples, self._device)
        metrics = [metric for metric in self._chosen.metrics if split == "test" or not metric.against]
        extractors = self._networks.extractors({metric.needs for metric in metrics}, self._truths[split])
        samples = sample_order(examples, len(examples))
        parts: dict[str, list[Tensor]] = {extractor.name: [] for extractor in extractors}
        for batch, images in generate_samples(generator, self._encoder, examples, samples, config, self._device):
            for extractor in extractors:
                parts[extractor.name].append(extractor(images, [sample.example for sample in batch]).cpu())
        ours = Outputs(join_batches(parts), samples, [self._captions[split]])
        try:
            measured = list(measurements(metrics, ours, self._real, 1, self._rules))
        except ValueError as error:
            raise UserError(f"while training: {error}") from None
        return {name: value for metric, _, of in measured for name, value in self._chosen.named(metric, split, of)}


def _networks(needs: Collection[str], encoder: ClipEncoder, config: Config, device: torch.device) -> Networks:
    """The training encoder as judge, and the Inception networks that are needed; a line says if one is random."""
    weights = (config.EVAL.INCEPTION_WEIGHTS, FEATURE_DIMS[-1], config.EVAL.SCORE_WEIGHTS)
    networks = Networks.load(needs, device, *weights, [encoder])
    for network in filter(None, (networks.inception, networks.classifier)):
        if network.provenance.notice:
            print(f"while training: {network.provenance.notice}")
    return networks


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
