"""The CLIP score (Hessel et al. 2021, arXiv:2104.08718)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.metrics.caption_features import CaptionFeatures
from clipgan.evaluation.metrics.card import CAPTIONS, Card, Measured, Metric, Rules
from clipgan.evaluation.metrics.r_precision import other_captions


def clip_scores(images: Tensor, sentences: Tensor) -> Tensor:
    """100 · max(cos, 0) of each image [N, E] and its sentence [N, E]: float64 [N]."""
    return 100 * F.cosine_similarity(images.double(), sentences.double(), dim=1, eps=1e-12).clamp(min=0)


def _measure(features: CaptionFeatures, *, rules: Rules) -> list[Measured]:
    """Chance is the score of captions of other classes."""
    scores = clip_scores(features.images, features.sentences[features.own])
    try:
        others = other_captions(features, rules.seed)
    except UserError:  # all captions are of one class
        return [Measured.mean_of(scores.numpy())]
    chance = clip_scores(features.images, features.sentences[others]).mean()
    return [Measured.mean_of(scores.numpy(), float(chance))]


METRIC = Metric(
    cards=(
        Card(
            key="clip_score",
            name="CLIP score",
            meaning="mean cosine of an image and its own caption, times 100, negative ones as 0",
            lowest=0,
            highest=100,
            better="higher",
            source="Hessel et al. 2021, arXiv:2104.08718, equation 1, with w = 100 as in torchmetrics, not 2.5",
            bias="none by the number of images; compares by one judge only; one that trained the generator flatters",
            blind="how varied the images are; how much better the caption fits than others, which chance shows",
        ),
    ),
    needs=CAPTIONS,
    measure=_measure,
)
