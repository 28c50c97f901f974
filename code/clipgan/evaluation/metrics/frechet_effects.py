"""How much each image moves the Fréchet distance of two sets of features."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from clipgan.evaluation.metrics.frechet import RunningStatistics, Statistics, covariance_factor
from clipgan.evaluation.metrics.products import blocks

_SMALLEST = 1e-10  # eigenvalues below this share of the largest are rounding errors of 0


def statistics_of(features: Tensor) -> Statistics:
    """Mean and covariance of features [N, D].

    Raises:
        ValueError: fewer than two.
    """
    features = torch.as_tensor(features)
    running = RunningStatistics(features.shape[1], features.device)
    for rows in blocks(len(features)):
        running.update(features[rows])
    return running.statistics()


def frechet_effects(features: Tensor, own: Statistics, other: Statistics) -> np.ndarray:
    """First-order effects [N] of images on the distance between ``own``, their statistics, and ``other``.

    An image x moves the mean by x − μ and the covariance by (x − μ)(x − μ)ᵀ − Σ, each divided by N. The distance has
    the derivatives 2 (μ − μ') by the mean and G by the covariance (:func:`covariance_gradient`).
    """
    gradient = torch.from_numpy(covariance_gradient(own.covariance, other.covariance))
    mean, slope = torch.from_numpy(own.mean), torch.from_numpy(2 * (own.mean - other.mean))
    features, effects = torch.as_tensor(features).cpu(), []
    for rows in blocks(len(features)):
        deviations = features[rows].double() - mean                                  # [n, D]
        effects.append(deviations @ slope + ((deviations @ gradient) * deviations).sum(dim=1))
    joined = torch.cat(effects)
    return (joined - joined.mean()).numpy()


def covariance_gradient(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The derivative G [D, D] of tr(Σ + Σ' − 2 (Σ' Σ)^½) by Σ: I − F (Fᵀ Σ F)^(−½) Fᵀ with Σ' = F Fᵀ.

    Where the product lacks full rank, the inverse is the pseudo-inverse: the derivative within the range.
    """
    factor = covariance_factor(other)                                                # [D, rank]
    values, vectors = scipy.linalg.eigh(factor.T @ own.astype(np.float64) @ factor, driver="evd", check_finite=False)
    kept = values > _SMALLEST * max(values.max(initial=0.0), np.finfo(float).tiny)
    scaled = factor @ (vectors[:, kept] * values[kept] ** -0.25)                       # S with S Sᵀ = F M^(−½) Fᵀ
    return np.eye(len(own)) - scaled @ scaled.T
