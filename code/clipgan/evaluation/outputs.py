"""What the networks say of a set of images, and the scores that are measured on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipgan.evaluation.encoding import EncodedCaptions
from clipgan.evaluation.extractors import embeddings_of
from clipgan.evaluation.metrics.card import CAPTIONS, EMBEDDINGS, Measured, Metric, Rules
from clipgan.evaluation.sampling import Sample
from clipgan.machine import distributed

JUDGED = (CAPTIONS, EMBEDDINGS)  # needs that each judge meets by itself


@dataclass(frozen=True)
class Outputs:
    """Of N images.

    Attributes:
        by_name: what each extractor computed, [N, …] on the CPU, by its name.
        samples: captions that the images are of; None where they are of none.
        captions: all of the samples' split, as each judge encodes them.
        image_of: int64, the image of each sample; None: sample i is of image i.
    """

    by_name: Mapping[str, Tensor]
    samples: Sequence[Sample] | None = None
    captions: Sequence[EncodedCaptions] = ()
    image_of: Tensor | None = None

    def rows(self, rows: Tensor) -> Outputs:
        """Those of some of the images, int64 [n], as images of no captions."""
        return Outputs({name: output[rows] for name, output in self.by_name.items()})

    def meeting(self, need: str, judge: int) -> Any | None:
        """What a metric takes; None where these images have nothing of it."""
        if need not in JUDGED:
            return self.by_name.get(need)
        images = self.by_name.get(embeddings_of(judge))
        if need == EMBEDDINGS or images is None:
            return images
        if self.samples is None:
            return None
        of_samples = images if self.image_of is None else images[self.image_of]
        return self.captions[judge].features(of_samples, self.samples)


def measurements(
    metrics: Sequence[Metric], ours: Outputs, real: Mapping[str, Outputs], judges: int, rules: Rules
) -> Iterator[tuple[Metric, int | None, list[Measured]]]:
    """Measure a set of images by every metric whose need it meets.

    Args:
        real: the real images of each split that a metric compares with.
        judges: how many there are; each measures by itself.

    Yields:
        The metric, the judge's number (None where it needs none), and a score for each of its cards.

    Raises:
        UserError: too few images for a metric.
    """
    for metric in metrics:
        judged = metric.needs in JUDGED
        for judge in range(judges if judged else 1):
            measured = measure_one(metric, ours, real, judge, rules)
            if measured is not None:
                yield metric, judge if judged else None, measured


def measure_one(
    metric: Metric, ours: Outputs, real: Mapping[str, Outputs], judge: int, rules: Rules
) -> list[Measured] | None:
    """Measure by one metric and judge; None where its need is not met."""
    sets = [ours, *(real[split] for split in metric.against if split in real)]
    if len(sets) <= len(metric.against):
        return None
    inputs = [outputs.meeting(metric.needs, judge) for outputs in sets]
    return None if any(one is None for one in inputs) else list(metric.measure(*inputs, rules=rules))


def join_batches(own: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """The outputs of this process's share of some batches → those of all images in their order, on the CPU."""
    return {name: torch.cat(distributed.join(list(batches))) for name, batches in own.items()}
