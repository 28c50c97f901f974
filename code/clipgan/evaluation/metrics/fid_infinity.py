"""FID extrapolated to infinitely many generated images (Chong & Forsyth 2020, arXiv:1911.07023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import INCEPTION, TEST, Card, Measured, Metric, Rules
from clipgan.evaluation.metrics.frechet import frechet_distance
from clipgan.evaluation.metrics.frechet_effects import frechet_effects, statistics_of

SIZES, SMALLEST = 15, 5000
FEWEST = 2 * SIZES


def sizes_of(images: int) -> np.ndarray:
    """15 sizes at even distances, from 5000 (or half of the images, if those are fewer than 10 000) to all."""
    return np.linspace(min(SMALLEST, images // 2), images, SIZES).round().astype(int)


def intercept_weights(sizes: np.ndarray) -> np.ndarray:
    """Weights whose sum with the values at these sizes is where the fitted line in 1/n meets 1/n = 0."""
    inverse = 1 / sizes
    deviations = inverse - inverse.mean()
    return 1 / len(sizes) - inverse.mean() * deviations / (deviations**2).sum()


def _measure(ours: Tensor, real: Tensor, *, rules: Rules) -> list[Measured]:
    if len(ours) < FEWEST or len(real) < 2:
        raise UserError(
            f"the extrapolated FID needs at least {FEWEST} generated images and 2 real ones, "
            f"not {len(ours)} and {len(real)}"
        )
    ours, rng = torch.as_tensor(ours), np.random.default_rng(rules.seed)
    whole, reference = statistics_of(ours), statistics_of(real)
    sizes = sizes_of(len(ours))
    weights = intercept_weights(sizes)
    values, counted = [], np.zeros(len(ours))
    for size, weight in zip(sizes, weights, strict=True):
        rows = rng.choice(len(ours), size, replace=False)
        values.append(frechet_distance(statistics_of(ours[torch.from_numpy(rows)]), reference))
        counted[rows] += weight * len(ours) / size
    # Each size's distance has the derivatives of the whole set's, nearly; an image counts as often as it was drawn.
    effects = counted * frechet_effects(ours, whole, reference)
    line = np.polyfit(1 / sizes, values, 1)
    details = {
        "sizes": sizes.tolist(),
        "values": values,
        "slope": float(line[0]),
        "residual": float(np.std(np.polyval(line, 1 / sizes) - values)),
    }
    of_real = frechet_effects(real, reference, whole)
    return [Measured(float(weights @ values), (effects - effects.mean(), of_real), None, details)]


METRIC = Metric(
    cards=(
        Card(
            key="fid_infinity",
            name="FID∞",
            meaning="FID as it would be of infinitely many generated images, by a line through those of 15 sizes",
            lowest=None,  # a line can end below 0
            highest=None,
            better="lower",
            source="Chong & Forsyth 2020, arXiv:1911.07023, section 4, with random instead of Sobol noise",
            bias="none by the number of generated images, if that is some thousands; that of the real ones stays",
            blind="what FID fails to see",
        ),
    ),
    needs=INCEPTION,
    measure=_measure,
    against=(TEST,),
)
