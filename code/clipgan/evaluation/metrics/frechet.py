"""The Fréchet distance between two Gaussians, and their statistics from a stream of features.

FID (Heusel et al. 2017, arXiv:1706.08500) is this distance between Inception features of two sets of images. This
module uses no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """A sample's mean [D] and unbiased covariance [D, D], and how many samples there were (None: unknown)."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != self.mean.shape * 2:
            raise ValueError(
                f"a mean [D] and a covariance [D, D] were expected, not {self.mean.shape} and {self.covariance.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("the mean or the covariance holds values that are not finite")

    @property
    def dims(self) -> int:
        return len(self.mean)


class RunningStatistics:
    """Mean and covariance of features that arrive in batches; the memory does not grow with their number.

    It keeps the count, the mean and the scatter matrix Σ (x − mean)(x − mean)ᵀ in float64. Batches are joined by the
    pairwise update of Chan, Golub & LeVeque (1979). It subtracts no large sums, so features far from zero lose no
    precision.
    """

    def __init__(self, dims: int, device: torch.device | str = "cpu"):
        self.count = 0
        self.mean = torch.zeros(dims, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dims, dims, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Take in a batch [N, D] of any floating type; N may be 0."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features [N, {len(self.mean)}] were expected, not {tuple(features.shape)}")
        if len(features) == 0:
            return
        features = features.to(self.mean)
        mean = features.mean(dim=0)
        # The scaled difference of the two means acts as one more row of deviations.
        between = self._join(len(features), mean)
        rows = torch.cat([features - mean, between[None]])  # [N + 1, D]
        self.scatter.addmm_(rows.T, rows)

    @torch.no_grad()
    def merge(self, other: RunningStatistics) -> None:
        """Add the statistics of another process or shard; ``other`` is not changed."""
        if other.mean.shape != self.mean.shape:
            raise ValueError(f"{len(other.mean)} dimensions cannot be merged into {len(self.mean)}")
        if other.count == 0:
            return
        between = self._join(other.count, other.mean.to(self.mean))
        self.scatter += other.scatter.to(self.scatter) + torch.outer(between, between)

    def cpu(self) -> RunningStatistics:
        """The same statistics on the CPU."""
        other = RunningStatistics(len(self.mean))
        other.count, other.mean, other.scatter = self.count, self.mean.cpu(), self.scatter.cpu()
        return other

    def _join(self, count: int, mean: Tensor) -> Tensor:
        """Update count and mean; returns d, where d dᵀ is what the difference of the two means adds to the scatter."""
        total = self.count + count
        distance = mean - self.mean
        between = distance * (self.count * count / total) ** 0.5
        self.mean += distance * (count / total)
        self.count = total
        return between

    def statistics(self) -> Statistics:
        """Mean and unbiased covariance of everything so far.

        Raises:
            ValueError: fewer than two samples, which have no covariance.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, not {self.count}")
        covariance = (self.scatter + self.scatter.T) / (2 * (self.count - 1))
        return Statistics(self.mean.cpu().numpy().copy(), covariance.cpu().numpy(), self.count)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Squared Fréchet distance |μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½) of two Gaussians, in float64.

    With Σa = F Fᵀ, the non-zero eigenvalues of Σa Σb are those of the symmetric matrix Fᵀ Σb F. So the trace of the
    matrix root is the sum of their square roots. F comes from a pivoted Cholesky factorization, which stops at the
    rank. This needs no matrix root and no complex numbers, and adds nothing to the diagonal.

    A covariance lacks full rank if there are fewer samples than dimensions. Then Fᵀ Σb F has only as many rows as the
    rank of Σa, and the eigenvalues that are exactly 0 do not occur. A square root would enlarge their rounding errors
    from 1e-16 to 1e-8.

    Raises:
        ValueError: different dimensions, a covariance that is not positive semi-definite, or numbers so large that the
            distance is not finite.
    """
    if a.dims != b.dims:
        raise ValueError(f"the statistics have {a.dims} and {b.dims} dimensions")
    with np.errstate(over="ignore", invalid="ignore"):
        distance = _distance(a, b)
    if not np.isfinite(distance):
        raise ValueError("the distance is not finite: the mean or the covariance holds numbers that are far too large")
    return max(0.0, distance)  # rounding can make the distance of equal statistics slightly negative


def _distance(a: Statistics, b: Statistics) -> float:
    factor_a, factor_b = covariance_factor(a.covariance), covariance_factor(b.covariance)
    if factor_a.shape[1] <= factor_b.shape[1]:
        factor, other = factor_a, b.covariance
    else:
        factor, other = factor_b, a.covariance
    root_trace = 0.0
    if factor.shape[1]:
        product = factor.T @ other.astype(np.float64) @ factor  # [rank, rank]
        if not np.isfinite(product).all():
            return float("nan")
        eigenvalues = scipy.linalg.eigvalsh(product, driver="evd", overwrite_a=True, check_finite=False)
        root_trace = float(np.sqrt(eigenvalues.clip(min=0)).sum())
    difference = a.mean.astype(np.float64) - b.mean
    traces = np.trace(a.covariance, dtype=np.float64) + np.trace(b.covariance, dtype=np.float64)
    return float(difference @ difference + traces - 2 * root_trace)


def covariance_factor(covariance: np.ndarray) -> np.ndarray:
    """F [D, rank] with F Fᵀ = covariance [D, D], which must be positive semi-definite."""
    dims, matrix = len(covariance), covariance.astype(np.float64)
    largest = matrix.diagonal().max()
    if not matrix.any():
        return np.zeros((dims, 0))
    tolerance = dims * np.finfo(np.float64).eps * largest  # a pivot below this is a rounding error
    cholesky, pivots, rank, _ = scipy.linalg.lapack.dpstrf(matrix, lower=1, tol=tolerance)
    factor = np.empty((dims, rank))
    factor[pivots - 1] = np.tril(cholesky)[:, :rank]
    lost = matrix.diagonal() - np.square(factor).sum(axis=1)
    if largest > 0 and np.abs(lost).max() <= 2 * tolerance:
        return factor
    # Covariances saved in single precision are not quite positive semi-definite: drop small negative eigenvalues.
    eigenvalues, vectors = np.linalg.eigh(matrix)
    if eigenvalues[0] < -1e-3 * eigenvalues[-1]:
        raise ValueError(f"the covariance is not positive semi-definite: it has the eigenvalue {eigenvalues[0]:g}")
    return vectors * np.sqrt(eigenvalues.clip(min=0))
