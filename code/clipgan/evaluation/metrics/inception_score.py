"""The Inception Score of class probabilities (Salimans et al. 2016, arXiv:1606.03498, section 4). Uses no files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr

from clipgan.errors import UserError


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
    if shuffle_seed is not None:
        probabilities = np.random.default_rng(shuffle_seed).permutation(probabilities)
    scores = [_score(part) for part in np.array_split(probabilities, splits)]
    score = InceptionScore(float(np.mean(scores)), float(np.std(scores)))
    if not np.isfinite(score).all():
        raise ValueError(f"the Inception Score is not finite: {score.mean:g} ± {score.std:g}")
    return score


def _score(probabilities: np.ndarray) -> float:
    marginal = probabilities.mean(axis=0)  # [C]
    return float(np.exp(rel_entr(probabilities, marginal).sum(axis=1).mean()))
