"""Precision and recall of generated images (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import INCEPTION, TEST, Card, Measured, Metric, Rules
from clipgan.evaluation.metrics.products import ROWS_OF_ALL, Features, around_one_centre, blocks, squared_distances

K_PRECISION, K_DENSITY = 3, 5  # nearest neighbours that span an image's ball


class Manifolds(NamedTuple):
    """For each generated image [m]: whether it lies in a real image's ball, and in how many; for each real one [n]:
    whether it lies in a generated image's ball, and whether its own ball holds a generated image."""

    precise: np.ndarray
    balls: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray


def manifolds(ours: Tensor, real: Tensor) -> Manifolds:
    """Of features [m, D] and [n, D]. An image's ball reaches to its k-th nearest neighbour in its own set, inclusive.

    Precision and recall take k = 3 balls, density and coverage k = 5 balls.

    Raises:
        UserError: a set has not more than 5 images.
    """
    if min(len(ours), len(real)) <= K_DENSITY:
        raise UserError(
            f"precision, recall, density and coverage need at least {K_DENSITY + 1} images on each side, "
            f"not {len(ours)} and {len(real)}"
        )
    real_set, our_set = around_one_centre(real, ours)
    of_ours, of_real = _squared_radii(our_set), _squared_radii(real_set)
    device = of_real.device
    precise, balls = [], []
    recalled = torch.zeros(len(real_set), dtype=torch.bool, device=device)
    nearest = torch.full((len(real_set),), float("inf"), dtype=torch.float64, device=device)
    for rows in blocks(len(our_set), ROWS_OF_ALL):
        distances = squared_distances(our_set, rows, real_set)                       # [rows, n]
        precise.append((distances <= of_real[:, 0]).any(dim=1))
        balls.append((distances <= of_real[:, 1]).sum(dim=1))
        recalled |= (distances <= of_ours[rows, :1]).any(dim=0)
        nearest = torch.minimum(nearest, distances.amin(dim=0))
    covered = nearest <= of_real[:, 1]
    return Manifolds(*(part.cpu().numpy() for part in (torch.cat(precise), torch.cat(balls), recalled, covered)))


def _squared_radii(x: Features) -> Tensor:
    """Squared distances [N, 2] from each image to its third and to its fifth nearest neighbour."""
    radii = []
    for rows in blocks(len(x), ROWS_OF_ALL):
        distances = squared_distances(x, rows, x)
        distances[:, rows].fill_diagonal_(float("inf"))  # an image is no neighbour of its own
        nearest = distances.topk(K_DENSITY, dim=1, largest=False).values               # ascending
        radii.append(nearest[:, [K_PRECISION - 1, K_DENSITY - 1]])
    return torch.cat(radii)


def _measure(ours: Tensor, real: Tensor, *, rules: Rules) -> list[Measured]:
    """The effects leave out how an image changes the balls of others: they are those of a fixed manifold."""
    found = manifolds(ours, real)
    m, n = len(ours), len(real)

    def of_ours(values: np.ndarray, k: int) -> Measured:
        return Measured(float(values.mean()), (values - values.mean(), np.zeros(n)), details={"k": k})

    def of_real(values: np.ndarray, k: int) -> Measured:
        return Measured(float(values.mean()), (np.zeros(m), values - values.mean()), details={"k": k})

    return [
        of_ours(found.precise.astype(float), K_PRECISION),
        of_real(found.recalled.astype(float), K_PRECISION),
        of_ours(found.balls / K_DENSITY, K_DENSITY),
        of_real(found.covered.astype(float), K_DENSITY),
    ]


_PRECISION = "Kynkäänniemi et al. 2019, arXiv:1904.06991, equation 1, k = 3"
_DENSITY = "Naeem et al. 2020, arXiv:2002.09797, equations 4 and 5, k = 5"
_BIAS = "depends on both numbers of images: compare at the same ones; and on the network"

METRIC = Metric(
    cards=(
        Card(
            key="precision",
            name="precision",
            meaning="share of the generated images that lie among real ones",
            lowest=0,
            highest=1,
            better="higher",
            source=_PRECISION,
            bias=_BIAS,
            blind="variety: one good image again and again has precision 1; a far real image makes it generous",
        ),
        Card(
            key="recall",
            name="recall",
            meaning="share of the real images that lie among generated ones",
            lowest=0,
            highest=1,
            better="higher",
            source=_PRECISION,
            bias=_BIAS,
            blind="quality: widely scattered bad images raise it",
        ),
        Card(
            key="density",
            name="density",
            meaning="in how many real images' balls a generated image lies, as a share of k; 1 for real ones",
            lowest=0,
            highest=None,
            better="higher",
            source=_DENSITY,
            bias="little by the number of generated images; depends on that of the real ones and on the network",
            blind="variety: images crowded where real ones are dense exceed 1",
        ),
        Card(
            key="coverage",
            name="coverage",
            meaning="share of the real images that have a generated image near them",
            lowest=0,
            highest=1,
            better="higher",
            source=_DENSITY,
            bias="grows with the number of generated images: compare at the same ones",
            blind="how many generated images lie nowhere near real ones",
        ),
    ),
    needs=INCEPTION,
    measure=_measure,
    against=(TEST,),
)
