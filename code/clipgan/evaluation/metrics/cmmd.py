"""The CLIP maximum mean discrepancy (Jayasumana et al. 2024, arXiv:2401.09603)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.evaluation.metrics.card import EMBEDDINGS, TEST, Card, Measured, Metric, Rules
from clipgan.evaluation.metrics.mmd import mmd

SIGMA, SCALE = 10.0, 1000.0


def gaussian_kernel(products: Tensor, x_norms: Tensor, y_norms: Tensor) -> Tensor:
    """exp(−|x − y|² / 2σ²) with σ = 10."""
    return products.mul_(-2).add_(x_norms).add_(y_norms).div_(-2 * SIGMA**2).exp_()


def _measure(ours: Tensor, real: Tensor, *, rules: Rules) -> list[Measured]:
    """Of a judge's image features [m, E] and [n, E], of which the direction counts; scaled by 1000 as in the paper."""
    unit = [F.normalize(torch.as_tensor(features).double(), dim=1) for features in (ours, real)]
    return [mmd(*unit, gaussian_kernel, SCALE)]


METRIC = Metric(
    cards=(
        Card(
            key="cmmd",
            name="CMMD",
            meaning="distance of a judge's features of generated and real images by a Gaussian kernel",
            lowest=None,  # the unbiased estimate can be negative
            highest=1000 * 2,
            better="lower",
            source="Jayasumana et al. 2024, arXiv:2401.09603, section 4: σ = 10, times 1000",
            bias="none by the number of images; published values are of one judge, OpenAI's ViT-L/14 at 336 px",
            blind="the captions; whether images repeat training images; whatever the judge cannot see",
        ),
    ),
    needs=EMBEDDINGS,
    measure=_measure,
    against=(TEST,),
)
