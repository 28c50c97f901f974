"""Intervals of scores by the bootstrap (Efron & Tibshirani 1993, chapter 13)."""

from __future__ import annotations

import numpy as np

from clipgan.evaluation.metrics.card import Card, Measured

_TOGETHER = 4_000_000  # drawn effects at once: bounds the memory


def interval(
    measured: Measured, card: Card, seed: int, level: float = 0.95, draws: int = 1000
) -> tuple[float, float] | None:
    """The percentile interval of a score, within the card's range; None where the images' effects are not known.

    Each set of images is resampled with replacement. What the score of the resampled sets is follows from the images'
    first-order effects (Hampel 1974): measuring anew a thousand times would take days. The interval says how far
    chance moves the score. It leaves out the score's bias, which few images cause.
    """
    if not measured.effects:
        return None
    rng = np.random.default_rng(seed)
    moved = sum(_resampled_means(effects, draws, rng) for effects in measured.effects)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.clip(measured.value + np.quantile(moved, tails), card.lowest, card.highest)
    return float(low), float(high)


def _resampled_means(effects: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The mean effect of each of ``draws`` resampled sets."""
    if not effects.any():
        return np.zeros(draws)
    step = max(1, _TOGETHER // len(effects))
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    return np.concatenate([effects[rng.integers(len(effects), size=(n, len(effects)))].mean(axis=1) for n in sizes])
