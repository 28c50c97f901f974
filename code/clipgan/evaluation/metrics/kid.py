"""The Kernel Inception Distance (Bińkowski et al. 2018, arXiv:1801.01401)."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from clipgan.evaluation.metrics.card import INCEPTION, TEST, Card, Measured, Metric, Rules
from clipgan.evaluation.metrics.mmd import mmd

SUBSETS, SUBSET_SIZE = 100, 1000


def cubic_kernel(products: Tensor, x_norms: Tensor, y_norms: Tensor, dims: int) -> Tensor:
    """(x·y / D + 1)³, section 4."""
    base = products.div_(dims).add_(1)
    return base * base * base


def kid(ours: Tensor, real: Tensor) -> Measured:
    """Of features [m, D] and [n, D], over all pairs; raises ``UserError`` for fewer than two images in a set."""
    dims = torch.as_tensor(ours).shape[1]
    return mmd(ours, real, functools.partial(cubic_kernel, dims=dims))


def kid_of_subsets(ours: Tensor, real: Tensor, subsets: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Mean and (population) standard deviation over pairs of subsets, given by their rows, as the field reports it."""
    ours, real = torch.as_tensor(ours), torch.as_tensor(real)
    values = [kid(ours[torch.from_numpy(a)], real[torch.from_numpy(b)]).value for a, b in subsets]
    return float(np.mean(values)), float(np.std(values))


def random_subsets(
    ours: int, real: int, size: int, count: int, seed: int
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows, each set drawn without replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.choice(ours, size, replace=False), rng.choice(real, size, replace=False)


def _measure(ours: Tensor, real: Tensor, *, rules: Rules) -> list[Measured]:
    measured = kid(ours, real)
    size = min(SUBSET_SIZE, max(2, min(len(ours), len(real)) // 2))  # of half of few images: subsets must differ
    mean, std = kid_of_subsets(ours, real, random_subsets(len(ours), len(real), size, SUBSETS, rules.seed))
    details = {"subsets": SUBSETS, "subset_size": size, "subset_mean": mean, "subset_std": std}
    return [Measured(measured.value, measured.effects, details=details)]


METRIC = Metric(
    cards=(
        Card(
            key="kid",
            name="KID",
            meaning="distance of the features of generated and real images by a cubic kernel; 0 for one distribution",
            lowest=None,  # the unbiased estimate can be negative
            highest=None,
            better="lower",
            source="Bińkowski et al. 2018, arXiv:1801.01401, section 4; over all pairs",
            bias="none by the number of images; it compares only by one network",
            blind="the captions; whether images repeat training images; what ImageNet's features leave out",
        ),
    ),
    needs=INCEPTION,
    measure=_measure,
    against=(TEST,),
)
