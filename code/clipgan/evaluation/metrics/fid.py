"""The Fréchet Inception Distance (Heusel et al. 2017, arXiv:1706.08500)."""

from __future__ import annotations

from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import INCEPTION, TEST, Card, Measured, Metric, Rules
from clipgan.evaluation.metrics.frechet import frechet_distance
from clipgan.evaluation.metrics.frechet_effects import frechet_effects, statistics_of


def _measure(ours: Tensor, real: Tensor, *, rules: Rules) -> list[Measured]:
    if min(len(ours), len(real)) < 2:
        raise UserError(f"FID needs at least 2 images on each side, not {len(ours)} and {len(real)}")
    a, b = statistics_of(ours), statistics_of(real)
    details = {"dims": a.dims, "full_rank": min(len(ours), len(real)) > a.dims}
    return [Measured(frechet_distance(a, b), (frechet_effects(ours, a, b), frechet_effects(real, b, a)), None, details)]


METRIC = Metric(
    cards=(
        Card(
            key="fid",
            name="FID",
            meaning="distance of the features of generated and real images, as if both were Gaussians",
            lowest=0,
            highest=None,
            better="lower",
            source="Heusel et al. 2017, arXiv:1706.08500, equation 6",
            bias="grows as images get fewer, by much below some thousands: compare at the same number only",
            blind="the captions; whether images repeat training images; all that leaves mean and covariance alone",
        ),
    ),
    needs=INCEPTION,
    measure=_measure,
    against=(TEST,),
)
