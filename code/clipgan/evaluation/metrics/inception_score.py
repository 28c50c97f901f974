"""The Inception Score of class probabilities (Salimans et al. 2016, arXiv:1606.03498, section 4). Uses no files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import PROBABILITIES, Card, Measured, Metric, Rules


class InceptionScore(NamedTuple):
    """Mean and (population) standard deviation over the splits."""

    mean: float
    std: float


def inception_score(probabilities: np.ndarray, splits: int = 10, *, shuffle_seed: int | None = None) -> InceptionScore:
    """exp(mean over images of KL(p(class | image) ‖ p(class))), for each split on its own.

    Args:
        probabilities: [N, C], a row of class probabilities for each image.
        splits: into how many parts the images are divided. No image is lost: sizes differ by at most one.
        shuffle_seed: mixes the images before they are divided. Files that are sorted by name are often sorted by
            class as well, and a split that sees few classes scores too low. None keeps the order.

    Raises:
        UserError: fewer images than splits.
        ValueError: the rows are not probabilities, or the score is not finite.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities [N, C] were expected, not {probabilities.shape}")
    if splits < 1:
        raise UserError(f"the number of splits must be at least 1, not {splits}")
    if len(probabilities) < splits:
        raise UserError(
            f"the Inception Score over {splits} splits needs at least {splits} images, not {len(probabilities)}: "
            "generate more, or ask for fewer --splits"
        )
    if not (probabilities.min() >= 0 and np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)):
        raise ValueError("a row of probabilities must not be negative and must sum to 1")
    parts = _parts(len(probabilities), splits, shuffle_seed)
    scores = [np.exp(_divergences(probabilities[part]).mean()) for part in parts]
    score = InceptionScore(float(np.mean(scores)), float(np.std(scores)))
    if not np.isfinite(score).all():
        raise ValueError(f"the Inception Score is not finite: {score.mean:g} ± {score.std:g}")
    return score


def _parts(images: int, splits: int, shuffle_seed: int | None) -> list[np.ndarray]:
    """The rows of each split."""
    order = np.arange(images)
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(order)
    return np.array_split(order, splits)


def _divergences(probabilities: np.ndarray) -> np.ndarray:
    """KL(p(class | image) ‖ p(class)) of each image [N], where p(class) is the mean of these images."""
    return rel_entr(probabilities, probabilities.mean(axis=0)).sum(axis=1)


def _effects(probabilities: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """First-order effects of the images. Through p(class) an image has none: the mean minimises the divergence."""
    effects = np.zeros(len(probabilities))
    for part in parts:
        divergences = _divergences(probabilities[part])
        share = len(probabilities) / (len(parts) * len(part))  # the splits count alike, whatever their size
        effects[part] = share * np.exp(divergences.mean()) * (divergences - divergences.mean())
    return effects


def _measure(probabilities: np.ndarray, *, rules: Rules) -> list[Measured]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    score = inception_score(probabilities, rules.splits, shuffle_seed=rules.seed)
    effects = _effects(probabilities, _parts(len(probabilities), rules.splits, rules.seed))
    return [Measured(score.mean, (effects,), chance=1.0, details={"std": score.std, "splits": rules.splits})]


METRIC = Metric(
    cards=(
        Card(
            key="inception_score",
            name="Inception Score",
            meaning="whether a classifier is sure of each image, and sees all classes in turn",
            lowest=1,
            highest=None,
            better="higher",
            source="Salimans et al. 2016, arXiv:1606.03498, section 4",
            bias="few images in a split lower it; it compares only by one network, and at most reaches its classes",
            blind="the real images, which it never sees; the captions; a class of which each image is the same",
        ),
    ),
    needs=PROBABILITIES,
    measure=_measure,
)
